"""On which scale and grid and over which rotations a map is denoised, and what that will take."""

import math
from dataclasses import replace

import numpy as np

from crefjax.data.grid import VOXELS, WorkingGrid, find_grid
from crefjax.errors import UserError
from crefjax.inference.memory_plan import InferencePlan, plan_run
from crefjax.inference.slabs import choose_rotations
from crefjax.io.maps import Map
from crefjax.masking import auto_mask
from crefjax.utils.memory import find_device
from crefjax.weights.store import Weights

# Measured at their peak, in float32 maps: of five maps the spectra, and one of them as float64 on its way there.
_MAPS_OF_CALIBRATION, _MAPS_OF_REPORT = 21, 24
_MAPS_OF_CHECK = 11  # of a pair, before the network runs
# Around the mask, voxels: what lies farther away changes next to nothing within it. And voxels that are to be saved for
# another compilation.
_MARGIN, _WORTH_IT = 12, 4e6
SCALES = ("signal", "input", "none")
GRIDS = ("data", "input")


def plan_denoise(
    pair: tuple[Map, ...],
    weights: Weights,
    *,
    mask: Map | None = None,
    scale: str | None = None,
    halves: bool = False,
    report: bool = False,
    region: tuple[np.ndarray | None, tuple[str, ...]] | None = None,
    grid: str | None = None,
    resolution: float | None = None,
    rotations: int | None = None,
    device: str | None = None,
    max_memory: float | None = None,
) -> InferencePlan:
    """What `denoise_maps` with the same arguments will take; with `report`, a report or local maps after it too.

    Where the network is to work on the data's grid, that is found here: the half-maps are measured. `region`, where to
    measure with notes on it, is what `auto_mask` would find; None to have it found where it is needed.

    Raises:
        UserError: no such device, scale, grid or number of rotations, a resolution that the map cannot have, or not
            enough memory.
    """
    signal = choose_scale(scale, pair) == "signal"
    three = halves or signal
    found, needed = choose_grid(pair, weights, mask=mask, region=region, grid=grid, resolution=resolution)
    region = needed if needed is not None or not signal else region
    rotations = choose_rotations(rotations, found.shape, pair[0].array.shape)
    # The maps themselves, the mask, and three for the standardized map, the output and what becomes of it.
    host_maps = len(pair) + (mask is not None) + 3 + 2 * three
    share = float(np.prod(found.shape)) / pair[0].array.size
    part, runs = None, 3 if three else 1
    if signal and not halves and weights.grid and region is not None and region[0] is not None:
        part = part_around(region[0], found.shape, weights.config.multiple)
        saved = 1 - np.prod([piece.stop - piece.start for piece in part], dtype=float) / np.prod(found.shape)
        if 2 * saved * rotations * np.prod(found.shape, dtype=float) > _WORTH_IT:
            runs -= 2 * saved
        else:
            part = None
    checked = _MAPS_OF_CHECK / share if len(pair) == 2 else 0
    plan = plan_run(
        found.shape,
        weights.config,
        find_device(device),
        host_maps=host_maps / share + (0 if share == 1 else 3 * (1 + 2 * three)),
        later_maps=_MAPS_OF_REPORT / share if report else _MAPS_OF_CALIBRATION + 4 / share if signal else checked,
        runs=runs * rotations,
        max_memory=max_memory,
    )
    return replace(plan, grid=found, region=region, rotations=rotations, part=part)


def part_around(region: np.ndarray, shape: tuple[int, int, int], multiple: int) -> tuple[slice, slice, slice]:
    """The part of a working grid around a mask, with a margin, in which the network pools the same voxels together.

    Args:
        region: the mask, `(z, y, x)` on any grid of the box.
        shape: of the working grid.
        multiple: of the network's sides.
    """
    part = []
    for axis, side in enumerate(shape):
        inside = np.flatnonzero(region.any(axis=tuple({0, 1, 2} - {axis})))
        ratio = side / region.shape[axis]
        low, high = inside[0] * ratio - _MARGIN, (inside[-1] + 1) * ratio + _MARGIN
        first = max(0, int(low // multiple) * multiple)
        part.append(slice(first, min(side, first + math.ceil((high - first) / multiple) * multiple)))
    return tuple(part)


def choose_grid(
    pair: tuple[Map, ...],
    weights: Weights,
    *,
    mask: Map | None = None,
    region: tuple[np.ndarray | None, tuple[str, ...]] | None = None,
    grid: str | None = None,
    resolution: float | None = None,
) -> tuple[WorkingGrid, tuple[np.ndarray | None, tuple[str, ...]] | None]:
    """Where the network works, and the region in which was measured with notes on it, or None if none was needed.

    Args:
        pair: two half-maps on one grid, or one full map.
        weights: of the network.
        mask: on the same grid.
        region: as `auto_mask` finds it, if it is known.
        grid: one of `GRIDS`, or None for what suits the weights.
        resolution: Å; None to have it measured.

    Raises:
        UserError: no such grid, or a resolution that the map cannot have.
    """
    if grid not in (None, *GRIDS):
        raise UserError(f"--grid: expected one of {', '.join(GRIDS)}, found {grid}")
    array, voxel_size = pair[0].array, pair[0].voxel_size
    if resolution is not None:
        least, most = 2 * voxel_size, max(array.shape) * voxel_size / 4
        if not least <= resolution <= most:
            raise UserError(
                f"--resolution: expected {least:.4g} Å (two voxels) to {most:.4g} Å (a quarter of the box), found "
                f"{resolution:g} Å; correct it"
            )
    grid = grid or ("data" if weights.grid else "input")
    if grid == "input" and not weights.grid:
        return WorkingGrid(array.shape, voxel_size), None
    if mask is not None:
        region = (mask.array, ())
    elif region is None:
        region = auto_mask(array, pair[-1].array, voxel_size)
    settings = {"voxels": weights.grid or VOXELS, "resolution": resolution, "keep": grid == "input"}
    return find_grid([one.array for one in pair], voxel_size, region[0], **settings), region


def choose_scale(scale: str | None, pair: tuple[Map, ...]) -> str:
    """The scale that is meant: one of `SCALES`; None is the signal's where there are two half-maps to tell it from.

    Raises:
        UserError: the scale is unknown, or the signal's is asked of one map.
    """
    if scale is None:
        return "signal" if len(pair) == 2 else "input"
    if scale not in SCALES:
        raise UserError(f"--scale: expected one of {', '.join(SCALES)}, found {scale}")
    if scale == "signal" and len(pair) != 2:
        raise UserError("--scale signal: expected two half-maps, found one map; give both half-maps, or --scale input")
    return scale
