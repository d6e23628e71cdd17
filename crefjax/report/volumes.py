"""The volumes that a page shows in every plane and as surfaces: cropped, binned, and stored in 8 bits."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from crefjax.masking import bounding_box
from crefjax.utils.statistics import robust_std

LARGEST_SIDE = 160  # voxels; larger boxes are cropped to the particle, then binned
NOT_SHOWN = 255  # value of a voxel at which a local map says nothing
_MARGIN = 0.1  # of the longest side of the box, kept around the mask
_TAIL = 0.01  # percent of the voxels beyond each end of the range
_STEPS = 4  # levels in a standard deviation of the noise; finer ones would only store noise
_FEWEST_LEVELS = 63
_OUTSIDE = 0.01  # mask below which local maps say nothing


class Grid(NamedTuple):
    """Where the voxels of the volumes lie in the box of the map.

    Attributes:
        box: the map's shape, `(z, y, x)`.
        start: of the part that is shown, `(z, y, x)`, voxels of the map.
        part: shape of this part, `(z, y, x)`, voxels of the map.
        shape: of the volumes, `(z, y, x)`.
        voxel_size: of the map, Å.
        origin: of the map's first voxel, `(x, y, z)`, Å.
    """

    box: tuple[int, int, int]
    start: tuple[int, int, int]
    part: tuple[int, int, int]
    shape: tuple[int, int, int]
    voxel_size: float
    origin: tuple[float, float, float]

    @property
    def bin(self) -> tuple[float, float, float]:
        """Voxels of the map that a voxel of the volumes spans, `(z, y, x)`."""
        return tuple(part / side for part, side in zip(self.part, self.shape, strict=True))

    @property
    def first(self) -> tuple[float, float, float]:
        """Center of the first voxel of the volumes, `(z, y, x)`, in voxels of the map, counted from 0."""
        return tuple(start + (step - 1) / 2 for start, step in zip(self.start, self.bin, strict=True))

    @property
    def is_cropped(self) -> bool:
        """Whether a part of the box is not shown."""
        return self.part != self.box

    @property
    def is_binned(self) -> bool:
        """Whether a voxel of the volumes spans more than one of the map."""
        return self.shape != self.part


@dataclass(frozen=True, eq=False)
class Volume:
    """A map in 8 bits.

    Attributes:
        name: for the page.
        levels: `(z, y, x)`, uint8.
        low, high: densities of level 0 and of level `highest`.
        highest: number of the highest level: at most 255, or 254 for a local map, of which 255 is `NOT_SHOWN`.
    """

    name: str
    levels: np.ndarray
    low: float
    high: float
    highest: int = 255


def choose_grid(
    box: tuple[int, int, int], voxel_size: float, origin: tuple[float, float, float], mask: np.ndarray | None = None
) -> Grid:
    """Choose the part of a box that is shown, and the number of voxels to show it in.

    A box of at most `LARGEST_SIDE` voxels a side is shown as it is. A larger one is cropped to the surroundings of the
    mask, if there is one, and then binned by about the same factor along all axes, so that the longest side has
    `LARGEST_SIDE` voxels.

    Args:
        box: shape of the map, `(z, y, x)`.
        voxel_size: Å.
        origin: of the first voxel, `(x, y, z)`, Å.
        mask: of the map's shape, 0 to 1, or None.
    """
    block = tuple(slice(0, side) for side in box)
    if max(box) > LARGEST_SIDE and mask is not None:
        inside = mask > 0.5
        if inside.any():
            block = bounding_box(inside, round(_MARGIN * max(box)))
    part = tuple(int(along.stop - along.start) for along in block)
    factor = max(max(part) / LARGEST_SIDE, 1.0)
    shape = tuple(max(round(side / factor), 1) for side in part)
    return Grid(tuple(box), tuple(int(along.start) for along in block), part, shape, float(voxel_size), tuple(origin))


def bin_map(array: np.ndarray, grid: Grid) -> np.ndarray:
    """Average a map over the voxels of the volumes, float32; a voxel on a border counts in part on either side.

    Args:
        array: `(z, y, x)`, the whole map.
        grid: the part and the number of voxels.
    """
    block = tuple(slice(start, start + side) for start, side in zip(grid.start, grid.part, strict=True))
    out = np.asarray(array[block], np.float32)
    for axis, (side, bins) in enumerate(zip(grid.part, grid.shape, strict=True)):
        if side != bins:
            out = np.moveaxis(np.tensordot(_overlaps(side, bins), out, (1, axis)), 0, axis)
    return np.ascontiguousarray(out)


def _overlaps(side, bins):
    """Return the share of each voxel in each bin, `(bins, side)`; every row sums to 1."""
    edges = np.linspace(0, side, bins + 1)
    voxels = np.arange(side)
    covered = np.minimum.outer(edges[1:], voxels + 1) - np.maximum.outer(edges[:-1], voxels)
    return (np.clip(covered, 0, None) * (bins / side)).astype(np.float32)


def make_volume(name: str, array: np.ndarray, grid: Grid) -> Volume:
    """Bin a map and store it in up to 256 levels, from the 0.01 to the 99.99 percentile of the binned densities.

    Levels are at most a quarter of the noise's standard deviation apart, or there are 256. The noise is estimated from
    the differences of neighbors, as 1.4826 times their median magnitude over the square root of 2: this way a noisy map
    takes about a third less space.

    Args:
        name: for the page.
        array: `(z, y, x)`.
        grid: the part and the number of voxels.
    """
    binned = bin_map(array, grid)
    low, high = (float(value) for value in np.percentile(binned, (_TAIL, 100 - _TAIL)))
    if not high > low:
        low, high = float(binned.min()), float(binned.max())
    if not high > low:
        high = low + 1.0
    noise = robust_std(np.diff(binned, axis=2), 0.0) / math.sqrt(2)
    highest = 255 if noise <= 0 else round(min(max(_STEPS * (high - low) / noise, _FEWEST_LEVELS), 255))
    return Volume(name, _levels(binned, low, high, highest), low, high, highest)


def make_local_volume(name: str, array: np.ndarray, mask: np.ndarray, grid: Grid) -> Volume:
    """Bin a local map, 0 to 1, and mark the voxels outside the mask as not shown.

    Args:
        name: for the page.
        array: `(z, y, x)`, 0 to 1.
        mask: the same shape, 0 to 1.
        grid: the part and the number of voxels.
    """
    levels = _levels(bin_map(array, grid), 0.0, 1.0, NOT_SHOWN - 1)
    levels[bin_map(mask, grid) < _OUTSIDE] = NOT_SHOWN
    return Volume(name, levels, 0.0, 1.0, NOT_SHOWN - 1)


def _levels(array, low, high, highest):
    scaled = np.clip((array - np.float32(low)) * np.float32(highest / (high - low)), 0, highest)
    return np.round(scaled, out=scaled).astype(np.uint8)
