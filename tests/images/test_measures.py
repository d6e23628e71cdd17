"""Measures, compared with scikit-image, NumPy, and what is known of simulated images."""

import numpy as np
import pytest
from scipy import ndimage

from crefjax.errors import UserError
from crefjax.images import measures
from crefjax.images.sets import CLEAN, EVEN, ODD
from crefjax.spectral.variances import variances_from


def slow_rings(first, second):
    """Mean of `Re F1 conj(F2)` over the whole spectrum, ring by ring, over the number of pixels."""
    f1, f2 = np.fft.fft2(first.astype(float)), np.fft.fft2(second.astype(float))
    y, x = np.meshgrid(*(np.fft.fftfreq(n) * max(first.shape) for n in first.shape), indexing="ij")
    ring = np.floor(np.hypot(y, x) + 0.5).astype(int).ravel()
    count = max(first.shape) // 2 + 1
    products = (f1 * f2.conj()).real.ravel()
    return np.bincount(ring, products)[:count] / np.bincount(ring)[:count] / first.size


@pytest.mark.parametrize("shape", [(24, 24), (21, 30)])
def test_covariances_per_ring_match_numpy(shape, random):
    images = random.normal(size=(3, 2, *shape)).astype(np.float32)
    images[:, 1] += images[:, 0]
    found = measures.ring_covariances(images)
    for i in range(2):
        for j in range(2):
            expected = np.mean([slow_rings(kinds[i], kinds[j]) for kinds in images], 0)
            np.testing.assert_allclose(found.of(i, j), expected, rtol=1e-4, atol=1e-5)
    assert found.dof[3] == 3 * found.voxels[3] / 3


def test_rings_of_masked_noise_scatter_as_their_degrees_of_freedom_say(random):
    """The power of a ring scatters by `2 / n` of its square; 500 draws tell that variance within 7 %."""
    y, x = np.indices((48, 48)) - 24
    mask = 1 / (1 + np.exp((np.hypot(y, x) - 11) / 1.5))
    draws = np.array([slow_rings(noise * mask, noise * mask) for noise in random.normal(size=(500, 48, 48))])
    shown = 2 * draws.mean(0) ** 2 / draws.var(0)
    found = measures.ring_covariances([[mask.astype(np.float32)]], mask).dof
    many = shown > 10
    assert many.sum() >= 15
    np.testing.assert_allclose(found[many] / shown[many], 1, atol=0.3)


def test_leakage_is_what_a_mask_does_to_the_rings_of_noise(random):
    """Noise of one ring alone, under a mask: the power that is found in each ring."""
    y, x = np.indices((48, 48)) - 24
    mask = np.exp(-np.square(np.hypot(y, x) / 9))
    fy, fx = np.meshgrid(np.fft.fftfreq(48, 1 / 48), np.fft.rfftfreq(48, 1 / 48), indexing="ij")
    only = np.floor(np.hypot(fy, fx) + 0.5) == 10
    powers = np.zeros(25)
    for _ in range(100):
        noise = np.fft.irfft2(np.fft.rfft2(random.normal(size=(48, 48))) * only, s=(48, 48))
        powers += slow_rings(noise * mask, noise * mask)
    weights = measures.ring_covariances([[mask.astype(np.float32)]], mask).leakage[:, 10]
    np.testing.assert_allclose(powers[6:15] / powers[10], weights[6:15] / weights[10], atol=0.08)
    assert weights[2] < 0.01 * weights[10]


def test_signal_noise_and_bias_of_a_filter_are_those_that_are_known(random):
    """A factor of 0.6 on every image damps the signal by it: its bias has 0.16 of the signal's power."""
    signal = ndimage.gaussian_filter(random.normal(size=(30, 32, 32)), (0, 1.5, 1.5))
    signal /= signal.std()
    even, odd = (signal + random.normal(0, 0.5, signal.shape) for _ in range(2))
    covariances = measures.ring_covariances(zip(even, odd, 0.6 * even, 0.6 * odd, strict=True))
    found = variances_from(covariances)
    true = np.mean([slow_rings(image, image) for image in signal], 0)
    rings = slice(1, 6)
    np.testing.assert_allclose(found.signal.value[rings], true[rings], rtol=0.1)
    np.testing.assert_allclose(found.noise.value[rings], 0.25, atol=0.08)
    np.testing.assert_allclose(found.bias.value[rings], 0.16 * true[rings], rtol=0.1)
    np.testing.assert_allclose(found.signal_kept.value[rings], 0.6, atol=0.03)


