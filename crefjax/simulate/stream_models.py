"""The models of the stream: what the host needs to know of each, and the one table of all atoms on the device."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import numpy as np
from scipy import fft, ndimage

from crefjax.simulate.atoms import Atoms, plausible_b_factors
from crefjax.simulate.density import Scatterers, scatterers
from crefjax.simulate.noise import THRESHOLD
from crefjax.simulate.parts import EXTEND, SOFT_EDGE

GROUPS = 5  # common Gaussians of a model's atoms: within 0.1 % of the largest density; eight take 1.6 times as long
BODY_LOWPASS = 10.0  # Å, as in `parts.body_of`: there the Gaussian's deviation is this over pi
_BODY = 0.15  # of the largest density of the low-passed model, as there
_CELL = 1.6  # Å, of the grid on which a model's low-passed density is looked at
_SHAPE_UP_TO = 0.26  # 1/Å: beyond, a model's power is taken for that of atoms at random places
_DISTANCES = np.arange(0.0, 61.0, 2.0)  # Å from the body, within which its volume is known
_QUADRATURE = 400  # frequencies at which a power is summed


class AtomTable(NamedTuple):
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
        best_b: Å², exceeded by nine tenths of its atoms; those below it are raised to it, for all are blurred by the
            same difference, and no atom may become sharper than a point.
        body_level: Å/Å³, the low-passed density that bounds the body.
        body_mean: Å/Å³, the mean of the low-passed density in the body.
        center: `(3,)`, Å, the middle of the extent.
        mean: `(3,)`, Å, of the positions.
        axis: `(3,)`, the principal axis.
        moments: `(groups, groups)`, Å², the mean products of the atoms' weights.
        shape_frequency: `(m,)`, 1/Å, rising.
        shape_power: `(m,)`, the model's power over that of its atoms at random places, at `shape_frequency`.
        volumes: Å³ within `_DISTANCES` of the body.
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
    shape_frequency: np.ndarray
    shape_power: np.ndarray
    volumes: np.ndarray

    @classmethod
    def of(cls, atoms: Atoms, first: int, finest_voxel: float) -> "Model":
        """The model for voxels not finer than `finest_voxel` Å."""
        b_factor = plausible_b_factors(atoms)
        best = float(np.percentile(b_factor, 10))
        atoms = replace(atoms, b_factor=np.maximum(b_factor, np.float32(best)))
        scatter = scatterers(atoms, finest_voxel, groups=GROUPS)
        weights = scatter.weights.astype(np.float64)
        mean = atoms.positions.mean(0, dtype=np.float64)
        centred = atoms.positions - mean
        body = _Body.of(atoms.positions, weights.sum(1))
        return cls(
            first,
            atoms.positions,
            scatter,
            best,
            body.level,
            body.mean,
            atoms.center,
            mean,
            np.linalg.eigh(centred.T @ centred)[1][:, -1],
            weights.T @ weights / len(weights),
            body.frequency,
            body.power,
            body.volumes,
        )

    def atom_power(self, resolution: float, b_factor: float) -> float:
        """The mean over atoms of `f² exp(-(B_j + B) s² / 2)` at a resolution in Å."""
        falloff = np.exp(-(self.scatter.widths.astype(np.float64) + b_factor) / (4 * resolution**2))
        return float(falloff @ self.moments @ falloff)

    def whole_map(
        self, voxel_size: float, resolution: float, b_factor: float, frequency: np.ndarray, amplitude: np.ndarray
    ) -> tuple[float, float]:
        """The deviations of signal and noise in a map of the whole model, within its mask.

        The model's power is that of its atoms at random places (Wilson 1949) times what its shape makes of it. In a
        mask of `v` voxels, noise of deviation 1 and of a power `c` relative to white noise has the power `v c`, and
        `FSC = S / (S + level² v c)`.

        Args:
            voxel_size: Å.
            resolution: Å, at which the masked FSC of the half-maps is to be 0.143.
            b_factor: Å², the global blur.
            frequency: `(m,)`, 1/Å, where the colour of the noise is given.
            amplitude: `(m,)`, of the noise there.

        Returns:
            root mean square of the signal within the mask, Å of scattering length per Å³, and the deviation of the
            noise in a half-map.
        """
        s, modes = _modes(voxel_size)
        power = self._power(s, b_factor)
        colour = np.square(np.interp(s, frequency, amplitude))
        at = np.array([1 / resolution])
        relative = np.interp(at, frequency, amplitude) ** 2 / ((colour @ modes) / modes.sum())
        voxels = np.interp((EXTEND + 3 / 8 * SOFT_EDGE) * voxel_size, _DISTANCES, self.volumes) / voxel_size**3
        (ratio,) = self._power(at, b_factor) / voxel_size**6 / (voxels * relative)
        volume = np.interp((EXTEND + SOFT_EDGE / 2) * voxel_size, _DISTANCES, self.volumes)
        return math.sqrt(float(power @ modes) / volume), math.sqrt(float(ratio) * (1 / THRESHOLD - 1))

    def _power(self, s, b_factor):
        """The model's expected `|F(s)|²`, Å²."""
        falloff = np.exp(-(self.scatter.widths.astype(np.float64)[:, None] + b_factor) * (s**2 / 4))
        atoms = len(self.positions) * np.einsum("gs,gh,hs->s", falloff, self.moments, falloff)
        return atoms * np.interp(s, self.shape_frequency, self.shape_power)


