"""Imaging of particles: contrast transfer functions, orientations, shifts, and errors of both.

A rotation is a matrix that acts on column vectors written `(z, y, x)`, as the axes of a map are. It rotates the
density into the frame of its image, which is then the sum along z.
"""

import functools
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from crefjax.errors import UserError


class CtfParameters(NamedTuple):
    """The optics of a data set. Every particle has its own defocus, drawn uniformly between the two bounds.

    Attributes:
        defocus_min: Å, positive for underfocus.
        defocus_max: Å.
        amplitude_contrast: the fraction, 0 to below 1.
        spherical_aberration: mm.
        voltage: kV.
    """

    defocus_min: float = 8000.0
    defocus_max: float = 20000.0
    amplitude_contrast: float = 0.1
    spherical_aberration: float = 2.7
    voltage: float = 300.0

    def check(self) -> None:
        """Check that the parameters are possible for a microscope.

        Raises:
            UserError: a value is not finite or out of its range.
        """
        if not np.all(np.isfinite(self)):
            raise UserError(f"expected finite numbers for the CTF, found {tuple(self)}; correct them")
        if self.voltage <= 0:
            raise UserError(f"expected a voltage above 0 kV, found {self.voltage}; give 300, for example")
        if self.spherical_aberration < 0:
            raise UserError(
                f"expected a spherical aberration of 0 mm or more, found {self.spherical_aberration}; give 2.7, for "
                "example"
            )
        if not 0 <= self.amplitude_contrast < 1:
            raise UserError(
                f"expected an amplitude contrast of at least 0 and below 1, found {self.amplitude_contrast}; give 0.1, "
                "for example"
            )
        if self.defocus_min > self.defocus_max:
            raise UserError(
                f"expected the smallest defocus not above the largest, found {self.defocus_min} and "
                f"{self.defocus_max} Å; exchange them"
            )


def electron_wavelength(voltage: float | jax.Array) -> jax.Array:
    """Return the relativistic wavelength in Å of electrons accelerated by `voltage` kV.

    `h / sqrt(2 m e V (1 + e V / (2 m c²)))`; de Broglie 1924, with the constants of CODATA 2018.
    """
    volt = 1e3 * jnp.asarray(voltage, jnp.float32)
    return 12.2642597 / jnp.sqrt(volt * (1 + 0.978475591e-6 * volt))


def contrast_transfer(frequency: jax.Array, defocus: jax.Array, optics: CtfParameters) -> jax.Array:
    """Return the contrast transfer function, without astigmatism and without an envelope.

    `sin(pi λ g² (Δf - λ² g² Cs / 2) + asin(A))` at frequency `g`; Rohou & Grigorieff 2015, equations 2 to 5, with
    the sign changed as for images whose contrast was inverted so that protein is bright: it is `A` at
    `g = 0` and positive up to the first zero.

    Args:
        frequency: 1/Å, any shape.
        defocus: Å, positive for underfocus; a shape that broadcasts with the frequency.
        optics: its defocus bounds are not used.

    Returns:
        Values from -1 to 1.
    """
    wavelength = electron_wavelength(optics.voltage)
    aberration = 1e7 * jnp.asarray(optics.spherical_aberration, jnp.float32)  # mm to Å
    squared = jnp.square(frequency)
    path = defocus - 0.5 * jnp.square(wavelength) * squared * aberration
    return jnp.sin(jnp.pi * wavelength * squared * path + jnp.arcsin(optics.amplitude_contrast))


def astigmatic_defocus(
    angle: jax.Array, defocus_u: jax.Array, defocus_v: jax.Array, azimuth: float | jax.Array
) -> jax.Array:
    """Return the defocus in a direction, for `contrast_transfer`.

    `(U + V) / 2 + (U - V) / 2 cos(2 (angle - azimuth))`; Rohou & Grigorieff 2015, equation 1.

    Args:
        angle: radians, of the direction in Fourier space, from the x axis towards y.
        defocus_u: Å, along the azimuth.
        defocus_v: Å, across it.
        azimuth: radians, from the x axis towards y.
    """
    return 0.5 * (defocus_u + defocus_v) + 0.5 * (defocus_u - defocus_v) * jnp.cos(2 * (angle - azimuth))


