"""The default scale, against a sum of network and full map with factors per shell in NumPy."""

import numpy as np
import pytest
from helpers.small_network import network

import crefjax
from crefjax.inference.denoise import denoise_maps
from crefjax.inference.request import DenoiseRequest
from crefjax.io.maps import Map
from crefjax.spectral.curves import has_no_signal

SHAPE = (18, 15, 20)


@pytest.fixture(scope="module")
def pair():
    """Return half-maps of a body off the center, on a level of 2, with noise."""
    z, y, x = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")
    body = 3 * np.exp(-(((z - 8) / 4) ** 2 + ((y - 7) / 3.5) ** 2 + ((x - 11) / 4) ** 2))
    body = body * (1 + 0.5 * np.sin(1.3 * x + 0.7 * y))
    noise = np.random.default_rng(2).standard_normal((2, *SHAPE))
    return tuple(Map.from_array(2 + body + 0.3 * white, 1.5, (4.0, 0.0, -3.0)) for white in noise)


@pytest.fixture(scope="module")
def mask(pair):
    mask = np.zeros(SHAPE, np.float32)
    mask[2:15, 1:13, 4:18] = 0.5
    mask[3:14, 2:12, 5:17] = 1
    return pair[0].replace_array(mask)


def level(array, region):
    return array.mean() if region is None else np.average(array, weights=1 - region.astype(np.float64))


def shells_of(shape):
    """Return the shell of every voxel of the whole spectrum."""
    k = np.meshgrid(*(np.fft.fftfreq(n) * max(shape) for n in shape), indexing="ij")
    return np.floor(np.sqrt(sum(axis**2 for axis in k)) + 0.5).astype(int)


def by_shells(array, factors):
    """Multiply the shells of a map by factors, 0 beyond the last."""
    of_voxel = np.append(factors, 0)[np.minimum(shells_of(array.shape), len(factors))]
    return np.fft.ifftn(np.fft.fftn(array) * of_voxel).real


@pytest.mark.parametrize("masked", [True, False])
def test_output_is_the_calibrated_sum_of_network_and_full_map(masked, pair, mask, weights):
    own_mask = mask if masked else None
    found = denoise_maps(DenoiseRequest(pair, weights, own_mask, scale="signal", half_maps=True))
    a, b = found.calibration.network, found.calibration.full
    assert (a[0], b[0]) == (0, 1)
    assert min(a.min(), b.min()) >= 0
    assert a[1:].max() > 0
    arrays = [half_map.array.astype(np.float64) for half_map in pair]
    full = (arrays[0] + arrays[1]) / 2
    inside = mask.array if masked else 1.0
    if masked:
        np.testing.assert_array_equal(found.region, mask.array)
    for array, result in zip([full, *arrays], [found.full, found.half_map_1, found.half_map_2], strict=True):
        raw = network(weights, ((array - full.mean()) / full.std() * inside).astype(np.float32))
        of_array, of_raw = level(array, found.region), level(raw, found.region)
        expected = by_shells(raw - of_raw, a) + by_shells(array - of_array, b) + (0 if masked else of_array)
        np.testing.assert_allclose(result.array, expected * inside, atol=2e-5)
        assert (result.voxel_size, result.origin) == (1.5, (4.0, 0.0, -3.0))


def test_default_scale_is_signal_for_two_maps_and_input_for_one(pair, weights):
    signal, plain = (crefjax.denoise(*pair, weights=weights, scale=scale).array for scale in ("signal", None))
    np.testing.assert_array_equal(plain, signal)
    full = pair[0].replace_array((pair[0].array + pair[1].array) / 2)
    own, plain = (crefjax.denoise(full, weights=weights, scale=scale).array for scale in ("input", None))
    np.testing.assert_array_equal(plain, own)
    assert np.abs(signal - own).max() > 0.1


def test_masked_output_scales_with_the_maps_and_ignores_level_and_order(pair, mask, weights):
    def denoised(first, second):
        return crefjax.denoise(first, second, mask, weights).array.astype(np.float64)

    plain = denoised(*pair)
    np.testing.assert_allclose(denoised(*pair[::-1]), plain, atol=1e-5)
    large = [half_map.replace_array(1000 * half_map.array) for half_map in pair]
    np.testing.assert_allclose(denoised(*large), 1000 * plain, atol=0.05)
    lifted = [half_map.replace_array(half_map.array + 5) for half_map in pair]
    np.testing.assert_allclose(denoised(*lifted), plain, atol=1e-4)  # no plateau in the shape of the mask
    assert not plain[mask.array == 0].any()


@pytest.mark.parametrize("seed", range(3))
def test_half_maps_of_noise_are_denoised_to_almost_zero(seed, weights):
    noise = np.random.default_rng(seed).standard_normal((2, 24, 24, 24))
    pair = tuple(Map.from_array(white, 1.5) for white in noise)
    found = denoise_maps(DenoiseRequest(pair, weights))
    assert has_no_signal(found.half_map_fsc.fsc)
    assert found.full.array.std() < 0.25 * noise.mean(0).std()


@pytest.mark.parametrize("masked", [True, False])
def test_result_holds_the_fsc_of_the_half_maps(masked, pair, mask, weights):
    found = denoise_maps(DenoiseRequest(pair, weights, mask if masked else None))
    weight = 1.0 if found.region is None else found.region
    spectra = [np.fft.fftn((half.array - level(half.array, found.region)) * weight).ravel() for half in pair]
    shell = shells_of(SHAPE).ravel()
    cross, *power = (
        np.bincount(shell, (a * b.conj()).real)[: max(SHAPE) // 2 + 1]
        for a, b in (spectra, spectra[:1] * 2, spectra[1:] * 2)
    )
    np.testing.assert_allclose(found.half_map_fsc.fsc, cross / np.sqrt(power[0] * power[1]), atol=1e-5)
    assert found.half_map_fsc.voxel_size == 1.5
    assert not has_no_signal(found.half_map_fsc.fsc)
    assert denoise_maps(DenoiseRequest(pair, weights, scale="none")).half_map_fsc is None
