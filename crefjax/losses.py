"""The training losses: how far denoised maps are from what the half-maps, or a truth, say they should be.

Their arguments, all `(..., z, y, x)` with any leading batch dimensions, masked by the caller, with a longest side of
at least 4 voxels (`N`), in float32 or cast to it (bfloat16, say):

- `half_map_1`, `half_map_2`: half-maps, alike but for independent noise;
- `denoised`: the network's output for the full map, which is the mean of the two;
- `denoised_1`, `denoised_2`: its outputs for each half-map alone;
- `truth`: the noise-free map, where it is known;
- `mask`: 0 to 1, around what there is of signal, where the maps are not masked themselves;
- `shells`: of the box; None makes them here.

A loss returns `(loss, aux)`: the loss has the leading dimensions, one value a sample, and aux is a dict of arrays that
its docstring names; those over shells are `(..., N // 2 + 1)`, from shell 0 to Nyquist. Means over shells run over
shells 1 to `N // 2 - 1`. Maps whose shapes differ, and shells of another box where a
loss has shells, raise ValueError.

A loss is known by its name in `LOSSES`, into which `@_named` puts it; `weighted` adds losses up. Under `jax.jit` a map
that several losses look at is transformed once.
"""

import math
import numbers
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from crefjax.errors import UserError
from crefjax.spectral.fsc import c_ref, fsc_of_spectra, real_product, unit_scale
from crefjax.spectral.shells import Shells, box_shells, half_spectrum, shell_sums, shell_voxels

LossAndAux = tuple[Array, dict[str, Array]]

_LEAST_SHARE = 1e-3
_LEAST_POWER = 0.1
_OF_FULL = ("denoised", "half_map_1", "half_map_2")
_OF_HALVES = ("denoised_1", "denoised_2", "half_map_1", "half_map_2")
# What a loss needs besides half-maps, by an argument of it.
_NEEDS = {"denoised": "full", "denoised_1": "halves", "truth": "truth", "mask": "mask"}
_functions: dict[str, tuple[Callable[..., LossAndAux], tuple[str, ...]]] = {}


def _named(name: str, *arguments: str):
    """A decorator that makes a loss known by a name, with the maps that it takes in their order."""

    def register(function):
        _functions[name] = function, arguments
        return function

    return register


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


def _within(one, mask):
    """A map less its solvent level, times a mask.

    The level is the mean outside the mask, as in `crefjax.spectral.curves.solvent_level`; a patch with less than a
    thousandth of it outside has none, for its own mean is signal.
    """
    outside = 1 - mask
    count = jnp.sum(outside, (-3, -2, -1), keepdims=True)
    solvent = count >= 1e-3 * math.prod(mask.shape[-3:])
    mean = jnp.sum(one * outside, (-3, -2, -1), keepdims=True) / jnp.where(solvent, count, 1)
    return (one - jnp.where(solvent, mean, 0)) * mask


def shell_mean(curve):
    """Mean of `(..., shells)` over shells 1 to N / 2 - 1."""
    return jnp.mean(curve[..., 1:-1], axis=-1)


@_named("cref_l1", *_OF_FULL)
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


@_named("cref_l1_masked", *_OF_FULL, "mask")
def cref_l1_masked(
    denoised: Array, half_map_1: Array, half_map_2: Array, mask: Array, *, shells: Shells | None = None
) -> LossAndAux:
    """`cref_l1` within a mask: a network that saw the solvent is to follow C_ref within the mask too.

    `cref_l1` in the whole box can be met by what is left of the noise in the solvent alone. Each map is taken less its
    solvent level before it is masked, so that no level is correlated as a body in the mask's shape. Aux as there.
    """
    (*maps, window), shells = checked(shells, denoised, half_map_1, half_map_2, mask)
    return cref_l1(*(_within(one, window) for one in maps), shells=shells)


@_named("gain_l1", *_OF_FULL)
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


@_named("fsc", *_OF_HALVES)
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


@_named("n2n_l2", *_OF_HALVES)
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


@_named("n2n_l1", *_OF_HALVES)
def n2n_l1(
    denoised_1: Array, denoised_2: Array, half_map_1: Array, half_map_2: Array, *, shells: Shells | None = None
) -> LossAndAux:
    """Mean absolute difference of each denoised half-map to the other half-map; else as `n2n_l2`.

    Its expectation is least at the median of what the other half-map can be. Units of the maps.
    """
    return _noise2noise(jnp.abs, denoised_1, denoised_2, half_map_1, half_map_2, shells)


