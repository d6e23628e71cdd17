"""How far C_ref may be from the FSC of the full map to the truth by chance, and how far it is.

**The scatter that C_ref may have.** Let the half-maps be `S + N_i` under the mask, with noise of `v` times the power
of the signal, so that FSC = h = 1/(1 + v). Both C_ref and the true FSC scatter with the noise, but nearly together: to
first order in the shell means of `S conj(N_i)`, `|N_i|²` and `N_1 conj(N_2)` all terms of their difference cancel but
one,

    C_ref - FSC(full map, truth) = C_ref e / 2,    e = Re <N_1 conj(N_2)> / <|S|²>,    var e = v² / n,

the chance correlation of the two noises, over `n` independent voxels of the shell (of the whole spectrum, so that both
Friedel mates count). That is as if the FSC alone were off by `(1 - h²) / sqrt(n)`, which is the standard error of a
correlation coefficient of `n` pairs (Fisher 1915, Biometrika 10, 507; for the FSC: Rosenthal & Henderson 2003, J. Mol.
Biol. 333, 721). So the band is drawn by Fisher's transformation (1921, Metron 1, 3), which is good at all h,

    C_ref(tanh(artanh(h) ± 1.96 / sqrt(n))),

and a deviation is told in units of it: `(artanh(h) - artanh(c² / (2 - c²))) sqrt(n)` for a true FSC of c. C_ref of a
negative h is taken as `-C_ref(-h)` here.

**The number of independent voxels.** A mask `m` makes neighbours in the spectrum alike: white noise under it has the
covariance `r(k - k')`, `r` the transform of `m²` divided by its value at 0. With it the variance of e is `v²` times the
mean of `|r|²` over all pairs of voxels of the shell, hence `n = N² / sum_{k, k' in shell} |r(k - k')|²`, for N voxels.

**What C_ref cannot see.** A fault that both half-maps share, such as the blur by errors of pose, is signal to it. For
the reconstruction the truth is the density itself; the same particles without noise give the correlation with the truth
of what both halves share, and C_ref times this is what the true FSC should be.
"""

from dataclasses import dataclass

import jax
import numpy as np
from scipy import fft

from crefjax.simulate.half_maps import SimulationConfig
from crefjax.simulate.reconstruction import reconstruct_signal_and_noise
from crefjax.spectral.fsc import c_ref, fsc_curve

QUANTILE = 1.96  # of the normal distribution: 95 % lie within


@dataclass(frozen=True, eq=False)
class Curves:
    """What was measured on one simulated pair; arrays `(shells,)` from shell 0 to Nyquist.

    Attributes:
        frequency: 1/Å.
        voxels: of the shell, in the whole spectrum.
        independent: how many of them count.
        fsc_half: of the masked half-maps.
        cref: from it.
        low, high: the band in which the true FSC should lie 95 % of the time.
        fsc_truth: of the masked full map and truth.
        deviation: of `cref` from `fsc_truth`, in units of the scatter that is allowed.
        shared: correlation of what both half-maps have in common with the truth; 1 for noise that was added.
        deviation_shared: the same deviation of `cref * shared`.
    """

    frequency: np.ndarray
    voxels: np.ndarray
    independent: np.ndarray
    fsc_half: np.ndarray
    cref: np.ndarray
    low: np.ndarray
    high: np.ndarray
    fsc_truth: np.ndarray
    deviation: np.ndarray
    shared: np.ndarray
    deviation_shared: np.ndarray


def measure(simulation, shared=None) -> Curves:
    """Compare C_ref with the true FSC on a `crefjax.simulate` Simulation; `shared` as in `Curves`."""
    mask, voxel_size = simulation.mask, simulation.voxel_size
    halves = simulation.half_map_1, simulation.half_map_2
    half = fsc_curve(*halves, voxel_size, mask)
    true = fsc_curve((halves[0] + halves[1]) / 2, simulation.truth, voxel_size, mask).fsc
    voxels, independent = independent_voxels(mask)
    shared = np.ones(len(voxels)) if shared is None else shared
    z = np.arctanh(np.clip(half.fsc, -1 + 1e-12, 1 - 1e-12))
    low, high = (signed_c_ref(np.tanh(z + sign * QUANTILE / np.sqrt(independent))) for sign in (-1, 1))
    deviations = [(z - np.arctanh(fsc_of_c_ref(true / factor))) * np.sqrt(independent) for factor in (1.0, shared)]
    return Curves(
        half.frequency, voxels, independent, half.fsc, half.cref, low, high, true, deviations[0], shared, deviations[1]
    )


