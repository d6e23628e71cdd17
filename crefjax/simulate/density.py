"""Electron-scattering density of atoms on a grid, exact up to Nyquist and free of aliasing.

The density is defined by its Fourier transform, in the box's own frequencies and no others,

    F(k) = sum_j occ_j f_j(s) exp(-(B_j + B) s² / 4) exp(-2 pi i k·r_j),    s = |k|,

with the electron form factors `f_j` as sums of Gaussians and the B-factors of Å². What is sampled is therefore
band-limited: there is no aliasing, as there is when Gaussians sharper than the voxels are sampled in real space.

It is computed as a non-uniform Fourier transform. Every atom's falloff `f_j(s) exp(-B_j s²/4)` is written as a sum of
a few Gaussians common to all atoms (`scatterers`, on the host, by least squares). For each of these, the atoms'
weights are spread over a few voxels of a grid 1.5 times as fine, transformed, cut to the box's frequencies, divided
by the transform of the spreading kernel and multiplied by the Gaussian. The kernel is the "exponential of
semicircle" of Barnett, Magland & af Klinteberg 2019 (SIAM J. Sci. Comput. 41, C479).
"""

import functools
import itertools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from crefjax.simulate.atoms import Atoms, form_factors

GROUPS = 8  # common Gaussians; the worst atom is then within about 0.2 % of the model's mean at every frequency
_WIDTH = 6  # voxels of the fine grid that a weight is spread over, along each axis: an error of about 3e-5
_FINER = 1.5


@functools.partial(jax.tree_util.register_dataclass, data_fields=["positions", "weights", "widths"], meta_fields=[])
@dataclass(frozen=True)
class Scatterers:
    """Atoms as weights of common Gaussians, ready for the device.

    Attributes:
        positions: `(n, 3)`, Å, in the order x, y, z.
        weights: `(n, groups)`, Å; they may be negative.
        widths: `(groups,)`, Å²; Gaussian `g` falls off as `exp(-widths[g] s² / 4)`.
    """

    positions: jax.Array | np.ndarray
    weights: jax.Array | np.ndarray
    widths: jax.Array | np.ndarray


