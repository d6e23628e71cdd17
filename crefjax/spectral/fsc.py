"""The Fourier shell correlation and C_ref, in JAX; `crefjax.spectral.curves` has a NumPy version."""

import jax
import jax.numpy as jnp
import numpy as np

from crefjax.spectral.curves import FscCurve, solvent_level
from crefjax.spectral.shells import Shells, box_shells, half_spectrum, shell_sums


def fsc(map_1: jax.Array, map_2: jax.Array, shells: Shells | None = None) -> jax.Array:
    """Return the Fourier shell correlation of two maps.

    `Re sum F1 conj(F2) / sqrt(sum |F1|² sum |F2|²)` in every shell: signed, a quotient of shell sums, 0 where the
    denominator is 0 (there its gradient is 0 too). The scale of either map does not matter. Rosenthal & Henderson
    2003; van Heel 1987.

    Args:
        map_1: `(..., z, y, x)`, masked as wanted.
        map_2: the same shape.
        shells: of the box; made here if None. Inside `jax.jit` on a large box pass them as an argument, or they
            become a constant of the compiled program.

    Returns:
        `(..., N // 2 + 1)` with `N` the longest side, from shell 0 to Nyquist.

    Raises:
        ValueError: if the shapes differ.
    """
    if map_1.shape != map_2.shape:
        raise ValueError(f"expected maps of one shape, found {map_1.shape} and {map_2.shape}")
    shells = shells or box_shells(map_1.shape[-3:])
    return fsc_of_spectra(*(half_spectrum(unit_scale(array)[0]) for array in (map_1, map_2)), shells)


def fsc_of_spectra(spectrum_1: jax.Array, spectrum_2: jax.Array, shells: Shells) -> jax.Array:
    """Return the Fourier shell correlation of two half-spectra `(..., z, y, x // 2 + 1)`; see `fsc`."""
    cross = shell_sums(real_product(spectrum_1, spectrum_2), shells)
    power_1 = shell_sums(real_product(spectrum_1, spectrum_1), shells)
    power_2 = shell_sums(real_product(spectrum_2, spectrum_2), shells)
    # Roots before the product: the product of two powers can leave float32's range.
    usable = (power_1 > 0) & (power_2 > 0)
    amplitude = jnp.sqrt(jnp.where(usable, power_1, 1)) * jnp.sqrt(jnp.where(usable, power_2, 1))
    return jnp.where(usable, cross / amplitude, 0)


def c_ref(fsc_half: jax.Array) -> jax.Array:
    """Return the expected FSC of the full map to the noise-free map: `sqrt(2 h / (1 + h))`, `h = max(FSC, 0)`.

    Rosenthal & Henderson 2003. Its gradient is 0 where the FSC is not positive.

    Args:
        fsc_half: FSC of the two half-maps, any shape.
    """
    positive = fsc_half > 0
    h = jnp.where(positive, fsc_half, 1)
    return jnp.where(positive, jnp.sqrt(2 * h / (1 + h)), 0)


def unit_scale(maps: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Scale maps to a mean square of about 1, so that their powers stay in float32's range.

    Args:
        maps: `(..., z, y, x)`.

    Returns:
        the maps divided by their scale, and the scale `(..., 1, 1, 1)`, about the root of their mean square; 1 for a
        map of zeros. The scale is a constant to gradients.
    """
    axes = (-3, -2, -1)
    largest = jnp.max(jnp.abs(maps), axis=axes, keepdims=True)
    largest = jax.lax.stop_gradient(jnp.where(largest > 0, largest, 1))
    scaled = maps / largest
    rms = jnp.sqrt(jnp.mean(jnp.square(scaled), axis=axes, keepdims=True))
    rms = jax.lax.stop_gradient(jnp.where(rms > 0, rms, 1))
    return scaled / rms, largest * rms


def real_product(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return `Re a conj(b)` of two half-spectra of one shape, voxel by voxel."""
    return a.real * b.real + a.imag * b.imag


def fsc_curve(
    map_1: np.ndarray, map_2: np.ndarray, voxel_size: float, mask: np.ndarray | None = None, *, leveled: bool = False
) -> FscCurve:
    """Return the FSC of two maps in host memory, under a mask, computed in float64.

    In float32 a Fourier transform rounds to about 1e-7 of the largest amplitudes; a map with a steep spectrum (a
    denoised or unsharpened map) has shells below that. Float64 costs twice the memory and has no such shells.

    A constant level common to both maps correlates in the shape of the mask, and a level of a single map hides their
    correlation: maps whose level is not 0 must be leveled.

    Args:
        map_1: `(z, y, x)`, float32.
        map_2: the same shape.
        voxel_size: Å.
        mask: the same shape, 0 to 1, multiplied to both; None for none.
        leveled: whether each map's solvent level, the mean outside the mask, is subtracted before it is masked.
    """
    box = tuple(map_1.shape)
    with jax.enable_x64(True):
        spectra = [
            _masked_spectrum(array, mask, solvent_level(array, mask) if leveled and mask is not None else 0.0)
            for array in (map_1, map_2)
        ]
        curve = np.asarray(_fsc_of_spectra(*spectra, box_shells(box)))
    return FscCurve(box, voxel_size, curve)


@jax.jit
def _masked_spectrum(array, mask, level):
    array = array.astype(jnp.float64) - level
    return half_spectrum(unit_scale(array if mask is None else array * mask)[0])


_fsc_of_spectra = jax.jit(fsc_of_spectra)