def signed_c_ref(fsc_half: np.ndarray) -> np.ndarray:
    """C_ref that goes on below 0: `-C_ref(-h)` there."""
    return np.sign(fsc_half) * np.sqrt(2 * np.abs(fsc_half) / (1 + np.abs(fsc_half)))


def fsc_of_c_ref(cref: np.ndarray) -> np.ndarray:
    """The half-map FSC that gives this C_ref, kept below 1: `c² / (2 - c²)`, with the sign of c."""
    c = np.clip(cref, -1, 1)
    return np.clip(np.sign(c) * c**2 / (2 - c**2), -1 + 1e-12, 1 - 1e-12)


def independent_voxels(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The voxels of every shell and how many of them are independent in white noise under a mask; see above.

    Args:
        mask: `(n, n, n)`.

    Returns:
        Two arrays `(n // 2 + 1,)`; the second is at most the first.
    """
    side, half = len(mask), len(mask) // 2
    k = np.fft.fftfreq(side, 1 / side)
    shell = np.floor(np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2) + 0.5)
    correlation = np.abs(fft.fftn(mask.astype(np.float64) ** 2)) ** 2
    correlation = fft.rfftn(correlation / correlation[0, 0, 0]).real
    weight = np.full(half + 1, 2.0)
    weight[0] = 1
    if side % 2 == 0:
        weight[-1] = 1
    voxels, independent = np.empty(half + 1), np.empty(half + 1)
    for number in range(half + 1):
        inside = (shell == number).astype(np.float64)
        power = np.abs(fft.rfftn(inside)) ** 2
        voxels[number] = inside.sum()
        pairs = (power * correlation * weight).sum() / mask.size
        independent[number] = min(voxels[number] ** 2 / pairs, voxels[number])
    return voxels, independent


def shared_with_truth(simulation, settings: SimulationConfig) -> np.ndarray:
    """Correlation with the truth of what the two half-maps would have in common without noise, `(shells,)`.

    The particles are those of the simulation. The mean of their noise-free maps has the correlation `c` with the
    truth. What differs between these maps, as errors of pose do, is noise like any other, and C_ref of their FSC is the
    part of `c` that it takes.
    """
    key = jax.random.fold_in(jax.random.key(settings.seed), 1)  # as `simulate_half_maps` draws them; a test holds it
    parts = reconstruct_signal_and_noise(
        simulation.truth, settings.voxel_size, key, settings.particles, refinements=settings.refinements
    )
    signals = [np.asarray(one) for one in (parts.signal_1, parts.signal_2)]
    correlation = fsc_curve(sum(signals) / 2, simulation.truth, settings.voxel_size, simulation.mask).fsc
    within = np.asarray(c_ref(fsc_curve(*signals, settings.voxel_size, simulation.mask).fsc))
    return np.clip(correlation / np.maximum(within, 1e-3), 1e-3, 1)


def summary(curves: Curves) -> dict:
    """How well C_ref held over the shells 1 to N/2 - 1, all and those where the FSC is above chance."""
    inner = slice(1, len(curves.cref) - 1)
    seen = np.tanh(QUANTILE / np.sqrt(curves.independent)) < curves.fsc_half
    found = {}
    for name, deviation in (("", curves.deviation), ("_with_shared", curves.deviation_shared)):
        for which, chosen in (("all", np.ones(len(seen), bool)), ("signal", seen)):
            some = np.abs(deviation[inner][chosen[inner]])
            found[f"{which}_shells{name}"] = {
                "count": len(some),
                "share_within_95": round(float(np.mean(some < QUANTILE)), 4),
                "root_mean_square_deviation": round(float(np.sqrt(np.mean(some**2))), 3),
                "largest_deviation": round(float(some.max()), 3),
            }
    difference = (curves.cref - curves.fsc_truth)[inner][seen[inner]]
    found["largest_difference_in_signal_shells"] = round(float(difference[np.abs(difference).argmax()]), 4)
    found["least_shared_in_signal_shells"] = round(float(curves.shared[inner][seen[inner]].min()), 4)
    return found
