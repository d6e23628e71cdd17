"""Patches of noise, cut out of a micrograph where its denoised version shows nothing (NT2C, Li et al. 2022).

The denoised micrograph is scaled to 0 to 1 and cut into patches of side d at steps of d / 2. Each is split into N = 4
local patches, two by two; where there is nothing but noise, the denoised image is flat and the local patches look
alike. If the structural similarity of every pair of them is above 0.7 (with L = 1, K1 = 0.01, K2 = 0.03), the patch is
noise, and is cut out of the raw micrograph.
"""

import itertools
from collections.abc import Callable

import numpy as np

from crefjax.errors import UserError
from crefjax.images.measures import ssim

SIDE, THRESHOLD = 320, 0.7  # pixels, and the least similarity of local patches, as in the paper


def check_extraction(shape: tuple[int, int], side: int, threshold: float) -> None:
    """Check the settings of `noise_places` for micrographs of a shape `(y, x)`.

    Raises:
        UserError: the side is odd, below 16, or larger than the micrographs; or the threshold is not from -1 to
            below 1.
    """
    if side % 2 or side < 16:
        raise UserError(f"extract-noise: expected patches with an even side of at least 16 pixels, found {side}")
    if min(shape) < side:
        y, x = shape
        raise UserError(
            f"extract-noise: expected micrographs of at least {side} pixels a side, found {x}x{y}; use smaller patches"
        )
    if not -1 <= threshold < 1:
        raise UserError(f"extract-noise: expected a `threshold` of -1 to below 1, found {threshold:g}; correct it")


def noise_places(
    denoised: np.ndarray,
    *,
    side: int = SIDE,
    threshold: float = THRESHOLD,
    progress: Callable[[float], None] = lambda share: None,
) -> list[tuple[int, int]]:
    """Return the upper left corners `(y, x)` of patches of noise.

    Args:
        denoised: `(y, x)`, the denoised micrograph.
        side: side d of the patches, pixels; even.
        threshold: least structural similarity of any two of the four local patches.
        progress: called with the completed share of the work, 0 to 1.

    Raises:
        UserError: as `check_extraction`, or the micrograph is constant.
    """
    check_extraction(denoised.shape, side, threshold)
    low, high = float(denoised.min()), float(denoised.max())
    if low == high:
        raise UserError("extract-noise: expected a denoised micrograph, found one of a single value; check it")
    scaled = (denoised.astype(np.float64) - low) / (high - low)
    half, places = side // 2, []
    tops = range(0, denoised.shape[0] - side + 1, half)
    for number, top in enumerate(tops, start=1):
        for left in range(0, denoised.shape[1] - side + 1, half):
            patch = scaled[top : top + side, left : left + side]
            if _alike(patch, half, threshold):
                places.append((top, left))
        progress(number / len(tops))
    return places


def _alike(patch, half, threshold):
    """Return whether every two of a patch's four quarters are more similar than a threshold."""
    quarters = [patch[y : y + half, x : x + half] for y in (0, half) for x in (0, half)]
    return all(ssim(a, b, 1.0) > threshold for a, b in itertools.combinations(quarters, 2))
