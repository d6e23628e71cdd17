"""Labels for a classifier of voxels, from a map and its atomic model, and a filter for pairs that do not fit.

The method is that of DeepTracer-Denoising (Guan and Si 2022), for maps on a grid of 1 Å (`crefjax.data.grid`).
Every atom is a Gaussian whose weight is its element's number of electrons and whose width follows from the map's
resolution, cut off at 3 standard deviations. The voxels that an atom reaches are structure, and all others noise.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from crefjax.errors import UserError
from crefjax.simulate.atoms import Atoms
from crefjax.utils.statistics import robust_std

CUTOFF = 3.0  # standard deviations at which an atom's Gaussian is cut off
# Standard deviation of an atom's Gaussian over the resolution, as in ChimeraX's molmap: the Fourier transform of the
# Gaussian falls to 1/e at the resolution.
SIGMA_PER_RESOLUTION = 1 / (math.pi * math.sqrt(2))
_CHUNK = 2_000_000  # voxels of atoms' Gaussians computed at once


def atom_density(
    atoms: Atoms,
    shape: tuple[int, int, int],
    voxel_size: float,
    origin: tuple[float, float, float],
    resolution: float,
    *,
    cutoff: float = CUTOFF,
) -> tuple[np.ndarray, np.ndarray]:
    """Sum the atoms' Gaussians over a grid, and mark the voxels that they reach.

    An atom at the distance `d` contributes `Z exp(-d² / (2 sigma²))` to a voxel with `d <= cutoff * sigma`, with its
    element's number of electrons `Z`, times its occupancy, and `sigma = resolution * SIGMA_PER_RESOLUTION`.

    Args:
        atoms: the model, at the map's coordinates; atoms may lie outside the box.
        shape: `(z, y, x)` of the grid.
        voxel_size: Å.
        origin: Å, (x, y, z), of the first voxel.
        resolution: Å, of the map.
        cutoff: standard deviations.

    Returns:
        The sum, float32, and whether a voxel is reached, bool; both of `shape`.

    Raises:
        UserError: the resolution or the cutoff is not a finite number above 0.
    """
    if not (0 < resolution < math.inf and 0 < cutoff < math.inf):
        raise UserError(
            f"labels: expected a resolution and a cutoff above 0, found {resolution:g} Å and {cutoff:g}; correct them"
        )
    sigma = resolution * SIGMA_PER_RESOLUTION
    reach = cutoff * sigma / voxel_size  # voxels
    positions = ((atoms.positions - np.asarray(origin, np.float64)) / voxel_size)[:, ::-1]
    electrons = atoms.element * atoms.occupancy
    sides = np.array(shape)
    inside = np.all((positions > -reach - 1) & (positions < sides + reach), axis=1)
    positions, electrons = positions[inside], electrons[inside]
    steps = np.arange(-math.ceil(reach), math.ceil(reach) + 1)
    offsets = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    # An atom lies within half a voxel, along each axis, of the voxel that the offsets are counted from.
    offsets = offsets[np.linalg.norm(offsets, axis=1) <= reach + math.sqrt(3) / 2]
    total, reached = np.zeros(math.prod(shape)), np.zeros(math.prod(shape), bool)
    for first in range(0, len(positions), max(1, _CHUNK // len(offsets))):
        some = slice(first, first + max(1, _CHUNK // len(offsets)))
        voxels = np.rint(positions[some]).astype(int)[:, None] + offsets
        squared = np.square(voxels - positions[some][:, None]).sum(-1)
        which = (squared <= reach**2) & np.all((voxels >= 0) & (voxels < sides), axis=-1)
        index = np.ravel_multi_index(tuple(voxels[which].T), shape)
        values = electrons[some][:, None] * np.exp(-squared * (voxel_size / sigma) ** 2 / 2)
        total += np.bincount(index, values[which], minlength=total.size)
        reached[index] = True
    return total.reshape(shape).astype(np.float32), reached.reshape(shape)


@dataclass(frozen=True)
class Similarity:
    """How well a map and the density of its model agree.

    Attributes:
        value: correlation over the core's voxels, -1 to 1.
        core: share of the voxels that the larger of map and model takes, `P_core`.
    """

    value: float
    core: float


def similarity(array: np.ndarray, simulated: np.ndarray, contour: float) -> Similarity:
    """Compare a map with the simulated density of its model (Guan and Si 2022).

    With the cumulative distributions `F` of the two over all voxels, `P_core = max(1 - F_map(contour), 1 -
    F_model(0))`. The value is Pearson's correlation over the voxels in which the map exceeds its own quantile
    `1 - 2 P_core`. Negative density counts as 0.

    Args:
        array: the map, `(z, y, x)`, with the solvent at 0.
        simulated: of `atom_density`, the same shape.
        contour: density above which the map shows the particle.
    """
    array = np.maximum(array, 0)
    core = max(float((array > contour).mean()), float((simulated > 0).mean()))
    level = np.quantile(array, max(0.0, 1 - 2 * core))
    where = array > level
    if not where.any() or np.ptp(simulated[where]) == 0 or np.ptp(array[where]) == 0:
        return Similarity(0.0, core)
    return Similarity(float(np.corrcoef(array[where], simulated[where])[0, 1]), core)


def similarity_threshold(values: np.ndarray) -> float:
    """Find the similarity below which a pair of map and model is left out, from those of all pairs.

    Pairs that fit make the main mode of the distribution, and those that do not a tail below it. The mode is that of a
    Gaussian kernel density (Scott's bandwidth). The spread is 1.4826 times the median distance of the values above the
    mode to it, a standard deviation where they are normal. The threshold lies 3 of them below the mode.

    Args:
        values: at least 3.

    Raises:
        ValueError: there are fewer.
    """
    values = np.sort(np.asarray(values, np.float64))
    if len(values) < 3:
        raise ValueError(f"expected at least 3 similarities, found {len(values)}")
    if np.ptp(values) == 0:
        return float(values[0])
    candidates = np.linspace(values[0], values[-1], 1001)
    mode = candidates[np.argmax(stats.gaussian_kde(values)(candidates))]
    above = values[values >= mode] - mode
    return float(mode - 3 * robust_std(above, 0.0)) if len(above) else float(mode)
