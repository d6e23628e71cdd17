"""The training losses: how far denoised maps are from what the half-maps, or a truth, say they should be.

Their arguments, all `(..., z, y, x)` with any leading batch dimensions, masked by the caller, with a longest side of
at least 4 voxels (`N`), in float32 or cast to it (for example from bfloat16):

- `half_map_1`, `half_map_2`: half-maps, alike except for independent noise;
- `denoised`: the network's output for the full map, which is the mean of the two;
- `denoised_1`, `denoised_2`: its outputs for each half-map alone;
- `truth`: the noise-free map, if it is known;
- `mask`: 0 to 1, around the signal, if the maps are not masked themselves;
- `shells`: shells of the box; None computes them.

A loss returns `(loss, aux)`: the loss has the leading dimensions, one value for each sample, and aux is a dict of
arrays that its docstring names; those over shells are `(..., N // 2 + 1)`, from shell 0 to Nyquist. Means over shells
run over shells 1 to `N // 2 - 1`. Maps of different shapes, and shells of another box if a loss uses shells, raise
ValueError.

To add a loss, write it here under `@_register`, and add its name to the losses in `crefjax/training/config.py`, which
is read before JAX is loaded; the tests find it by its name.
`weighted` sums losses. Under `jax.jit` a map that several losses use is transformed once.
"""

import inspect
import math
import numbers
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from crefjax.errors import UserError
from crefjax.spectral.fsc import c_ref, fsc_of_spectra, over_amplitudes, real_product, unit_scale
from crefjax.spectral.shells import Shells, box_shells, half_spectrum, shell_sums, shell_voxels

LossAndAux = tuple[Array, dict[str, Array]]

_POWER_FLOOR_OF_SHELLS = 1e-3  # over the mean power of the shells
_POWER_FLOOR = 0.1  # over the power of a standardized map
# The need of a loss by one of its arguments; half-maps are always there.
_NEEDS = {"denoised": "full", "denoised_1": "halves", "truth": "truth", "mask": "mask"}


class Loss(NamedTuple):
    """A loss and the maps that it takes.

    Attributes:
        function: The loss, called with its maps and `shells`.
        arguments: Names of its maps in their order.
    """

    function: Callable[..., LossAndAux]
    arguments: tuple[str, ...]

    @property
    def needs(self) -> frozenset[str]:
        """What it needs besides the half-maps: `full` or `halves`, their denoised maps; `truth`; `mask`."""
        return frozenset(_NEEDS[name] for name in self.arguments if name in _NEEDS)


# The losses by name, in the order in which `weighted` sums them.
LOSSES: dict[str, Loss] = {}


def _register(name: str):
    """Return a decorator that puts a loss into `LOSSES`; its positional arguments are its maps."""

    def register(function):
        parameters = inspect.signature(function).parameters.values()
        arguments = tuple(each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD)
        LOSSES[name] = Loss(function, arguments)
        return function

    return register


class _Spectrum(NamedTuple):
    """Half-spectrum of a map divided by its scale, and the scale `(..., 1, 1, 1)`."""

    values: Array
    scale: Array


def _check(shells, *maps):
    """Return maps of one shape in float32 or more, and the shells of their box."""
    shape = maps[0].shape
    if any(array.shape != shape for array in maps):
        raise ValueError(f"expected maps of one shape, found {' and '.join(str(array.shape) for array in maps)}")
    if len(shape) < 3 or max(shape[-3:]) < 4:
        raise ValueError(f"expected maps (..., z, y, x) with a longest side of at least 4 voxels, found {shape}")
    maps = [array.astype(jnp.promote_types(array.dtype, jnp.float32)) for array in maps]
    return maps, shells or box_shells(shape[-3:])


def _spectrum(array):
    """Return the spectrum of a map divided by its scale, so that its power stays within float32's range."""
    scaled, scale = unit_scale(array)
    return _Spectrum(half_spectrum(scaled), scale)


def _cross(first, second, shells):
    """Sum the real product of two spectra over shells."""
    return shell_sums(real_product(first.values, second.values), shells)