@_named("bias", *_OF_HALVES)
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


@_named("truth_fsc", "denoised", "truth")
def truth_fsc(denoised: Array, truth: Array, *, shells: Shells | None = None) -> LossAndAux:
    """`1 - mean over shells of FSC(denoised, truth)`, where the noise-free map is known: for simulated maps.

    In [0, 2]: 0 for the truth in any scale of any shell, 2 for its negative.

    Returns:
        the loss, and aux with `fsc`, per shell.
    """
    maps, shells = checked(shells, denoised, truth)
    curve = fsc_of_spectra(*(spectrum(one).values for one in maps), shells)
    return 1 - shell_mean(curve), {"fsc": curve}


@_named("truth_fsc_masked", "denoised", "truth", "mask")
def truth_fsc_masked(denoised: Array, truth: Array, mask: Array, *, shells: Shells | None = None) -> LossAndAux:
    """`truth_fsc` of the denoised map within a mask, and the masked truth: what is in the solvent is left out.

    As `truth_fsc` of a map that was not masked is lowered by emptying the solvent too. The denoised map is taken less
    its solvent level before it is masked. Aux as there.
    """
    (one, true, window), shells = checked(shells, denoised, truth, mask)
    return truth_fsc(_within(one, window), true, shells=shells)


@_named("truth_l2", "denoised", "truth")
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


LOSSES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {name: tuple(_NEEDS[one] for one in arguments if one in _NEEDS) for name, (_, arguments) in _functions.items()}
)
"""The losses by name, and what each needs besides half-maps: `full`, the denoised full map; `halves`, the denoised
half-maps; `truth`, the noise-free map; `mask`, a mask."""


def needs(weights: Mapping[str, float]) -> frozenset[str]:
    """What the losses of positive weight need, a subset of `full`, `halves`, `truth` and `mask` (see `LOSSES`).

    Raises:
        UserError: as `weighted`.
    """
    return frozenset(need for name in _positive(weights) for need in LOSSES[name])


def weighted(
    weights: Mapping[str, float],
    *,
    half_map_1: Array,
    half_map_2: Array,
    denoised: Array | None = None,
    denoised_1: Array | None = None,
    denoised_2: Array | None = None,
    truth: Array | None = None,
    mask: Array | None = None,
    shells: Shells | None = None,
) -> LossAndAux:
    """The sum of losses times their weights.

    Args:
        weights: factors by names of `LOSSES`, Python numbers; a loss of weight 0 is not computed.
        half_map_1: always.
        half_map_2: always.
        denoised: for losses that need `full`.
        denoised_1: for losses that need `halves`.
        denoised_2: for losses that need `halves`.
        truth: for losses that need `truth`.
        mask: for losses that need `mask`.
        shells: of the box.

    Returns:
        the sum, one value a sample, and aux with every loss computed, by name, without its weight.

    Raises:
        UserError: a name that is not in `LOSSES`, a weight that is no number of 0 or more, or none above 0.
        ValueError: a map that a loss needs is None; maps of different shapes; shells of another box.
    """
    maps = {
        "half_map_1": half_map_1,
        "half_map_2": half_map_2,
        "denoised": denoised,
        "denoised_1": denoised_1,
        "denoised_2": denoised_2,
        "truth": truth,
        "mask": mask,
    }
    factors = _positive(weights)
    aux = {}
    for name in factors:
        function, arguments = _functions[name]
        if missing := [one for one in arguments if maps[one] is None]:
            raise ValueError(f"the loss {name} needs {' and '.join(missing)}, found None")
        aux[name], _ = function(*(maps[one] for one in arguments), shells=shells)
    return sum(factor * aux[name] for name, factor in factors.items()), aux


def _positive(weights):
    """Names and factors of the losses to compute, in the order of `LOSSES`."""
    names = ", ".join(LOSSES)
    for name, weight in weights.items():
        if name not in LOSSES:
            raise UserError(f"losses.{name}: expected one of {names}, found {name}; correct the name or remove it")
        if not isinstance(weight, numbers.Real) or not 0 <= weight < math.inf:
            raise UserError(f"losses.{name}: expected a number of 0 or more, found {weight!r}; 0 leaves it out")
    found = {name: float(weights[name]) for name in LOSSES if name in weights and weights[name] > 0}
    if not found:
        raise UserError(f"losses.NAME: expected a weight above 0, found none; give one of {names} a weight, 1 say")
    return found
