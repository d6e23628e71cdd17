"""Signal, noise, bias and residual noise per shell, from noisy and denoised half-maps, each with its error.

With half-maps `M = S + N` of independent noise, `D1` made of M1 alone and `D2` of M2 alone (Palovcak et al. 2020;
Agarwal et al. 2024), `cov` the covariance in a shell and `X = (cov(M1,D2) + cov(M2,D1)) / 2`:

    var(S)   = cov(M1,M2)
    var(N)   = sqrt(cov(M1,M1) cov(M2,M2)) - var(S)
    var(N_d) = sqrt(cov(D1,D1) cov(D2,D2)) - cov(D1,D2)
    var(B)   = cov(D1,D2) + sqrt(cov(M1,M1) cov(M2,M2)) - 2 X - var(N)  =  cov(D1,D2) - 2 X + var(S)

which is the covariance of the removed parts, `cov(M1 - D1, M2 - D2)`. `B = E[D|S] - S` splits into what was damped and
what was added, `var(B) = (1 - k)² var(S) + var(A)`, with the share of the signal's amplitude that is kept,
`k = X / var(S)`, and the added structure, `var(A) = cov(D1,D2) - X² / var(S)`: what the denoised half-maps have in
common and the signal does not explain. A factor that a shell of the output is multiplied by changes k, and not the
ratio of k² var(S) to var(A).

`var(S) / var(N_d)` would praise any filter: damping signal and noise together gains nothing. The ratio after denoising
is therefore that of the signal that is left, `k² var(S) / var(N_d)`.

**Errors.** The specimen is not random, its noise is. In a shell of n independent numbers, maps of mean `m` and
noise covariance `C` have sample covariances `s_ij` with (noncentral Wishart distribution)

    cov(s_ij, s_kl) = (C_ik C_jl + C_il C_jk + m_i m_k C_jl + m_i m_l C_jk + m_j m_k C_il + m_j m_l C_ik) / n

where C is 0 between maps of different halves. Errors are standard deviations to first order. Two things add to
those of k, var(A) and var(B). Under a mask a filter is not one factor within a shell, for shells are mixed; what
that lets appear as added structure follows from the mask (`Covariances.leakage`). And a network is no filter: its
gain depends on the noise. How unsteady it is, the gains of the two outputs tell, `cov(M1,D2)` and `cov(M2,D1)`,
where they differ by more than noise explains.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from crefjax.spectral.covariances import Covariances, shell_covariances, smooth_over_shells

# Over so many shells (standard deviation of a Gaussian) the gains of the two outputs are compared.
_UNSTEADY_WIDTH = 3.0
# No network's gain is believed to be steadier than this; found with networks on many pairs of one signal.
_STEADIEST = 0.01

# Quantities as sums of covariances: pairs of maps (half-map 1, 2, denoised 1, 2) and factors. N and N_d stand here with
# the mean of two powers for the root of their product, which is the same to first order where the halves are alike.
FORMS = {
    "S": {(0, 1): 1.0},
    "N": {(0, 0): 0.5, (1, 1): 0.5, (0, 1): -1.0},
    "DD": {(2, 3): 1.0},
    "N_d": {(2, 2): 0.5, (3, 3): 0.5, (2, 3): -1.0},
    "X": {(0, 3): 0.5, (1, 2): 0.5},
    "dX": {(0, 3): 0.5, (1, 2): -0.5},
    "C": {(0, 2): 0.5, (1, 3): 0.5, (0, 3): -0.5, (1, 2): -0.5},
    "B": {(2, 3): 1.0, (0, 3): -1.0, (1, 2): -1.0, (0, 1): 1.0},
}


def linear_form(s: np.ndarray, form: dict[tuple[int, int], float]) -> np.ndarray:
    """A quantity of `FORMS` from a covariance matrix of the four maps `(shells, 4, 4)`."""
    return sum(factor * s[:, i, j] for (i, j), factor in form.items())


def sampling_covariance(linear: dict[str, np.ndarray], independent: np.ndarray) -> Callable[[str, str], np.ndarray]:
    """Covariance of two quantities of `FORMS` due to noise, `(shells,)`, as a function of their names.

    Args:
        linear: all quantities of `FORMS`, `(shells,)` each.
        independent: `(shells,)`, numbers that each shell is worth.
    """
    signal, common = np.maximum(linear["S"], 0), np.maximum(linear["DD"], 0)
    limit = np.sqrt(signal * common)
    shared = np.clip(linear["X"], -limit, limit)
    noise, residual = np.maximum(linear["N"], 0), np.maximum(linear["N_d"], 0)
    limit = np.sqrt(noise * residual)
    passed = np.clip(linear["C"], -limit, limit)
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

    def of(first, second):
        total = sum(
            a * b * of_products(*pair, *other) for pair, a in FORMS[first].items() for other, b in FORMS[second].items()
        )
        return total / independent

    return of


def leakage_bias(leakage: np.ndarray | None, kept: np.ndarray, signal: np.ndarray) -> np.ndarray:
    """The most that a filter seems to add because a mask mixes shells that it damps differently.

    It is that much if the signal fills the box as noise does, and less if it ends within the mask.

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
    """Deviation of the mean gain of two outputs beyond what noise in the shell explains, from half their difference.

    A network's gain depends on the noise as a whole, alike in neighbouring shells.

    Args:
        difference: `(shells,)`, half of what the gains of the two outputs differ by.
        variance: `(shells,)`, of that, by the noise in the shell.
        usable: bool `(shells,)`.
    """
    weights = np.zeros_like(variance)
    weights[usable] = 1 / (variance[usable] + 1e-4) ** 2
    weights[0] = 0
    excess, _ = smooth_over_shells(np.where(weights > 0, difference**2 - variance, 0), weights, _UNSTEADY_WIDTH)
    return np.sqrt(np.maximum(excess, 0) + _STEADIEST**2)


