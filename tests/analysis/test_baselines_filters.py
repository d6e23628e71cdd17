"""The plain filters, against NumPy and by hand."""

import math
import sys

import numpy as np
import pytest

from analysis.baselines import filters
from crefjax.errors import UserError
from crefjax.spectral.curves import FscCurve
from crefjax.spectral.fsc import fsc_curve
from crefjax.spectral.shells import filter_shells

BOX, VOXEL = (20, 24, 18), 2.0
LONGEST, SHELLS = 24, 13


def shells_of(box):
    """`floor(|k| L + 1/2)` of every voxel of the whole spectrum."""
    k = [np.fft.fftfreq(side, 1 / side) / side * max(box) for side in box]
    return np.floor(np.sqrt(k[0][:, None, None] ** 2 + k[1][:, None] ** 2 + k[2] ** 2) + 0.5).astype(int)


def slowly(map_, factors, beyond=0.0):
    of_voxel = np.append(factors, beyond)[np.minimum(shells_of(map_.shape), len(factors))]
    return np.fft.ifftn(np.fft.fftn(map_.astype("f8")) * of_voxel).real


def curve_of(values, box=BOX):
    return FscCurve(box, VOXEL, np.asarray(values, float))


def falling(at):
    """An FSC that falls along a straight line from 1 at shell 0 and is 0.143 at a shell."""
    return curve_of(np.clip(1 - (1 - 0.143) * np.arange(SHELLS) / at, -0.2, 1))


@pytest.fixture
def noisy():
    return (5 + np.random.default_rng(1).standard_normal(BOX)).astype("f4")


@pytest.mark.parametrize("beyond", [0.0, 0.5])
def test_every_shell_has_its_factor(noisy, beyond):
    factors = np.linspace(0.9, 0.1, SHELLS)
    np.testing.assert_allclose(filter_shells(noisy, factors, beyond=beyond), slowly(noisy, factors, beyond), atol=1e-5)


def test_a_large_mean_does_not_reduce_accuracy(noisy):
    factors = np.append(1.0, np.linspace(0.9, 0.1, SHELLS - 1))
    expected = slowly(noisy + 2e4, factors)
    np.testing.assert_allclose(filter_shells(noisy + np.float32(2e4), factors), expected, atol=4e-3)


def test_wiener_factors_by_hand():
    """With signal 3 and noise 1 in each half-map: FSC 3 / 4, and 3 / (3 + 1 / 2) for the mean of both."""
    fsc = [0.2, 0.75, 1.0, 0.142, 0.9, -0.3]
    np.testing.assert_allclose(filters.wiener_factors(fsc), [1, 6 / 7, 1, 0, 0, 0])
    np.testing.assert_allclose(filters.wiener_factors(fsc, half=True), [1, 0.75, 1, 0, 0, 0])
    np.testing.assert_allclose(filters.wiener_factors([0.0, 1.2, 0.143]), [1, 1, 2 * 0.143 / 1.143])


def test_wiener_factors_are_those_of_least_squares():
    """For maps with a known signal, the factors from the FSC are those of least squares, shell by shell."""
    random, box = np.random.default_rng(2), (48,) * 3
    signal = slowly(random.standard_normal(box), np.exp(-np.arange(25) / 6))
    halves = [(signal + 0.1 * random.standard_normal(box)).astype("f4") for _ in range(2)]
    curve = fsc_curve(*halves, VOXEL)
    spectrum, shells = np.fft.fftn(signal), shells_of(box).ravel()
    for map_, half in ((halves[0], True), ((halves[0] + halves[1]) / 2, False)):
        other = np.fft.fftn(map_.astype("f8"))
        cross, power = (np.bincount(shells, (other * s.conj()).real.ravel())[:25] for s in (spectrum, other))
        kept = slice(4, np.flatnonzero(curve.fsc < 0.143)[0])  # shells of a few hundred voxels and more
        assert kept.stop > 8
        np.testing.assert_allclose(filters.wiener_factors(curve.fsc, half=half)[kept], (cross / power)[kept], atol=0.04)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("at", [6.3, 40])
def test_wiener(noisy, at, half):
    curve = falling(at)
    fsc, factors = np.clip(curve.fsc, 0, 1), np.ones(SHELLS)
    for shell in range(1, SHELLS):
        cut = any(fsc[1 : shell + 1] < 0.143)
        factors[shell] = 0 if cut else fsc[shell] if half else 2 * fsc[shell] / (1 + fsc[shell])
    assert (factors[-1] == 0) == (at < 12)
    np.testing.assert_allclose(filters.wiener(noisy, curve, half=half), slowly(noisy, factors), atol=1e-5)


