"""Frequency shells of a box: the shell of every Fourier voxel, sums over shells, and filters by shell.

Everything is on the half-spectrum of a real map (`rfftn` along z, y, x). Shell `s` of a Fourier voxel is
`floor(|k| L + 1/2)` with `L` the longest side of the box: for a cubic box the nearest integer radius. Shell 0 is
the mean and shell `N // 2` is Nyquist, `N` being the longest side in voxels; voxels beyond belong to no shell.
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft
from jax import lax

# Voxels of a half-spectrum in one stage of a sum; larger ones are processed a few planes at a time.
_STAGE_VOXELS = 2**22


@functools.partial(jax.tree_util.register_dataclass, data_fields=["index", "weight"], meta_fields=["count"])
@dataclass(frozen=True)
class Shells:
    """The shells of one box.

    Attributes:
        index: `(z, y, x // 2 + 1)`, the shell of every voxel of the half-spectrum; `count` where it has none.
        weight: `(x // 2 + 1,)`, multiplicity of a voxel of the half-spectrum in the whole spectrum: 2, but 1 on the
            planes that are their own mirror image.
        count: number of shells, from 0 to Nyquist.
    """

    index: jax.Array | np.ndarray
    weight: jax.Array | np.ndarray
    count: int


@functools.lru_cache(maxsize=8)
def box_shells(shape: tuple[int, int, int]) -> Shells:
    """Return the shells of a box.

    Args:
        shape: `(z, y, x)` in voxels.

    Raises:
        ValueError: the shape is not three positive numbers.
    """
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"expected three sides of at least one voxel, found {shape}")
    longest = max(shape)
    count = longest // 2 + 1
    z, y, x = (_squared_radius(n, longest, half) for n, half in zip(shape, (False, False, True), strict=True))
    plane = y[:, np.newaxis] + x
    index = np.empty((shape[0], *plane.shape), np.uint16 if count < 2**16 else np.int32)
    # Plane by plane: all of it in float64 would take eight times the memory of the index.
    for i, z_squared in enumerate(z):
        index[i] = np.minimum(np.floor(np.sqrt(plane + z_squared) + 0.5), count)
    weight = np.full(len(x), 2.0, np.float32)
    weight[0] = 1.0
    if shape[2] % 2 == 0:
        weight[-1] = 1.0
    return Shells(index, weight, count)


def filter_shells(array: np.ndarray, factors: np.ndarray, *, beyond: float = 0.0) -> np.ndarray:
    """Multiply every shell of a map in host memory by a factor.

    Args:
        array: `(z, y, x)`.
        factors: `(shells,)`, from shell 0 to Nyquist.
        beyond: factor of the voxels in the corners of Fourier space that belong to no shell.

    Returns:
        `(z, y, x)`, float32.
    """
    mean = array.mean(dtype=np.float64)  # taken out, or float32 would carry its rounding into every shell
    spectrum = filtered_spectrum(np.subtract(array, mean, dtype=np.float32), factors, beyond=beyond)
    filtered = scipy.fft.irfftn(spectrum, s=array.shape, workers=-1, overwrite_x=True)
    return filtered + np.float32(mean * factors[0])


def filtered_spectrum(array: np.ndarray, factors: np.ndarray, *, beyond: float = 0.0) -> np.ndarray:
    """Return the half-spectrum, complex64, of a map whose shells are multiplied by factors; see `filter_shells`."""
    spectrum = scipy.fft.rfftn(np.asarray(array, np.float32), workers=-1)
    spectrum *= np.append(factors, beyond).astype(np.float32)[box_shells(tuple(array.shape)).index]
    return spectrum


def half_spectrum(maps: jax.Array) -> jax.Array:
    """Return the Fourier transform of real maps, `(..., z, y, x)` to complex `(..., z, y, x // 2 + 1)`, unnormalized.

    The mean is subtracted before and restored after: float32 would otherwise carry its rounding errors, which are
    proportional to the largest coefficient, into every shell.
    """
    axes = (-3, -2, -1)
    mean = maps.mean(axes, keepdims=True)
    spectrum = jnp.fft.rfftn(maps - mean, axes=axes)
    voxels = np.prod(maps.shape[-3:])
    return spectrum.at[..., 0, 0, 0].set((mean[..., 0, 0, 0] * voxels).astype(spectrum.dtype))


def shell_sums(values: jax.Array, shells: Shells) -> jax.Array:
    """Sum real values of a half-spectrum over every shell of the whole spectrum.

    The sum has stages, within a plane and then over the planes, so that float32 stays accurate in shells of a million
    voxels.

    Args:
        values: `(..., z, y, x // 2 + 1)`, real.
        shells: of that box.

    Returns:
        `(..., shells.count)`.

    Raises:
        ValueError: the values are not of the shells' box.
    """
    if values.shape[-3:] != shells.index.shape:
        raise ValueError(f"expected a half-spectrum of shape {shells.index.shape}, found {values.shape[-3:]}")
    batch = values.shape[:-3]
    flat = values.reshape(-1, *values.shape[-3:])
    sums = jax.vmap(lambda spectrum: _sum_planes(spectrum, shells))(flat)
    return sums.reshape(*batch, shells.count)


def shell_means(values: jax.Array, shells: Shells) -> jax.Array:
    """Return the mean of real values over every shell; shapes as in `shell_sums`, 0 in a shell without voxels."""
    voxels = shell_voxels(shells)
    return shell_sums(values, shells) / jnp.maximum(voxels, 1).reshape((1,) * (values.ndim - 3) + (-1,))


def shell_voxels(shells: Shells) -> jax.Array:
    """Return the number of voxels of the whole spectrum in every shell, float32 `(shells.count,)`."""
    return shell_sums(jnp.ones(shells.index.shape, jnp.float32), shells)


def _squared_radius(side, longest, half):
    """Return `(|k| L)²` along one axis of a box, float64, for the frequencies of `rfft` (half) or `fft`."""
    k = np.arange(side // 2 + 1) if half else np.fft.fftfreq(side, 1 / side).round()
    return (k * longest / side) ** 2


def _sum_planes(values, shells):
    """Return the shell sums of a half-spectrum, a few planes at a time if it is large."""
    depth, height, width = values.shape
    stage = max(n for n in range(1, depth + 1) if depth % n == 0 and (n == 1 or n * height * width <= _STAGE_VOXELS))
    weighted = (values * jnp.asarray(shells.weight)[jnp.newaxis, jnp.newaxis, :]).reshape(
        depth // stage, stage, height * width
    )
    index = jnp.asarray(shells.index).reshape(weighted.shape)
    if len(weighted) == 1:
        return _sum_within_planes(weighted[0], index[0], shells.count).sum(0)
    stages = lax.map(lambda part: _sum_within_planes(*part, shells.count).sum(0), (weighted, index))
    return stages.sum(0)


def _sum_within_planes(values, index, count):
    """Return the shell sums of every plane: `(planes, voxels)` to `(planes, count)`, without voxels of no shell."""
    planes = len(values)
    segment = index.astype(jnp.int32) + (count + 1) * jnp.arange(planes, dtype=jnp.int32)[:, jnp.newaxis]
    sums = jax.ops.segment_sum(values.ravel(), segment.ravel(), planes * (count + 1))
    return sums.reshape(planes, count + 1)[:, :count]
