"""Covariances of several maps in every shell, under a mask, and their degrees of freedom.

The covariance of two maps in a shell is the mean over it of `Re F1 conj(F2)`, here divided by the sum of the squared
mask, so that white noise of variance v has covariance v with itself under any mask: the values are spectral
densities *inside the mask*, in squared units of the maps. The mask has two other effects:

- It blurs the spectrum by its own transform, over about `box / diameter of the mask` shells. Where a spectrum falls
  steeply, stronger shells leak into weaker ones, for every map alike: ratios of covariances of one shell are those of
  the masked maps, and a truth to compare with must be masked too. `Covariances.leakage` gives the contribution of
  each shell to each.
- Neighboring Fourier voxels are no longer independent: a shell of n voxels has fewer than n independent numbers, its
  degrees of freedom, `Covariances.dof`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np

from crefjax.spectral.fsc import real_product
from crefjax.spectral.shells import box_shells, half_spectrum, shell_sums, shell_voxels


@dataclass(frozen=True)
class Covariances:
    """Covariances of n maps per shell, from shell 0 to `N // 2`.

    Attributes:
        matrix: `(shells, n, n)`, float64, symmetric, squared units of the maps.
        voxels: `(shells,)`, voxels of the whole spectrum in each shell.
        dof: `(shells,)`, degrees of freedom: independent real numbers in each shell under the mask; `voxels` without.
        leakage: `(shells, shells)`, weights of the shells without mask (columns) in those under it; None without mask.
    """

    matrix: np.ndarray
    voxels: np.ndarray
    dof: np.ndarray
    leakage: np.ndarray | None = None

    def of(self, first: int, second: int) -> np.ndarray:
        """Return the covariance of two maps by their indices, `(shells,)`."""
        return self.matrix[:, first, second]

    def fsc(self, first: int | Sequence[float], second: int | Sequence[float]) -> np.ndarray:
        """Return the FSC of two maps or sums of maps, `(shells,)`; 0 where either has no power.

        Args:
            first: the index of a map, or the factor of each map in a sum; maps beyond its end have factor 0.
            second: likewise.
        """
        a, b = (self._factors(maps) for maps in (first, second))
        cross = np.einsum("i,sij,j->s", a, self.matrix, b)
        power = np.einsum("i,sij,j->s", a, self.matrix, a) * np.einsum("i,sij,j->s", b, self.matrix, b)
        return np.where(power > 0, cross / np.sqrt(np.where(power > 0, power, 1)), 0)

    def _factors(self, maps):
        factors = np.zeros(self.matrix.shape[1])
        if isinstance(maps, int):
            factors[maps] = 1
        else:
            factors[: len(maps)] = maps
        return factors

    def with_copies(self, order: int) -> Self:
        """Return the covariances of maps of `order` copies of one unit, which hold the same noise in each."""
        return replace(self, dof=np.maximum(self.dof / order, 1))

    def choose(self, places: Sequence[int]) -> Self:
        """Return the covariances of some of the maps, by their indices, in that order."""
        return replace(self, matrix=self.matrix[:, places][:, :, places])


def shell_covariances(
    maps: Sequence[np.ndarray], mask: np.ndarray | None = None, *, levels: Sequence[float] | None = None
) -> Covariances:
    """Compute the covariances of maps in host memory, transformed in float64.

    Args:
        maps: each `(z, y, x)`, of one shape.
        mask: the same shape, 0 to 1, by which every map is multiplied; None for none.
        levels: subtracted from each map first, such as its solvent level, which would otherwise correlate in the shape
            of the mask; None for 0.

    Raises:
        ValueError: no maps, shapes that differ, or a mask of zeros.
    """
    maps = list(maps)
    if not maps or any(array.shape != maps[0].shape for array in [*maps, *([] if mask is None else [mask])]):
        raise ValueError("expected maps and a mask of one shape")
    shells = box_shells(tuple(maps[0].shape))
    squared_mask = float(maps[0].size) if mask is None else _sum_of_squares(mask)
    if not squared_mask > 0:
        raise ValueError("expected a mask above 0 somewhere, found 0 in every voxel")
    matrix = np.empty((shells.count, len(maps), len(maps)))
    with jax.enable_x64(True):
        spectra = [
            _spectrum(array, mask, level) for array, level in zip(maps, levels or [0.0] * len(maps), strict=True)
        ]
        voxels = np.asarray(shell_voxels(shells), np.float64)
        for i in range(len(maps)):
            for j in range(i + 1):
                matrix[:, i, j] = matrix[:, j, i] = np.asarray(_cross(spectra[i], spectra[j], shells))
    matrix /= np.maximum(voxels, 1)[:, np.newaxis, np.newaxis] * squared_mask
    if mask is None:
        return Covariances(matrix, voxels, voxels)
    return Covariances(matrix, voxels, degrees_of_freedom(mask), leakage(mask))


def degrees_of_freedom(mask: np.ndarray) -> np.ndarray:
    """Count the independent real numbers in each shell of a masked map, for noise that is uniform within the mask.

    With `g` the transform of the squared mask, divided by its value at 0, Fourier voxels that lie `q` apart are
    correlated by `g(q)`, and the mean of a shell's n squared magnitudes scatters as that of `n / sum of |g(q)|²`
    independent ones, the sum running over those `q` that stay in the shell. That is taken for the spherical mean of
    `|g|²`: a step of length q from a shell of width 1 and radius s ends in that shell with probability `1 / (2 q)`, if
    `1/2 <= q <= 2 s`. The rings of an image are left with the probability of `_ring_step` instead.

    Args:
        mask: `(z, y, x)`, 0 to 1; with one section for an image.

    Returns:
        `(shells,)`, float64, at least 1, at most the shell's voxels.
    """
    power, voxels, middle = _power_of(mask, mask)
    power /= middle
    steps = np.arange(len(power))
    if _is_image(mask):
        stays = np.stack([_ring_step(steps, q, steps) for q in steps], -1)
        correlated = stays @ power
    else:
        stays = 1 / (2 * np.maximum(steps, 0.5))
        correlated = np.array([np.sum((power * stays)[: 2 * s + 1]) for s in steps])
    return np.clip(voxels / np.maximum(correlated, 1), 1, np.maximum(voxels, 1))


def leakage(mask: np.ndarray) -> np.ndarray:
    """Return the weights with which a mask mixes shells: the power of a shell under it is their weighted sum.

    With `m` the transform of the mask, the power of a Fourier voxel is the mean of those at all distances q, weighted
    by `|m(q)|²`, of which the spherical mean is taken. A step of length q from radius s leads to a radius r between
    `|s - q|` and `s + q` with density `r / (2 s q)`; for the rings of an image see `_ring_step`.

    Args:
        mask: `(z, y, x)`, 0 to 1; with one section for an image.

    Returns:
        `(shells, shells)`, float64; rows are shells under the mask, and sum to 1.
    """
    power, _, _ = _power_of(mask)
    shells = np.arange(len(power))
    if _is_image(mask):
        weights = sum(power[q] * _ring_step(shells[:, None], q, shells[None]) for q in shells)
        return weights / weights.sum(axis=1, keepdims=True)
    weights = np.diag(np.full(len(power), power[0]))
    weights[0] += power * (shells > 0)
    s, lower, upper = shells[1:, np.newaxis], np.maximum(shells - 0.5, 0), shells + 0.5
    for q in shells[1:]:
        inner, outer = np.maximum(lower, np.abs(s - q)), np.minimum(upper, s + q)
        weights[1:] += power[q] * np.maximum(outer**2 - inner**2, 0) / (4 * s * q)
    return weights / weights.sum(axis=1, keepdims=True)


def _is_image(array):
    """Return whether an array `(z, y, x)` is an image, whose shells are rings."""
    return sum(side > 1 for side in array.shape) == 2


def _ring_step(start, step, end):
    """Return the probability that a step of a length in a random direction ends in a ring of width 1.

    By the law of cosines it ends within a radius r if its angle to the outward direction is at least
    `arccos((r² - s² - q²) / (2 s q))`.

    Args:
        start: radius s at which it starts; an array, or several that broadcast.
        step: its length q.
        end: radius of the middle of the ring.
    """
    start, end = np.broadcast_arrays(np.asarray(start, np.float64), np.asarray(end, np.float64))
    straight = (start == 0) | (step == 0)  # where its direction does not matter
    divisor = np.where(straight, 1, 2 * start * step)
    outer, inner = (
        np.arccos(np.clip((np.sign(r) * r**2 - start**2 - step**2) / divisor, -1, 1)) for r in (end + 0.5, end - 0.5)
    )
    return np.where(straight, np.abs(start + step - end) < 0.5, (inner - outer) / np.pi)


def _power_of(array, mask=None):
    """Return sums over shells of the squared magnitudes, voxels of the shells, and the squared magnitude at 0."""
    shells = box_shells(tuple(array.shape))
    with jax.enable_x64(True):
        spectrum = _spectrum(array, mask, 0.0)
        voxels = np.asarray(shell_voxels(shells), np.float64)
        power = np.asarray(_cross(spectrum, spectrum, shells))
        return np.array(power), voxels, abs(complex(spectrum[0, 0, 0])) ** 2


def _sum_of_squares(mask):
    return sum(float(np.square(plane, dtype=np.float64).sum()) for plane in mask)


@jax.jit
def _spectrum(array, mask, level):
    """Return the half-spectrum, transformed in float64 and kept in complex64, which rounds each coefficient alone."""
    array = array.astype(jnp.float64) - level
    return half_spectrum(array if mask is None else array * mask).astype(jnp.complex64)


@jax.jit
def _cross(first, second, shells):
    return shell_sums(real_product(first.astype(jnp.complex128), second.astype(jnp.complex128)), shells)


def smooth_over_shells(values: np.ndarray, weights: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Return weighted means over shells, with a Gaussian of standard deviation `width`, and their total weights."""
    reach = int(np.ceil(4 * width))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    total = np.convolve(np.pad(values * weights, reach), kernel, "valid")
    weight = np.convolve(np.pad(weights, reach), kernel, "valid")
    return total / np.maximum(weight, 1e-300), weight
