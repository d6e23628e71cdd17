"""One specimen ready for patches: its half-maps standardized and masked."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crefjax.data.grid import WorkingGrid, find_grid
from crefjax.data.masks import MaskInfo, make_mask
from crefjax.data.patches import standardize
from crefjax.data.usable import usable
from crefjax.errors import UserError
from crefjax.io.checks import check_same_grid
from crefjax.io.entries import find_entry, load_mask, load_pair
from crefjax.io.files import path_error
from crefjax.io.maps import read_map


@dataclass(frozen=True, eq=False)
class Specimen:
    """Half-maps standardized as `patches.standardize` does and multiplied by the mask; float32 `(z, y, x)`.

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
        mask_path: values 0 to 1 on the same grid; None to have a mask made, see `masks.make_mask`.
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
