"""Specimens, which are standardized and masked half-maps, and the cubic patches that are cut from them."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crefjax.data.grid import WorkingGrid, find_grid, moments_in
from crefjax.data.pair_check import usable
from crefjax.errors import UserError, path_error
from crefjax.io.entries import find_entry, load_mask, load_pair
from crefjax.io.maps import check_same_grid, read_map
from crefjax.masking import MaskInfo, make_mask

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


def moments(array: np.ndarray, mask: np.ndarray | None = None) -> tuple[float, float]:
    """Return mean and standard deviation, weighted by a mask if given, summed in float64 plane by plane.

    Args:
        array: `(z, y, x)`.
        mask: the same shape, 0 to 1, or None.
    """
    masks = [None] * len(array) if mask is None else mask
    weight = float(array.size) if mask is None else sum(float(plane.sum(dtype=np.float64)) for plane in mask)

    def total(planes):
        return sum(
            float((plane if inside is None else plane * inside).sum(dtype=np.float64))
            for plane, inside in zip(planes, masks, strict=True)
        )

    mean = total(array) / weight
    return mean, float(np.sqrt(total(np.square(plane - mean, dtype=np.float64) for plane in array) / weight))


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


@dataclass(frozen=True, eq=False)
class Specimen:
    """Half-maps standardized as `standardize` does and multiplied by the mask; float32 `(z, y, x)`.

    Attributes:
        name: for messages and `Batches.names`.
        half_map_1: the first half-map.
        half_map_2: the second one.
        mask: 0 to 1.
        voxel_size: Å.
        mean: of the full map over the whole box, or of its solvent on a working grid, in its own units.
        deviation: of the full map, or its root mean square within the mask on a working grid.
        truth: the noise-free map, scaled and masked as the half-maps are, or None.
        mask_info: how the mask was made, or None for one that was given.
        grid: the working grid that the maps are on; None for that of the files.
        notes: one line for each thing that the user should know of the half-maps.
    """

    name: str
    half_map_1: np.ndarray
    half_map_2: np.ndarray
    mask: np.ndarray
    voxel_size: float
    mean: float
    deviation: float
    truth: np.ndarray | None = None
    mask_info: MaskInfo | None = None
    grid: WorkingGrid | None = None
    notes: tuple[str, ...] = ()

    def maps(self, *, truth: bool) -> dict[str, np.ndarray]:
        """The arrays that patches are cut from, by the names that they have in a batch."""
        arrays = {"half_map_1": self.half_map_1, "half_map_2": self.half_map_2}
        return {**arrays, "truth": self.truth} if truth else arrays


def load_specimen(
    half_map_1_path,
    half_map_2_path,
    mask_path=None,
    *,
    truth_path=None,
    name=None,
    voxels: float = 0.0,
    voxel_size: float | None = None,
    insist: bool | None = None,
) -> Specimen:
    """Read, check, standardize and mask a pair of half-maps.

    Args:
        half_map_1_path: the first half-map.
        half_map_2_path: the second one.
        mask_path: values 0 to 1 on the same grid; None to have a mask made, see `masking.make_mask`.
        truth_path: the noise-free map on the same grid, or None.
        name: of the specimen; that of the first half-map's folder if None.
        voxels: that the resolution is to take on the working grid; 0 keeps the grid of the files.
        voxel_size: Å, in place of the headers'; None for theirs.
        insist: whether to go on where the half-maps are no pair; None where the user has no way to say so.

    Raises:
        UserError: what `load_pair`, `load_mask`, `usable` and `make_mask` refuse; a constant full map; nothing within
            the mask.
    """
    first, second = load_pair(half_map_1_path, half_map_2_path, voxel_size=voxel_size)
    pair, info = f"{half_map_1_path} and {half_map_2_path}", None
    try:
        mask = None if mask_path is None else load_mask(mask_path, first, voxel_size=voxel_size).array
        used = usable((first, second), mask, insist=insist)
        first, second = used.pair
        if mask is None:
            mask, info = make_mask(first.array, second.array, first.voxel_size)
        truth = None if truth_path is None else read_map(truth_path, voxel_size=voxel_size)
        if truth is not None:
            check_same_grid(truth, first, "truth and half-map")
        arrays = [first.array, second.array, None if truth is None else truth.array]
        grid = find_grid(arrays[:2], first.voxel_size, mask, voxels=voxels) if voxels else None
        if grid:
            arrays, mask = [array if array is None else grid.bring(array) for array in arrays], grid.bring_mask(mask)
        mean, deviation = standardize(*arrays[:2], mask, arrays[2], within_mask=grid is not None)
    except UserError as error:
        # Those that know no file speak of the pair.
        if str(error).startswith(("mask: ", "expected ")):
            raise path_error(pair, str(error)) from error
        raise
    return Specimen(
        name=name or Path(half_map_1_path).resolve().parent.name,
        half_map_1=arrays[0],
        half_map_2=arrays[1],
        mask=mask,
        voxel_size=grid.voxel_size if grid else first.voxel_size,
        mean=mean,
        deviation=deviation,
        truth=arrays[2],
        mask_info=info,
        grid=grid,
        notes=used.notes,
    )


def load_entry(folder) -> Specimen:
    """The specimen of an entry folder, with its own mask and truth where it has them.

    Raises:
        UserError: what `find_entry` and `load_specimen` refuse.
    """
    entry = find_entry(folder)
    return load_specimen(entry.half_map_1, entry.half_map_2, entry.mask, truth_path=entry.truth, name=entry.name)