def test_lowpass_at_the_resolution(noisy):
    """Shell 6.5: 1 up to 5.5, 0 from 7.5 on; only shells 6 and 7 are in between, a quarter from either end."""
    factors = np.zeros(SHELLS)
    factors[:6] = 1
    factors[6:8] = [0.5 + 0.5 * np.cos(np.pi / 4), 0.5 + 0.5 * np.cos(3 * np.pi / 4)]
    np.testing.assert_allclose(filters.lowpass(noisy, falling(6.5)), slowly(noisy, factors), atol=1e-5)


def test_lowpass_of_an_fsc_that_never_falls_is_at_nyquist(noisy):
    factors = np.append(np.ones(SHELLS - 1), 0.5)
    np.testing.assert_allclose(filters.lowpass(noisy, curve_of(np.ones(SHELLS))), slowly(noisy, factors), atol=1e-5)


def test_gaussian_of_a_point_is_a_gaussian():
    sigma = 3.0  # Å, 1.5 voxels
    point = np.zeros((18, 20, 22), np.float32)
    point[9, 10, 11] = 1
    z, y, x = np.ogrid[-9:9, -10:10, -11:11]
    expected = np.exp(-(z**2 + y**2 + x**2) / 2 / 1.5**2) / (2 * np.pi * 1.5**2) ** 1.5
    np.testing.assert_allclose(filters.gaussian(point, VOXEL, sigma), expected, atol=2e-5 * expected.max())


def test_gaussian_is_a_half_at_the_resolution():
    """A wave of that very resolution, 6 periods in the box, is halved."""
    sigma = filters.gaussian_sigma(falling(6))
    wave = np.broadcast_to(np.cos(2 * np.pi * 6 * np.arange(LONGEST) / LONGEST)[:, None], BOX).astype("f4")
    np.testing.assert_allclose(filters.gaussian(wave, VOXEL, sigma), 0.5 * wave, atol=1e-5)
    assert sigma == pytest.approx(0.1874 * 8.0, rel=1e-3)  # 48 Å / 6


def slow_means(map_, noise, patch, distance, strength):
    """In the middle of the box. As scikit-image's fast mode compares patches: a voxel short of their side, off their
    center, but divided by their full volume."""
    low, high, reach = 1 - patch // 2, 1 + patch // 2, patch // 2 + distance + 1
    out = {}
    for at in np.ndindex(*(side - 2 * reach for side in map_.shape)):
        at = np.array(at) + reach

        def around(center):
            return map_[tuple(slice(c + low, c + high) for c in center)]

        total = weights = 0.0
        for step in np.ndindex(*(2 * distance + 1,) * 3):
            other = at + np.array(step) - distance
            apart = np.sum((around(at) - around(other)) ** 2 - 2 * noise**2) / patch**3
            weight = np.exp(-max(apart, 0) / (strength * noise) ** 2)
            weights += weight
            total += weight * map_[tuple(other)]
        out[tuple(at)] = total / weights
    return out


def test_nonlocal_means_match_numpy():
    shape = (13, 12, 11)
    map_ = np.random.default_rng(3).standard_normal(shape) + 3 * (np.indices(shape)[1] > 5)
    map_ = (1e-3 * map_ + 1e-2).astype("f4")
    found = filters.nonlocal_means(map_, 1e-3, patch=3, distance=2, strength=0.8)
    expected = slow_means(map_.astype("f8"), 1e-3, 3, 2, 0.8)
    assert len(expected) == 5 * 4 * 3
    for at, value in expected.items():  # its exponential is an approximation
        assert found[at] == pytest.approx(value, abs=0.03e-3)


def test_nonlocal_means_refuse_missing_noise_or_library(noisy, monkeypatch):
    with pytest.raises(UserError, match="expected half-maps with noise"):
        filters.nonlocal_means(noisy, 0.0)
    monkeypatch.setitem(sys.modules, "skimage.restoration", None)
    with pytest.raises(UserError, match="pip install"):
        filters.nonlocal_means(noisy, 1.0)


def test_noise_of_full_map_and_half_maps():
    random = np.random.default_rng(4)
    signal = 100 * random.standard_normal((40,) * 3)
    halves = [(signal + 0.3 * random.standard_normal(signal.shape)).astype("f4") for _ in range(2)]
    assert filters.noise_of(*halves) == pytest.approx(0.3 / np.sqrt(2), rel=0.02)
    assert filters.noise_of(*halves, half=True) == pytest.approx(0.3, rel=0.02)


def ball_in_noise(side=40, noise=1.0):
    """A soft ball that is not in the middle, half-maps of it, and a mask."""
    random = np.random.default_rng(5)
    apart = np.linalg.norm(np.indices((side,) * 3) - np.array([19, 22, 17])[:, None, None, None], axis=0)
    truth = 0.5 * (1 + np.cos(np.pi * np.clip((apart - 5) / 5, 0, 1)))
    mask = (0.5 * (1 + np.cos(np.pi * np.clip((apart - 13) / 3, 0, 1)))).astype("f4")
    halves = [(truth + noise * random.standard_normal(truth.shape)).astype("f4") for _ in range(2)]
    return truth, halves, mask, fsc_curve(*halves, VOXEL, mask)


