"""Bias and added structure beside the truth: by their formulas in slow NumPy, and where it is known what was added."""

import numpy as np
import pytest

from analysis.against_truth import shares

SIDE = 24
RANDOM = np.random.default_rng(3)


def mask():
    apart = np.linalg.norm(np.indices((SIDE,) * 3) - 12, axis=0)
    return (0.5 * (1 + np.cos(np.pi * np.clip((apart - 7) / 3, 0, 1)))).astype(np.float32)


def noise():
    return RANDOM.standard_normal((SIDE,) * 3)


def slow_covariance(one, other):
    """Mean of Re F1 conj(F2) over shells at the nearest integer radius."""
    k = np.fft.fftfreq(SIDE, 1 / SIDE)
    shell = np.floor(np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2) + 0.5).astype(int).ravel()
    product = (np.fft.fftn(one) * np.fft.fftn(other).conj()).real
    return (np.bincount(shell, product.ravel()) / np.bincount(shell))[: SIDE // 2 + 1]


def test_shares_are_their_formulas():
    window, truth = mask(), 2 * noise()
    halves = [0.8 * truth + 0.3 * noise() + 0.1 for _ in range(2)]
    bias, added = shares([one.astype(np.float32) for one in halves], truth.astype(np.float32), window)
    t, d1, d2 = ((one - one[window == 0].mean()) * window for one in (truth, *halves))
    tt, td, dd = slow_covariance(t, t), (slow_covariance(t, d1) + slow_covariance(t, d2)) / 2, slow_covariance(d1, d2)
    # The first two shells depend on where the level of the solvent is taken.
    np.testing.assert_allclose(bias[3:], ((dd - 2 * td + tt) / tt)[3:], atol=1e-3)
    np.testing.assert_allclose(added[3:], ((dd - td**2 / tt) / (td**2 / tt))[3:], atol=1e-3)


@pytest.mark.parametrize(("factor", "extra"), [(1.0, 0.0), (0.5, 0.0), (1.0, 0.4), (3.0, 0.6)])
def test_what_was_added_is_found(factor, extra):
    """Over many shells: with the factor a on the truth and structure of the power p, (1 - a)² + p and p / a²."""
    window, truth, structure = np.ones((SIDE,) * 3, np.float32), noise(), noise()
    halves = [(factor * truth + np.sqrt(extra) * structure + 0.5 * noise()).astype(np.float32) for _ in range(2)]
    bias, added = shares(halves, truth.astype(np.float32), window)
    voxels = np.arange(1, 12) ** 2
    assert np.average(bias[1:12], weights=voxels) == pytest.approx((1 - factor) ** 2 + extra, abs=0.08)
    assert np.average(added[1:12], weights=voxels) == pytest.approx(extra / factor**2, abs=0.08)