# A value within so many errors of 0 says how large it can be, not how large it is.
_ERRORS = 2.0
# A shell with so few independent numbers has no error worth the name.
_FEWEST = 6.0


@dataclass(frozen=True)
class Estimate:
    """A quantity in every shell; `(shells,)` each.

    Attributes:
        value: NaN where there is none.
        error: standard deviation.
        trusted: whether the value means something: it is more than two errors above 0, rests on enough independent
            numbers, and nothing that it is made of contradicts the assumptions.
    """

    value: np.ndarray
    error: np.ndarray
    trusted: np.ndarray


@dataclass(frozen=True)
class ShellVariances:
    """What is in noisy and denoised half-maps, shell by shell; variances in squared units of the noisy maps.

    Attributes:
        signal: var(S).
        noise: var(N), of one half-map; the full map has half of it.
        bias: var(B), of the denoised half-maps times `gain`.
        residual_noise: var(N_d), times `gain²`.
        added: var(A), the part of the bias that is no multiple of the signal.
        signal_kept: share of the signal's amplitude, k.
        noise_kept: share of the noise's amplitude that comes through unchanged, `(cov(M1,D1) - cov(M1,D2)) / var(N)`.
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
    """The account of a pair and its denoised half-maps.

    Args:
        half_map_1: `(z, y, x)`.
        half_map_2: the same shape, as all that follow.
        denoised_1: made of half_map_1 alone.
        denoised_2: made of half_map_2 alone.
        mask: 0 to 1; None for none.
        gain: factor for the denoised half-maps; None for `overall_gain`.

    Raises:
        ValueError: shapes that differ, a mask of zeros.
    """
    found = shell_covariances([half_map_1, half_map_2, denoised_1, denoised_2], mask)
    return variances_from(found, gain=gain)


def overall_gain(covariances: Covariances) -> float:
    """The one factor for the denoised half-maps that leaves the least bias over all shells; 1 if none is positive.

    Args:
        covariances: of half-map 1 and 2, denoised 1 and 2, in that order.
    """
    inner = slice(1, len(covariances.voxels) - 1)
    cross = (covariances.of(0, 3) + covariances.of(1, 2)) / 2
    weight = covariances.voxels[inner]
    above, below = np.sum(weight * cross[inner]), np.sum(weight * covariances.of(2, 3)[inner])
    return float(above / below) if above > 0 and below > 0 else 1.0


def variances_from(covariances: Covariances, *, gain: float | None = 1.0) -> ShellVariances:
    """The account from covariances of half-map 1 and 2, denoised 1 and 2, in that order.

    Args:
        covariances: of the four maps.
        gain: factor for the denoised half-maps; None for `overall_gain`.
    """
    gain = overall_gain(covariances) if gain is None else float(gain)
    factors = np.array([1.0, 1.0, gain, gain])
    s = covariances.matrix * np.outer(factors, factors)
    linear = {name: linear_form(s, form) for name, form in FORMS.items()}
    linear["mean N"] = linear["N"]
    for name, (first, second, cross) in {"N": (0, 1, "S"), "N_d": (2, 3, "DD")}.items():
        linear[name] = np.sqrt(np.maximum(s[:, first, first] * s[:, second, second], 0)) - linear[cross]
    scatter = sampling_covariance(linear, covariances.dof)
    return _account(linear, scatter, covariances, gain)


def _account(linear, scatter, covariances, gain):
    """All estimates from the linear quantities."""
    enough = covariances.dof >= _FEWEST
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        values, gradients = _values(linear)
        errors, least = _errors(values, gradients, linear, scatter, covariances)
        trusted, inconsistent = _trusted(values, errors, least, enough)

    def estimate(name):
        usable = np.isfinite(values[name]) & np.isfinite(errors[name])
        value, error = (np.where(usable, one[name], np.nan) for one in (values, errors))
        return Estimate(value, error, trusted[name] & usable)

    return ShellVariances(
        signal=estimate("S"),
        noise=estimate("N"),
        bias=estimate("B"),
        residual_noise=estimate("N_d"),
        added=estimate("A"),
        signal_kept=estimate("kept"),
        noise_kept=estimate("noise_kept"),
        signal_to_noise_before=estimate("before"),
        signal_to_noise_after=estimate("after"),
        signal_to_bias=estimate("to_bias"),
        signal_to_added=estimate("to_added"),
        gain=gain,
        inconsistent=inconsistent,
    )


def _values(linear):
    """All quantities, and what a small change of each linear one does to them."""
    s, n, dd, nd, x, c, b = (linear[name] for name in ("S", "N", "DD", "N_d", "X", "C", "B"))
    kept, noise_kept, left = x / s, c / linear["mean N"], x * x / s  # C is a mean of both halves too
    added, one = dd - left, np.ones_like(s)
    values = {"S": s, "N": n, "N_d": nd, "B": b, "A": added, "kept": kept, "noise_kept": noise_kept}
    values |= {"before": s / n, "after": left / nd, "to_bias": s / b, "to_added": left / added}
    gradients = {name: {name: one} for name in ("S", "N", "N_d", "B")} | {
        "A": {"DD": one, "X": -2 * kept, "S": kept * kept},
        "kept": {"X": 1 / s, "S": -kept / s},
        "noise_kept": {"C": 1 / linear["mean N"], "N": -noise_kept / linear["mean N"]},
        "before": {"S": 1 / n, "N": -s / n**2},
        "after": {"X": 2 * kept / nd, "S": -kept * kept / nd, "N_d": -left / nd**2},
        "to_bias": {"S": 1 / b, "B": -s / b**2},
        "to_added": {
            "X": 2 * kept / added + 2 * kept * left / added**2,
            "S": -(kept**2) / added - kept**2 * left / added**2,
            "DD": -left / added**2,
        },
    }
    return values, gradients


def _errors(values, gradients, linear, scatter, covariances):
    """Standard deviations of all quantities, and the least that they are: by noise alone."""
    s, n, kept, added, independent = *(values[name] for name in ("S", "N", "kept", "A")), covariances.dof
    errors = {}
    for name, gradient in gradients.items():
        total = sum(p * q * scatter(i, j) for i, p in gradient.items() for j, q in gradient.items())
        errors[name] = np.sqrt(np.maximum(total, 0))
    known = np.where((independent >= _FEWEST) & (s > _ERRORS * errors["S"]), s, 0)
    mixed = leakage_bias(covariances.leakage, kept, known) / _ERRORS
    noise_mixed = leakage_bias(covariances.leakage, values["noise_kept"], np.ones_like(s))
    unsteady = excess_gain_std(linear["dX"] / s, scatter("dX", "dX") / s**2, (independent >= _FEWEST) & (s > 0))
    errors["A"] = np.hypot(errors["A"], kept * np.sqrt(2 * _ERRORS * mixed * (np.maximum(s, 0) + n) / independent))
    least, left = dict(errors), kept**2 * s
    for name, rooms in {
        "A": (mixed, unsteady**2 * left),
        "kept": (unsteady,),
        "noise_kept": (np.sqrt(noise_mixed / independent),),
        "B": (2 * kept * (1 - kept) * unsteady * s, unsteady**2 * s),
        "to_added": (mixed * left / added**2, (unsteady * left / added) ** 2),
    }.items():
        errors[name] = np.sqrt(errors[name] ** 2 + sum(np.square(one) for one in rooms))
    return errors, least


def _trusted(values, errors, least, enough):
    """Where each quantity means something, and where one is so far below 0 that noise does not explain it."""
    s, x = values["S"], values["kept"] * values["S"]
    positive = {name: enough & (values[name] > _ERRORS * errors[name]) for name in ("S", "N", "N_d", "B", "A")}
    negative = {
        name: enough & (values[name] < -_beyond(enough) * least[name] - 1e-9 * np.abs(s))
        for name in ("S", "N", "N_d", "B", "A")
    }
    negative["A"] &= positive["S"]
    inconsistent = np.any(list(negative.values()), axis=0)
    sound = enough & ~inconsistent
    trusted = {name: positive[name] & sound for name in positive}
    trusted |= {
        "A": positive["A"] & positive["S"] & sound,
        "kept": positive["S"] & sound,
        "noise_kept": positive["N"] & sound,
        "before": positive["S"] & positive["N"] & sound,
        "after": positive["S"] & positive["N_d"] & sound & (x > 0),
        "to_bias": positive["S"] & positive["B"] & sound,
        "to_added": positive["S"] & positive["A"] & sound & (x > 0),
    }
    return trusted, inconsistent


def _beyond(shells):
    """How many errors a normal number hardly ever leaves downwards, given the number of shells.

    Errors are known to first order and distributions have tails, so this is wider than the normal one's alone.
    """
    return np.sqrt(2 * np.log(max(int(np.sum(shells)), 2))) + 2
