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

**Errors.** The specimen is not random, its noise is. In a shell of n independent numbers, maps of mean `m` and noise
covariance `C` have sample covariances `s_ij` with (noncentral Wishart distribution)

    cov(s_ij, s_kl) = (C_ik C_jl + C_il C_jk + m_i m_k C_jl + m_i m_l C_jk + m_j m_k C_il + m_j m_l C_ik) / n

where C is 0 between maps of different halves. The errors given are standard deviations by this formula, to first
order. Those of k, of var(A) and of what is made of them also hold that under a mask a filter is not quite one factor
within a shell, which is worth some thousandths of the kept signal. A network is no filter: its gain depends on the
noise. How unsteady it is, the gains of the two outputs tell, `cov(M1,D2) - cov(M2,D1)` against its scatter; errors of
k, var(A) and var(B) hold it.
"""

from dataclasses import dataclass

import numpy as np

from crefjax.spectral.covariances import Covariances, over_neighbours, shell_covariances

# A value within so many errors of 0 says how large it can be, not how large it is.
_ERRORS = 2.0
# A shell with so few independent numbers has no error worth the name.
_FEWEST = 6.0
# The errors take a filter for one factor in a shell; under a mask it varies there by about this share of itself.
_SPREAD = 0.06
# Over so many shells (standard deviation of a Gaussian) the gains of the two outputs are compared.
_UNSTEADY_WIDTH = 3.0
# No network's gain is believed to be steadier than this; found with networks on many pairs of one signal.
_STEADIEST = 0.01


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
        contradicted: `(shells,)`, where the assumptions fail: a variance is negative by more than its error allows.
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
    contradicted: np.ndarray


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
    return variances_of(found, gain=gain)


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


def variances_of(covariances: Covariances, *, gain: float | None = 1.0) -> ShellVariances:
    """The account from covariances of half-map 1 and 2, denoised 1 and 2, in that order.

    Args:
        covariances: of the four maps.
        gain: factor for the denoised half-maps; None for `overall_gain`.
    """
    gain = overall_gain(covariances) if gain is None else float(gain)
    factors = np.array([1.0, 1.0, gain, gain])
    s = covariances.matrix * np.outer(factors, factors)
    linear = {name: _linear(s, form) for name, form in _FORMS.items()}
    linear["mean N"] = linear["N"]
    for name, (first, second, cross) in {"N": (0, 1, "S"), "N_d": (2, 3, "DD")}.items():
        linear[name] = np.sqrt(np.maximum(s[:, first, first] * s[:, second, second], 0)) - linear[cross]
    scatter = _scatter(linear, covariances.independent)
    return _account(linear, scatter, covariances.independent, gain)


# Quantities as sums of covariances: pairs of maps (half-map 1, 2, denoised 1, 2) and factors. N and N_d stand here with
# the mean of two powers for the root of their product, which is the same to first order where the halves are alike.
_FORMS = {
    "S": {(0, 1): 1.0},
    "N": {(0, 0): 0.5, (1, 1): 0.5, (0, 1): -1.0},
    "DD": {(2, 3): 1.0},
    "N_d": {(2, 2): 0.5, (3, 3): 0.5, (2, 3): -1.0},
    "X": {(0, 3): 0.5, (1, 2): 0.5},
    "dX": {(0, 3): 0.5, (1, 2): -0.5},
    "C": {(0, 2): 0.5, (1, 3): 0.5, (0, 3): -0.5, (1, 2): -0.5},
    "B": {(2, 3): 1.0, (0, 3): -1.0, (1, 2): -1.0, (0, 1): 1.0},
}


def _linear(s, form):
    return sum(factor * s[:, i, j] for (i, j), factor in form.items())


def _scatter(linear, independent):
    """Covariance of two quantities of `_FORMS` due to noise, as a function of their names."""
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
            a * b * of_products(*pair, *other)
            for pair, a in _FORMS[first].items()
            for other, b in _FORMS[second].items()
        )
        return total / independent

    return of


def _account(linear, scatter, independent, gain):
    """All estimates from the linear quantities; `gradients` are what a small change of each does to a quotient."""
    s, n, dd, nd, x, c, b = (linear[name] for name in ("S", "N", "DD", "N_d", "X", "C", "B"))
    enough = independent >= _FEWEST
    mean_n = linear["mean N"]  # C is a mean of both halves too

    def error(gradient):
        total = sum(p * q * scatter(i, j) for i, p in gradient.items() for j, q in gradient.items())
        return np.sqrt(np.maximum(total, 0))

    one = np.ones_like(s)
    errors = {name: error({name: one}) for name in ("S", "N", "N_d", "B")}
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        kept, noise_kept = x / s, c / mean_n
        left = x * x / s
        added = dd - left
        errors["A"] = error({"DD": one, "X": -2 * kept, "S": kept * kept})
        gradients = {
            "kept": {"X": 1 / s, "S": -kept / s},
            "noise_kept": {"C": 1 / mean_n, "N": -noise_kept / mean_n},
            "before": {"S": 1 / n, "N": -s / n**2},
            "after": {"X": 2 * kept / nd, "S": -kept * kept / nd, "N_d": -left / nd**2},
            "to_bias": {"S": 1 / b, "B": -s / b**2},
            "to_added": {
                "X": 2 * kept / added + 2 * kept * left / added**2,
                "S": -(kept**2) / added - kept**2 * left / added**2,
                "DD": -left / added**2,
            },
        }
        quotients = {
            "kept": kept,
            "noise_kept": noise_kept,
            "before": s / n,
            "after": left / nd,
            "to_bias": s / b,
            "to_added": left / added,
        }
        errors |= {name: error(gradient) for name, gradient in gradients.items()}
        unsteady = _unsteady(linear["dX"] / s, scatter("dX", "dX") / s**2, enough & (s > 0))
        rooms = {
            "A": (0, _SPREAD**2 + unsteady**2, left),
            "kept": (unsteady, _SPREAD**2, 1),
            "B": (2 * kept * (1 - kept) * unsteady, unsteady**2, s),
            "noise_kept": (0, _SPREAD / np.sqrt(independent), noise_kept),
            "to_added": (0, _SPREAD**2 + unsteady**2, (left / added) ** 2),
        }
        for name, (first, second, size) in rooms.items():
            errors[name] = np.sqrt(errors[name] ** 2 + (first * size) ** 2 + (second * size) ** 2)
    values = {"S": s, "N": n, "N_d": nd, "B": b, "A": added, **quotients}
    positive = {name: enough & (values[name] > _ERRORS * errors[name]) for name in ("S", "N", "N_d", "B", "A")}
    # So far below 0 that noise does not explain it, also as the largest of many shells.
    contradicted = enough & np.any(
        [values[name] < -_beyond(enough) * errors[name] - 1e-9 * np.abs(s) for name in ("S", "N", "N_d", "B")], axis=0
    )
    contradicted |= positive["S"] & (added < -_beyond(enough) * errors["A"] - 1e-9 * np.abs(s))
    sound = enough & ~contradicted
    trusted = {
        **{name: positive[name] & sound for name in positive},
        "A": positive["A"] & positive["S"] & sound,
        "kept": positive["S"] & sound,
        "noise_kept": positive["N"] & sound,
        "before": positive["S"] & positive["N"] & sound,
        "after": positive["S"] & positive["N_d"] & sound & (x > 0),
        "to_bias": positive["S"] & positive["B"] & sound,
        "to_added": positive["S"] & positive["A"] & sound & (x > 0),
    }

    def estimate(name):
        usable = np.isfinite(values[name]) & np.isfinite(errors[name])
        return Estimate(
            np.where(usable, values[name], np.nan), np.where(usable, errors[name], np.nan), trusted[name] & usable
        )

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
        contradicted=contradicted,
    )


def _unsteady(difference, variance, usable):
    """Deviation of the mean gain of two outputs beyond what noise in the shell explains, from half their difference.

    A network's gain depends on the noise as a whole, alike in neighbouring shells.
    """
    weights = np.zeros_like(variance)
    weights[usable] = 1 / (variance[usable] + 1e-4) ** 2
    weights[0] = 0
    excess, _ = over_neighbours(np.where(weights > 0, difference**2 - variance, 0), weights, _UNSTEADY_WIDTH)
    return np.sqrt(np.maximum(excess, 0) + _STEADIEST**2)


def _beyond(shells):
    """How many errors a normal number leaves downwards about once in a hundred maps, given the number of shells."""
    return np.sqrt(2 * np.log(max(int(np.sum(shells)), 2))) + 2
