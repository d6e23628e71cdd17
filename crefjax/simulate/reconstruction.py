"""Half-maps reconstructed by Fourier inversion from simulated noisy projections.

An image is the sum of the rotated density along z; its Fourier transform is read from that of the density, and inserted
into that of the reconstruction. A reconstruction is linear in its images, so that signal and noise are reconstructed
side by side with the same weights and can be mixed afterwards at any level.

The host iterates over batches of images, so that it can show progress and be interrupted in between.

The Fourier transform of a projection is the central slice of the density's (Bracewell 1956). Spectra are oversampled
twice, and a slice is taken at one of every Friedel pair of frequencies within the Nyquist circle.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from crefjax.errors import UserError
from crefjax.simulate.imaging import (
    Particles,
    image_ctf,
    image_frequencies,
    sample_particle_poses,
    shift_phases,
    slice_points,
    split_into_batches,
    white_noise,
)
from crefjax.spectral.shells import Shells, box_shells, shell_means
from crefjax.utils.progress import ProgressCallback

_TAPS, _SHARPNESS = 4, 9.0  # the reading kernel: slices are accurate to 6e-4 of their root mean square
BATCH = 64  # images processed together
_WIENER = 1e-3  # added to the sum of squared CTFs, as a part of its mean over the shell
_REFINEMENT_COST = 0.5  # time of a batch in a refinement, relative to the first pass
_MEAN_RADIUS = (np.sqrt(2) + np.arcsinh(1)) / 6  # over the unit square around the origin: the weight of the mean


def oversampled_spectrum(density: jax.Array) -> jax.Array:
    """Return the Fourier transform of a density in a box of twice its side, prepared for `project`.

    The density is divided by the transform of the reading kernel; see `project`.

    Args:
        density: `(z, y, x)`, cubic, even side N, the origin at voxel N/2.

    Returns:
        `(2 N, 2 N, N + 3)`, complex64: along x from -1 to N + 1, so that every point has its neighbors.
    """
    side = len(density)
    offsets = np.linspace(-_TAPS / 2, _TAPS / 2, 2001)
    position = (np.arange(side) - side // 2) / (2 * side)
    waves = np.cos(2 * np.pi * position[:, None] * offsets)
    transform = np.trapezoid(_reading_kernel(offsets, np) * waves, offsets, axis=1)
    spectrum = jnp.fft.rfftn(jnp.fft.ifftshift(jnp.pad(divide_by_transform(density, transform), side // 2)))
    before, after = (jnp.conj(friedel_plane(spectrum[:, :, x]))[:, :, None] for x in (1, side - 1))
    return jnp.concatenate([before, spectrum, after], 2)


def project(spectrum: jax.Array, rotations: jax.Array) -> jax.Array:
    """Return central slices of a density: the Fourier transforms of its projections along the z axis of each rotation.

    Interpolated with a kernel `exp(b (sqrt(1 - (2 t / 4)²) - 1))` on the oversampled grid (Barnett et al. 2019).

    Args:
        spectrum: from `oversampled_spectrum`.
        rotations: `(images, 3, 3)`, acting on `(z, y, x)`; see `crefjax.simulate.imaging`.

    Returns:
        `(images, frequencies)`, complex64, at `image_frequencies`, unnormalized as `numpy.fft.fft2` of the sums
        along z, with the origin at pixel N/2.
    """
    points, flipped = slice_points(rotations, len(spectrum) // 2)
    first = jnp.floor(points).astype(jnp.int32) - (_TAPS // 2 - 1)
    weights = [_reading_kernel(points - first - tap, jnp) for tap in range(_TAPS)]
    values = 0
    for index, weight in _neighbors(first, weights, spectrum.shape, offset=1):
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
    # Without this barrier XLA on a CPU recomputes the slices for each of the eight neighbors.
    channels = lax.optimization_barrier(jnp.concatenate(channels, -1))
    first = jnp.floor(points).astype(jnp.int32)
    weights = [first + 1 - points, points - first]
    flat = sums.reshape(-1, sums.shape[-1])
    for index, weight in _neighbors(first, weights, sums.shape[:3], offset=0):
        flat = flat.at[index].add(channels * weight[:, None], mode="promise_in_bounds")
    return flat.reshape(sums.shape)


def friedel_plane(plane: jax.Array) -> jax.Array:
    """Return a plane `(z, y, ...)` of a spectrum at `(-z, -y)`."""
    return jnp.roll(plane[::-1, ::-1], (1, 1), (0, 1))


def divide_by_transform(density: jax.Array, transform: np.ndarray) -> jax.Array:
    """Divide a cubic density by a transform `(side,)` along each of its axes."""
    inverse = (1 / transform).astype(np.float32)
    return density * inverse[:, None, None] * inverse[None, :, None] * inverse[None, None, :]


def _neighbors(first, weights, grid, offset):
    """Yield flat indices and weights of the grid points around each point, for every product of taps."""
    for z, along_z in enumerate(weights):
        plane = (first[:, 0] + z) % grid[0] * grid[1]
        for y, along_y in enumerate(weights):
            row = (plane + (first[:, 1] + y) % grid[1]) * grid[2] + first[:, 2] + offset
            for x, along_x in enumerate(weights):
                yield row + x, along_z[:, 0] * along_y[:, 1] * along_x[:, 2]


def _reading_kernel(offset, xp):
    inside = 1 - xp.square(2 * offset / _TAPS)
    return xp.where(inside > 0, xp.exp(_SHARPNESS * (xp.sqrt(xp.maximum(inside, 0)) - 1)), 0)


class SignalAndNoise(NamedTuple):
    """Signal and noise of two half-maps: `half_map_1 = signal_1 + sigma * noise_1`, and likewise the second.

    Attributes:
        signal_1: `(z, y, x)`, float32, on the scale of the density: the first half-map without noise.
        signal_2: the second.
        noise_1: from images of white noise of standard deviation 1 alone, with the first half's weights.
        noise_2: the second, independent.
        projection_variance: variance over a whole image of the projections before their CTF, mean over all particles; a
            larger empty margin lowers it. Divided by `sigma²` it is the signal-to-noise ratio of the images.
    """

    signal_1: jax.Array
    signal_2: jax.Array
    noise_1: jax.Array
    noise_2: jax.Array
    projection_variance: jax.Array


def reconstruct_signal_and_noise(
    density: jax.Array,
    voxel_size: float,
    key: jax.Array,
    particles: Particles,
    *,
    refinements: int,
    batch: int = BATCH,
    progress: ProgressCallback | None = None,
) -> SignalAndNoise:
    """Reconstruct the signal and the noise of two half-maps, to be mixed at any level.

    Each half is `sum w CTF F / (sum w CTF² + eps)` over its slices `F` on a grid oversampled twice, `w` the weights
    of linear interpolation times `|k|`, which compensates for slices crowding towards the origin; its transform is
    divided by the interpolation's own (Jackson et al. 1991). A refinement adds the same reconstruction of the
    difference between the images and those of the result so far. Nothing is reconstructed beyond the Nyquist sphere.
    Memory: see `memory_needed`.

    Args:
        density: `(z, y, x)`, cubic with an even side, the particle within the inscribed sphere.
        voxel_size: Å.
        key: of `jax.random`: the same key, density and settings give the same particles whatever the batch, and
            particle `i` of a half does not depend on their number.
        particles: the images and their errors.
        refinements: each costs about half the time of the first pass. The lowest shells are accurate to 12% without,
            2.5% after one and 1% after two, the mean to 28, 13 and 6%; two refinements raise the noise in the corners
            of the box by a third.
        batch: images processed together.
        progress: called with the completed share of the work, 0 to 1.

    Raises:
        UserError: the density is not as above or not finite, or a parameter is out of its range.
    """
    _check(density, voxel_size, refinements, batch)
    particles.check()
    density = jnp.asarray(density, jnp.float32)
    shells = box_shells((2 * len(density),) * 3)
    halves = []
    for number, half in enumerate(jax.random.split(key)):
        batches = split_into_batches(sample_particle_poses(half, particles), batch)

        def show(share, number=number):
            if progress:
                progress((number + share) / 2)

        halves.append(_reconstruct_half(density, voxel_size, batches, particles.ctf, shells, refinements, show))
    signals, noises, variances = zip(*halves, strict=True)
    return SignalAndNoise(*signals, *noises, sum(variances) / 2)


def memory_needed(side: int, batch: int = BATCH) -> float:
    """Estimate the bytes that `reconstruct_signal_and_noise` takes on its device, with the maps around it.

    The largest arrays have `4 side³` points: the sums of five channels, the two complex spectra and their Fourier
    transforms. XLA reports for the compiled steps on a CPU 306 bytes a voxel where the sums become maps, and
    113 with 264 bytes for every squared pixel of a batch where images are added; 190 MiB to 2.2 GiB more than the
    program's own 0.35 GiB were measured for sides of 64 to 192.

    Args:
        side: of the density, voxels.
        batch: images processed together.
    """
    return max(350.0 * side**3, 160.0 * side**3 + 264.0 * batch * side**2)


def _reconstruct_half(density, voxel_size, batches, optics, shells, refinements, show):
    """Return signal and noise of one half, and the variance of its projections.

    `batches` are the poses of the particles; `show` is called with the share of the work that is done, batches of
    refinements counted by their cost.
    """
    side = len(density)
    shares = iter(np.cumsum([1.0] * len(batches) + [_REFINEMENT_COST] * len(batches) * refinements))
    total = len(batches) * (1 + _REFINEMENT_COST * refinements)
    spectrum, sums, variance = _spectrum(density), _zeros(side, 5), jnp.float32(0)
    for poses in batches:
        sums, variance = _add_images(sums, variance, spectrum, poses, voxel_size, optics)
        variance.block_until_ready()  # wait here, so that signals are handled between batches
        show(next(shares) / total)
    del spectrum
    data, inverse, maps = maps_of_sums(sums, shells)
    del sums
    for _ in range(refinements):
        spectra, sums = [_spectrum(volume) for volume in maps], _zeros(side, 4)
        for poses in batches:
            sums = _add_maps(sums, spectra, poses, voxel_size, optics)
            sums.block_until_ready()
            show(next(shares) / total)
        del spectra
        maps = _refined(maps, data, sums, inverse)
    return *maps, variance / sum(poses.counts.sum() for poses in batches)


def _zeros(side, channels):
    return jnp.zeros((2 * side, 2 * side, side + 1, channels))


_spectrum = jax.jit(oversampled_spectrum)


@functools.partial(jax.jit, donate_argnums=0)
def _add_images(sums, variance, spectrum, poses, voxel_size, optics):
    """Add the density's images, their noise, and the squared CTFs to the sums, and the projections' variance."""
    side = sums.shape[2] - 1
    ctf, weight = image_ctf(poses, side, voxel_size, optics), frequency_weights(side, poses.counts)
    images = project(spectrum, poses.rotation)
    variance += jnp.sum(poses.counts[:, None] * jnp.square(jnp.abs(images[:, 1:]))) * (2 / side**4)
    signal = ctf * images * shift_phases(poses.shift, side, voxel_size)
    noise = jax.vmap(functools.partial(white_noise, side=side))(poses.key)
    both = (weight * ctf)[..., None] * jnp.stack([signal, noise], -1)
    return insert(sums, both, weight * jnp.square(ctf), poses.assigned), variance


@functools.partial(jax.jit, donate_argnums=0)
def _add_maps(sums, spectra, poses, voxel_size, optics):
    """Add the images of two maps at the assigned orientations."""
    side = sums.shape[2] - 1
    ctf, weight = image_ctf(poses, side, voxel_size, optics), frequency_weights(side, poses.counts)
    images = jnp.stack([project(spectrum, poses.assigned) for spectrum in spectra], -1)
    return insert(sums, (weight * jnp.square(ctf))[..., None] * images, None, poses.assigned)


@jax.jit
def maps_of_sums(sums: jax.Array, shells: Shells) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return two maps `(2, z, y, x)` last, of the sums of `insert` with their power, after their spectra and weights.

    Args:
        sums: `(2 N, 2 N, N + 1, 5)`.
        shells: of the box of `(2 N)³`.
    """
    data, power = _complete(sums)
    inverse = _inverse(power[..., 0], shells)[..., None]
    return data, inverse, _to_maps(data * inverse)


