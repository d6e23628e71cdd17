"""Shell sums in host memory against NumPy, and B-factors of maps with known ones."""

import numpy as np
import pytest

from crefjax.spectral.curves import fsc_from_products, shell_frequencies, shell_products, solvent_level
from crefjax.spectral.falloff import low_pass_end, noise_b_factor, signal_b_factor, specimen_power
from crefjax.spectral.windows import apply_b_factor

BOX, VOXEL = 64, 1.2


def radius(shape, voxel_size):
    axes = np.meshgrid(*(np.fft.fftfreq(side, voxel_size) for side in shape), indexing="ij")
    return np.sqrt(sum(axis**2 for axis in axes))


def coloured(random, amplitude):
    """White noise times an amplitude over frequency."""
    noise = np.fft.fftn(random.normal(size=(BOX,) * 3))
    return np.fft.ifftn(noise * amplitude(radius((BOX,) * 3, VOXEL))).real


@pytest.mark.parametrize("shape", [(12, 12, 12), (9, 10, 13)])
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
    signal = coloured(random, lambda s: np.sqrt(specimen_power(s)) * np.exp(-b_factor * s**2 / 4))
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
    halves = [(common + coloured(random, lambda s: np.exp(-b_factor * s**2 / 4))).astype(np.float32) for _ in range(2)]
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

        return shell_products([coloured(random, amplitude).astype(np.float32)])[:, 0, 0]

    frequency = shell_frequencies((BOX,) * 3, VOXEL)
    assert 1 / low_pass_end(power(4.0), frequency) == pytest.approx(4.0, rel=0.1)
    assert low_pass_end(power(None), frequency) is None
