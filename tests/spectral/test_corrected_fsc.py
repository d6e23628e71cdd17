"""The correction of a masked FSC by phase randomization, against plain NumPy in float64."""

import numpy as np
import pytest
from reference import spectra as slow

from crefjax.errors import UserError
from crefjax.spectral.curves import FscCurve
from crefjax.spectral.fsc import CorrectedFsc, correct_fsc, corrected_fsc, randomize_phases

SHAPE = (24, 20, 26)


def half_maps(shape=SHAPE, noise=1.0, seed=0):
    """Half-maps of random blobs in the middle of the box, which fade out towards high frequencies."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    spectrum = np.fft.fftn(rng.standard_normal(shape)) * np.exp(-0.15 * slow.shell_index(shape) ** 1.5)
    signal = np.fft.ifftn(spectrum).real * np.exp(-3 * (z**2 + y**2 + x**2))
    signal *= 4 / signal.std()
    return [(signal + noise * rng.standard_normal(shape)).astype(np.float32) for _ in range(2)]


def ball(shape=SHAPE, radius=0.5, soft=0.1):
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    return np.clip((radius - np.sqrt(z**2 + y**2 + x**2)) / soft, 0, 1).astype(np.float32)


def slow_random_phases(array, shell, seed):
    """Amplitudes of the map and phases of white noise from a shell on, voxel by voxel of the whole spectrum."""
    spectrum = np.fft.fftn(array.astype(np.float64))
    noise = np.fft.fftn(np.random.default_rng(seed).standard_normal(array.shape, np.float32).astype(np.float64))
    index = slow.shell_index(array.shape)
    for place in np.ndindex(array.shape):
        if index[place] >= shell:
            spectrum[place] = abs(spectrum[place]) * noise[place] / abs(noise[place])
    back = np.fft.ifftn(spectrum)
    assert abs(back.imag).max() < 1e-6 * abs(back.real).max()
    return back.real


def slow_masked(array, mask):
    """The map within a mask, less the mean outside."""
    array, mask = array.astype(np.float64), mask.astype(np.float64)
    return (array - np.average(array, weights=1 - mask)) * mask


def slow_corrected(halves, mask, seed):
    unmasked = slow.fsc(*halves)
    shell = next(s for s in range(1, len(unmasked)) if unmasked[s] < 0.8)
    masked = slow.fsc(*(slow_masked(half, mask) for half in halves))
    random = [slow_random_phases(half, shell, (seed, n)) for n, half in enumerate(halves)]
    randomized = slow.fsc(*(slow_masked(half, mask) for half in random))
    corrected = [1.0]
    for s in range(1, len(unmasked)):
        corrected.append(masked[s] if s < shell + 2 else (masked[s] - randomized[s]) / (1 - randomized[s]))
    return shell, unmasked, masked, randomized, corrected


@pytest.mark.parametrize("shape", [SHAPE, (21, 21, 21)])
@pytest.mark.parametrize("seed", [0, 3])
def test_curves_match_numpy(shape, seed):
    halves, mask = half_maps(shape), ball(shape)
    found = corrected_fsc(*halves, 1.5, mask, seed=seed)
    shell, *expected = slow_corrected(halves, mask, seed)
    assert found.shell == shell > 2
    curves = (found.unmasked, found.masked, found.randomized, found.corrected)
    for curve, values in zip(curves, expected, strict=True):
        np.testing.assert_allclose(curve.fsc[1:], values[1:], atol=1e-6)
    assert np.abs(found.corrected.fsc - found.masked.fsc)[shell + 2 :].max() > 0.02  # the correction is not idle
    assert found.randomized_from == pytest.approx(max(shape) * 1.5 / shell)


@pytest.mark.parametrize("shape", [(12, 10, 14), (11, 13, 9)])
def test_random_phases_keep_every_amplitude_and_the_shells_below(shape):
    array = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    before, after = (np.fft.fftn(a.astype(np.float64)) for a in (array, randomize_phases(array, 3, 5)))
    np.testing.assert_allclose(abs(after), abs(before), rtol=1e-6, atol=1e-9)
    below = slow.shell_index(shape) < 3
    np.testing.assert_allclose(after[below], before[below], rtol=1e-6, atol=1e-9)
    turned = np.angle(after[~below] / before[~below])
    assert abs(np.exp(1j * turned).mean()) < 4 / np.sqrt(turned.size)


def test_the_two_maps_get_different_phases_and_the_seed_decides():
    same = half_maps(noise=0.5)[0]
    other = half_maps(noise=0.5)[1]
    curves = [
        corrected_fsc(same, other, 1.0, np.ones(SHAPE, np.float32), seed=seed).randomized.fsc for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(curves[0], curves[1])
    assert not np.array_equal(curves[0], curves[2])
    beyond = slow_corrected([same, other], np.zeros(SHAPE, np.float32), 0)[0]
    assert np.abs(curves[0][beyond + 1 :]).mean() < 0.2  # a mask of ones makes no correlation


def test_correlation_that_comes_from_the_mask_alone_is_taken_out():
    """Half-maps with nothing in common beyond shell 5, through a sharp mask; the mean of eight pairs."""
    shape = (32, 32, 32)
    z, y, x = np.indices(shape) - 16
    mask = (z**2 + y**2 + x**2 < 81).astype(np.float32)
    masked, corrected = [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        common = np.fft.fftn(rng.standard_normal(shape)) * (slow.shell_index(shape) < 6) * 6
        halves = [(np.fft.ifftn(common).real + rng.standard_normal(shape)).astype(np.float32) for _ in range(2)]
        curves = corrected_fsc(*halves, 1.0, mask, seed=seed)
        assert curves.shell == 6
        masked.append(curves.masked.fsc[8:12].mean())
        corrected.append(curves.corrected.fsc[8:12].mean())
    assert np.mean(masked) > 0.2
    assert abs(np.mean(corrected)) < 0.08


def test_correction_by_hand():
    masked, randomized = np.array([-1, 0.95, 0.9, 0.8, 0.6, 0.5, 1.0]), np.array([1, 0.9, 0.5, 0.3, 0.2, -0.25, 1.0])
    expected = [1, 0.95, 0.9, 0.8, 0.5, 0.6, 0]  # (0.6 - 0.2) / 0.8 and (0.5 + 0.25) / 1.25; a mask that makes 1 says 0
    np.testing.assert_allclose(correct_fsc(masked, randomized, 2), expected, atol=1e-12)


def test_half_maps_that_agree_up_to_nyquist_are_refused():
    half_map, _ = half_maps()
    with pytest.raises(UserError, match=r"below 0\.8.*leave out the mask"):
        corrected_fsc(half_map, half_map * np.float32(1.001), 1.5, ball())


@pytest.mark.parametrize(
    ("unmasked", "masked", "randomized", "doubt"),
    [
        ([1, 1, 0.7, 0.4, 0.3, 0.1], [1, 1, 0.9, 0.8, 0.7, 0.1], [1, 1, 0, 0, 0, 0], None),
        (
            [1, 1, 0.7, 0.4, 0.3, 0.1],
            [1, 1, 0.9, 0.8, 0.1, 0.1],
            [1, 1, 0, 0, 0, 0],
            "unmasked FSC falls below 0.143 at",
        ),
        ([1, 1, 0.7, 0.4, 0.1, 0.0], [1, 1, 0.9, 0.8, 0.7, 0.2], [1, 1, 0, 0, 0.2, 0.1], "random phases is 0.20"),
    ],
)
def test_doubts_about_the_mask(unmasked, masked, randomized, doubt):
    corrected = correct_fsc(np.array(masked, float), np.array(randomized, float), 2)
    curves = (FscCurve((10, 10, 10), 1.0, np.array(fsc, float)) for fsc in (unmasked, masked, randomized, corrected))
    doubts = CorrectedFsc(*curves, 2, 0).doubts()
    assert len(doubts) == (doubt is not None)
    assert doubt is None or doubt in doubts[0]
