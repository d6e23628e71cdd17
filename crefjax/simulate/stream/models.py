"""Models prepared for the stream: their atoms for the device, and what the host needs to know of each."""

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
from crefjax.simulate.specimen import BODY_FRACTION, EXTEND, SOFT_EDGE, BulkSolvent
from crefjax.spectral.b_factors import best_blur, signal_b_factor

GROUPS = 5  # common Gaussians of a model's atoms: within 0.1 % of the largest density; eight take 1.6 times as long
BODY_LOWPASS = 10.0  # Å, as in `specimen.particle_body`, where the Gaussian's standard deviation is this over pi
_CELL = 1.6  # Å, of the grid on which a model's body is found
_SHAPE_UP_TO = 0.26  # 1/Å: beyond, a model's power is taken for that of atoms at random places
_MAP_SIDE = 250.0  # Å, of the map whose shells are fitted
_DISTANCES = np.arange(0.0, 61.0, 2.0)  # Å from the body, within which its volume is known
_QUADRATURE = 400  # frequencies at which a power is summed
VACUUM = BulkSolvent(0.0, 0.0)


class AtomTable(NamedTuple):
    """The atoms of all models, so that a batch can mix models.

    Attributes:
        positions: `(atoms + 1, 3)`, Å, (x, y, z), model after model; the last row pads batches.
        weights: `(atoms + 1, groups)`, Å; zeros in the last row.
        widths: `(models, groups)`, Å².
    """

    positions: jax.Array | np.ndarray
    weights: jax.Array | np.ndarray
    widths: jax.Array | np.ndarray


class Body(NamedTuple):
    """A model's body and the power of its shape, from its coarse density.

    Attributes:
        level: Å/Å³, the low-passed density that bounds the body, as in `specimen.particle_body`.
        mean: Å/Å³, of the low-passed density in the body.
        volumes: Å³ within `_DISTANCES` of the body.
        frequency: `(m,)`, 1/Å, rising.
        power: `(m,)`, the model's power over that of its atoms at random places, at `frequency`.
    """

    level: float
    mean: float
    volumes: np.ndarray
    frequency: np.ndarray
    power: np.ndarray

    @classmethod
    def of(cls, positions: np.ndarray, weights: np.ndarray) -> "Body":
        """Find the body of atoms of positions `(n, 3)`, Å, and weights `(n,)`, Å."""
        cell = max(_CELL, float(np.ptp(positions, axis=0).max()) / 200)
        margin = 4 * BODY_LOWPASS / math.pi
        edges = [
            np.arange(low - margin, high + margin + cell, cell)
            for low, high in zip(positions.min(0), positions.max(0), strict=True)
        ]
        grid = np.histogramdd(positions, bins=edges, weights=weights)[0]
        smooth = ndimage.gaussian_filter(grid / cell**3, BODY_LOWPASS / math.pi / cell, mode="constant")
        level = BODY_FRACTION * float(smooth.max())
        body = smooth > level
        coarse = max(1, round(4 / cell))  # distances do not need a fine grid
        margin = math.ceil(_DISTANCES[-1] / (coarse * cell)) + 1
        beyond = ndimage.distance_transform_edt(~np.pad(body[::coarse, ::coarse, ::coarse], margin)) * coarse * cell
        volumes = np.searchsorted(np.sort(beyond.ravel()), _DISTANCES, side="right") * (coarse * cell) ** 3
        return cls(level, float(smooth[body].mean()), volumes.astype(np.float64), *_shape_power(grid, weights, cell))


