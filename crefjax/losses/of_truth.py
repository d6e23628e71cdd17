"""Losses that need the truth, which simulated half-maps have."""

import jax.numpy as jnp
from jax import Array

from crefjax.losses.common import LossAndAux, checked, shell_mean, spectrum
from crefjax.spectral.fsc import fsc_of_spectra
from crefjax.spectral.shells import Shells

_LEAST_POWER = 0.1


def truth_fsc(denoised: Array, truth: Array, *, shells: Shells | None = None) -> LossAndAux:
    """`1 - mean over shells of FSC(denoised, truth)`, where the noise-free map is known: for simulated maps.

    In [0, 2]: 0 for the truth in any scale of any shell, 2 for its negative.

    Returns:
        the loss, and aux with `fsc`, per shell.
    """
    maps, shells = checked(shells, denoised, truth)
    curve = fsc_of_spectra(*(spectrum(one).values for one in maps), shells)
    return 1 - shell_mean(curve), {"fsc": curve}


def truth_fsc_masked(denoised: Array, truth: Array, mask: Array, *, shells: Shells | None = None) -> LossAndAux:
    """`truth_fsc` of the denoised map times a mask, and the truth, which is masked: what is in the solvent is left out.

    As `truth_fsc` of a map that was not masked is lowered by emptying the solvent too. Aux as there.
    """
    (one, true, window), shells = checked(shells, denoised, truth, mask)
    return truth_fsc(one * window, true, shells=shells)


def truth_l2(denoised: Array, truth: Array, *, shells: Shells | None = None) -> LossAndAux:
    """Squared error of the denoised map over the power of the truth, where the noise-free map is known.

    `mean |denoised - truth|² / (mean |truth|² + 0.1)`: 0.1 of the power of a standardized map keeps patches of solvent
    from counting for more than all others. Unlike the FSC it weighs shells by their power and has a scale: it holds the
    lowest frequencies, of which a patch has few shells, and keeps the solvent empty. No shells are looked at; the
    argument is there so that all losses are called alike.

    Returns:
        the loss, and aux with `power`, of the truth, shaped as the loss.
    """
    (one, true), _ = checked(shells, denoised, truth)
    power = jnp.mean(jnp.square(true), axis=(-3, -2, -1))
    return jnp.mean(jnp.square(one - true), axis=(-3, -2, -1)) / (power + _LEAST_POWER), {"power": power}
