import jax
import numpy as np
import pytest

from crefjax.errors import UserError
from crefjax.io.maps import Map, read_map
from crefjax.simulate.noise import (
    NoiseSpectrum,
    b_factor_spectrum,
    colored_noise,
    low_passed_noise,
    measured_spectrum,
    modulation,
    power_law_spectrum,
    white_spectrum,
)


def shell_power(array, voxel_size):
    """Mean power of the whole spectrum in every shell from 1 to Nyquist, by NumPy; frequencies; voxels."""
    spectrum = np.fft.fftn(np.asarray(array, np.float64))
    k = np.meshgrid(*[np.fft.fftfreq(side, voxel_size) for side in array.shape], indexing="ij")
    s = np.sqrt(sum(axis**2 for axis in k))
    longest = max(array.shape)
    shell = np.floor(s * longest * voxel_size + 0.5).astype(int).ravel()
    voxels = np.bincount(shell)[1 : longest // 2 + 1]
    power = np.bincount(shell, (np.abs(spectrum) ** 2).ravel())[1 : longest // 2 + 1] / voxels
    mean_s = np.bincount(shell, s.ravel())[1 : longest // 2 + 1] / voxels
    return power / array.size, mean_s, voxels


CASES = {
    "white": (white_spectrum(), lambda s: np.ones_like(s)),
    "blurred": (b_factor_spectrum(60.0), lambda s: np.exp(-60 * s**2 / 2)),
    "sharpened": (b_factor_spectrum(-40.0), lambda s: np.exp(40 * s**2 / 2)),
    "power law": (power_law_spectrum(2.0, level_below=0.03), lambda s: np.maximum(s, 0.03) ** -2),
    "table": (
        NoiseSpectrum(np.array([0.05, 0.2], np.float32), np.array([1.0, 3.0], np.float32), "table"),
        lambda s: (1 + 2 * np.clip((s - 0.05) / 0.15, 0, 1)) ** 2,
    ),
}


@pytest.mark.parametrize("shape", [(32, 32, 32), (24, 27, 40)])
@pytest.mark.parametrize("case", CASES)
def test_power_of_every_shell_is_that_of_the_spectrum(case, shape):
    spectrum, expected = CASES[case]
    noise = np.asarray(colored_noise(jax.random.key(1), shape, 1.3, spectrum))
    assert noise.shape == shape
    assert noise.dtype == np.float32
    power, s, voxels = shell_power(noise, 1.3)
    # The scale is that of a variance of 1 over the whole spectrum, which reaches into the corners.
    k = np.meshgrid(*[np.fft.fftfreq(side, 1.3) for side in shape], indexing="ij")
    everywhere = expected(np.sqrt(sum(axis**2 for axis in k)))
    everywhere[0, 0, 0] = 0
    ratio = power / (expected(s) / everywhere.mean())
    # The power of a shell scatters by sqrt(2 / voxels), as half of the spectrum mirrors the other.
    assert (np.abs(ratio - 1) < 0.05 + 4 * np.sqrt(2 / voxels)).all()
    np.testing.assert_allclose(ratio[-8:].mean(), 1, atol=0.06)


def test_mean_is_zero_and_variance_one():
    noise = np.asarray(colored_noise(jax.random.key(2), (40, 40, 40), 1.0, white_spectrum()), np.float64)
    np.testing.assert_allclose(noise.mean(), 0, atol=1e-6)
    np.testing.assert_allclose(noise.var(), 1, atol=0.02)
    kurtosis = np.mean(noise**4) / noise.var() ** 2
    np.testing.assert_allclose(kurtosis, 3, atol=0.1)


def test_noise_depends_on_the_key_alone_also_under_jit():
    shape = (16, 18, 20)

    @jax.jit
    def make(key, voxel_size, spectrum):
        return colored_noise(key, shape, voxel_size, spectrum)

    spectrum = power_law_spectrum(1.0)
    noise = colored_noise(jax.random.key(5), shape, 1.5, spectrum)
    np.testing.assert_allclose(make(jax.random.key(5), 1.5, spectrum), noise, atol=1e-5)
    np.testing.assert_array_equal(colored_noise(jax.random.key(5), shape, 1.5, spectrum), noise)
    other = np.asarray(colored_noise(jax.random.key(6), shape, 1.5, white_spectrum()))
    assert abs(np.corrcoef(other.ravel(), np.asarray(noise).ravel())[0, 1]) < 0.06


def test_low_passed_noise_has_nothing_beyond_its_resolution():
    noise = low_passed_noise(jax.random.key(0), (32, 32, 32), 2.0, 20.0)
    power, s, _ = shell_power(np.asarray(noise), 2.0)
    assert power[s > 2 / 20].max() < 1e-2 * power[s < 0.5 / 20].mean()


def test_modulation_is_smooth_uneven_and_has_mean_square_one():
    factor = np.asarray(modulation(jax.random.key(0), (32, 32, 32), 0.4))
    np.testing.assert_allclose(np.mean(factor.astype(np.float64) ** 2), 1, rtol=1e-5)
    np.testing.assert_allclose(np.log(factor).std(), 0.4, atol=1e-3)
    assert max(np.abs(np.diff(np.log(factor), axis=axis)).max() for axis in range(3)) < 0.3
    np.testing.assert_allclose(modulation(jax.random.key(0), (16, 16, 16), 0.0), 1, rtol=1e-6)


@pytest.fixture
def noisy_particle():
    """A map of noise that falls with frequency, and a strong particle in its middle."""
    noise = colored_noise(jax.random.key(3), (64, 64, 64), 2.0, b_factor_spectrum(100.0))
    z, y, x = np.meshgrid(*[np.arange(64.0) - 32] * 3, indexing="ij")
    particle = 30 * np.exp(-(z**2 + y**2 + x**2) / 2 / 7**2)
    return np.asarray(noise) + particle.astype(np.float32) + 5


def test_measured_spectrum_is_that_of_the_noise(noisy_particle):
    spectrum = measured_spectrum(Map.from_array(noisy_particle, 2.0))
    s = spectrum.frequency
    expected = np.exp(-100 * s**2 / 4)
    usable = (s > 0.02) & (s < 0.25)
    ratio = spectrum.amplitude[usable] / expected[usable]
    np.testing.assert_allclose(ratio / ratio.mean(), 1, atol=0.2)
    # Without leaving the particle out, its lowest shells stand far out.
    power, _, _ = shell_power(noisy_particle, 2.0)
    assert np.sqrt(power[0]) / expected[0] > 10 * np.sqrt(power[16]) / expected[16]


def test_measured_spectrum_is_constant_beyond_a_limit(noisy_particle):
    spectrum = measured_spectrum(Map.from_array(noisy_particle, 2.0), until=8.0)
    assert spectrum.frequency[-1] <= 1 / 8 < spectrum.frequency[-1] + 1 / 128
    with pytest.raises(UserError, match="up to a resolution of 4 Å"):
        measured_spectrum(Map.from_array(noisy_particle, 2.0), until=3.0)


def test_masked_map_raises(noisy_particle):
    z, y, x = np.meshgrid(*[np.arange(64.0) - 32] * 3, indexing="ij")
    noisy_particle[z**2 + y**2 + x**2 > 18**2] = 0
    with pytest.raises(UserError, match="expected unmasked solvent") as caught:
        measured_spectrum(Map.from_array(noisy_particle, 2.0))
    assert "\n" not in str(caught.value)


def test_solvent_of_real_maps_is_measured(shared):
    for name in ("emd_5168.map", "emd_5170.map"):
        spectrum = measured_spectrum(read_map(shared / "maps" / name))
        assert np.isfinite(spectrum.amplitude).all()
        assert spectrum.amplitude.min() > 0
        assert name in spectrum.name
    with pytest.raises(UserError, match=r"emd_3488\.map: expected unmasked solvent"):
        measured_spectrum(read_map(shared / "maps/emd_3488.map"))
