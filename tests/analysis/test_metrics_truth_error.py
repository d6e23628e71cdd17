"""Bias and added structure against the truth: by their formulas in NumPy, and for known added structure."""

import numpy as np
import pytest

from analysis.metrics.truth_error import average_shells, bias_by_shell, shells_up_to

SIDE = 24


def mask():
    apart = np.linalg.norm(np.indices((SIDE,) * 3) - 12, axis=0)
    return (0.5 * (1 + np.cos(np.pi * np.clip((apart - 7) / 3, 0, 1)))).astype(np.float32)


def noises(count, seed):
    return np.random.default_rng(seed).standard_normal((count, SIDE, SIDE, SIDE))


def slow_covariance(first, other):
    """Mean of Re F1 conj(F2) over shells at the nearest integer radius."""
    k = np.fft.fftfreq(SIDE, 1 / SIDE)
    shell = np.floor(np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2) + 0.5).astype(int).ravel()
    product = (np.fft.fftn(first) * np.fft.fftn(other).conj()).real
    return (np.bincount(shell, product.ravel()) / np.bincount(shell))[: SIDE // 2 + 1]


def test_bias_and_added_structure_match_numpy():
    truth, *noise = noises(3, 3) * np.array([2, 1, 1]).reshape(3, 1, 1, 1)
    window = mask()
    halves = [0.8 * truth + 0.3 * noise_map + 0.1 for noise_map in noise]
    bias, added, kept = bias_by_shell(
        [half_map.astype(np.float32) for half_map in halves], truth.astype(np.float32), window
    )
    t, d1, d2 = ((map_ - map_[window == 0].mean()) * window for map_ in (truth, *halves))
    tt, td, dd = slow_covariance(t, t), (slow_covariance(t, d1) + slow_covariance(t, d2)) / 2, slow_covariance(d1, d2)
    # The first two shells depend on where the level of the solvent is taken.
    np.testing.assert_allclose(bias[3:], ((dd - 2 * td + tt) / tt)[3:], atol=1e-3)
    np.testing.assert_allclose(added[3:], ((dd - td**2 / tt) / tt)[3:], atol=1e-3)
    np.testing.assert_allclose(kept[3:], (td**2 / tt**2)[3:], atol=3e-3)
    curve = np.arange(SIDE // 2 + 1) / SIDE / 2.0
    within = shells_up_to(curve, 8.0)
    assert np.flatnonzero(within).tolist() == [1, 2, 3, 4, 5, 6]
    assert np.flatnonzero(shells_up_to(curve, 0)).tolist() == list(range(1, 12))
    found = average_shells(bias_by_shell(halves, truth, window), within)
    assert found["bias_share"] == pytest.approx(bias[1:7].mean(), rel=1e-3)
    assert found["added_share"] == pytest.approx(added[1:7].mean() / kept[1:7].mean(), rel=1e-3)
    assert average_shells(bias_by_shell(halves, truth, window), within & False) == {
        "bias_share": None,
        "added_share": None,
    }


@pytest.mark.parametrize(("factor", "extra"), [(1.0, 0.0), (0.5, 0.0), (1.0, 0.4), (3.0, 0.6)])
def test_added_structure_of_known_power_is_measured(factor, extra):
    """Over many shells: with the factor a on the truth and structure of the power p, (1 - a)² + p and p / a²."""
    truth, structure, *noise = noises(4, 5)
    halves = [(factor * truth + np.sqrt(extra) * structure + 0.5 * noise_map).astype(np.float32) for noise_map in noise]
    bias, added, kept = bias_by_shell(halves, truth.astype(np.float32), np.ones((SIDE,) * 3, np.float32))
    voxels = np.arange(1, 12) ** 2
    bias, added, kept = (np.average(curve[1:12], weights=voxels) for curve in (bias, added, kept))
    assert bias == pytest.approx((1 - factor) ** 2 + extra, rel=0.05, abs=0.02)
    assert added == pytest.approx(extra, rel=0.1, abs=0.02)
    assert kept == pytest.approx(factor**2, rel=0.05)
