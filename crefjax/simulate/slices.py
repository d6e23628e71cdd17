"""Central slices of a density: read from its spectrum, and put back into one.

The Fourier transform of a projection is the central slice of the density's (Bracewell 1956). Spectra are oversampled
twice, and a slice is taken at one of every Friedel pair of frequencies within the Nyquist circle.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from crefjax.simulate.poses import slice_points

_TAPS, _SHARPNESS = 4, 9.0  # the reading kernel: slices are accurate to 6e-4 of their root mean square


def oversampled_spectrum(density: jax.Array) -> jax.Array:
    """The Fourier transform of a density in a box of twice its side, made ready for `project`.

    The density is divided by the transform of the reading kernel; see `project`.

    Args:
        density: `(z, y, x)`, cubic, even side N, the origin at voxel N/2.

    Returns:
        `(2 N, 2 N, N + 3)`, complex64: along x from -1 to N + 1, so that every point has its neighbours.
    """
    side = len(density)
    offsets = np.linspace(-_TAPS / 2, _TAPS / 2, 2001)
    position = (np.arange(side) - side // 2) / (2 * side)
    waves = np.cos(2 * np.pi * position[:, None] * offsets)
    transform = np.trapezoid(_reading_kernel(offsets, np) * waves, offsets, axis=1)
    spectrum = jnp.fft.rfftn(jnp.fft.ifftshift(jnp.pad(divided(density, transform), side // 2)))
    beyond = [jnp.conj(mirrored(spectrum[:, :, x])) for x in (1, side - 1)]
    return jnp.concatenate([beyond[0][:, :, None], spectrum, beyond[1][:, :, None]], 2)


def project(spectrum: jax.Array, rotations: jax.Array) -> jax.Array:
    """Central slices of a density: the Fourier transforms of its projections along the z axis of each rotation.

    Interpolated with a kernel `exp(b (sqrt(1 - (2 t / 4)²) - 1))` on the oversampled grid (Barnett et al. 2019).

    Args:
        spectrum: of `oversampled_spectrum`.
        rotations: `(images, 3, 3)`, acting on `(z, y, x)`; see `crefjax.simulate.poses`.

    Returns:
        `(images, frequencies)`, complex64, at `image_frequencies`, unnormalized as `numpy.fft.fft2` of the sums
        along z, with the origin at pixel N/2.
    """
    points, flipped = slice_points(rotations, len(spectrum) // 2)
    first = jnp.floor(points).astype(jnp.int32) - (_TAPS // 2 - 1)
    weights = [_reading_kernel(points - first - tap, jnp) for tap in range(_TAPS)]
    values = 0
    for index, weight in _neighbours(first, weights, spectrum.shape, offset=1):
        values = values + spectrum.reshape(-1).at[index].get(mode="promise_in_bounds") * weight
    return jnp.where(flipped, jnp.conj(values), values).reshape(len(rotations), -1)


def insert(sums: jax.Array, slices: jax.Array, power: jax.Array | None, rotations: jax.Array) -> jax.Array:
    """Add slices to the sums of a reconstruction, spread over the nearest grid points by linear interpolation.

    Args:
        sums: `(2 N, 2 N, N + 1, channels)`, float32: the real parts of all maps, their imaginary parts and, with
            `power`, its sum. Points with `x < 0` are added to their Friedel mates.
        slices: `(images, frequencies, maps)`, complex, from `project` of each map, weighted.
        power: `(images, frequencies)`, the weights; None to leave them out.
        rotations: `(images, 3, 3)`.
    """
    points, flipped = slice_points(rotations, sums.shape[0] // 2)
    flat = slices.reshape(-1, slices.shape[-1])
    channels = [flat.real, jnp.where(flipped[:, None], -flat.imag, flat.imag)]
    channels = channels if power is None else [*channels, power.reshape(-1, 1)]
    # Without this barrier XLA on a CPU computes the slices anew for each of the eight neighbours.
    channels = lax.optimization_barrier(jnp.concatenate(channels, -1))
    first = jnp.floor(points).astype(jnp.int32)
    weights = [first + 1 - points, points - first]
    flat = sums.reshape(-1, sums.shape[-1])
    for index, weight in _neighbours(first, weights, sums.shape[:3], offset=0):
        flat = flat.at[index].add(channels * weight[:, None], mode="promise_in_bounds")
    return flat.reshape(sums.shape)


def mirrored(plane: jax.Array) -> jax.Array:
    """A plane `(z, y, ...)` of a spectrum at `(-z, -y)`."""
    return jnp.roll(plane[::-1, ::-1], (1, 1), (0, 1))


def divided(density: jax.Array, transform: np.ndarray) -> jax.Array:
    """A cubic density divided by a transform `(side,)` along each of its axes."""
    one_over = (1 / transform).astype(np.float32)
    return density * one_over[:, None, None] * one_over[None, :, None] * one_over[None, None, :]


def _neighbours(first, weights, grid, offset):
    """Flat indices and weights of the grid points around each point, from the lowest, for every product of taps."""
    for z, along_z in enumerate(weights):
        plane = (first[:, 0] + z) % grid[0] * grid[1]
        for y, along_y in enumerate(weights):
            row = (plane + (first[:, 1] + y) % grid[1]) * grid[2] + first[:, 2] + offset
            for x, along_x in enumerate(weights):
                yield row + x, along_z[:, 0] * along_y[:, 1] * along_x[:, 2]


def _reading_kernel(offset, numpy):
    inside = 1 - numpy.square(2 * offset / _TAPS)
    return numpy.where(inside > 0, numpy.exp(_SHARPNESS * (numpy.sqrt(numpy.maximum(inside, 0)) - 1)), 0)