def _add(m1, m2):
    """Return the spectrum of the sum of two maps over the larger of their scales, and that scale."""
    larger = jnp.maximum(m1.scale, m2.scale)
    return m1.values * (m1.scale / larger) + m2.values * (m2.scale / larger), larger


def _fsc_and_cref(denoised, half_map_1, half_map_2, shells):
    """Return the FSC of the denoised and the full map, and C_ref; only three maps are transformed."""
    m1, m2 = _spectrum(half_map_1), _spectrum(half_map_2)
    full, _ = _add(m1, m2)
    curve = fsc_of_spectra(_spectrum(denoised).values, full, shells)
    return curve, c_ref(fsc_of_spectra(m1.values, m2.values, shells))


def _count_voxels(shells, dimensions):
    """Return the number of voxels of every shell, at least 1, for shell sums of this number of dimensions."""
    return jnp.maximum(shell_voxels(shells), 1).reshape((1,) * (dimensions - 1) + (-1,))


def _mean_over_shells(curve):
    """Average `(..., shells)` over shells 1 to N / 2 - 1."""
    return jnp.mean(curve[..., 1:-1], axis=-1)


def _within(array, mask):
    """Subtract the solvent level from a map and multiply by a mask.

    The level is the mean outside the mask, as in `crefjax.spectral.curves.solvent_level`; a patch with less than a
    thousandth of its volume outside keeps its level, because its own mean is signal.
    """
    outside = 1 - mask
    count = jnp.sum(outside, (-3, -2, -1), keepdims=True)
    solvent = count >= 1e-3 * math.prod(mask.shape[-3:])
    mean = jnp.sum(array * outside, (-3, -2, -1), keepdims=True) / jnp.where(solvent, count, 1)
    return (array - jnp.where(solvent, mean, 0)) * mask


@_register("cref_l1")
def cref_l1(denoised: Array, half_map_1: Array, half_map_2: Array, *, shells: Shells | None = None) -> LossAndAux:
    """Compare the denoised map's FSC with the full map to the one that the half-maps predict (the paper's loss).

    Mean over shells of `|C_ref - FSC(denoised, full)|`, `full` being the mean of the half-maps (Agarwal et al. 2024).
    C_ref is a target: it carries no gradient. The FSC is signed, so that inverted contrast is penalized. The scale of
    the denoised map does not matter.

    Returns:
        The loss, and aux with `fsc`, of denoised and full map, and `cref`, per shell.
    """
    maps, shells = _check(shells, denoised, half_map_1, half_map_2)
    curve, target = _fsc_and_cref(*maps, shells)
    target = jax.lax.stop_gradient(target)
    return _mean_over_shells(jnp.abs(target - curve)), {"fsc": curve, "cref": target}


@_register("cref_l1_masked")
def cref_l1_masked(
    denoised: Array, half_map_1: Array, half_map_2: Array, mask: Array, *, shells: Shells | None = None
) -> LossAndAux:
    """Compute `cref_l1` within a mask, so that a network that sees the solvent follows C_ref within the mask too.

    `cref_l1` in the whole box can be met by the noise that remains in the solvent alone. The solvent level is
    subtracted from each map before it is masked, so that no level is correlated as a body in the mask's shape. Aux as
    in `cref_l1`.
    """
    (*maps, mask), shells = _check(shells, denoised, half_map_1, half_map_2, mask)
    return cref_l1(*(_within(array, mask) for array in maps), shells=shells)


