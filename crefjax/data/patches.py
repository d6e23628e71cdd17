"""Cubic patches of maps: the 24 rotations of the cube, standardizing, where patches lie, cutting them out."""

import itertools
from collections.abc import Sequence

import numpy as np

from crefjax.data.grid import moments_in
from crefjax.errors import UserError

SMALLEST_PATCH = 16  # voxels
MIN_MASK = 0.01  # mean of the mask over the voxels of a patch that lie in the box

Position = tuple[int, int, int]


def _proper_rotations() -> tuple[tuple[Position, tuple[bool, bool, bool]], ...]:
    """Permutations of the axes with flips, of determinant +1; the identity comes first."""
    found = []
    for axes in itertools.permutations(range(3)):
        for flips in itertools.product((False, True), repeat=3):
            signs = np.diag([-1 if flip else 1 for flip in flips])
            if round(np.linalg.det(signs @ np.eye(3)[list(axes)])) == 1:
                found.append((axes, flips))
    return tuple(found)


ROTATIONS = _proper_rotations()
"""The 24 rotations of the cube: the axes in their new order, and which of the new axes are then turned around."""


def rotate(array: np.ndarray, index: int) -> np.ndarray:
    """A view of an array `(z, y, x)`, turned by `ROTATIONS[index]`; no mirror images: proteins have a hand."""
    axes, flips = ROTATIONS[index]
    return array.transpose(axes)[tuple(slice(None, None, -1 if flip else None) for flip in flips)]


def moments(array: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation over all voxels of `(z, y, x)`, summed in float64 plane by plane."""
    mean = sum(float(plane.sum(dtype=np.float64)) for plane in array) / array.size
    squares = sum(float(np.square(plane - mean, dtype=np.float64).sum()) for plane in array)
    return mean, float(np.sqrt(squares / array.size))


def standardize(
    half_map_1: np.ndarray,
    half_map_2: np.ndarray,
    mask: np.ndarray,
    truth: np.ndarray | None = None,
    *,
    within_mask: bool = False,
) -> tuple[float, float]:
    """Standardize maps in place by the full map's mean and deviation over the whole box, then multiply by the mask.

    The numbers are those that `crefjax denoise` standardizes the same half-maps by; for a working grid it takes the
    solvent's level and the root mean square within the mask instead (`grid.moments_in`).

    Args:
        half_map_1: float32 `(z, y, x)`; overwritten, as are `half_map_2` and `truth`.
        half_map_2: the same shape.
        mask: the same shape, 0 to 1.
        truth: the same shape, or None; scaled as the half-maps are, but not moved: its solvent stays at 0, where the
            mask puts what is outside it.
        within_mask: whether the numbers are those for a working grid.

    Returns:
        The two numbers, in the units of the maps.

    Raises:
        UserError: the full map is constant.
    """
    full = half_map_1 + half_map_2
    full *= np.float32(0.5)
    mean, deviation = moments_in(full, mask) if within_mask else moments(full)
    del full
    if not deviation > 0:
        raise UserError("expected a density map, found the same value in every voxel of the full map")
    for array in (half_map_1, half_map_2, truth):
        if array is not None:
            if array is not truth:
                array -= np.float32(mean)
            array /= np.float32(deviation)
            array *= mask
    return mean, deviation


def check_patch(patch: int) -> None:
    """Raises UserError unless a patch can have this side: an even number of at least 16 voxels."""
    if isinstance(patch, bool) or not isinstance(patch, int) or patch < SMALLEST_PATCH or patch % 2:
        raise UserError(f"patch: expected an even side of at least {SMALLEST_PATCH} voxels, found {patch}; change it")


def cut_positions(side: int, patch: int, stride: int) -> list[int]:
    """Where along an axis patches begin, so that all of it is covered.

    Every `stride` voxels from 0 on; the last is moved back to end at the border. An axis shorter than the patch has
    one, that begins before the box so that the box is in its middle.

    Args:
        side: length of the axis, voxels.
        patch: side of the patches, voxels.
        stride: at most `patch`, voxels.
    """
    if side <= patch:
        return [-((patch - side) // 2)]
    last = side - patch
    return [*range(0, last, stride), last]


def grid_positions(box: Sequence[int], patch: int, stride: int) -> list[Position]:
    """First voxels `(z, y, x)` of the patches that cover a box of sides `(z, y, x)`, x fastest."""
    return list(itertools.product(*(cut_positions(side, patch, stride) for side in box)))


def cut(array: np.ndarray, position: Sequence[int], patch: int) -> np.ndarray:
    """The patch of an array `(z, y, x)` that begins at `position`, 0 where it lies outside the box.

    Returns:
        `(patch, patch, patch)`, a view if the patch lies inside the box, else a new array.
    """
    inside = _inside(array.shape, position, patch)
    part = array[inside]
    if part.shape == (patch,) * 3:
        return part
    out = np.zeros((patch,) * 3, array.dtype)
    out[tuple(slice(s.start - first, s.stop - first) for s, first in zip(inside, position, strict=True))] = part
    return out


def mask_fraction(mask: np.ndarray, position: Sequence[int], patch: int) -> float:
    """Mean of a mask over those voxels of the patch at `position` that lie in the box; 0 if none does."""
    part = mask[_inside(mask.shape, position, patch)]
    return float(part.sum(dtype=np.float64)) / part.size if part.size else 0.0


def _inside(box, position, patch):
    """The slices of the box that a patch covers."""
    spans = zip(box, position, strict=True)
    return tuple(slice(min(max(first, 0), side), max(min(first + patch, side), 0)) for side, first in spans)
