"""Classical filters: what they do to waves and noise, and scikit-image's own results."""

import numpy as np
import pytest
from scipy import ndimage

from analysis.images import methods
from crefjax.errors import UserError


def wave(frequency, side=64):
    """A wave along x of so many periods in the image, about 5."""
    return (5 + np.cos(2 * np.pi * frequency * np.arange(side) / side) * np.ones((side, 1))).astype(np.float32)


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.fixture
def noisy(random):
    clean = np.zeros((48, 48), np.float32)
    clean[12:36, 16:30] = 3
    return clean, (clean + random.normal(0, 1, clean.shape)).astype(np.float32)


def test_lowpass_keeps_what_is_below_and_removes_what_is_beyond():
    """64 pixels of 2 Å: 16 Å is ring 8."""
    np.testing.assert_allclose(methods.lowpass(wave(5), 2.0, 16.0), wave(5), atol=1e-4)
    np.testing.assert_allclose(methods.lowpass(wave(11), 2.0, 16.0), 5, atol=1e-4)
    np.testing.assert_allclose(methods.lowpass(wave(8), 2.0, 16.0), (wave(8) + 5) / 2, atol=1e-4)


def test_gaussian_damps_a_wave_by_its_transform():
    """`exp(-2 (pi sigma f)²)` at 4 / 64 per pixel, for 2 pixels."""
    found = methods.gaussian(np.tile(wave(4), (1, 3)), 1.5, 3.0)[:, 64:128]
    expected = 5 + (wave(4) - 5) * np.exp(-2 * (np.pi * 2 * 4 / 64) ** 2)
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_wiener_multiplies_rings_by_signal_over_the_sum():
    signal, noise = np.zeros(33), np.ones(33)
    signal[6] = 3
    signal[9] = -1
    np.testing.assert_allclose(methods.wiener(wave(6), signal, noise), 5 + 0.75 * (wave(6) - 5), atol=1e-4)
    np.testing.assert_allclose(methods.wiener(wave(9), signal, noise), 5, atol=1e-4)


def test_total_variation_and_nonlocal_means_are_those_of_scikit_image(noisy):
    restoration = pytest.importorskip("skimage.restoration")
    clean, image = noisy
    scaled = (image - image.mean()) / 0.8
    expected = restoration.denoise_tv_chambolle(scaled, weight=1.5) * 0.8 + image.mean()
    np.testing.assert_allclose(methods.total_variation(image, 0.8, weight=1.5), expected, atol=1e-4)
    expected = restoration.denoise_nl_means(scaled, 7, 11, h=0.8, sigma=1.0, fast_mode=True) * 0.8 + image.mean()
    np.testing.assert_allclose(methods.nonlocal_means(image, 0.8), expected, atol=1e-4)
    for method in (methods.total_variation, methods.nonlocal_means):
        assert np.mean((method(image, 1.0) - clean) ** 2) < 0.5 * np.mean((image - clean) ** 2)


def test_sparse_codes_reduce_noise(noisy, random):
    pytest.importorskip("sklearn")
    clean, image = noisy
    dictionary = methods.learned_dictionary(image[None], patch=6, atoms=16, patches=500)
    assert dictionary.shape == (16, 36)
    found = methods.sparse(image, dictionary, 1.0)
    assert np.mean((found - clean) ** 2) < 0.3 * np.mean((image - clean) ** 2)
    # Less noise than is there: nothing may be removed, and patches that overlap agree.
    identity = np.eye(36)
    np.testing.assert_allclose(methods.sparse(image, identity, 1e-3), image, atol=2e-2)


@pytest.mark.parametrize("method", [methods.total_variation, methods.nonlocal_means])
def test_no_noise_is_refused(method):
    with pytest.raises(UserError, match="expected noise above 0"):
        method(np.ones((16, 16), np.float32), 0.0)


def test_missing_libraries_are_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "skimage.restoration", None)
    with pytest.raises(UserError, match=r"needs scikit-image, which is not installed; pip install 'crefjax\[images\]'"):
        methods.total_variation(ndimage.gaussian_filter(np.ones((16, 16)), 1), 1.0)
