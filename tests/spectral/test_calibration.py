"""Calibrated maps against the truth, for synthetic networks."""

import functools

import numpy as np
import pytest
from helpers import filtered_pairs as pairs

from crefjax.spectral.calibration import Calibration, apply_calibration, calibrate
from crefjax.spectral.covariances import shell_covariances
from crefjax.spectral.curves import solvent_level

SIDE = 48
SHELLS = np.arange(SIDE // 2 + 1)
MASK = pairs.ball((SIDE,) * 3, 14)


@functools.cache
def signal():
    return pairs.falling_signal(SIDE, fall=4, radius=13)


@functools.cache
def halves(seed):
    """Half-maps of the signal with noise of about its deviation."""
    random = np.random.default_rng(50 + seed)
    return tuple(signal() + 0.7 * random.standard_normal((SIDE,) * 3) for _ in range(2))


def calibrated(maps, network, mask=MASK):
    """The map of a pair, and the factors, with a network that is a function of a map."""
    full = (maps[0] + maps[1]) / 2
    all_maps = [*maps, *(network(map_) for map_ in maps), network(full)]
    levels = [solvent_level(map_, mask) for map_ in all_maps]
    found = calibrate(shell_covariances([map_ - level for map_, level in zip(all_maps, levels, strict=True)], mask))
    level = solvent_level(full, mask)
    return apply_calibration(all_maps[-1] - levels[-1], full - level, found) + level, found


def error(map_):
    """Normalized, within the mask."""
    return np.sum((MASK * (map_ - signal())) ** 2) / np.sum((MASK * signal()) ** 2)


def smoothed(map_):
    return pairs.filtered(map_, np.exp(-((SHELLS / 9) ** 2)))


def partly_true(map_):
    """The truth in one half of the box, the noisy map in the other."""
    where = np.clip((np.arange(SIDE) - SIDE / 2) / 6 + 0.5, 0, 1)[:, None, None]
    return where * signal() + (1 - where) * smoothed(map_)


NETWORKS = {
    "the truth": lambda map_: signal(),
    "the input": lambda map_: map_,
    "a blur": smoothed,
    "partly the truth": partly_true,
    "half the noise": lambda map_: smoothed(0.5 * map_ + 0.5 * signal()),
    "most of the noise, and false structure": lambda map_: smoothed(0.3 * map_ + 0.7 * signal()) + false(),
    "nothing": lambda map_: 0 * map_,
    "one number": lambda map_: 0 * map_ + 3,
    "the input inverted": lambda map_: -map_,
    "noise": lambda map_: np.random.default_rng(1).standard_normal(map_.shape),
}


@functools.cache
def false():
    return 0.5 * smoothed(np.random.default_rng(11).standard_normal((SIDE,) * 3)) * MASK


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("masked", [True, False])
def test_factors_are_finite_and_never_negative(name, masked):
    result, found = calibrated(halves(0), NETWORKS[name], MASK if masked else None)
    for factors in (found.network, found.full):
        assert factors.shape == SHELLS.shape
        assert np.isfinite(factors).all()
        assert (factors >= 0).all()
    assert (found.full <= 1).all()
    assert np.isfinite(result).all()
    assert result.dtype == np.float32


def test_a_perfect_network_gives_nearly_the_truth():
    """But for some of the full map, where its signal is so strong that the two cannot be told apart."""
    for seed in range(3):
        result, found = calibrated(halves(seed), NETWORKS["the truth"])
        assert error(result) < 0.25 * error(pairs.wiener(*halves(seed), MASK))
        power, noise = pairs.cross(signal(), signal(), MASK), 0.7**2 / 2
        weak = (power < 20 * noise) & (SHELLS > 0)
        assert weak.sum() > 10
        np.testing.assert_allclose(found.network[weak] + found.full[weak], 1, atol=0.15)
        assert found.full[weak].max() < 0.2


@pytest.mark.parametrize("name", ["the input", "a blur"])
def test_a_network_that_is_a_filter_ends_with_the_wiener_filter(name):
    """No filter's factors can be better; a mask leaves a little of noise and signal to find."""
    for seed in range(3):
        result, _ = calibrated(halves(seed), NETWORKS[name])
        assert error(result) == pytest.approx(error(pairs.wiener(*halves(seed), MASK)), rel=0.1)


@pytest.mark.parametrize("name", ["partly the truth", "half the noise", "most of the noise, and false structure"])
def test_an_informed_network_is_better_than_the_wiener_filter(name):
    for seed in range(3):
        result, _ = calibrated(halves(seed), NETWORKS[name])
        assert error(result) < error(pairs.wiener(*halves(seed), MASK))


@pytest.mark.parametrize("name", ["nothing", "one number", "noise"])
def test_an_uninformed_network_does_no_harm(name):
    """What is left is the full map, as far as it is believed: no worse than without any filter."""
    result, _ = calibrated(halves(0), NETWORKS[name])
    assert error(result) <= 1.02 * min(1, error((halves(0)[0] + halves(0)[1]) / 2))


@pytest.mark.parametrize("factor", [0.01, 200.0])
def test_an_overall_factor_of_the_output_does_not_matter(factor):
    plain, _ = calibrated(halves(0), partly_true)
    result, _ = calibrated(halves(0), lambda map_: factor * partly_true(map_))
    np.testing.assert_allclose(result, plain, atol=1e-4)


@pytest.mark.parametrize("power", [-0.7, 0.7])
@pytest.mark.parametrize(("masked", "tolerance"), [(False, 0.01), (True, 0.05)])
def test_factors_of_shells_do_not_matter(power, masked, tolerance):
    """Positive and smooth ones, as an FSC loss may leave them: here a factor 4 in amplitude over 15 shells."""
    mask = MASK if masked else None
    network, factors = NETWORKS["half the noise"], np.exp(power * np.cos(SHELLS / 5))
    plain, _ = calibrated(halves(0), network, mask)
    result, _ = calibrated(halves(0), lambda map_: pairs.filtered(network(map_), factors), mask)
    # Not to rounding: what is known of a shell is taken from its neighbors too, and a mask mixes them.
    changed = np.sum((MASK * (result - plain)) ** 2) / np.sum((MASK * signal()) ** 2)
    assert changed < tolerance * error(plain)
    assert error(result) < error(pairs.wiener(*halves(0), MASK))


@pytest.mark.parametrize("name", ["the input", "a blur"])
def test_noise_is_not_taken_for_signal(name):
    for seed in range(3):
        maps = np.random.default_rng(seed).standard_normal((2, SIDE, SIDE, SIDE))
        result, _ = calibrated(maps, NETWORKS[name])
        assert np.sum((MASK * result) ** 2) < 0.05 * np.sum((MASK * (maps[0] + maps[1]) / 2) ** 2)


def test_the_mean_is_that_of_the_full_map():
    maps = [half_map + 5 for half_map in halves(0)]
    result, found = calibrated(maps, partly_true)
    assert found.network[0] == 0
    assert found.full[0] == 1
    assert result.mean() == pytest.approx((maps[0] + maps[1]).mean() / 2, rel=1e-5)


def test_the_units_of_the_half_maps_are_kept():
    plain, _ = calibrated(halves(0), smoothed)
    result, _ = calibrated([1e-6 * half_map for half_map in halves(0)], smoothed)
    np.testing.assert_allclose(result, 1e-6 * plain, atol=1e-9)


@pytest.mark.parametrize("name", ["the input", "half the noise", "nothing"])
@pytest.mark.parametrize("masked", [True, False])
def test_shells_without_power_give_finite_factors(name, masked):
    """Maps that end before Nyquist, as most deposited ones do."""
    cut = (SHELLS < 17).astype(float)
    maps = [pairs.filtered(half_map, cut) for half_map in halves(0)]
    network = NETWORKS[name]
    result, found = calibrated(maps, lambda map_: pairs.filtered(network(map_), cut), MASK if masked else None)
    assert np.isfinite(found.network).all()
    assert np.isfinite(found.full).all()
    assert np.isfinite(result).all()
    assert np.abs(result).max() < 3 * np.abs(signal()).max()


def test_maps_of_zeros_give_zeros():
    zero = np.zeros((16, 16, 16), np.float32)
    found = calibrate(shell_covariances([zero] * 5))
    result = apply_calibration(zero, zero, found)
    np.testing.assert_array_equal(result, 0)


@pytest.mark.parametrize("shape", [(16, 16, 16), (15, 15, 15), (20, 13, 16)])
def test_applied_factors_match_numpy(shape):
    random = np.random.default_rng(4)
    network, full = random.standard_normal((2, *shape)).astype(np.float32)
    count = max(shape) // 2 + 1
    factors = random.uniform(0, 2, (2, count))
    expected = 0
    for map_, of_one in zip((network, full), factors, strict=True):
        index = pairs.spectra.shell_index(shape)
        kept = np.where(index < count, of_one[np.minimum(index, count - 1)], 0)
        expected = expected + np.fft.ifftn(np.fft.fftn(map_.astype(float)) * kept).real
    found = apply_calibration(network, full, Calibration(*factors))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_corners_have_the_factors_of_the_last_shell_but_one():
    random = np.random.default_rng(4)
    network, full = random.normal(size=(2, 12, 12, 12)).astype(np.float32)
    factors = Calibration(np.linspace(0.2, 0.8, 7), np.linspace(0.9, 0.3, 7))
    k = np.fft.fftfreq(12, 1 / 12)
    shell = np.floor(np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2) + 0.5).astype(int)
    expected = sum(
        np.fft.fftn(array) * np.append(curve, curve[5])[np.minimum(shell, 7)]
        for array, curve in ((network, factors.network), (full, factors.full))
    )
    found = apply_calibration(network, full, factors, corners=True)
    np.testing.assert_allclose(found, np.fft.ifftn(expected).real, atol=1e-5)
    assert (shell > 6).any()


def test_solvent_level_is_the_mean_outside():
    random = np.random.default_rng(5)
    map_, mask = random.standard_normal((10, 12, 14)).astype(np.float32), np.zeros((10, 12, 14), np.float32)
    mask[2:5, 3:9] = 1
    mask[5, 3:9] = 0.25
    assert solvent_level(map_, mask) == pytest.approx(np.average(map_, weights=1 - mask), rel=1e-5)
    assert solvent_level(map_, None) == pytest.approx(map_.mean(), rel=1e-5)
    assert solvent_level(map_, np.ones_like(mask)) == pytest.approx(map_.mean(), rel=1e-5)
