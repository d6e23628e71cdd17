"""Losses that need half-maps alone."""

import jax
import jax.numpy as jnp
from jax import Array

from crefjax.losses.common import (
    LossAndAux,
    checked,
    cross,
    fsc_and_cref,
    shell_mean,
    spectrum,
    sum_of,
    voxels_of,
)
from crefjax.spectral.fsc import fsc_of_spectra, real_product
from crefjax.spectral.shells import Shells, shell_sums

_LEAST_SHARE = 1e-3


def cref_l1(denoised: Array, half_map_1: Array, half_map_2: Array, *, shells: Shells | None = None) -> LossAndAux:
    """How far the denoised map's correlation with the full map is from the one that the half-maps predict.

    Mean over shells of `|C_ref - FSC(denoised, full)|`, `full` being the mean of the half-maps (Agarwal et al. 2024).
    C_ref is a target: it carries no gradient. The FSC is signed, so that inverted contrast is not taken for good. The
    scale of the denoised map does not matter.

    Returns:
        the loss, and aux with `fsc`, of denoised and full map, and `cref`, per shell.
    """
    maps, shells = checked(shells, denoised, half_map_1, half_map_2)
    curve, target = fsc_and_cref(*maps, shells)
    target = jax.lax.stop_gradient(target)
    return shell_mean(jnp.abs(target - curve)), {"fsc": curve, "cref": target}


def cref_l1_masked(
    denoised: Array, half_map_1: Array, half_map_2: Array, mask: Array, *, shells: Shells | None = None
) -> LossAndAux:
    """`cref_l1` of the maps times a mask: a network that saw the solvent is to follow C_ref within the mask too.

    `cref_l1` in the whole box can be met by what is left of the noise in the solvent alone. Aux as there.
    """
    (*maps, window), shells = checked(shells, denoised, half_map_1, half_map_2, mask)
    return cref_l1(*(one * window for one in maps), shells=shells)


def gain_l1(denoised: Array, half_map_1: Array, half_map_2: Array, *, shells: Shells | None = None) -> LossAndAux:
    """How far the denoised map's scale is from the signal's, shell by shell: what `cref_l1` leaves free.

    `cov(S, full) = cov(M1, M2)` in expectation, noise being independent of the signal and of the other half-map's.
    The loss is the mean over shells 0 to N / 2 - 1 of `|cov(denoised, full) - cov(M1, M2)| / cov(full, full)`, the
    distance of the denoised map's regression on the full map from the Wiener filter's factor, C_ref². With
    `_LEAST_SHARE` of the mean over shells added to the denominator, so that shells that a filter has emptied count
    little. Shell 0 is in it: what a patch has as its mean is a wave of low frequency in a whole map. Half-maps alone
    are needed. For the noise-free map this loss is scatter alone, and so is `cref_l1`; the Wiener filter has the scale
    but correlates too well with the full map.

    Returns:
        the loss, and aux with `gain` and `target`, the two factors on the full map, per shell.
    """
    maps, shells = checked(shells, denoised, half_map_1, half_map_2)
    d, m1, m2 = (spectrum(one) for one in maps)
    full, larger = sum_of(m1, m2)
    scale_1, scale_2, scale = ((one.scale / larger)[..., 0, 0] for one in (m1, m2, d))
    power = shell_sums(real_product(full, full), shells) / 4  # of the mean of the half-maps
    voxels = voxels_of(shells, power.ndim)
    least = _LEAST_SHARE * jnp.mean(power / voxels, axis=-1, keepdims=True) * voxels
    usable = power + least > 0
    per_power = jnp.where(usable, 1 / jnp.where(usable, power + least, 1), 0)
    gain = scale * shell_sums(real_product(d.values, full), shells) / 2 * per_power
    target = scale_1 * scale_2 * cross(m1, m2, shells) * per_power
    return jnp.mean(jnp.abs(gain - target)[..., :-1], axis=-1), {"gain": gain, "target": target}


def fsc_loss(
    denoised_1: Array, denoised_2: Array, half_map_1: Array, half_map_2: Array, *, shells: Shells | None = None
) -> LossAndAux:
    """One minus the FSC of each denoised half-map with the other half-map, whose noise the network has not seen.

    `1 - mean over shells of (FSC(denoised_1, half_map_2) + FSC(denoised_2, half_map_1)) / 2`; `fsc` by name. In [0, 2].
    The scale of the denoised maps does not matter, in no shell.

    Returns:
        the loss, and aux with `fsc`, the mean of the two curves per shell.
    """
    maps, shells = checked(shells, denoised_1, denoised_2, half_map_1, half_map_2)
    d1, d2, m1, m2 = (spectrum(one).values for one in maps)
    curve = (fsc_of_spectra(d1, m2, shells) + fsc_of_spectra(d2, m1, shells)) / 2
    return 1 - shell_mean(curve), {"fsc": curve}


