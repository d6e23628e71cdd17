"""Steps of the automatic threshold, with expected values by hand."""

import numpy as np
import pytest

from crefjax.masking.threshold import is_inverted, low_pass, noise_sigma, otsu_threshold


def sphere(radius):
    squares = (np.arange(64) - 32.0) ** 2
    return (squares[:, None, None] + squares[:, None] + squares <= radius**2).astype(np.float32)


def test_low_pass_of_single_waves():
    """Waves of 8, 4 and 2.5 Å under a low-pass of 4 Å: kept, halved, gone; the mean stays."""
    x = np.arange(40)
    for period, amplitude in ((8, 1.0), (4, 0.5), (2.5, 0.0)):
        wave = np.broadcast_to(np.cos(2 * np.pi * x / period), (40, 40, 40)).astype(np.float32)
        out = low_pass(2 + wave, 1.0, 4.0)
        np.testing.assert_allclose(out, 2 + amplitude * wave, atol=1e-5)


def test_noise_sigma_is_that_of_the_full_map():
    """A wide-open low-pass leaves white noise of 1 in each half-map as sqrt(1/2) in their mean."""
    rng = np.random.default_rng(0)
    first, second = 5 * sphere(14) + rng.standard_normal((2, 64, 64, 64), dtype=np.float32)
    assert noise_sigma(first, second, 1.0, 0.7) == pytest.approx(0.5**0.5, rel=0.01)
    assert noise_sigma(first, first, 1.0, 0.7) == 0


def test_otsu_threshold():
    """Between two spikes all thresholds are equally good, and the result is the middle."""
    assert otsu_threshold(np.repeat([1.0, 3.0], [900, 100])) == pytest.approx(2.0, abs=0.01)
    assert otsu_threshold(np.full(100, 7.0)) == 7
    # Two equal bells at 0 and 6 are divided halfway.
    bells = np.random.default_rng(0).normal(np.repeat([0, 6], 50_000), 1)
    assert otsu_threshold(bells) == pytest.approx(3, abs=0.1)


def test_a_full_box_is_not_inverted():
    """A particle that fills 85 % of its box leaves a dark tail, but not in the middle."""
    full_box = low_pass(sphere(36), 1.0, 6.0)
    assert full_box.mean() > 0.7
    assert not is_inverted(full_box)
    assert is_inverted(-low_pass(sphere(14), 1.0, 6.0))