@dataclass(frozen=True)
class Particles:
    """The images of each half, and the errors of their reconstruction.

    Attributes:
        count: images in each half.
        pose_error: degrees, standard deviation of each component of the rotation vector; see `sample_pose_errors`.
        shift_error: Å, standard deviation of each of the two components.
        preferred: concentration of the views around z; 0 for uniform orientations. See `sample_rotations`.
        ctf: None for images without a contrast transfer function.
    """

    count: int = 2000
    pose_error: float = 0.0
    shift_error: float = 0.0
    preferred: float = 0.0
    ctf: CtfParameters | None = field(default_factory=CtfParameters)

    def check(self) -> None:
        """Check that the images can be simulated.

        Raises:
            UserError: there are no particles, or a value is negative or not finite.
        """
        if self.count < 1:
            raise UserError(f"expected at least one particle in each half, found {self.count}; use more")
        for name in ("pose_error", "shift_error", "preferred"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise UserError(f"{name}: expected a number of 0 or more, found {value}; correct it")
        if self.ctf is not None:
            self.ctf.check()


class ParticlePoses(NamedTuple):
    """Orientations, shifts, and defocus of the particles of one half.

    Attributes:
        rotation: `(count, 3, 3)`, the true orientations.
        assigned: `(count, 3, 3)`, the orientations that the reconstruction assumes.
        shift: `(count, 2)`, `(y, x)` in Å, offset of an image from the center that the reconstruction assumes.
        defocus: `(count,)`, Å.
        key: `(count,)`, random keys for the noise.
        counts: `(count,)`, 1; 0 for a particle that only fills a batch.
    """

    rotation: jax.Array
    assigned: jax.Array
    shift: jax.Array
    defocus: jax.Array
    key: jax.Array
    counts: jax.Array


def sample_particle_poses(key: jax.Array, particles: Particles) -> ParticlePoses:
    """Draw the particles of one half; particle `i` depends on the key and `i`, not on the count."""
    optics = particles.ctf or CtfParameters()
    spread = optics.defocus_min, optics.defocus_max
    return _sample_particle_poses(
        key, particles.count, particles.preferred, particles.pose_error, particles.shift_error, spread
    )


@functools.partial(jax.jit, static_argnames="count")
def _sample_particle_poses(key, count, preferred, pose_error, shift_error, spread):
    rotation_key, error_key, shift_key, defocus_key, noise_key = jax.random.split(key, 5)
    rotation = sample_rotations(rotation_key, count, preferred)
    shift = jax.vmap(lambda particle_key: jax.random.normal(particle_key, (2,)))(particle_keys(shift_key, count))
    uniform = jax.vmap(jax.random.uniform)(particle_keys(defocus_key, count))
    return ParticlePoses(
        rotation=rotation,
        assigned=_product(sample_pose_errors(error_key, count, pose_error), rotation),
        shift=shift_error * shift,
        defocus=spread[0] + (spread[1] - spread[0]) * uniform,
        key=particle_keys(noise_key, count),
        counts=jnp.ones(count, jnp.float32),
    )


@functools.partial(jax.jit, static_argnames="count")
def sample_rotations(key: jax.Array, count: int, concentration: float | jax.Array = 0.0) -> jax.Array:
    """Draw rotations, uniform over SO(3) or with views concentrated around the density's z axis.

    The direction of view, the unit vector of the density that is rotated onto the z axis of the image, follows the
    von Mises-Fisher distribution: its density is proportional to `exp(concentration cos θ)`, with `θ` its angle to
    the density's z axis (Ulrich 1984, whose sampling is exact in three dimensions). The rotation in the plane of
    the image is uniform.

    Args:
        key: random key of JAX. Rotation `i` depends on the key and `i` alone, not on the count.
        count: number of rotations.
        concentration: 0 for no preference; at 5, half of the views lie within 31 degrees of the axis.

    Returns:
        `(count, 3, 3)`.
    """
    uniform = jax.vmap(lambda particle_key: jax.random.uniform(particle_key, (3,)))(particle_keys(key, count))
    azimuth, in_plane = 2 * jnp.pi * uniform[:, 0], 2 * jnp.pi * uniform[:, 1]
    u = uniform[:, 2]
    safe = jnp.where(concentration == 0, 1.0, concentration)
    concentrated = 1 + jnp.log1p((1 - u) * jnp.expm1(-2 * safe)) / safe
    cosine = jnp.clip(jnp.where(concentration == 0, 2 * u - 1, concentrated), -1, 1)
    tilt = jnp.arccos(cosine)
    return _product(_rotation_about_z(in_plane), _rotation_about_y(tilt), _rotation_about_z(azimuth))


@functools.partial(jax.jit, static_argnames="count")
def sample_pose_errors(key: jax.Array, count: int, degrees: float | jax.Array) -> jax.Array:
    """Draw small rotations, which multiply from the left those that they perturb.

    Their rotation vectors have independent Gaussian components about z, y and x.

    Args:
        key: random key of JAX; error `i` depends on it and `i` alone.
        count: number of rotations.
        degrees: standard deviation of each of the three components. The angle between a direction and where it
            is taken to be is then `sqrt(2)` of this, root mean square.

    Returns:
        `(count, 3, 3)`.
    """
    vectors = jax.vmap(lambda particle_key: jax.random.normal(particle_key, (3,)))(particle_keys(key, count))
    return rotations_of_vectors(jnp.deg2rad(degrees) * vectors)


def rotations_of_vectors(vectors: jax.Array) -> jax.Array:
    """Return right-handed rotations about axes, by Rodrigues' formula `1 + sin(a) K + (1 - cos(a)) K²`.

    Args:
        vectors: `(count, 3)`, `(z, y, x)`; direction the axis, length the angle in radians.

    Returns:
        `(count, 3, 3)`, acting on `(z, y, x)`.
    """
    z, y, x = vectors.T
    zero = jnp.zeros_like(z)
    # The matrix of the cross product, in (z, y, x).
    cross = jnp.stack([zero, x, -y, -x, zero, z, y, -z, zero], -1).reshape(-1, 3, 3)
    angle = jnp.sqrt(jnp.sum(jnp.square(vectors), -1))[:, None, None]
    # sinc keeps both quotients finite at an angle of zero.
    first = jnp.sinc(angle / jnp.pi)
    second = 0.5 * jnp.square(jnp.sinc(angle / (2 * jnp.pi)))
    return jnp.eye(3)[None] + first * cross + second * _product(cross, cross)


@functools.lru_cache(maxsize=8)
def image_frequencies(side: int) -> np.ndarray:
    """Return the frequencies of an image: one of each Friedel pair within the Nyquist circle, the mean first.

    Returns:
        `(frequencies, 2)`, float32 integers `(y, x)`, in units of 1 / (side * voxel size).
    """
    y, x = np.meshgrid(np.fft.fftfreq(side, 1 / side), np.arange(side // 2 + 1), indexing="ij")
    kept = (y**2 + x**2 < (side / 2) ** 2) & ((x > 0) | (y >= 0))
    return np.stack([y[kept], x[kept]], -1).astype(np.float32)


def slice_points(rotations, side):
    """Locate the frequencies of rotated images in the spectrum of a density, oversampled twice.

    Args:
        rotations: `(images, 3, 3)`.
        side: of the images in voxels.

    Returns:
        `(images * frequencies, 3)`, `(z, y, x)` in points of the oversampled grid, all with `x >= 0`, and whether each
        is that of the Friedel mate, `(images * frequencies,)`.
    """
    k = 2 * image_frequencies(side)
    points = jnp.einsum("fj,ijk->ifk", k, rotations[:, 1:], precision="highest").reshape(-1, 3)
    flipped = points[:, 2] < 0
    return jnp.where(flipped[:, None], -points, points), flipped


def image_ctf(
    poses: ParticlePoses, side: int, voxel_size: float | jax.Array, optics: CtfParameters | None
) -> jax.Array:
    """Return the contrast transfer function of every image at `image_frequencies`, `(images, frequencies)`.

    Args:
        poses: `(images, ...)`.
        side: of the images in voxels.
        voxel_size: Å.
        optics: None for a constant 1.
    """
    radius = np.hypot(*image_frequencies(side).T)
    if optics is None:
        return jnp.ones((len(poses.defocus), len(radius)))
    frequency = (radius / side).astype(np.float32)[None] / voxel_size
    return contrast_transfer(frequency, poses.defocus[:, None], optics)


def shift_phases(shift: jax.Array, side: int, voxel_size: float | jax.Array) -> jax.Array:
    """Return the factors that shift images, at `image_frequencies`, `(images, frequencies)`, complex64.

    Args:
        shift: `(images, 2)`, `(y, x)` in Å.
        side: of the images in voxels.
        voxel_size: Å.
    """
    k = image_frequencies(side)[None]
    angle = (-2 * jnp.pi / side / voxel_size) * (shift[:, :1] * k[..., 0] + shift[:, 1:] * k[..., 1])
    return lax.complex(jnp.cos(angle), jnp.sin(angle))


@functools.partial(jax.jit, static_argnames="side")
def images_of_slices(slices: jax.Array, side: int) -> jax.Array:
    """Return the images whose Fourier transforms are central slices, such as `reconstruction.project` gives.

    Args:
        slices: `(images, frequencies)`, complex, at `image_frequencies`, with the origin at pixel `side / 2`.
        side: pixels.

    Returns:
        `(images, side, side)`, float32; nothing is beyond the Nyquist circle.
    """
    y, x = image_frequencies(side).astype(int).T
    spectrum = jnp.zeros((len(slices), side, side // 2 + 1), jnp.complex64)
    spectrum = spectrum.at[:, y % side, x].set(slices)
    on_axis = (x == 0) & (y > 0)  # whose Friedel mates are in the half-spectrum too
    spectrum = spectrum.at[:, -y[on_axis] % side, 0].set(jnp.conj(slices[:, on_axis]))
    return jnp.fft.fftshift(jnp.fft.irfft2(spectrum, s=(side, side)), axes=(1, 2))


def white_noise(key: jax.Array, side: int) -> jax.Array:
    """Draw the Fourier transform, at `image_frequencies`, of white noise with standard deviation 1 in every pixel.

    Its values are independent complex Gaussians; the first, at frequency 0, is real.

    Returns:
        `(frequencies,)`, complex64.
    """
    parts = jax.random.normal(key, (2, len(image_frequencies(side)))) * (side / np.sqrt(2))
    mean = lax.complex(np.float32(np.sqrt(2)) * parts[0, :1], jnp.zeros(1))
    return jnp.concatenate([mean, lax.complex(parts[0, 1:], parts[1, 1:])])


def split_into_batches(poses: ParticlePoses, batch: int) -> list[ParticlePoses]:
    """Return the poses in batches of one size, the last padded with copies of the first pose that count 0."""
    count = len(poses.counts)
    order = np.arange(-(-count // batch) * batch)
    real = order < count
    padded = jax.tree.map(lambda array: array[np.where(real, order, 0)], poses)
    padded = padded._replace(counts=jnp.asarray(real, jnp.float32))
    return [jax.tree.map(lambda array, at=at: array[at : at + batch], padded) for at in range(0, len(order), batch)]


def particle_keys(key: jax.Array, count: int) -> jax.Array:
    """Return a random key for each particle, the same for particle `i` whatever the count."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(count))


def _rotation_about_z(angle):
    zero = jnp.zeros_like(angle)
    return rotations_of_vectors(jnp.stack([angle, zero, zero], -1))


def _rotation_about_y(angle):
    zero = jnp.zeros_like(angle)
    return rotations_of_vectors(jnp.stack([zero, angle, zero], -1))


def _product(*matrices):
    """Return the matrix product, in full float32 on a GPU too."""
    return functools.reduce(functools.partial(jnp.matmul, precision="highest"), matrices)