@jax.jit
def _refined(maps, data, sums, inverse):
    return maps + _to_maps((data - _complete(sums)[0]) * inverse)


def frequency_weights(side: int, counts: jax.Array) -> jax.Array:
    """Return the weight of every frequency of every image, `(images, frequencies)`: its radius."""
    radius = np.hypot(*image_frequencies(side).T)
    weight = np.where(radius == 0, 0.5 * _MEAN_RADIUS, radius).astype(np.float32)  # the mean is its own mate
    return weight[None] * counts[:, None]


def _complete(sums, maps=2):
    """Return the complex sums of the maps and the remaining channels, with Friedel mates on the plane `x = 0` added."""
    real, odd, even = sums[..., :maps], sums[..., maps : 2 * maps], sums[..., 2 * maps :]
    real, even = (part.at[:, :, 0].add(friedel_plane(part[:, :, 0])) for part in (real, even))
    return lax.complex(real, odd.at[:, :, 0].add(-friedel_plane(odd[:, :, 0]))), even


def _inverse(power, shells):
    """Return the reciprocal Wiener sum of every grid point within the Nyquist sphere, 0 where there is no slice."""
    mean = shell_means(power, shells)
    index = jnp.minimum(shells.index, shells.count - 1)
    seen = (power > 0) & (index < shells.count - 1)
    return jnp.where(seen, 1 / jnp.where(seen, power + _WIENER * mean[index], 1), 0)


