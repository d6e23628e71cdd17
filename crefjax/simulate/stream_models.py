"""The models of the stream: what the host needs to know of each, and the one table of all atoms on the device."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np
from scipy import ndimage

from crefjax.simulate.atoms import Atoms
from crefjax.simulate.density import Scatterers, scatterers

GROUPS = 5  # common Gaussians of a model's atoms: within 0.1 % of the largest density; eight take 1.6 times as long
BODY_LOWPASS = 10.0  # Å, as in `parts.body_of`: there the Gaussian's deviation is this over pi
_BODY = 0.15  # of the largest density of the low-passed model, as there
_CELL = 1.6  # Å, of the grid on which a model's low-passed density is looked at


class Table(NamedTuple):
    """The atoms of all models, so that a batch may be of several.

    Attributes:
        positions: `(atoms + 1, 3)`, Å, (x, y, z), one model after the other; the last row is what fills batches.
        weights: `(atoms + 1, groups)`, Å; zeros in the last row.
        widths: `(models, groups)`, Å².
    """

    positions: jax.Array | np.ndarray
    weights: jax.Array | np.ndarray
    widths: jax.Array | np.ndarray


@dataclass(frozen=True, eq=False)
class Model:
    """What the host knows of a model.

    Attributes:
        first: its first row among all models' atoms.
        positions: `(n, 3)`, Å, (x, y, z).
        scatter: its atoms for the device.
        best_b: Å², exceeded by nine tenths of its atoms.
        body_level: Å/Å³, the low-passed density that bounds the body.
        body_mean: Å/Å³, the mean of the low-passed density in the body.
        center: `(3,)`, Å, the middle of the extent.
        mean: `(3,)`, Å, of the positions.
        axis: `(3,)`, the principal axis.
        moments: `(groups, groups)`, Å², the mean products of the atoms' weights.
    """

    first: int
    positions: np.ndarray
    scatter: Scatterers
    best_b: float
    body_level: float
    body_mean: float
    center: np.ndarray
    mean: np.ndarray
    axis: np.ndarray
    moments: np.ndarray

    @classmethod
    def of(cls, atoms: Atoms, first: int, finest_voxel: float) -> "Model":
        """The model for voxels not finer than `finest_voxel` Å."""
        scatter = scatterers(atoms, finest_voxel, groups=GROUPS)
        weights = scatter.weights.astype(np.float64)
        mean = atoms.positions.mean(0, dtype=np.float64)
        centred = atoms.positions - mean
        return cls(
            first,
            atoms.positions,
            scatter,
            float(np.percentile(atoms.b_factor, 10)),
            *_body(atoms.positions, weights.sum(1)),
            atoms.center,
            mean,
            np.linalg.eigh(centred.T @ centred)[1][:, -1],
            weights.T @ weights / len(weights),
        )

    def atom_power(self, resolution: float, b_factor: float) -> float:
        """The mean over atoms of `f² exp(-(B_j + B) s² / 2)` at a resolution in Å."""
        falloff = np.exp(-(self.scatter.widths.astype(np.float64) + b_factor) / (4 * resolution**2))
        return float(falloff @ self.moments @ falloff)


def prepare(models: Sequence[Atoms], finest_voxel: float) -> list[Model]:
    """All models, for voxels not finer than `finest_voxel` Å."""
    prepared, first = [], 0
    for atoms in models:
        prepared.append(Model.of(atoms, first, finest_voxel))
        first += len(atoms)
    return prepared


def table(models: Sequence[Model]) -> Table:
    """All models in one table."""
    return Table(
        np.concatenate([*(one.positions for one in models), np.zeros((1, 3), np.float32)]),
        np.concatenate([*(one.scatter.weights for one in models), np.zeros((1, GROUPS), np.float32)]),
        np.stack([one.scatter.widths for one in models]),
    )


def _body(positions, weights):
    """The level that bounds a model's body and the mean inside, as `parts.body_of` finds them in a density."""
    cell = max(_CELL, float(np.ptp(positions, axis=0).max()) / 200)
    margin = 4 * BODY_LOWPASS / math.pi
    edges = [
        np.arange(low - margin, high + margin + cell, cell)
        for low, high in zip(positions.min(0), positions.max(0), strict=True)
    ]
    grid = np.histogramdd(positions, bins=edges, weights=weights)[0] / cell**3
    smooth = ndimage.gaussian_filter(grid, BODY_LOWPASS / math.pi / cell, mode="constant")
    level = _BODY * float(smooth.max())
    return level, float(smooth[smooth > level].mean())
