"""What all losses are made of: maps of one shape, their spectra and their sums over shells."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from crefjax.spectral.fsc import c_ref, fsc_of_spectra, real_product, unit_scale
from crefjax.spectral.shells import box_shells, half_spectrum, shell_sums, shell_voxels

LossAndAux = tuple[Array, dict[str, Array]]


class Spectrum(NamedTuple):
    """Half-spectrum of a map divided by its scale, and the scale `(..., 1, 1, 1)`."""

    values: Array
    scale: Array


def checked(shells, *maps):
    """The maps in float32 or more, once they are known to be of one shape, and the shells of their box."""
    shape = maps[0].shape
    if any(one.shape != shape for one in maps):
        raise ValueError(f"maps of one shape are compared, found {' and '.join(str(one.shape) for one in maps)}")
    if len(shape) < 3 or max(shape[-3:]) < 4:
        raise ValueError(f"expected maps (..., z, y, x) with a longest side of at least 4 voxels, found {shape}")
    return [one.astype(jnp.promote_types(one.dtype, jnp.float32)) for one in maps], shells or box_shells(shape[-3:])


def spectrum(one):
    """Of a map divided by its scale, so that no power of it leaves float32's range."""
    scaled, scale = unit_scale(one)
    return Spectrum(half_spectrum(scaled), scale)


def cross(one, two, shells):
    """Sums over shells of the real product of two spectra."""
    return shell_sums(real_product(one.values, two.values), shells)


def fsc_and_cref(denoised, half_map_1, half_map_2, shells):
    """FSC of the denoised with the full map, and C_ref; the full map's spectrum is made of those of the half-maps."""
    m1, m2 = spectrum(half_map_1), spectrum(half_map_2)
    full, _ = sum_of(m1, m2)
    curve = fsc_of_spectra(spectrum(denoised).values, full, shells)
    return curve, c_ref(fsc_of_spectra(m1.values, m2.values, shells))


def sum_of(m1, m2):
    """Spectrum of the sum of two maps, over the larger of their scales, and that scale."""
    larger = jnp.maximum(m1.scale, m2.scale)
    return m1.values * (m1.scale / larger) + m2.values * (m2.scale / larger), larger


def voxels_of(shells, dimensions):
    """Voxels of every shell, 1 where there is none, for shell sums of so many dimensions."""
    return jnp.maximum(shell_voxels(shells), 1).reshape((1,) * (dimensions - 1) + (-1,))


def shell_mean(curve):
    """Mean of `(..., shells)` over shells 1 to N / 2 - 1."""
    return jnp.mean(curve[..., 1:-1], axis=-1)