@_register("gain_l1")
def gain_l1(denoised: Array, half_map_1: Array, half_map_2: Array, *, shells: Shells | None = None) -> LossAndAux:
    """Compare the denoised map's scale to the signal's, shell by shell, which `cref_l1` leaves free.

    `cov(S, full) = cov(M1, M2)` in expectation, noise being independent of the signal and of the other half-map's.
    The loss is the mean over shells 0 to N / 2 - 1 of `|cov(denoised, full) - cov(M1, M2)| / cov(full, full)`, the
    distance of the denoised map's regression on the full map from the Wiener filter's factor, C_ref². A thousandth of
    the mean over shells is added to the denominator, so that shells that a filter has emptied count little. Shell 0 is
    included, because the mean of a patch is a wave of low frequency in a whole map. Only half-maps are needed. For the
    noise-free map this loss is scatter alone, and so is `cref_l1`; the Wiener filter has the scale but correlates too
    well with the full map.

    Returns:
        The loss, and aux with `gain` and `target`, the two factors on the full map, per shell.
    """
    maps, shells = _check(shells, denoised, half_map_1, half_map_2)
    d, m1, m2 = (_spectrum(array) for array in maps)
    full, larger = _add(m1, m2)
    scale_1, scale_2, scale = ((spectrum.scale / larger)[..., 0, 0] for spectrum in (m1, m2, d))
    power = shell_sums(real_product(full, full), shells) / 4  # of the mean of the half-maps
    voxels = _count_voxels(shells, power.ndim)
    floor = _POWER_FLOOR_OF_SHELLS * jnp.mean(power / voxels, axis=-1, keepdims=True) * voxels
    usable = power + floor > 0
    per_power = jnp.where(usable, 1 / jnp.where(usable, power + floor, 1), 0)
    gain = scale * shell_sums(real_product(d.values, full), shells) / 2 * per_power
    target = scale_1 * scale_2 * _cross(m1, m2, shells) * per_power
    return jnp.mean(jnp.abs(gain - target)[..., :-1], axis=-1), {"gain": gain, "target": target}


@_register("fsc")
def fsc_loss(
    denoised_1: Array, denoised_2: Array, half_map_1: Array, half_map_2: Array, *, shells: Shells | None = None
) -> LossAndAux:
    """Return one minus the FSC of each denoised half-map with the other half-map, whose noise the network never saw.

    `1 - mean over shells of (FSC(denoised_1, half_map_2) + FSC(denoised_2, half_map_1)) / 2`, in [0, 2]; `fsc` by
    name. The scale of the denoised maps does not matter in any shell.

    Returns:
        The loss, and aux with `fsc`, the mean of the two curves per shell.
    """
    maps, shells = _check(shells, denoised_1, denoised_2, half_map_1, half_map_2)
    d1, d2, m1, m2 = (_spectrum(array).values for array in maps)
    curve = (fsc_of_spectra(d1, m2, shells) + fsc_of_spectra(d2, m1, shells)) / 2
    return 1 - _mean_over_shells(curve), {"fsc": curve}


@_register("n2n_l2")
def n2n_l2(
    denoised_1: Array, denoised_2: Array, half_map_1: Array, half_map_2: Array, *, shells: Shells | None = None
) -> LossAndAux:
    """Return the mean squared difference of each denoised half-map to the other half-map, averaged over both.

    Noise2Noise (Lehtinen et al. 2018): up to a constant, the variance of the noise, its expectation is the mean
    squared difference to the noise-free map. Units of the maps, squared. Shells are not used; the argument makes all
    losses callable alike.

    Returns:
        The loss, and aux with `loss_1` and `loss_2`, those of denoised_1 and denoised_2, shaped as the loss.
    """
    return _noise2noise(jnp.square, denoised_1, denoised_2, half_map_1, half_map_2, shells)


@_register("n2n_l1")
def n2n_l1(
    denoised_1: Array, denoised_2: Array, half_map_1: Array, half_map_2: Array, *, shells: Shells | None = None
) -> LossAndAux:
    """Return the mean absolute difference of each denoised half-map to the other half-map; otherwise as `n2n_l2`.

    Its expectation is least at the median of the possible values of the other half-map. Units of the maps.
    """
    return _noise2noise(jnp.abs, denoised_1, denoised_2, half_map_1, half_map_2, shells)


