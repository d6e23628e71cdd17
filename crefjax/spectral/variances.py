"""Signal, noise, bias and residual noise per shell, from noisy and denoised half-maps, each with its error.

With half-maps `M = S + N` of independent noise, `D1` made from M1 alone and `D2` from M2 alone (Palovcak et al. 2020;
Agarwal et al. 2024), `cov` the covariance in a shell and `X = (cov(M1,D2) + cov(M2,D1)) / 2`:

    var(S)   = cov(M1,M2)
    var(N)   = sqrt(cov(M1,M1) cov(M2,M2)) - var(S)
    var(N_d) = sqrt(cov(D1,D1) cov(D2,D2)) - cov(D1,D2)
    var(B)   = cov(D1,D2) + sqrt(cov(M1,M1) cov(M2,M2)) - 2 X - var(N)  =  cov(D1,D2) - 2 X + var(S)

which is the covariance of the removed parts, `cov(M1 - D1, M2 - D2)`. `B = E[D|S] - S` splits into what was damped and
what was added, `var(B) = (1 - k)² var(S) + var(A)`, with the share of the signal's amplitude that is kept,
`k = X / var(S)`, and the added structure, `var(A) = cov(D1,D2) - X² / var(S)`: what the denoised half-maps have in
common and the signal does not explain. A factor on a shell of the output changes k, but not the ratio of k² var(S) to
var(A).

`var(S) / var(N_d)` would favor any filter: damping signal and noise together gains nothing. The ratio after denoising
is therefore that of the remaining signal, `k² var(S) / var(N_d)`.

**Errors.** The specimen is not random, its noise is. In a shell of n independent numbers, maps of mean `m` and
noise covariance `C` have sample covariances `s_ij` with (noncentral Wishart distribution)

    cov(s_ij, s_kl) = (C_ik C_jl + C_il C_jk + m_i m_k C_jl + m_i m_l C_jk + m_j m_k C_il + m_j m_l C_ik) / n

where C is 0 between maps of different halves. Errors are standard deviations to first order. Two things add to
those of k, var(A) and var(B). Under a mask a filter is not one factor within a shell, because shells are mixed; how
much of that appears as added structure follows from the mask (`Covariances.leakage`). And a network is not a filter:
its gain depends on the noise. Its variation is estimated from the gains of the two outputs, `cov(M1,D2)` and
`cov(M2,D1)`, where they differ by more than noise explains.

**To add a quantity**, write its record in `QUANTITIES` and a field of the same name in `ShellVariances`. Its error and
trust follow from the record; `report.json` has it in the section of its group, and a figure draws all of a group
(line styles: `crefjax/report/figures.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from crefjax.spectral.covariances import Covariances, shell_covariances, smooth_over_shells

# The gains of the two outputs are compared over this many shells (standard deviation of a Gaussian).
_GAIN_WIDTH = 3.0
# Least variation of a network's gain that is assumed; found with networks on many pairs of one signal.
_LEAST_GAIN_STD = 0.01
# A value within this many errors of 0 says how large it can be, not how large it is.
_ERRORS = 2.0
# A shell with fewer independent numbers has no meaningful error.
_LEAST_DOF = 6.0

# Quantities as sums of covariances: pairs of maps (half-map 1, 2, denoised 1, 2) and factors. N and N_d have the mean
# of two powers in place of the root of their product, which is the same to first order where the halves are alike.
LINEAR_FORMS = {
    "S": {(0, 1): 1.0},
    "N": {(0, 0): 0.5, (1, 1): 0.5, (0, 1): -1.0},
    "DD": {(2, 3): 1.0},
    "N_d": {(2, 2): 0.5, (3, 3): 0.5, (2, 3): -1.0},
    "X": {(0, 3): 0.5, (1, 2): 0.5},
    "dX": {(0, 3): 0.5, (1, 2): -0.5},
    "C": {(0, 2): 0.5, (1, 3): 0.5, (0, 3): -0.5, (1, 2): -0.5},
    "B": {(2, 3): 1.0, (0, 3): -1.0, (1, 2): -1.0, (0, 1): 1.0},
}


@dataclass(frozen=True)
class Quantity:
    """How one quantity, its error, and its trust are computed in every shell.

    The functions take the terms of `variances_from`: `S`, `N`, `mean_N` (with the mean for the root), `DD`, `N_d`, `X`,
    `C`, `B`; `kept` (k), `explained` (X² / var(S)), `added` (var(A)); for errors also `dof`, `gain_std`, `leaked` and
    `leaked_noise` (added structure that leakage mimics, for signal and for noise). Each is `(shells,)`.

    Attributes:
        name: field of `ShellVariances` and key in `report.json`.
        label: label in a figure.
        group: "variances" or "ratios"; None for a quantity that stands alone.
        value: the quantity.
        gradient: its derivatives by the `LINEAR_FORMS`, from which the error due to noise follows.
        trusted_if: names of variances (or "X") that must be above 0 by more than their error.
        noise_error: a further standard deviation that noise causes; None for none.
        systematic: standard deviations that do not come from noise; None for none.
    """

    name: str
    label: str
    group: str | None
    value: Callable
    gradient: Callable
    trusted_if: tuple[str, ...]
    noise_error: Callable | None = None
    systematic: Callable | None = None


QUANTITIES = (
    Quantity("signal", "signal", "variances", lambda t: t.S, lambda t: {"S": 1.0}, ("signal",)),
    Quantity("noise", "noise", "variances", lambda t: t.N, lambda t: {"N": 1.0}, ("noise",)),
    Quantity(
        "bias",
        "bias",
        "variances",
        lambda t: t.B,
        lambda t: {"B": 1.0},
        ("bias",),
        systematic=lambda t: (2 * t.kept * (1 - t.kept) * t.gain_std * t.S, t.gain_std**2 * t.S),
    ),
    Quantity(
        "residual_noise", "residual noise", "variances", lambda t: t.N_d, lambda t: {"N_d": 1.0}, ("residual_noise",)
    ),
    Quantity(
        "added",
        "added structure",
        "variances",
        lambda t: t.added,
        lambda t: {"DD": 1.0, "X": -2 * t.kept, "S": t.kept * t.kept},
        ("added", "signal"),
        noise_error=lambda t: t.kept * np.sqrt(2 * _ERRORS * t.leaked * (np.maximum(t.S, 0) + t.N) / t.dof),
        systematic=lambda t: (t.leaked, t.gain_std**2 * (t.kept**2 * t.S)),
    ),
    Quantity(
        "signal_kept",
        "signal kept",
        None,
        lambda t: t.kept,
        lambda t: {"X": 1 / t.S, "S": -t.kept / t.S},
        ("signal",),
        systematic=lambda t: (t.gain_std,),
    ),
    Quantity(
        "noise_kept",
        "noise kept",
        None,
        lambda t: t.C / t.mean_N,  # C is a mean of both halves too
        lambda t: {"C": 1 / t.mean_N, "N": -(t.C / t.mean_N) / t.mean_N},
        ("noise",),
        systematic=lambda t: (np.sqrt(t.leaked_noise / t.dof),),
    ),
    Quantity(
        "signal_to_noise_before",
        "signal / noise before",
        "ratios",
        lambda t: t.S / t.N,
        lambda t: {"S": 1 / t.N, "N": -t.S / t.N**2},
        ("signal", "noise"),
    ),
    Quantity(
        "signal_to_noise_after",
        "signal / noise after",
        "ratios",
        lambda t: t.explained / t.N_d,
        lambda t: {"X": 2 * t.kept / t.N_d, "S": -t.kept * t.kept / t.N_d, "N_d": -t.explained / t.N_d**2},
        ("signal", "residual_noise", "X"),
    ),
    Quantity(
        "signal_to_bias",
        "signal / bias",
        "ratios",
        lambda t: t.S / t.B,
        lambda t: {"S": 1 / t.B, "B": -t.S / t.B**2},
        ("signal", "bias"),
    ),
    Quantity(
        "signal_to_added",
        "signal / added structure",
        "ratios",
        lambda t: t.explained / t.added,
        lambda t: {
            "X": 2 * t.kept / t.added + 2 * t.kept * t.explained / t.added**2,
            "S": -(t.kept**2) / t.added - t.kept**2 * t.explained / t.added**2,
            "DD": -t.explained / t.added**2,
        },
        ("signal", "added", "X"),
        systematic=lambda t: (
            t.leaked * (t.kept**2 * t.S) / t.added**2,
            (t.gain_std * (t.kept**2 * t.S) / t.added) ** 2,
        ),
    ),
)


@dataclass(frozen=True)
class Estimate:
    """A quantity in every shell; `(shells,)` each.

    Attributes:
        value: NaN where it cannot be computed.
        error: standard deviation.
        trusted: whether the value is meaningful: it is more than two errors above 0, rests on enough independent
            numbers, and nothing that it is made of contradicts the assumptions.
    """

    value: np.ndarray
    error: np.ndarray
    trusted: np.ndarray


@dataclass(frozen=True)
class ShellVariances:
    """Signal, noise, and bias of noisy and denoised half-maps; variances in squared units of the noisy maps.

    Attributes:
        signal: var(S).
        noise: var(N), of one half-map; the full map has half of it.
        bias: var(B), of the denoised half-maps times `gain`.
        residual_noise: var(N_d), times `gain²`.
        added: var(A), the part of the bias that is not a multiple of the signal.
        signal_kept: share of the signal's amplitude, k.
        noise_kept: share of the noise's amplitude that passes unchanged, `(cov(M1,D1) - cov(M1,D2)) / var(N)`.
        signal_to_noise_before: var(S) / var(N).
        signal_to_noise_after: k² var(S) / var(N_d), whatever the scale of a shell.
        signal_to_bias: var(S) / var(B).
        signal_to_added: k² var(S) / var(A), whatever the scale of a shell.
        gain: the factor by which both denoised half-maps were multiplied.
        inconsistent: `(shells,)`, where the assumptions fail: a variance is negative by more than its error allows.
    """

    signal: Estimate
    noise: Estimate
    bias: Estimate
    residual_noise: Estimate
    added: Estimate
    signal_kept: Estimate
    noise_kept: Estimate
    signal_to_noise_before: Estimate
    signal_to_noise_after: Estimate
    signal_to_bias: Estimate
    signal_to_added: Estimate
    gain: float
    inconsistent: np.ndarray


def shell_variances(
    half_map_1: np.ndarray,
    half_map_2: np.ndarray,
    denoised_1: np.ndarray,
    denoised_2: np.ndarray,
    mask: np.ndarray | None = None,
    *,
    gain: float | None = 1.0,
) -> ShellVariances:
    """Estimate signal, noise, and bias of a pair and its denoised half-maps.

    Args:
        half_map_1: `(z, y, x)`.
        half_map_2: the same shape, as all that follow.
        denoised_1: made from half_map_1 alone.
        denoised_2: made from half_map_2 alone.
        mask: 0 to 1; None for none.
        gain: factor for the denoised half-maps; None for `overall_gain`.

    Raises:
        ValueError: shapes that differ, a mask of zeros.
    """
    return variances_from(shell_covariances([half_map_1, half_map_2, denoised_1, denoised_2], mask), gain=gain)


def overall_gain(covariances: Covariances) -> float:
    """Return the factor for the denoised half-maps that leaves the least bias over all shells; 1 if none is positive.

    Args:
        covariances: of half-map 1 and 2, denoised 1 and 2, in that order.
    """
    inner = slice(1, len(covariances.voxels) - 1)
    cross = (covariances.of(0, 3) + covariances.of(1, 2)) / 2
    weight = covariances.voxels[inner]
    above, below = np.sum(weight * cross[inner]), np.sum(weight * covariances.of(2, 3)[inner])
    return float(above / below) if above > 0 and below > 0 else 1.0


def variances_from(covariances: Covariances, *, gain: float | None = 1.0) -> ShellVariances:
    """Estimate signal, noise, and bias from covariances of half-map 1 and 2, denoised 1 and 2, in that order.

    Args:
        covariances: of the four maps.
        gain: factor for the denoised half-maps; None for `overall_gain`.
    """
    gain = overall_gain(covariances) if gain is None else float(gain)
    factors = np.array([1.0, 1.0, gain, gain])
    matrix = covariances.matrix * np.outer(factors, factors)
    terms = {name: linear_form(matrix, form) for name, form in LINEAR_FORMS.items()}
    terms["mean_N"] = terms["N"]
    for name, (first, second, common) in {"N": (0, 1, "S"), "N_d": (2, 3, "DD")}.items():
        powers = matrix[:, first, first] * matrix[:, second, second]
        terms[name] = np.sqrt(np.maximum(powers, 0)) - terms[common]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        terms = SimpleNamespace(**terms, dof=covariances.dof, kept=terms["X"] / terms["S"])
        terms.explained = terms.X * terms.X / terms.S
        terms.added = terms.DD - terms.explained
        estimates, inconsistent = _estimates(terms, covariances.leakage)
    return ShellVariances(**estimates, gain=gain, inconsistent=inconsistent)


def _estimates(terms, leakage):
    """Return the estimates of all `QUANTITIES` by name, and the shells in which they contradict the assumptions."""
    enough = terms.dof >= _LEAST_DOF
    covariance = sampling_covariance(vars(terms), terms.dof)
    values = {quantity.name: quantity.value(terms) for quantity in QUANTITIES}
    errors = {}
    for quantity in QUANTITIES:
        gradient = quantity.gradient(terms)
        total = sum(p * q * covariance(i, j) for i, p in gradient.items() for j, q in gradient.items())
        errors[quantity.name] = np.sqrt(np.maximum(total, 0))
    signal = np.where(enough & (_ERRORS * errors["signal"] < terms.S), terms.S, 0)
    terms.leaked = leakage_bias(leakage, terms.kept, signal) / _ERRORS
    terms.leaked_noise = leakage_bias(leakage, values["noise_kept"], np.ones_like(terms.S))
    terms.gain_std = excess_gain_std(terms.dX / terms.S, covariance("dX", "dX") / terms.S**2, enough & (terms.S > 0))
    noise_errors = {}
    for quantity in QUANTITIES:
        error = errors[quantity.name]
        if quantity.noise_error:
            error = np.hypot(error, quantity.noise_error(terms))
        noise_errors[quantity.name] = error
        if quantity.systematic:
            error = np.sqrt(error**2 + sum(np.square(deviation) for deviation in quantity.systematic(terms)))
        errors[quantity.name] = error

    variances = [quantity.name for quantity in QUANTITIES if quantity.group == "variances"]
    positive = {name: enough & (values[name] > _ERRORS * errors[name]) for name in variances}
    limit = _least_normal(int(enough.sum()))
    negative = {
        name: enough & (values[name] < -limit * noise_errors[name] - 1e-9 * np.abs(terms.S)) for name in variances
    }
    negative["added"] &= positive["signal"]
    inconsistent = np.any(list(negative.values()), axis=0)
    positive["X"] = terms.X > 0
    estimates = {}
    for quantity in QUANTITIES:
        value, error = values[quantity.name], errors[quantity.name]
        usable = np.isfinite(value) & np.isfinite(error)
        trusted = usable & enough & ~inconsistent
        for name in quantity.trusted_if:
            trusted &= positive[name]
        estimates[quantity.name] = Estimate(np.where(usable, value, np.nan), np.where(usable, error, np.nan), trusted)
    return estimates, inconsistent


def linear_form(matrix: np.ndarray, form: dict[tuple[int, int], float]) -> np.ndarray:
    """Return a quantity of `LINEAR_FORMS` from the covariances of the four maps, `(shells, 4, 4)`."""
    return sum(factor * matrix[:, i, j] for (i, j), factor in form.items())


def sampling_covariance(terms: dict[str, np.ndarray], dof: np.ndarray) -> Callable[[str, str], np.ndarray]:
    """Return the covariance of two of the `LINEAR_FORMS` due to noise, `(shells,)`, as a function of their names.

    Args:
        terms: the values of all `LINEAR_FORMS`, `(shells,)` each.
        dof: `(shells,)`, independent numbers in each shell.
    """
    signal, common = np.maximum(terms["S"], 0), np.maximum(terms["DD"], 0)
    limit = np.sqrt(signal * common)
    shared = np.clip(terms["X"], -limit, limit)
    noise, residual = np.maximum(terms["N"], 0), np.maximum(terms["N_d"], 0)
    limit = np.sqrt(noise * residual)
    passed = np.clip(terms["C"], -limit, limit)
    zero = np.zeros_like(signal)
    kind = (0, 0, 1, 1)  # noisy, denoised
    half = (0, 1, 0, 1)
    means = ((signal, shared), (shared, common))
    noises = ((noise, passed), (passed, residual))

    def m(i, j):
        return means[kind[i]][kind[j]]

    def c(i, j):
        return noises[kind[i]][kind[j]] if half[i] == half[j] else zero

    def of_products(i, j, k, n):
        pure = c(i, k) * c(j, n) + c(i, n) * c(j, k)
        return pure + m(i, k) * c(j, n) + m(i, n) * c(j, k) + m(j, k) * c(i, n) + m(j, n) * c(i, k)

    def covariance(first, second):
        pairs = ((*term, *other) for term in LINEAR_FORMS[first].items() for other in LINEAR_FORMS[second].items())
        return sum(a * b * of_products(*pair, *other) for pair, a, other, b in pairs) / dof

    return covariance


def leakage_bias(leakage: np.ndarray | None, kept: np.ndarray, signal: np.ndarray) -> np.ndarray:
    """Return the most that a filter can appear to add because a mask mixes shells that it damps differently.

    It is reached if the signal fills the box as noise does; the bias is smaller if the signal ends within the mask.

    Args:
        leakage: `(shells, shells)`, of `Covariances`; None without mask.
        kept: `(shells,)`, share of the amplitude that the filter keeps.
        signal: `(shells,)`, variance; 0 where it is not known.
    """
    if leakage is None:
        return np.zeros_like(signal)
    kept = np.where(signal > 0, kept, 0)
    total = np.maximum(leakage @ signal, np.finfo(np.float64).tiny)
    return np.maximum(leakage @ (signal * kept**2) - (leakage @ (signal * kept)) ** 2 / total, 0)


def excess_gain_std(difference: np.ndarray, variance: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Return the standard deviation of the mean gain of two outputs beyond what noise in the shell explains.

    A network's gain depends on the noise as a whole, and similarly in neighboring shells.

    Args:
        difference: `(shells,)`, half of the difference of the two outputs' gains.
        variance: `(shells,)`, its variance due to the noise in the shell.
        usable: bool `(shells,)`.
    """
    weights = np.zeros_like(variance)
    weights[usable] = 1 / (variance[usable] + 1e-4) ** 2
    weights[0] = 0
    excess, _ = smooth_over_shells(np.where(weights > 0, difference**2 - variance, 0), weights, _GAIN_WIDTH)
    return np.sqrt(np.maximum(excess, 0) + _LEAST_GAIN_STD**2)


def _least_normal(count):
    """Return how many standard deviations below 0 the least of `count` normal numbers hardly ever lies.

    Errors are known to first order and distributions have tails, so this is wider than for normal numbers alone.
    """
    return np.sqrt(2 * np.log(max(count, 2))) + 2
