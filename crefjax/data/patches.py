"""Specimens, which are standardized and masked half-maps, and the cubic patches that are cut from them."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crefjax.data.grid import WorkingGrid, find_grid, level_and_rms
from crefjax.data.pair_check import validate_maps
from crefjax.errors import UserError, path_error
from crefjax.io.entries import find_entry, load_mask, load_pair
from crefjax.io.maps import check_same_grid, full_map, read_map
from crefjax.masking import MaskInfo
from crefjax.utils.statistics import mean_and_std

SMALLEST_PATCH = 16  # voxels
MIN_MASK = 0.01  # mean of the mask over the voxels of a patch that lie in the box

Position = tuple[int, int, int]  # (z, y, x) in voxels


@dataclass(frozen=True, eq=False)
class Specimen:
    """Half-maps standardized by `standardize` and multiplied by the mask; float32 `(z, y, x)`.

    Attributes:
        name: for messages and `Batches.names`.
        half_map_1: half-map 1.
        half_map_2: half-map 2.
        mask: 0 to 1.
        voxel_size: Å.
        mean: the number that was subtracted, in the units of the maps; see `standardize`.
        std: the number that was divided by.
        truth: the noise-free map, scaled and masked as the half-maps are, or None.
        mask_info: settings of a mask that was made, or None for one that was given.
        grid: working grid of the maps; None for that of the files.
        notes: one line for each thing that the user should know about the half-maps.
    """

    name: str
    half_map_1: np.ndarray
    half_map_2: np.ndarray
    mask: np.ndarray
    voxel_size: float
    mean: float
    std: float
    truth: np.ndarray | None = None
    mask_info: MaskInfo | None = None
    grid: WorkingGrid | None = None
    notes: tuple[str, ...] = ()

    def maps(self, *, truth: bool) -> dict[str, np.ndarray]:
        """Return the arrays that patches are cut from, by their names in a batch."""
        arrays = {"half_map_1": self.half_map_1, "half_map_2": self.half_map_2}
        return {**arrays, "truth": self.truth} if truth else arrays


def load_entry(folder, *, voxels: float = 0.0) -> Specimen:
    """Load the specimen of an entry folder, with its mask and truth if present.

    Args:
        folder: the entry folder.
        voxels: see `load_specimen`.

    Raises:
        UserError: `find_entry` or `load_specimen` refuses it.
    """
    entry = find_entry(folder)
    files = entry.half_map_1, entry.half_map_2, entry.mask
    return load_specimen(*files, truth_path=entry.truth, name=entry.name, voxels=voxels)


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
    """Read, check, standardize, and mask a pair of half-maps.

    Args:
        half_map_1_path: half-map 1.
        half_map_2_path: half-map 2.
        mask_path: values 0 to 1 on the same grid; None to have a mask made, see `crefjax.masking`.
        truth_path: the noise-free map on the same grid, or None.
        name: name of the specimen; that of the first half-map's folder if None.
        voxels: number of voxels per resolution on the working grid; 0 keeps the maps' own grid.
        voxel_size: Å, instead of the headers'; None for theirs.
        insist: whether to continue if the half-maps are not a pair; None if the user has no option for that.

    Raises:
        UserError: `load_pair`, `load_mask` or `validate_maps` refuses; a constant full map; nothing within
            the mask.
    """
    first, second = load_pair(half_map_1_path, half_map_2_path, voxel_size=voxel_size)
    try:
        mask = None if mask_path is None else load_mask(mask_path, first, voxel_size=voxel_size).array
        validated = validate_maps((first, second), mask, insist=insist)
        first, second = validated.pair
        info = validated.check.region.info
        mask = validated.check.region.require()
        truth = None if truth_path is None else read_map(truth_path, voxel_size=voxel_size)
        if truth is not None:
            check_same_grid(truth, first, "truth and half-map")
        arrays = [first.array, second.array, None if truth is None else truth.array]
        grid = find_grid(arrays[:2], first.voxel_size, mask, voxels=voxels) if voxels else None
        if grid:
            arrays = [array if array is None else grid.resample(array) for array in arrays]
            mask = grid.resample_mask(mask)
        mean, std = standardize(*arrays[:2], mask, arrays[2], within_mask=grid is not None)
    except UserError as error:
        if error.path is not None:
            raise
        raise path_error(f"{half_map_1_path} and {half_map_2_path}", error.text) from error
    return Specimen(
        name=name or Path(half_map_1_path).resolve().parent.name,
        half_map_1=arrays[0],
        half_map_2=arrays[1],
        mask=mask,
        voxel_size=grid.voxel_size if grid else first.voxel_size,
        mean=mean,
        std=std,
        truth=arrays[2],
        mask_info=info,
        grid=grid,
        notes=validated.notes,
    )


def standardize(
    half_map_1: np.ndarray,
    half_map_2: np.ndarray,
    mask: np.ndarray,
    truth: np.ndarray | None = None,
    *,
    within_mask: bool = False,
) -> tuple[float, float]:
    """Standardize maps in place by the full map's mean and standard deviation, then multiply by the mask.

    Both are taken over the whole box, as `crefjax denoise` does for the same half-maps; on a working grid the solvent's
    level and the root mean square within the mask take their place (`level_and_rms`).

    Args:
        half_map_1: float32 `(z, y, x)`; overwritten, as are `half_map_2` and `truth`.
        half_map_2: the same shape.
        mask: the same shape, 0 to 1.
        truth: the same shape, or None; scaled as the half-maps are, but not shifted: its solvent stays at 0, the value
            outside the mask.
        within_mask: whether the maps are on a working grid.

    Returns:
        The two numbers, in the units of the maps.

    Raises:
        UserError: the full map is constant.
    """
    full = full_map(half_map_1, half_map_2)
    mean, std = level_and_rms(full, mask) if within_mask else mean_and_std(full)
    del full
    if not std > 0:
        raise UserError("expected a density map, found the same value in every voxel of the full map")
    for array in (half_map_1, half_map_2, truth):
        if array is not None:
            if array is not truth:
                array -= np.float32(mean)
            array /= np.float32(std)
            array *= mask
    return mean, std


def _proper_rotations():
    """Return permutations of the axes with flips, of determinant +1; the identity comes first."""
    rotations = []
    for axes in itertools.permutations(range(3)):
        for flips in itertools.product((False, True), repeat=3):
            signs = np.diag([-1 if flip else 1 for flip in flips])
            if round(np.linalg.det(signs @ np.eye(3)[list(axes)])) == 1:
                rotations.append((axes, flips))
    return tuple(rotations)


CUBE_ROTATIONS = _proper_rotations()
"""The 24 rotations of the cube: the axes in their new order, and which of the new axes are then reversed."""


def rotate(array: np.ndarray, index: int) -> np.ndarray:
    """Return a view of an array `(z, y, x)` rotated by `CUBE_ROTATIONS[index]`, never mirrored: proteins are chiral."""
    axes, flips = CUBE_ROTATIONS[index]
    return array.transpose(axes)[tuple(slice(None, None, -1 if flip else None) for flip in flips)]


def check_patch(patch: int) -> None:
    """Raise UserError unless a patch can have this side: an even number of at least 16 voxels."""
    if isinstance(patch, bool) or not isinstance(patch, int) or patch < SMALLEST_PATCH or patch % 2:
        raise UserError(f"patch: expected an even side of at least {SMALLEST_PATCH} voxels, found {patch}; change it")


def cut_positions(side: int, patch: int, stride: int) -> list[int]:
    """Return the first voxels of the patches that cover an axis.

    They are `stride` voxels apart, from 0 on; the last patch is moved back to end at the border. An axis shorter than
    the patch has one, which begins before the box, so that the box is in its middle.

    Args:
        side: length of the axis, voxels.
        patch: side of the patches, voxels.
        stride: at most `patch`, voxels.
    """
    if side <= patch:
        return [-((patch - side) // 2)]
    last = side - patch
    return [*range(0, last, stride), last]


def first_voxel(at: int, place: int, side: int, patch: int) -> int:
    """Return the first voxel, along an axis, of a patch that has voxel `at` at `place`, moved into the box if it fits.

    Args:
        at: index of the voxel in the box.
        place: index of the voxel in the patch.
        side: length of the axis, voxels.
        patch: side of the patch, voxels.
    """
    if side <= patch:
        return cut_positions(side, patch, patch)[0]
    return min(max(at - place, 0), side - patch)


def grid_positions(box: Sequence[int], patch: int, stride: int) -> list[Position]:
    """Return the first voxels `(z, y, x)` of the patches that cover a box of sides `(z, y, x)`, x fastest."""
    return list(itertools.product(*(cut_positions(side, patch, stride) for side in box)))


def cut(array: np.ndarray, position: Sequence[int], patch: int) -> np.ndarray:
    """Cut a patch out of an array, with 0 outside the box.

    Args:
        array: `(z, y, x)`.
        position: first voxel of the patch; negative if the patch begins before the box.
        patch: side, voxels.

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
    """Return the mean of a mask over the voxels of a patch that lie in the box; 0 if there are none."""
    part = mask[_inside(mask.shape, position, patch)]
    return float(part.sum(dtype=np.float64)) / part.size if part.size else 0.0


def _inside(box, position, patch):
    """Return the slices of the box that a patch covers."""
    spans = zip(box, position, strict=True)
    return tuple(slice(min(max(first, 0), side), max(min(first + patch, side), 0)) for side, first in spans)