def n2n_l2(
    denoised_1: Array, denoised_2: Array, half_map_1: Array, half_map_2: Array, *, shells: Shells | None = None
) -> LossAndAux:
    """Mean squared difference of each denoised half-map to the other half-map, the mean of both directions.

    Noise2Noise (Lehtinen et al. 2018): up to a constant, the variance of the noise, its expectation is the mean
    squared difference to the noise-free map. Units of the maps, squared. No shells are looked at; the argument is
    there so that all losses are called alike.

    Returns:
        the loss, and aux with `loss_1` and `loss_2`, those of denoised_1 and denoised_2, shaped as the loss.
    """
    return _noise2noise(jnp.square, denoised_1, denoised_2, half_map_1, half_map_2, shells)


def n2n_l1(
    denoised_1: Array, denoised_2: Array, half_map_1: Array, half_map_2: Array, *, shells: Shells | None = None
) -> LossAndAux:
    """Mean absolute difference of each denoised half-map to the other half-map; else as `n2n_l2`.

    Its expectation is least at the median of what the other half-map can be. Units of the maps.
    """
    return _noise2noise(jnp.abs, denoised_1, denoised_2, half_map_1, half_map_2, shells)


def bias(
    denoised_1: Array, denoised_2: Array, half_map_1: Array, half_map_2: Array, *, shells: Shells | None = None
) -> LossAndAux:
    """The variance of the bias that the network puts into the maps, as a share of each shell's power.

    With `cov` the mean over a shell of `Re F1 conj(F2)` (Palovcak et al. 2020; Agarwal et al. 2024),
    `var(B) = cov(D1,D2) + sqrt(cov(M1,M1) cov(M2,M2)) - 2 cov(M1,D2) - var(N)`,
    `var(N) = sqrt(cov(M1,M1) cov(M2,M2)) - cov(M1,M2)`,
    hence `var(B) = cov(D1,D2) - cov(M1,D2) - cov(M2,D1) + cov(M1,M2)`, the cross term being the mean of its two
    forms. The loss is the mean over shells of `var(B) / sqrt(cov(M1,M1) cov(M2,M2))`, 0 in a shell without power.

    With `M = S + N`, independent noise, and `D1` made of M1 alone, `D2` of M2 alone, its expectation is the mean of
    `|E[D|S] - S|²` over that of the power, never negative. One sample scatters about it, to both sides; it is not
    clipped at 0, which would reward scatter. (A network that has learnt the noise of its half-maps by heart is outside
    this, and can go below.) No network at all (D = M, loss 0) and the truth are both free of bias: this loss says
    nothing about noise and is to be added to one that does. Unlike the FSC it depends on the scale of the output, and
    so teaches the network the scale of the signal. A blurred signal counts as biased.

    Returns:
        the loss, and aux with `var_bias` and `var_signal = cov(M1,M2)`, per shell, in squared units of the maps'
        unnormalized Fourier transforms.
    """
    maps, shells = checked(shells, denoised_1, denoised_2, half_map_1, half_map_2)
    d1, d2, m1, m2 = (spectrum(one) for one in maps)
    # Every spectrum is of unit scale. Divided by the scales of M1 and M2, only these two quotients are left of them.
    gain_1, gain_2 = ((d.scale / m.scale)[..., 0, 0] for d, m in ((d1, m1), (d2, m2)))
    signal = cross(m1, m2, shells)
    sums = gain_1 * gain_2 * cross(d1, d2, shells)
    sums = sums - gain_2 * cross(m1, d2, shells) - gain_1 * cross(m2, d1, shells) + signal
    power_1, power_2 = cross(m1, m1, shells), cross(m2, m2, shells)
    usable = (power_1 > 0) & (power_2 > 0)
    amplitude = jnp.sqrt(jnp.where(usable, power_1, 1)) * jnp.sqrt(jnp.where(usable, power_2, 1))
    loss = shell_mean(jnp.where(usable, sums / amplitude, 0))
    aux = {
        name: one / voxels_of(shells, one.ndim) * m1.scale[..., 0, 0] * m2.scale[..., 0, 0]
        for name, one in (("var_bias", sums), ("var_signal", signal))
    }
    return loss, aux


def cref_rmse(denoised: Array, half_map_1: Array, half_map_2: Array, *, shells: Shells | None = None) -> Array:
    """Root mean square over shells of `FSC(denoised, full)² - C_ref²`: a metric, no loss.

    The square keeps the sign of the FSC, `FSC |FSC|`, so that inverted contrast is not taken for good.

    Returns:
        one value a sample.
    """
    maps, shells = checked(shells, denoised, half_map_1, half_map_2)
    curve, target = fsc_and_cref(*maps, shells)
    return jnp.sqrt(shell_mean(jnp.square(curve * jnp.abs(curve) - jnp.square(target))))


def _noise2noise(distance, denoised_1, denoised_2, half_map_1, half_map_2, shells):
    (d1, d2, m1, m2), _ = checked(shells, denoised_1, denoised_2, half_map_1, half_map_2)
    loss_1, loss_2 = (jnp.mean(distance(one - other), axis=(-3, -2, -1)) for one, other in ((d1, m2), (d2, m1)))
    return (loss_1 + loss_2) / 2, {"loss_1": loss_1, "loss_2": loss_2}