def test_ring_correlation_of_halves_is_that_of_their_signal_to_noise_ratio(particles):
    even, odd, clean = (particles.stack(name).read(slice(None)) for name in (EVEN, ODD, CLEAN))
    correlation = measures.ring_correlation(even, odd)
    assert correlation[1] > 0.5
    assert measures.ring_correlation(clean, clean)[3] == pytest.approx(1)
    with pytest.raises(ValueError, match="at least one image"):
        measures.ring_correlation([], [])


def test_errors_match_scikit_image(random):
    metrics = pytest.importorskip("skimage.metrics")
    clean = ndimage.gaussian_filter(random.normal(size=(40, 52)), 2)
    image = clean + random.normal(0, 0.1, clean.shape)
    span = float(np.ptp(clean))
    assert measures.mse(image, clean) == pytest.approx(metrics.mean_squared_error(clean, image))
    expected = metrics.peak_signal_noise_ratio(clean, image, data_range=span)
    assert measures.psnr(image, clean, span) == pytest.approx(expected)
    assert measures.psnr(clean, clean, span) == np.inf
    expected = metrics.structural_similarity(clean, image, data_range=span)
    assert measures.ssim(image, clean, span) == pytest.approx(expected, abs=1e-10)
    expected = metrics.structural_similarity(clean, image, data_range=1.0, K1=0.02, K2=0.05)
    assert measures.ssim(image, clean, 1.0, k1=0.02, k2=0.05) == pytest.approx(expected, abs=1e-10)
    assert measures.mae(image, clean) == pytest.approx(np.abs(image - clean).mean())
    with pytest.raises(ValueError, match="at least 7 pixels"):
        measures.ssim(image[:5], clean[:5], 1.0)


def test_scale_that_matches_an_image_is_that_of_least_squares(random):
    clean = random.normal(size=(20, 20))
    image = 3 * clean - 7 + random.normal(0, 0.2, clean.shape)
    expected = np.polyfit(image.ravel(), clean.ravel(), 1)
    np.testing.assert_allclose(measures.least_squares_scale(image, clean), expected, rtol=1e-6)
    assert measures.least_squares_scale(np.ones((4, 4)), clean[:4, :4]) == pytest.approx((0, clean[:4, :4].mean()))


def test_snr_of_regions_is_the_one_calculated_by_hand():
    """Background of mean 1 and variance 4; signal of values 1 ± 2 plus 6: squares of 8 and 4 about 1, mean 40."""
    image = np.ones((8, 8))
    image[:, ::2] += 2
    image[:, 1::2] -= 2
    image[:4, :4] += 6
    pairs = [((slice(0, 4), slice(0, 4)), (slice(4, 8), slice(4, 8)))]
    assert measures.region_snr(image, pairs) == pytest.approx(10 * np.log10(40 / 4))
    assert measures.region_snr(-3 * image + 2, pairs * 3) == pytest.approx(10)
    with pytest.raises(UserError, match="at least one pair"):
        measures.region_snr(image, [])
    with pytest.raises(UserError, match="constant region"):
        measures.region_snr(np.ones((8, 8)), pairs)


def test_known_regions_hold_particles_and_background(micrographs):
    clean = micrographs.stack(CLEAN).read([0])[0]
    pairs = measures.known_regions(micrographs.particles_of(0), clean.shape, 12, clean)
    assert len(pairs) >= 3
    for signal, background in pairs:
        assert clean[signal].shape == clean[background].shape == (12, 12)
        assert np.square(clean[signal]).mean() > 5 * np.square(clean[background]).mean()


def test_places_are_matched_one_to_one():
    known = np.array([[10, 10], [30, 30], [50, 50]])
    assert measures.compare_places(known + 1, known, 5) == (1, 1)
    assert measures.compare_places([[10, 10], [11, 11]], known, 5) == (1 / 2, 1 / 3)
    assert measures.compare_places([[90, 90]], known, 5) == (0, 0)
    assert measures.compare_places(np.zeros((0, 2)), known, 5) == (0, 0)


def test_particles_are_found_where_they_are(random):
    pytest.importorskip("sklearn")
    known = np.array([[30, 30], [32, 90], [85, 40], [90, 100]])
    image = np.zeros((128, 128), np.float32)
    image[tuple(known.T)] = 1
    image = ndimage.gaussian_filter(image, 4) * 400 + random.normal(0, 0.3, image.shape)
    found = measures.best_found(image, known, 16)
    assert (found.precision, found.recall, found.f1) == (1, 1, 1)
    np.testing.assert_allclose(sorted(map(tuple, found.places)), sorted(map(tuple, known)), atol=3)
    assert measures.best_found(np.zeros((64, 64)), known, 16).f1 == 0
