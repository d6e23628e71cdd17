"""Formation of an image: projection, phase, contrast transfer, detector, and electrons.

The specimen is a weak phase object. An electron that passes through it is advanced by the phase `gamma lambda P`, with
the projected scattering length density `P` (1/Å, the sum of `crefjax.simulate.density.density` times the pixel size
along z), the wavelength `lambda`, and the relativistic factor of the mass `gamma`; with `P` times 47.88 V Å² for the
projected potential, this is the usual interaction constant (Kirkland 2010, equation 5.6). The intensity relative to the
ice around the particle is

    I = 1 - b,    b = 2 F^-1[CTF exp(-B g² / 4) F[phase]],

with the CTF of `crefjax.simulate.imaging`, which is positive at low frequencies. A detector that counts single
electrons records each at a random distance from where it arrived, so the expected counts are the intensity under the
MTF, and the counts themselves are Poisson: noise is white, and the DQE falls as `MTF²`.

All images of this module are `(..., y, x)`; spectra are those of `rfft2`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from crefjax.simulate.imaging import CtfParameters, astigmatic_defocus, contrast_transfer, electron_wavelength

_REST_ENERGY = 510.99895  # keV, of an electron


def phase_per_density(voltage: float) -> float:
    """Return the phase in radians of a projected scattering length density of 1/Å, `gamma lambda`.

    Args:
        voltage: kV.
    """
    return float((1 + voltage / _REST_ENERGY) * electron_wavelength(voltage))


@functools.lru_cache(maxsize=8)
def polar_frequencies(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return radius and angle of every frequency of `rfft2`, `(y, x // 2 + 1)`, float32.

    Args:
        shape: `(y, x)` of the image, pixels.

    Returns:
        the radius in cycles per pixel, 0.5 at Nyquist; and the angle from the x axis towards y, radians.
    """
    y, x = np.meshgrid(np.fft.fftfreq(shape[0]), np.fft.rfftfreq(shape[1]), indexing="ij")
    return np.hypot(y, x).astype(np.float32), np.arctan2(y, x).astype(np.float32)


@functools.partial(jax.jit, static_argnames=("shape", "optics"))
def image_transfer(
    shape: tuple[int, int],
    pixel_size: float | jax.Array,
    defocus: jax.Array,
    optics: CtfParameters,
    b_factor: float | jax.Array = 0.0,
) -> jax.Array:
    """Return the CTF with its envelope, `CTF exp(-B g² / 4)`, at the frequencies of `rfft2`.

    Args:
        shape: `(y, x)` of the images, pixels.
        pixel_size: Å.
        defocus: `(..., 3)`: Å along the azimuth, Å across it, and the azimuth in degrees, as in STAR files.
        optics: its defocus bounds are not used.
        b_factor: Å², of the envelope.

    Returns:
        `(..., y, x // 2 + 1)`.
    """
    radius, angle = (
        jnp.asarray(part).reshape((1,) * (jnp.ndim(defocus) - 1) + part.shape) for part in polar_frequencies(shape)
    )
    u, v, azimuth = (jnp.asarray(defocus)[..., i, None, None] for i in range(3))
    frequency = radius / pixel_size
    here = astigmatic_defocus(angle, u, v, jnp.deg2rad(azimuth))
    return contrast_transfer(frequency, here, optics) * jnp.exp(-0.25 * b_factor * jnp.square(frequency))


@jax.jit
def contrast(phase: jax.Array, transfer: jax.Array) -> jax.Array:
    """Return the contrast `b` of images: the intensity that is missing, relative to the surrounding ice.

    Args:
        phase: `(..., y, x)`, radians.
        transfer: `(..., y, x // 2 + 1)`, from `image_transfer`.
    """
    return 2 * jnp.fft.irfft2(jnp.fft.rfft2(phase) * transfer, s=phase.shape[-2:])


@jax.jit
def detected(intensity: jax.Array, mtf_at_nyquist: float | jax.Array) -> jax.Array:
    """Return images under the detector's modulation transfer function, `mtf_at_nyquist ** w²` at `w` of Nyquist.

    Args:
        intensity: `(..., y, x)`.
        mtf_at_nyquist: above 0, at most 1.
    """
    radius, _ = polar_frequencies(intensity.shape[-2:])
    mtf = jnp.power(mtf_at_nyquist, jnp.asarray(np.square(2 * radius)))
    return jnp.fft.irfft2(
        jnp.fft.rfft2(intensity) * mtf.reshape((1,) * (intensity.ndim - 2) + mtf.shape), s=intensity.shape[-2:]
    )


def half_exposures(
    expected: np.ndarray, electrons: float, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the counts of two half-exposures, each over its mean number of electrons.

    Their mean is the whole exposure. Counts are drawn by NumPy, so that they are the same on every machine.

    Args:
        expected: `(..., y, x)`, intensity at the detector, around 1; below 0 counts as 0.
        electrons: counted in a pixel of intensity 1 in both halves together.
        random: generator that is advanced.

    Returns:
        the even and the odd half, float32.
    """
    mean = np.maximum(expected, 0).astype(np.float64) * (electrons / 2)
    even, odd = (random.poisson(mean).astype(np.float32) for _ in range(2))
    return even / np.float32(electrons / 2), odd / np.float32(electrons / 2)
