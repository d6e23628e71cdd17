"""Shell sums in host memory and sharpening against slow NumPy, and B-factors of maps with known ones."""

import numpy as np
import pytest

from crefjax.errors import UserError
from crefjax.spectral.b_factors import (
    apply_b_factor,
    low_pass_end,
    noise_b_factor,
    plan_sharpening,
    sharpen,
    signal_b_factor,
    specimen_power,
)
from crefjax.spectral.curves import FscCurve, fsc_from_products, shell_frequencies, shell_products, solvent_level

BOX, VOXEL = 64, 1.2
SIDE, SPACING = 48, 1.25


def radius(shape, voxel_size):
    axes = np.meshgrid(*(np.fft.fftfreq(side, voxel_size) for side in shape), indexing="ij")
    return np.sqrt(sum(axis**2 for axis in axes))


def colored(random, amplitude):
    """White noise times an amplitude over frequency."""
    noise = np.fft.fftn(random.normal(size=(BOX,) * 3))
    return np.fft.ifftn(noise * amplitude(radius((BOX,) * 3, VOXEL))).real


@pytest.mark.parametrize("shape", [(12, 12, 12), (9, 10, 13), (50, 44, 41)])  # the last one in several parts
@pytest.mark.parametrize("masked", [True, False])
def test_shell_products_are_those_of_every_voxel(shape, masked):
    random = np.random.default_rng(1)
    maps = [random.normal(size=shape).astype(np.float32) for _ in range(2)]
    mask = random.uniform(size=shape).astype(np.float32) if masked else None
    found = shell_products(maps, mask, levels=[0.5, -0.25])
    spectra = [
        np.fft.fftn((each.astype(np.float64) - level) * (1 if mask is None else mask))
        for each, level in zip(maps, (0.5, -0.25), strict=True)
    ]
    longest = max(shape)
    shell = np.floor(radius(shape, 1.0) * longest + 0.5).astype(int)
    assert len(found) == longest // 2 + 1 == len(shell_frequencies(shape, 1.0))
    for s in range(longest // 2 + 1):
        for i in range(2):
            for j in range(2):
                expected = np.mean((spectra[i] * spectra[j].conj()).real[shell == s])
                assert found[s, i, j] == pytest.approx(expected, rel=1e-4, abs=1e-3)
    fsc = found[:, 0, 1] / np.sqrt(found[:, 0, 0] * found[:, 1, 1])
    np.testing.assert_allclose(fsc_from_products(found), fsc)


def test_the_solvent_level_is_the_mean_outside_the_mask():
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    mask = np.zeros((2, 3, 4), np.float32)
    mask[0] = 1
    mask[1, 0] = 0.5
    weights = 1 - mask.astype(np.float64)
    assert solvent_level(array, mask) == pytest.approx(np.average(array, weights=weights))
    assert solvent_level(array, None) == solvent_level(array, np.ones_like(mask)) == pytest.approx(11.5)


def test_a_blur_multiplies_a_wave_by_the_factor_of_its_frequency():
    x = np.arange(BOX)
    wave = np.broadcast_to(np.cos(2 * np.pi * 9 * x / BOX), (BOX,) * 3).astype(np.float32)
    factor = np.exp(-80 * (9 / (BOX * VOXEL)) ** 2 / 4)
    np.testing.assert_allclose(apply_b_factor(wave, VOXEL, 80.0), factor * wave, atol=1e-5)
    corner = np.random.default_rng(1).normal(size=(16,) * 3).astype(np.float32)
    beyond = np.fft.fftn(apply_b_factor(corner, VOXEL, -40.0)) / np.fft.fftn(corner)
    level = np.exp(40 * (0.5 / VOXEL) ** 2 / 4)
    np.testing.assert_allclose(beyond[radius((16,) * 3, VOXEL) >= 0.5 / VOXEL].real, level, rtol=1e-3)


@pytest.mark.parametrize("b_factor", [40.0, 120.0, 300.0])
def test_the_signals_b_factor_is_found(b_factor):
    random = np.random.default_rng(2)
    signal = colored(random, lambda s: np.sqrt(specimen_power(s)) * np.exp(-b_factor * s**2 / 4))
    halves = [(signal + 0.02 * signal.std() * random.normal(size=signal.shape)).astype(np.float32) for _ in range(2)]
    found, error = signal_b_factor(shell_products(halves), shell_frequencies(signal.shape, VOXEL))
    assert found == pytest.approx(b_factor, abs=12)
    assert abs(found - b_factor) < 4 * error


def test_the_error_is_that_of_a_straight_line_and_that_of_the_specimen():
    """Products made by hand: deviation of a slope of evenly weighted points (any textbook's formula)."""
    random = np.random.default_rng(9)
    frequency = shell_frequencies((BOX,) * 3, VOXEL)
    chosen = slice(4, 25)  # from 25 Å on, up to where the FSC is made to end
    s = frequency[chosen]
    scatter = np.zeros(len(frequency))
    scatter[chosen] = 0.5 * random.standard_normal(len(s))
    signal = specimen_power(frequency) * np.exp(scatter - 50 * frequency**2 / 2)
    products = np.tile(signal[:, None, None], (1, 2, 2))
    products[25:, 0, 1] = products[25:, 1, 0] = 0
    found, error = signal_b_factor(products, frequency)
    x, y = s**2 / 2, scatter[chosen] - 50 * s**2 / 2
    slope = np.sum((x - x.mean()) * (y - y.mean())) / np.sum((x - x.mean()) ** 2)
    left = y - y.mean() - slope * (x - x.mean())
    assert found == pytest.approx(-slope, rel=1e-6)
    of_line = np.sqrt(np.sum(left**2) / (len(x) - 2) / np.sum((x - x.mean()) ** 2))
    of_specimen = 0.5 / (x[-1] - x[0])
    assert error == pytest.approx(np.sqrt(of_line**2 + of_specimen**2), rel=1e-6)


def test_noise_alone_gives_no_signal_b_factor():
    random = np.random.default_rng(3)
    halves = [random.normal(size=(32,) * 3).astype(np.float32) for _ in range(2)]
    assert signal_b_factor(shell_products(halves), shell_frequencies((32,) * 3, VOXEL)) is None


@pytest.mark.parametrize("b_factor", [-120.0, 0.0, 90.0])
def test_the_noises_b_factor_is_found(b_factor):
    random = np.random.default_rng(4)
    common = 5 * random.normal(size=(BOX,) * 3)
    halves = [(common + colored(random, lambda s: np.exp(-b_factor * s**2 / 4))).astype(np.float32) for _ in range(2)]
    assert noise_b_factor(*halves, VOXEL) == pytest.approx(b_factor, abs=8)


def test_alike_half_maps_have_no_noise():
    half = np.random.default_rng(5).normal(size=(32,) * 3).astype(np.float32)
    assert noise_b_factor(half, half, VOXEL) is None


def test_the_end_of_a_low_pass_is_found():
    random = np.random.default_rng(6)

    def power(end):
        def amplitude(s):
            fall = 0.02 + 0.98 * (0.5 + 0.5 * np.cos(np.pi * np.clip((s * end - 0.9) / 0.2, 0, 1))) if end else 1
            return np.sqrt(specimen_power(s)) * np.exp(-60 * s**2 / 4) * fall

        return shell_products([colored(random, amplitude).astype(np.float32)])[:, 0, 0]

    frequency = shell_frequencies((BOX,) * 3, VOXEL)
    assert 1 / low_pass_end(power(4.0), frequency) == pytest.approx(4.0, rel=0.1)
    assert low_pass_end(power(None), frequency) is None


def squared_frequency():
    k = np.fft.fftfreq(SIDE, SPACING)
    return k[:, None, None] ** 2 + k[:, None] ** 2 + k**2


def half_maps(b_factor, noise=0.05, seed=0):
    """White signal blurred by a B-factor, with white noise."""
    random = np.random.default_rng(seed)
    signal = np.fft.fftn(random.standard_normal((SIDE,) * 3)) * np.exp(-b_factor / 4 * squared_frequency())
    signal = np.fft.ifftn(signal).real
    return [(signal + noise * random.standard_normal(signal.shape)).astype(np.float32) for _ in range(2)]


def measured(halves):
    products = shell_products(halves)
    return products, FscCurve((SIDE,) * 3, SPACING, fsc_from_products(products))


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
    shell = np.round(np.sqrt(squared_frequency()) * SIDE * SPACING).astype(int)
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
    rings = np.arange(SIDE) / (SIDE * SPACING)
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
    coarse = FscCurve((SIDE,) * 3, 5 * SPACING, fsc_from_products(products))
    with pytest.raises(UserError, match=r"expected at least 4 shells between 10 Å and the resolution .* found 0"):
        plan_sharpening(products, coarse, None)