def prepare(models: Sequence[Atoms], finest_voxel: float) -> list[Model]:
    """All models, for voxels not finer than `finest_voxel` Å."""
    prepared, first = [], 0
    for atoms in models:
        prepared.append(Model.of(atoms, first, finest_voxel))
        first += len(atoms)
    return prepared


def table(models: Sequence[Model]) -> AtomTable:
    """All models in one table."""
    return AtomTable(
        np.concatenate([*(one.positions for one in models), np.zeros((1, 3), np.float32)]),
        np.concatenate([*(one.scatter.weights for one in models), np.zeros((1, GROUPS), np.float32)]),
        np.stack([one.scatter.widths for one in models]),
    )


class _Body(NamedTuple):
    """What a coarse density of a model tells.

    Attributes:
        level: that bounds the body, as `parts.body_of` finds it in a density.
        mean: inside.
        volumes: Å³ within `_DISTANCES`.
        frequency: 1/Å.
        power: over that of atoms at random places.
    """

    level: float
    mean: float
    volumes: np.ndarray
    frequency: np.ndarray
    power: np.ndarray

    @classmethod
    def of(cls, positions, weights):
        cell = max(_CELL, float(np.ptp(positions, axis=0).max()) / 200)
        margin = 4 * BODY_LOWPASS / math.pi
        edges = [
            np.arange(low - margin, high + margin + cell, cell)
            for low, high in zip(positions.min(0), positions.max(0), strict=True)
        ]
        grid = np.histogramdd(positions, bins=edges, weights=weights)[0]
        smooth = ndimage.gaussian_filter(grid / cell**3, BODY_LOWPASS / math.pi / cell, mode="constant")
        level = _BODY * float(smooth.max())
        body = smooth > level
        coarse = max(1, round(4 / cell))  # distances need no fine grid
        margin = math.ceil(_DISTANCES[-1] / (coarse * cell)) + 1
        beyond = ndimage.distance_transform_edt(~np.pad(body[::coarse, ::coarse, ::coarse], margin)) * coarse * cell
        volumes = np.searchsorted(np.sort(beyond.ravel()), _DISTANCES, side="right") * (coarse * cell) ** 3
        return cls(level, float(smooth[body].mean()), volumes.astype(np.float64), *_shape_power(grid, weights, cell))


def _shape_power(grid, weights, cell):
    """Frequencies, and the power of points in cells over the sum of their squares, by shells of 1 / 200 Å."""
    shape = tuple(fft.next_fast_len(side + math.ceil(40 / cell), real=True) for side in grid.shape)
    spectrum = fft.rfftn(grid.astype(np.float32), shape, workers=2)
    axes = [*(np.fft.fftfreq(side, cell) for side in shape[:2]), np.fft.rfftfreq(shape[2], cell)]
    # A cell takes its points to its middle. That damps what they have in common by a sinc along each axis, but not the
    # power of points at random places.
    damped = [np.square(np.sinc(axis * cell)) for axis in axes]
    power = np.square(np.abs(spectrum)) / np.sum(np.square(weights)) - 1
    power = 1 + power / (damped[0][:, None, None] * damped[1][:, None] * damped[2])
    s = np.sqrt(axes[0][:, None, None] ** 2 + axes[1][:, None] ** 2 + axes[2] ** 2)
    shell = np.floor(s * 200 + 0.5).astype(int)
    count = round(_SHAPE_UP_TO * 200) + 1
    near = shell < count
    voxels = np.bincount(shell[near], minlength=count)
    mean = np.bincount(shell[near], power[near], minlength=count) / np.maximum(voxels, 1)
    relative = np.maximum(mean, 0.1)
    relative[-1] = 1.0
    frequency = np.arange(count) / 200
    return frequency[voxels > 0], relative[voxels > 0]


def _modes(voxel_size):
    """Frequencies in 1/Å up to the corner of the spectrum of a box, and how many there are of each, in 1/Å³."""
    edge = 0.5 / voxel_size
    s = (np.arange(_QUADRATURE) + 0.5) * (math.sqrt(3) * edge / _QUADRATURE)
    ratio = s / edge
    # The share of a sphere that is within a cube: caps are cut off at the faces, and beyond sqrt(2), where the caps
    # meet, what is left goes to 0 about linearly.
    meet = 3 / math.sqrt(2) - 2
    share = np.where(ratio <= 1, 1, np.where(ratio <= math.sqrt(2), 3 / ratio - 2, 0))
    share = np.where(ratio > math.sqrt(2), meet * (math.sqrt(3) - ratio) / (math.sqrt(3) - math.sqrt(2)), share)
    return s, 4 * math.pi * s**2 * share * (s[1] - s[0])