@dataclass(frozen=True, eq=False)
class StreamModel:
    """A model as the host needs it.

    Attributes:
        first: its first row in the `AtomTable`.
        positions: `(n, 3)`, Å, (x, y, z).
        scatter: its atoms for the device.
        best_b: Å², exceeded by nine tenths of its atoms. Lower B-factors are raised to it: all atoms are blurred by the
            same difference, and no atom may become sharper than a point.
        body: its low-passed body, and the power of its shape.
        center: `(3,)`, Å, the middle of the extent.
        mean: `(3,)`, Å, of the positions.
        axis: `(3,)`, the principal axis.
        moments: `(groups, groups)`, Å², the mean products of the atoms' weights.
    """

    first: int
    positions: np.ndarray
    scatter: Scatterers
    best_b: float
    body: Body
    center: np.ndarray
    mean: np.ndarray
    axis: np.ndarray
    moments: np.ndarray

    @classmethod
    def from_atoms(cls, atoms: Atoms, first: int, finest_voxel: float) -> "StreamModel":
        """Prepare a model for voxels not finer than `finest_voxel` Å."""
        b_factor = plausible_b_factors(atoms)
        best = float(np.percentile(b_factor, 10))
        atoms = replace(atoms, b_factor=np.maximum(b_factor, np.float32(best)))
        scatter = scatterers(atoms, finest_voxel, groups=GROUPS)
        weights = scatter.weights.astype(np.float64)
        mean = atoms.positions.mean(0, dtype=np.float64)
        centered = atoms.positions - mean
        body = Body.of(atoms.positions, weights.sum(1))
        axis = np.linalg.eigh(centered.T @ centered)[1][:, -1]
        moments = weights.T @ weights / len(weights)
        return cls(first, atoms.positions, scatter, best, body, atoms.center, mean, axis, moments)

    def atom_power(self, resolution: float, b_factor: float, solvent: BulkSolvent = VACUUM) -> float:
        """Return the mean over atoms of `f² exp(-(B_j + B) s² / 2)` in a solvent, at a resolution in Å."""
        falloff = np.exp(-(self.scatter.widths.astype(np.float64) + b_factor) / (4 * resolution**2))
        return float(falloff @ self.moments @ falloff * solvent.factor(1 / resolution) ** 2)

    def whole_map_levels(
        self,
        voxel_size: float,
        resolution: float,
        b_factor: float,
        frequency: np.ndarray,
        amplitude: np.ndarray,
        solvent: BulkSolvent = VACUUM,
    ) -> tuple[float, float]:
        """Return the standard deviations of signal and noise in a map of the whole model, within its mask.

        The model's power is that of its atoms at random places (Wilson 1949) times a factor of its shape. In a mask of
        `v` voxels, noise of standard deviation 1 and of a power `c` relative to white noise has the power `v c`, and
        `FSC = S / (S + level² v c)`.

        Args:
            voxel_size: Å.
            resolution: Å, at which the masked FSC of the half-maps is 0.143.
            b_factor: Å², the global blur.
            frequency: `(m,)`, 1/Å, where the spectrum of the noise is given.
            amplitude: `(m,)`, of the noise there.
            solvent: around the particle.

        Returns:
            root mean square of the signal within the mask, Å of scattering length per Å³, and the standard deviation
            of the noise in a half-map.
        """
        s, modes = _modes(voxel_size)
        power = self._power(s, b_factor, solvent)
        spectrum = np.square(np.interp(s, frequency, amplitude))
        at = np.array([1 / resolution])
        relative = np.interp(at, frequency, amplitude) ** 2 / ((spectrum @ modes) / modes.sum())
        voxels = np.interp((EXTEND + 3 / 8 * SOFT_EDGE) * voxel_size, _DISTANCES, self.body.volumes) / voxel_size**3
        (ratio,) = self._power(at, b_factor, solvent) / voxel_size**6 / (voxels * relative)
        volume = np.interp((EXTEND + SOFT_EDGE / 2) * voxel_size, _DISTANCES, self.body.volumes)
        return math.sqrt(float(power @ modes) / volume), math.sqrt(float(ratio) * (1 / THRESHOLD - 1))

    def best_blur(
        self,
        resolution: float,
        b_factor: float,
        frequency: np.ndarray,
        amplitude: np.ndarray,
        solvent: BulkSolvent = VACUUM,
    ) -> float:
        """Return the blur in Å² that `crefjax denoise` would give half-maps of the whole model.

        The parameters are those of `whole_map_levels`. The B-factor is fitted to the expected power, which does not
        scatter from shell to shell.
        """
        s = np.arange(1, round(_MAP_SIDE * frequency[-1] / math.sqrt(3))) / _MAP_SIDE
        signal = self._power(s, b_factor, solvent)
        noise = np.square(np.interp(s, frequency, amplitude))
        at = np.array([1 / resolution])
        (level,) = self._power(at, b_factor, solvent) / np.interp(at, frequency, amplitude) ** 2
        own = signal + (1 / THRESHOLD - 1) * level * noise
        products = np.stack([np.stack([own, signal], -1), np.stack([signal, own], -1)], -1)
        estimate = signal_b_factor(products, s)
        return 0.0 if estimate is None else best_blur(*estimate, resolution)

    def _power(self, s, b_factor, solvent):
        """Return the model's expected `|F(s)|²`, Å²."""
        falloff = np.exp(-(self.scatter.widths.astype(np.float64)[:, None] + b_factor) * (s**2 / 4))
        atoms = len(self.positions) * np.einsum("gs,gh,hs->s", falloff, self.moments, falloff)
        return atoms * np.interp(s, self.body.frequency, self.body.power) * np.square(solvent.factor(s))


def prepare_models(models: Sequence[Atoms], finest_voxel: float) -> list[StreamModel]:
    """Prepare all models for voxels not finer than `finest_voxel` Å."""
    prepared, first = [], 0
    for atoms in models:
        prepared.append(StreamModel.from_atoms(atoms, first, finest_voxel))
        first += len(atoms)
    return prepared


def atom_table(models: Sequence[StreamModel]) -> AtomTable:
    """Return the atoms of all models in one table."""
    return AtomTable(
        np.concatenate([*(model.positions for model in models), np.zeros((1, 3), np.float32)]),
        np.concatenate([*(model.scatter.weights for model in models), np.zeros((1, GROUPS), np.float32)]),
        np.stack([model.scatter.widths for model in models]),
    )


def _shape_power(grid, weights, cell):
    """Return frequencies, and the power of points in cells over the sum of their squares, by shells of 1 / 200 Å."""
    shape = tuple(fft.next_fast_len(side + math.ceil(40 / cell), real=True) for side in grid.shape)
    spectrum = fft.rfftn(grid.astype(np.float32), shape, workers=2)
    axes = [*(np.fft.fftfreq(side, cell) for side in shape[:2]), np.fft.rfftfreq(shape[2], cell)]
    # A cell moves its points to its middle. That damps their common structure by a sinc along each axis, but not the
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
    """Return frequencies in 1/Å up to the corner of a box's spectrum, and the density of each in 1/Å³."""
    edge = 0.5 / voxel_size
    s = (np.arange(_QUADRATURE) + 0.5) * (math.sqrt(3) * edge / _QUADRATURE)
    ratio = s / edge
    # The share of a sphere that is within a cube: caps are cut off at the faces, and beyond sqrt(2), where the caps
    # meet, the rest goes to 0 about linearly.
    meet = 3 / math.sqrt(2) - 2
    share = np.where(ratio <= 1, 1, np.where(ratio <= math.sqrt(2), 3 / ratio - 2, 0))
    share = np.where(ratio > math.sqrt(2), meet * (math.sqrt(3) - ratio) / (math.sqrt(3) - math.sqrt(2)), share)
    return s, 4 * math.pi * s**2 * share * (s[1] - s[0])