def _to_maps(spectrum):
    """Return maps `(maps, z, y, x)` in the inner box from the oversampled spectra `(z, y, x, maps)` of slices."""
    side = spectrum.shape[2] - 1
    inner = slice(side // 2, side // 2 + side)
    transform = np.sinc((np.arange(side) - side // 2) / (2 * side)) ** 2
    boxes = [jnp.fft.fftshift(jnp.fft.irfftn(channel, (2 * side,) * 3)) for channel in jnp.moveaxis(spectrum, -1, 0)]
    return jnp.stack([divide_by_transform(box[inner, inner, inner], transform) for box in boxes])


def _check(density, voxel_size, refinements, batch):
    shape = np.shape(density)
    if len(shape) != 3 or len(set(shape)) != 1 or shape[0] % 2 or shape[0] < 8:
        raise UserError(f"expected a cubic density with an even side of at least 8 voxels, found {shape}")
    if not np.isfinite(density).all():
        raise UserError("density: expected finite voxels, found NaN or infinite ones; replace them")
    if not (np.isfinite(voxel_size) and voxel_size > 0):
        raise UserError(f"expected a voxel size above 0 Å, found {voxel_size}; correct it")
    if batch < 1 or refinements < 0:
        raise UserError(f"expected a batch of at least 1 and at least 0 refinements, found {batch} and {refinements}")
