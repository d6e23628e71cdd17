"""The B-factor of the Guinier plot and sharpening by it, against signals with a known one and slow NumPy."""

import numpy as np
import pytest

from crefjax.errors import UserError
from crefjax.spectral.curves import FscCurve, fsc_from_products, shell_products
from crefjax.spectral.sharpening import plan_sharpening, sharpen

SIDE, VOXEL = 48, 1.25


def squared_frequency():
    k = np.fft.fftfreq(SIDE, VOXEL)
    return k[:, None, None] ** 2 + k[:, None] ** 2 + k**2


def half_maps(b_factor, noise=0.05, seed=0):
    """White signal blurred by a B-factor, with white noise."""
    random = np.random.default_rng(seed)
    signal = np.fft.fftn(random.standard_normal((SIDE,) * 3)) * np.exp(-b_factor / 4 * squared_frequency())
    signal = np.fft.ifftn(signal).real
    return [(signal + noise * random.standard_normal(signal.shape)).astype(np.float32) for _ in range(2)]


def measured(halves):
    products = shell_products(halves)
    return products, FscCurve((SIDE,) * 3, VOXEL, fsc_from_products(products))


@pytest.mark.parametrize("b_factor", [0, 40, 100, 250])
def test_known_b_factor_is_found_whatever_the_noise(b_factor):
    for noise in (0.02, 0.2):
        found = plan_sharpening(*measured(half_maps(b_factor, noise)), None)
        assert found.b_factor == pytest.approx(-b_factor, abs=8)
        assert not found.given


def test_sharpened_map_is_that_of_slow_numpy():
    halves = half_maps(80, noise=0.2)
    products, curve = measured(halves)
    spectra = [np.fft.fftn(half) for half in halves]
    shell = np.round(np.sqrt(squared_frequency()) * SIDE * VOXEL).astype(int)
    cref, last, before = np.zeros(SIDE), None, 1.0
    for s in range(SIDE):
        a, b = (spectrum[shell == s] for spectrum in spectra)
        fsc = (a * b.conj()).real.sum() / np.sqrt((abs(a) ** 2).sum() * (abs(b) ** 2).sum()) if len(a) else 0
        cref[s] = np.sqrt(2 * max(fsc, 0) / (1 + max(fsc, 0)))
        if s and last is None and fsc < 0.143:
            last = s - 1 + (before - 0.143) / (before - fsc)
        before = fsc
    cref[0] = 1
    low_pass = 0.5 + 0.5 * np.cos(np.pi * np.clip((np.arange(SIDE) - last + 1) / 2, 0, 1))
    rings = np.arange(SIDE) / (SIDE * VOXEL)
    factor = (cref * np.exp(120 / 4 * rings**2) * low_pass)[shell]
    factor[shell > SIDE // 2] = 0
    expected = np.fft.ifftn(np.fft.fftn(halves[0]) * factor).real
    plan = plan_sharpening(products, curve, -120)
    assert plan.given
    assert np.abs(sharpen(halves[0], plan) - expected).max() < 1e-4 * np.abs(expected).max()


def test_a_strong_b_factor_or_too_few_shells_are_refused():
    with pytest.raises(UserError, match="expected a B-factor of -1000 to 1000"):
        plan_sharpening(*measured(half_maps(80)), -2000)
    products, _ = measured(half_maps(80))
    coarse = FscCurve((SIDE,) * 3, 5 * VOXEL, fsc_from_products(products))
    with pytest.raises(UserError, match=r"expected at least 4 shells between 10 Å and the resolution .* found 0"):
        plan_sharpening(products, coarse, None)