@_register("bias")
def bias(
    denoised_1: Array, denoised_2: Array, half_map_1: Array, half_map_2: Array, *, shells: Shells | None = None
) -> LossAndAux:
    """Return the variance of the bias that the network adds to the maps, as a share of each shell's power.

    With `cov` the mean over a shell of `Re F1 conj(F2)` (Palovcak et al. 2020; Agarwal et al. 2024),
    `var(B) = cov(D1,D2) + sqrt(cov(M1,M1) cov(M2,M2)) - 2 cov(M1,D2) - var(N)`,
    `var(N) = sqrt(cov(M1,M1) cov(M2,M2)) - cov(M1,M2)`,
    hence `var(B) = cov(D1,D2) - cov(M1,D2) - cov(M2,D1) + cov(M1,M2)`, the cross term being the mean of its two
    forms. The loss is the mean over shells of `var(B) / sqrt(cov(M1,M1) cov(M2,M2))`, 0 in a shell without power.

    With `M = S + N`, independent noise, and `D1` computed from M1 alone, `D2` from M2 alone, its expectation is the
    mean of `|E[D|S] - S|²` over that of the power, which is never negative. A single sample scatters about it in both
    directions; it is not clipped at 0, which would reward scatter. (A network that has learned the noise of its
    half-maps by heart violates the assumptions, and its loss can be negative.) No network at all (D = M, loss 0) and
    the truth are both free of bias: this loss ignores noise and must be added to one that does not. Unlike the FSC it
    depends on the scale of the output, and so teaches the network the scale of the signal. A blurred signal counts as
    biased.

    Returns:
        The loss, and aux with `var_bias` and `var_signal = cov(M1,M2)`, per shell, in squared units of the maps'
        unnormalized Fourier transforms.
    """
    maps, shells = _check(shells, denoised_1, denoised_2, half_map_1, half_map_2)
    d1, d2, m1, m2 = (_spectrum(array) for array in maps)
    # Every spectrum is of unit scale. Divided by the scales of M1 and M2, only these two quotients remain of them.
    gain_1, gain_2 = ((d.scale / m.scale)[..., 0, 0] for d, m in ((d1, m1), (d2, m2)))
    signal = _cross(m1, m2, shells)
    sums = gain_1 * gain_2 * _cross(d1, d2, shells)
    sums = sums - gain_2 * _cross(m1, d2, shells) - gain_1 * _cross(m2, d1, shells) + signal
    loss = _mean_over_shells(over_amplitudes(sums, _cross(m1, m1, shells), _cross(m2, m2, shells)))
    aux = {
        name: variance / _count_voxels(shells, variance.ndim) * m1.scale[..., 0, 0] * m2.scale[..., 0, 0]
        for name, variance in (("var_bias", sums), ("var_signal", signal))
    }
    return loss, aux


def cref_rmse(denoised: Array, half_map_1: Array, half_map_2: Array, *, shells: Shells | None = None) -> Array:
    """Return the root mean square over shells of `FSC(denoised, full)² - C_ref²`: a metric, not a loss.

    The square keeps the sign of the FSC, `FSC |FSC|`, so that inverted contrast is penalized.

    Returns:
        One value for each sample.
    """
    maps, shells = _check(shells, denoised, half_map_1, half_map_2)
    curve, target = _fsc_and_cref(*maps, shells)
    return jnp.sqrt(_mean_over_shells(jnp.square(curve * jnp.abs(curve) - jnp.square(target))))


def _noise2noise(distance, denoised_1, denoised_2, half_map_1, half_map_2, shells):
    (d1, d2, m1, m2), _ = _check(shells, denoised_1, denoised_2, half_map_1, half_map_2)
    loss_1, loss_2 = (jnp.mean(distance(d - m), axis=(-3, -2, -1)) for d, m in ((d1, m2), (d2, m1)))
    return (loss_1 + loss_2) / 2, {"loss_1": loss_1, "loss_2": loss_2}


@_register("truth_fsc")
def truth_fsc(denoised: Array, truth: Array, *, shells: Shells | None = None) -> LossAndAux:
    """Return `1 - mean over shells of FSC(denoised, truth)`, for simulated maps, whose noise-free map is known.

    In [0, 2]: 0 for the truth in any scale of any shell, 2 for its negative.

    Returns:
        The loss, and aux with `fsc`, per shell.
    """
    maps, shells = _check(shells, denoised, truth)
    curve = fsc_of_spectra(*(_spectrum(array).values for array in maps), shells)
    return 1 - _mean_over_shells(curve), {"fsc": curve}