def scatterers(atoms: Atoms, voxel_size: float, *, groups: int = GROUPS) -> Scatterers:
    """Fit every atom's form factor and B-factor by a sum of Gaussians common to all atoms.

    Args:
        atoms: the model.
        voxel_size: Å, of the finest grid that they will be used on.
        groups: number of Gaussians.
    """
    # Squared frequency / 4 to the corner of the spectrum; what is beyond the Nyquist sphere counts little.
    nyquist = 1 / (16 * voxel_size**2)
    u = np.linspace(0, 1, 65)[:, np.newaxis] ** 2 * (3 * nyquist)
    order = np.argsort(atoms.b_factor, kind="stable")
    sample = order[np.linspace(0, len(order) - 1, min(len(order), 512)).astype(int)]
    falloff = _falloff(atoms, sample, u)
    importance = np.where(u <= nyquist, 1, 0.1) / np.sqrt(np.mean(falloff**2, axis=1, keepdims=True))
    lowest, highest = float(atoms.b_factor.min()), float(atoms.b_factor.max())
    widths = _best_widths(falloff * importance, importance, u, lowest, highest, groups)
    solve = np.linalg.pinv(np.exp(-widths * u) * importance, rcond=1e-6)

    weights = np.zeros((len(atoms), groups), np.float32)
    for part in np.array_split(np.arange(len(atoms)), len(atoms) // 4096 + 1):
        weights[part] = (solve @ (_falloff(atoms, part, u) * importance)).T
    return Scatterers(atoms.positions.astype(np.float32), weights, widths.astype(np.float32))


def density(
    scatterers: Scatterers,
    shape: tuple[int, int, int],
    voxel_size: float | jax.Array,
    *,
    origin=(0.0, 0.0, 0.0),
    rotation=None,
    center=(0.0, 0.0, 0.0),
    shift=(0.0, 0.0, 0.0),
    b_factor: float | jax.Array = 0.0,
) -> jax.Array:
    """Compute the density on a grid, in Å of scattering length per Å³; times 47.88 V Å² it is a potential in volts.

    An atom at `r` is placed at `rotation @ (r - center) + center + shift`. All arguments but `shape` may be traced. The
    box is periodic: the tail of an atom near its border appears on the opposite side, and an atom whose center is
    outside is dropped. Leave a margin.

    Args:
        scatterers: the atoms.
        shape: `(z, y, x)` of the grid in voxels.
        voxel_size: Å.
        origin: Å, (x, y, z), of the first voxel.
        rotation: `(3, 3)`, of vectors (x, y, z); None for none.
        center: Å, (x, y, z), of the rotation.
        shift: Å, (x, y, z).
        b_factor: Å², of a global blur; negative sharpens.

    Returns:
        `(z, y, x)`, float32.

    Raises:
        ValueError: the shape is not three sides of at least 4 voxels, or the fine grid is beyond 2^31 voxels.
    """
    if len(shape) != 3 or min(shape) < 4:
        raise ValueError(f"expected a grid (z, y, x) of at least 4 voxels a side, found {shape}")
    vectors = [jnp.asarray(vector, jnp.float32) for vector in (origin, center, shift)]
    rotation = None if rotation is None else jnp.asarray(rotation, jnp.float32)
    return _density(scatterers, tuple(shape), jnp.float32(voxel_size), *vectors, rotation, jnp.float32(b_factor))


@functools.partial(jax.jit, static_argnums=1)
def _density(scatterers, shape, voxel_size, origin, center, shift, rotation, b_factor):
    positions = scatterers.positions
    if rotation is not None:
        rotated = jnp.matmul(positions - center[None], rotation.T, precision=lax.Precision.HIGHEST)
        positions = rotated + center[None]
    voxels = ((positions + (shift - origin)[None]) / voxel_size)[:, ::-1]
    sides = np.array(shape, np.float32)
    inside = jnp.all((voxels >= -0.5) & (voxels < sides[None] - 0.5), axis=1)
    fine = tuple(_fine_side(side) for side in shape)
    index, kernel = _windows(voxels * (np.array(fine) / sides).astype(np.float32)[None], fine)
    squared, correction = _spectrum_scales(shape, fine)
    squared = squared / (4 * voxel_size**2)

    def add_group(spectrum, group):
        """Add the atoms of one width: their spread weights on the grid, blurred in Fourier space."""
        weight, width = group
        values = jnp.einsum("n,nz,ny,nx->nzyx", weight, *kernel, precision=lax.Precision.HIGHEST)
        grid = jnp.zeros(math.prod(fine), jnp.float32).at[index].add(values, mode="promise_in_bounds")
        part = _cut(jnp.fft.rfftn(grid.reshape(fine)), shape)
        return spectrum + part * jnp.exp(-(width + b_factor) * squared), None

    start = jnp.zeros(squared.shape, jnp.complex64)
    weights = jnp.where(inside[None], scatterers.weights.T, 0)
    spectrum, _ = lax.scan(add_group, start, (weights, jnp.asarray(scatterers.widths)))
    return jnp.fft.irfftn(spectrum * correction, s=shape) / voxel_size**3


def _falloff(atoms, which, u):
    """`occ f(s) exp(-B s²/4)` at `u = s²/4`: `(u, atoms)`, float64."""
    a, b = np.moveaxis(form_factors()[atoms.element[which]], 1, 0)
    b = b + atoms.b_factor[which, np.newaxis]
    gaussians = a * np.exp(-b * u[:, :, np.newaxis])
    return gaussians.sum(-1) * atoms.occupancy[which]


def _best_widths(target, importance, u, lowest, highest, groups):
    """Return the geometric series of widths, of a few first and last ones, whose sums fit the target best."""

    def error(widths):
        basis = np.exp(-widths * u) * importance
        return np.linalg.norm(basis @ (np.linalg.pinv(basis, rcond=1e-6) @ target) - target)

    ends = itertools.product((0.3, 1.0, 3.0, 6.0), (20.0, 40.0, 70.0, 120.0))
    return min((np.geomspace(lowest + low, highest + high, groups) for low, high in ends), key=error)


def _windows(voxels, fine):
    """Return flat indices on the fine grid, `(n, w, w, w)`, and the kernel along z, y and x, `(n, w)` each."""
    if math.prod(fine) >= 2**31:
        raise ValueError(f"expected a grid of fewer than 2^31 voxels, found {fine}")
    steps = np.arange(_WIDTH, dtype=np.int32)[None]
    first = jnp.ceil(voxels - _WIDTH / 2).astype(jnp.int32)
    z, y, x = ((first[:, axis, None] + steps) % side for axis, side in enumerate(fine))
    index = (z[:, :, None, None] * fine[1] + y[:, None, :, None]) * fine[2] + x[:, None, None, :]
    offsets = first[:, :, None] + steps[None] - voxels[:, :, None]
    return index, tuple(_kernel(offsets[:, axis], jnp) for axis in range(3))


def _kernel(offset, xp):
    """Return the spreading kernel at an offset in voxels of the fine grid; 1 at 0, about 1e-5 at its end."""
    beta = 0.97 * math.pi * _WIDTH * (1 - 0.5 / _FINER)
    semicircle = xp.sqrt(xp.maximum(1 - (2 * offset / _WIDTH) ** 2, 0))
    return xp.exp(beta * (semicircle - 1))


@functools.lru_cache(maxsize=8)
def _spectrum_scales(shape, fine):
    """Return `(s voxel_size)²` and the reciprocal of the kernel's transform on the half-spectrum; float32."""
    nodes, node_weights = np.polynomial.legendre.leggauss(64)
    nodes, node_weights = nodes * _WIDTH / 2, node_weights * _WIDTH / 2
    squares, factors = [], []
    for axis, (side, fine_side) in enumerate(zip(shape, fine, strict=True)):
        k = np.fft.fftfreq(side, 1 / side) if axis < 2 else np.arange(side // 2 + 1)
        waves = np.cos(2 * np.pi * np.outer(k / fine_side, nodes))
        squares.append((k / side) ** 2)
        factors.append(1 / (waves @ (node_weights * _kernel(nodes, np))))
    squared = squares[0][:, None, None] + squares[1][None, :, None] + squares[2][None, None]
    correction = factors[0][:, None, None] * factors[1][None, :, None] * factors[2][None, None]
    return squared.astype(np.float32), correction.astype(np.float32)


def _cut(spectrum, shape):
    """Return the half-spectrum of the fine grid, cut to the frequencies of the box."""
    for axis, side in enumerate(shape[:2]):
        positive = lax.slice_in_dim(spectrum, 0, (side + 1) // 2, axis=axis)
        fine_side = spectrum.shape[axis]
        negative = lax.slice_in_dim(spectrum, fine_side - side // 2, fine_side, axis=axis)
        spectrum = jnp.concatenate([positive, negative], axis)
    return spectrum[:, :, : shape[2] // 2 + 1]


def _fine_side(side):
    """Return the shortest even side of factors 2, 3 and 5 that is fine enough."""
    return next_fast_len(max(math.ceil(_FINER * side), 2 * _WIDTH))


def next_fast_len(least: float) -> int:
    """Return the smallest even number of factors 2, 3 and 5 that is at least `least`, for fast Fourier transforms."""
    side = max(2, 2 * math.ceil(least / 2))
    while not _is_smooth(side):
        side += 2
    return side


def _is_smooth(number):
    for factor in (2, 3, 5):
        while number % factor == 0:
            number //= factor
    return number == 1
