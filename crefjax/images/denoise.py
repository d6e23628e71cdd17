"""Denoising of images with a 2D network: stacks in batches, and large micrographs in tiles, in bounded memory.

A tile is a window with as many pixels around it as the network sees (its `reach`), at a place where the network pools
the same pixels as it would in the whole image. The part of it that is kept is exactly the network's output, without
seams.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np

from crefjax.errors import UserError
from crefjax.inference.network import measure_at_once, run_at_once
from crefjax.models import Parameters
from crefjax.utils.memory import GIB, PROGRAM_BYTES, find_device, free_memory
from crefjax.weights.store import Weights

LARGEST_TILE = 2048  # pixels a side; larger ones gain nothing
_SHARE_OF_FREE = 0.5  # of the free memory that a run takes by default
_PROBE = 256  # pixels a side, for which a network's memory is measured


@dataclass(frozen=True)
class ImagePlan:
    """How images of one shape are denoised.

    Attributes:
        device: device to compute on.
        batch: number of images at a time; 1 if they are tiled.
        tile: side in pixels of the part of a window that is kept; 0 for whole images.
        window: `(y, x)` of the windows, pixels.
        bytes: peak memory of the network's arrays.
    """

    device: jax.Device
    batch: int
    tile: int
    window: tuple[int, int]
    bytes: float

    def describe(self) -> str:
        """Return one line on batches or tiles, and memory."""
        work = f"tiles of {self.tile} pixels" if self.tile else f"{self.batch} images at a time"
        return f"{self.device.platform.upper()}, {work}, about {(self.bytes + PROGRAM_BYTES) / GIB:.1f} GiB"


def plan_images(
    shape: tuple[int, int], weights: Weights, *, device: str | None = None, max_memory: float | None = None
) -> ImagePlan:
    """Plan the denoising of images of one shape.

    Args:
        shape: `(y, x)`, pixels.
        weights: of a 2D network.
        device: `cpu`, `gpu`, or None for the best.
        max_memory: GiB that the program (on a GPU, its arrays there) may use; None for half of what is free.

    Raises:
        UserError: the weights are not for images, or there is no such device or not enough memory.
    """
    if weights.model.dimensions != 2:
        raise UserError(f"{weights.path}: expected weights for images, found some for maps; choose others")
    chosen = find_device(device)
    limit = max_memory * GIB if max_memory is not None else _SHARE_OF_FREE * free_memory(chosen)
    limit -= PROGRAM_BYTES if chosen.platform == "cpu" else 0
    multiple = weights.config.multiple
    per_pixel = _bytes_per_pixel(weights.config, chosen)
    # The image itself, its padded copy and the output are on the host too.
    fixed = 4.0 * 4 * math.prod(shape) if chosen.platform == "cpu" else 0.0
    padded = tuple(n + -n % multiple for n in shape)
    whole = per_pixel * math.prod(padded)
    if fixed + whole <= limit and max(padded) <= LARGEST_TILE:
        batch = max(1, min(32, int((limit - fixed) // whole), 2**20 // math.prod(padded)))
        return ImagePlan(chosen, batch, 0, padded, fixed + batch * whole)
    reach = getattr(weights.config, "reach", None)
    if reach is None:
        if fixed + whole <= limit:
            return ImagePlan(chosen, 1, 0, padded, fixed + whole)
        raise _too_little(shape, fixed + whole, limit)
    halo = reach + -reach % multiple
    tile = LARGEST_TILE - LARGEST_TILE % multiple
    while True:
        window = tuple(min(n, tile + 2 * halo) for n in padded)
        needed = fixed + per_pixel * math.prod(window)
        if needed <= limit:
            return ImagePlan(chosen, 1, tile, window, needed)
        if tile <= multiple:
            raise _too_little(shape, needed, limit)
        tile = max(multiple, tile // 2 - (tile // 2) % multiple)


@functools.lru_cache(maxsize=8)
def _bytes_per_pixel(config, device):
    """Return the memory of a network's arrays for each pixel of an image, by XLA's analysis."""
    side = _PROBE + -_PROBE % config.multiple
    return measure_at_once((1, side, side), config, device)[0] / side**2


def _too_little(shape, needed, limit):
    return UserError(
        f"images of {shape[1]}x{shape[0]} pixels need at least {(needed + PROGRAM_BYTES) / GIB:.1f} GiB, found "
        f"{max(0.0, limit + PROGRAM_BYTES) / GIB:.1f} GiB; give more as `max_memory`, or bin the images"
    )


def denoise_images(
    images: np.ndarray,
    weights: Weights,
    plan: ImagePlan,
    *,
    sign: int = 1,
    progress: Callable[[float], None] | None = None,
) -> np.ndarray:
    """Denoise images of one shape.

    Each is brought to mean 0 and standard deviation 1, and the output back to its scale.

    Args:
        images: `(images, y, x)`; for a plan with batches, give at most one batch.
        weights: of a 2D network.
        plan: from `plan_images` for this shape.
        sign: 1 for bright particles; -1 for dark ones, whose images are inverted before and after.
        progress: called with the completed share of the work, 0 to 1.

    Returns:
        `(images, y, x)`, float32.
    """
    means = images.mean((1, 2), dtype=np.float64).reshape(-1, 1, 1)
    stds = images.std((1, 2), dtype=np.float64).reshape(-1, 1, 1)
    scale = sign * np.where(stds > 0, stds, 1)
    x = ((images - means) / scale).astype(np.float32)
    parameters = jax.device_put(weights.parameters, plan.device)
    if plan.tile:
        y = np.stack([_tiled(parameters, image, weights.config, plan, progress) for image in x])
    else:
        y = _in_batches(parameters, x, weights.config, plan, progress)
    return (y * scale + means).astype(np.float32)


def _in_batches(parameters, x, config, plan, progress):
    out = np.empty_like(x)
    for first in range(0, len(x), plan.batch):
        part = x[first : first + plan.batch]
        missing = plan.batch - len(part)  # so that the last batch is not compiled for again
        filled = np.concatenate([part, np.repeat(part[-1:], missing, 0)]) if missing else part
        sections = jax.device_put(filled[:, None, ..., None], plan.device)
        out[first : first + len(part)] = np.asarray(run_at_once(parameters, sections, config))[: len(part), 0, ..., 0]
        if progress:
            progress(min(1.0, (first + plan.batch) / len(x)))
    return out


def _tiled(parameters: Parameters, image: np.ndarray, config, plan: ImagePlan, progress) -> np.ndarray:
    """Return the network's output for an image `(y, x)`, window by window."""
    multiple = config.multiple
    padded = np.pad(image, [(0, -n % multiple) for n in image.shape], mode="symmetric")
    out = np.empty_like(padded)
    halo = config.reach + -config.reach % multiple
    starts = [range(0, n, plan.tile) for n in padded.shape]
    done, total = 0, len(starts[0]) * len(starts[1])
    for top in starts[0]:
        for left in starts[1]:
            window, kept, place = [], [], []
            for at, n, side in zip((top, left), padded.shape, plan.window, strict=True):
                first = min(max(at - halo, 0), n - side)  # a multiple, as both sides are
                stop = min(at + plan.tile, n)
                window.append(slice(first, first + side))
                kept.append(slice(at - first, stop - first))
                place.append(slice(at, stop))
            part = np.ascontiguousarray(padded[tuple(window)])[None, None, ..., None]
            result = run_at_once(parameters, jax.device_put(part, plan.device), config)
            out[tuple(place)] = np.asarray(result)[0, 0, ..., 0][tuple(kept)]
            done += 1
            if progress:
                progress(done / total)
    return out[: image.shape[0], : image.shape[1]]