@_register("truth_fsc_masked")
def truth_fsc_masked(denoised: Array, truth: Array, mask: Array, *, shells: Shells | None = None) -> LossAndAux:
    """Compute `truth_fsc` of the denoised map within a mask and the masked truth, ignoring the solvent.

    Without this, `truth_fsc` of a map that was not masked is lowered by emptying the solvent too. The solvent level is
    subtracted from the denoised map before it is masked. Aux as in `truth_fsc`.
    """
    (denoised, truth, mask), shells = _check(shells, denoised, truth, mask)
    return truth_fsc(_within(denoised, mask), truth, shells=shells)


@_register("truth_l2")
def truth_l2(denoised: Array, truth: Array, *, shells: Shells | None = None) -> LossAndAux:
    """Return the squared error of the denoised map over the power of the truth, if the noise-free map is known.

    `mean |denoised - truth|² / (mean |truth|² + 0.1)`: 0.1 of the power of a standardized map keeps patches of solvent
    from outweighing all others. Unlike the FSC it weights shells by their power and fixes the scale: it constrains the
    lowest frequencies, of which a patch has few shells, and keeps the solvent empty. Shells are not used; the argument
    makes all losses callable alike.

    Returns:
        The loss, and aux with `power`, of the truth, shaped as the loss.
    """
    (denoised, truth), _ = _check(shells, denoised, truth)
    power = jnp.mean(jnp.square(truth), axis=(-3, -2, -1))
    return jnp.mean(jnp.square(denoised - truth), axis=(-3, -2, -1)) / (power + _POWER_FLOOR), {"power": power}


def needs(weights: Mapping[str, float]) -> frozenset[str]:
    """Return the needs of the losses of positive weight, a subset of `full`, `halves`, `truth`, and `mask`.

    Raises:
        UserError: As `weighted`.
    """
    return frozenset(need for name in _positive(weights) for need in LOSSES[name].needs)


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
    """Return the weighted sum of losses.

    Args:
        weights: Weights by names of `LOSSES`, Python numbers; a loss of weight 0 is not computed.
        half_map_1: Half-map 1.
        half_map_2: Half-map 2.
        denoised: Denoised full map, for losses that need `full`.
        denoised_1: Denoised half-map 1, for losses that need `halves`.
        denoised_2: Denoised half-map 2, for losses that need `halves`.
        truth: Noise-free map, for losses that need `truth`.
        mask: Mask, for losses that need `mask`.
        shells: Shells of the box; None computes them.

    Returns:
        The sum, one value for each sample, and aux with every computed loss by name, without its weight.

    Raises:
        UserError: A name is not in `LOSSES`, a weight is not a number of at least 0, or none is above 0.
        ValueError: A map that a loss needs is None, maps differ in shape, or shells are of another box.
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
    positive = _positive(weights)
    aux = {}
    for name in positive:
        function, arguments = LOSSES[name]
        if missing := [argument for argument in arguments if maps[argument] is None]:
            raise ValueError(f"the loss {name} needs {' and '.join(missing)}, found None")
        aux[name], _ = function(*(maps[argument] for argument in arguments), shells=shells)
    return sum(weight * aux[name] for name, weight in positive.items()), aux


def _positive(weights):
    """Return the positive weights by the names of their losses, in the order of `LOSSES`."""
    names = ", ".join(LOSSES)
    for name, weight in weights.items():
        if name not in LOSSES:
            raise UserError(f"losses.{name}: expected one of {names}, found {name}; correct the name or remove it")
        if not isinstance(weight, numbers.Real) or not 0 <= weight < math.inf:
            raise UserError(f"losses.{name}: expected a number of 0 or more, found {weight!r}; 0 leaves it out")
    positive = {name: float(weights[name]) for name in LOSSES if name in weights and weights[name] > 0}
    if not positive:
        raise UserError(f"losses: expected a weight above 0 for at least one of {names}, found none; set one to 1")
    return positive
