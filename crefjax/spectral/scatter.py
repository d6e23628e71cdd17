"""How much the quantities of `variances.py` scatter from one draw of the noise to the next, and what else blurs them.

In a shell of n independent numbers, maps of mean `m` and noise covariance `C` have sample covariances `s_ij` with
(noncentral Wishart distribution)

    cov(s_ij, s_kl) = (C_ik C_jl + C_il C_jk + m_i m_k C_jl + m_i m_l C_jk + m_j m_k C_il + m_j m_l C_ik) / n

where C is 0 between maps of different halves.
"""

from collections.abc import Callable

import numpy as np

from crefjax.spectral.covariances import over_neighbours

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


def scatter_of(linear: dict[str, np.ndarray], independent: np.ndarray) -> Callable[[str, str], np.ndarray]:
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


def mixed_shells(leakage: np.ndarray | None, kept: np.ndarray, signal: np.ndarray) -> np.ndarray:
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


def unsteady_gain(difference: np.ndarray, variance: np.ndarray, usable: np.ndarray) -> np.ndarray:
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
    excess, _ = over_neighbours(np.where(weights > 0, difference**2 - variance, 0), weights, _UNSTEADY_WIDTH)
    return np.sqrt(np.maximum(excess, 0) + _STEADIEST**2)