METHODS = {
    "wiener": lambda full, halves, mask, curve: filters.wiener(full, curve),
    "lowpass": lambda full, halves, mask, curve: filters.lowpass(full, curve),
    "gaussian": lambda full, halves, mask, curve: filters.gaussian(full, VOXEL, filters.gaussian_sigma(curve)),
    "nonlocal_means": lambda full, halves, mask, curve: filters.nonlocal_means(full, filters.noise_of(*halves)),
    "lafter_like": lambda full, halves, mask, curve: filters.lafter_like(*halves, mask, curve),
}


@pytest.mark.parametrize("name", METHODS)
def test_every_filter_reduces_the_error_of_a_noisy_ball(name):
    """Less error in the mask than the full map has, and the same for the box turned over."""
    truth, halves, mask, curve = ball_in_noise(noise=0.5)
    full = (halves[0] + halves[1]) / 2
    found = METHODS[name](full, halves, mask, curve)
    assert found.dtype == np.float32
    if name == "lafter_like":  # which has a scale of its own
        inside = mask > 0.5
        of_full, of_found = (np.corrcoef(map_[inside], truth[inside])[0, 1] for map_ in (full, found))
        assert 1 - of_found**2 < 0.4 * (1 - of_full**2)
    else:
        assert np.sum((mask * (found - truth)) ** 2) < 0.3 * np.sum((mask * (full - truth)) ** 2)
    turned = METHODS[name](
        *(np.ascontiguousarray(map_.T) for map_ in (full,)), [half_map.T for half_map in halves], mask.T, curve
    )
    np.testing.assert_allclose(turned.T, found, atol=1e-3)


def slow_lafter(halves, mask, edges):
    """Return the result of the two passes that `lafter_like` describes, in float64."""
    shells = np.arange(21)
    widths = [max(2, edge / 2) for edge in edges]
    along = [np.clip((shells - edge) / width + 0.5, 0, 1) for edge, width in zip(edges, widths, strict=True)]
    lows = [0.5 + 0.5 * np.cos(np.pi * distance) for distance in along]
    for low in lows:
        low[0] = 0
    sums, below = [0.0, 0.0], np.zeros(21)
    erf = np.vectorize(math.erf)
    for low in lows:
        levels = [np.average(half_map, weights=1 - mask) for half_map in halves]
        bands = [slowly((half_map - level) * mask, low - below) for half_map, level in zip(halves, levels, strict=True)]
        noise = np.sqrt(np.sum(mask * (bands[0] - bands[1]) ** 2) / np.sum(mask) / 2)
        scale = max(noise, np.sqrt(max(0, np.sum(mask * bands[0] * bands[1]) / np.sum(mask))))
        weights = [erf(np.abs(band) / noise / 2**0.5) / scale for band in bands]
        sums = [total + band * weight for total, band, weight in zip(sums, bands, weights, strict=True)]
        below = low
    out = np.zeros(mask.shape)
    for low in lows:  # from low to high, so that the highest is the last to be set
        first, second = (slowly(map_ * mask, low) for map_ in sums)
        reached = (mask > 0) & (np.abs(first + second) > np.abs(first - second)[mask > 0].max())
        out[reached] = (first + second)[reached] / 2
    return slowly(out * mask, lows[-1]) * mask


def test_lafter_like_matches_numpy():
    _, halves, mask, _ = ball_in_noise(noise=0.3)
    curve = curve_of(np.clip(1 - (1 - 0.143) * np.arange(21) / 10.4, 0, 1), (40,) * 3)
    edges = [2, 3, 4, 5, 6, 7, 8, 9, 10.4]  # 10.125 would leave less than half a shell
    expected = slow_lafter([half_map.astype("f8") for half_map in halves], mask.astype("f8"), edges)
    found = filters.lafter_like(*halves, mask, curve)
    assert np.abs(expected).max() > 0.1
    close = np.abs(found - expected) < 1e-4 * np.abs(expected).max()
    assert close.mean() > 0.999  # a voxel at the very noise may fall on either side
    assert np.all(found[mask == 0] == 0)


def test_lafter_like_removes_pure_noise():
    random = np.random.default_rng(6)
    halves = [random.standard_normal((24,) * 3).astype("f4") for _ in range(2)]
    mask = np.ones((24,) * 3, np.float32)
    found = filters.lafter_like(*halves, mask, curve_of(np.append(np.ones(6), np.zeros(7)), (24,) * 3))
    assert np.abs(found).max() < 0.3 * np.abs((halves[0] + halves[1]) / 2).max()
