"""Local maps: the formulas in NumPy, regions known by construction, invariances, and edge cases."""

import math

import numpy as np
import pytest
from reference import spectra as slow_spectra
from scipy import ndimage

from crefjax.errors import UserError
from crefjax.spectral.curves import resolution_at
from crefjax.spectral.local_maps import local_maps

VOXEL = 2.0


def fall(x, start, end):
    return 0.5 + 0.5 * np.cos(np.pi * np.clip((x - start) / (end - start), 0, 1))


def window_matrix(side, sigma):
    """Weights of a Gaussian cut at three deviations, for every voxel along an axis, zeros beyond the box."""
    reach = int(3 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    apart = np.arange(side) - np.arange(side)[:, np.newaxis] + reach
    inside = (apart >= 0) & (apart < len(weights))
    return np.where(inside, weights[np.clip(apart, 0, len(weights) - 1)], 0)


def slow_local_maps(m1, m2, d1, d2, mask, fwhm):
    """The formulas of the module's head in float64 on whole spectra; `fwhm` in voxels, all on the scale given."""
    shape, shell = mask.shape, np.minimum(slow_spectra.shell_index(mask.shape), max(mask.shape) // 2 + 1)
    count = max(shape) // 2 + 1

    def masked_cov(a, b, mask=mask):
        a, b = (np.fft.fftn((map_ - map_.mean()) * mask) for map_ in (a, b))
        return np.append(slow_spectra.shell_sums((a * b.conj()).real, shape), 0)

    def filtered(a, factors):
        return np.fft.ifftn(np.fft.fftn(a - a.mean()) * factors[shell]).real * mask

    sigma = fwhm / math.sqrt(8 * math.log(2))

    def mean(a):
        return np.einsum("ai,bj,ck,ijk->abc", *(window_matrix(side, sigma) for side in shape), a, optimize=True)

    signal = masked_cov(m1, m2)
    power = np.sqrt(masked_cov(m1, m1) * masked_cov(m2, m2))
    fsc = signal[:-1] / power[:-1]
    last = max(shape) / resolution_at(fsc, 0.143, max(shape), 2).angstrom
    flatten = np.zeros(count + 1)
    flatten[1:-1] = 1 / np.sqrt(np.maximum(signal, 0.05 * power)[1:-1])
    s = np.arange(count + 1)
    upto, coarse = fall(s / last, 0.85, 1.15), fall(s / last, 0.25, 0.75)

    inside = mask >= 0.01
    agreement = np.zeros(inside.sum())
    for share in (coarse, upto * (1 - coarse)):
        a1, a2, b1, b2 = (filtered(map_, flatten * np.sqrt(share)) for map_ in (m1, m2, d1, d2))
        p = mean(a1 * a2)
        weight = np.maximum(p, 0)
        allowed = np.sqrt(max((weight * p).sum() / (weight * mean(a1**2 + a2**2) / 2).sum(), 0.05))
        shown = mean(b1**2 + b2**2) + 0.01 * (b1**2 + b2**2).sum() / (mask**2).sum()
        most = allowed * np.sqrt(shown * mean(a1**2 + a2**2))
        agreement += np.clip(mean(b1 * a2 + b2 * a1)[inside] / most[inside], 0, 1) / 2

    flat = flatten * np.sqrt(upto)
    weight, gain = np.zeros(shape), np.zeros(count + 1)
    weight[inside] = agreement
    fit, common = masked_cov(d1, m2, weight) + masked_cov(d2, m1, weight), masked_cov(d1, d2, weight)
    gain[:-1] = np.maximum(fit[:-1] / 2 / common[:-1], 0)
    a1, a2 = filtered(m1, flat), filtered(m2, flat)
    e1, e2 = filtered(d1, flat * gain), filtered(d2, flat * gain)
    noise = (np.maximum(power - signal, 0) * flat**2)[:-1]
    voxels = slow_spectra.shell_sums(np.ones(shape), shape)
    independent = noise.sum() ** 2 / (noise**2 / voxels).sum() * (4 * np.pi * sigma**2) ** 1.5 / mask.size
    doubt = 5 * mean((a1 - a2) ** 2) / 2 / np.sqrt(independent)
    structure = np.maximum(mean(a1 * a2 + e1 * e2), 0) + doubt
    return agreement, np.clip(mean((a1 - e1) * (a2 - e2))[inside] / structure[inside], 0, 1)


def ball(shape, center, radius):
    grid = np.indices(shape)
    return sum((axis - at) ** 2 for axis, at in zip(grid, center, strict=True)) < radius**2


def atoms(shape, center, radius, seed):
    """Density of randomly placed atoms in a ball."""
    random = np.random.default_rng(seed).random(shape) < 0.12
    return ndimage.gaussian_filter((random & ball(shape, center, radius)).astype(float), 0.9)


class Case:
    """A rigid ball, a smeared one, and one that is in the denoised maps alone; and noise."""

    def __init__(self, shape=(52, 56, 60), seed=0):
        middle = np.array(shape) / 2
        centers = [middle + offset for offset in ((0, -13, -13), (0, 13, -9), (0, -9, 14))]
        self.core, self.flexible, self.false = (ball(shape, center, 8) for center in centers)
        parts = [atoms(shape, center, 9, seed + n) for n, center in enumerate(centers)]
        self.truth = parts[0] + ndimage.gaussian_filter(parts[1], 2.0)
        self.false_density = parts[2]
        wide = np.any([ball(shape, center, 12) for center in centers], 0)
        self.mask = ndimage.gaussian_filter(wide.astype(np.float32), 1.5)
        random = np.random.default_rng(seed + 10)
        deviation = 0.5 * self.truth[self.core].std()
        noise = [deviation * random.standard_normal(shape) for _ in range(2)]
        self.halves = [(self.truth + noise_map).astype("f4") for noise_map in noise]
        # What a denoiser leaves of the noise, and a blur.
        clean = [
            ndimage.gaussian_filter(self.truth, 0.5) + 0.1 * ndimage.gaussian_filter(noise_map, 0.5)
            for noise_map in noise
        ]
        self.denoised = [(map_ + self.false_density).astype("f4") for map_ in clean]
        self.honest = [map_.astype("f4") for map_ in clean]

    def maps(self, denoised=None, **options):
        return local_maps(*self.halves, *(self.denoised if denoised is None else denoised), VOXEL, self.mask, **options)


@pytest.fixture(scope="module")
def case():
    return Case()


@pytest.fixture(scope="module")
def found(case):
    return case.maps()


def auc(high, low):
    return float(np.mean(np.searchsorted(np.sort(low), high) / len(low)))


@pytest.mark.parametrize("fwhm", [7.0, 5.0])
def test_maps_match_numpy_in_a_box_that_is_not_a_cube(fwhm):
    small = Case((40, 46, 44), seed=3)
    found = small.maps(window=fwhm * VOXEL)
    scale = [np.ptp(map_) for map_ in (small.halves[0], small.denoised[0])]
    args = [
        map_.astype(float) / size
        for pair, size in ((small.halves, scale[0]), (small.denoised, scale[1]))
        for map_ in pair
    ]
    agreement, change = slow_local_maps(*args, small.mask.astype(float), fwhm)
    inside = small.mask >= 0.01
    np.testing.assert_allclose(found.agreement[inside], agreement, atol=2e-3)
    np.testing.assert_allclose(found.change[inside], change, atol=2e-3)
    assert found.window == fwhm * VOXEL
    assert found.agreement[~inside].max() == found.change[~inside].max() == 0


def test_core_smeared_and_false_density_are_distinguished(case, found):
    agreement = {name: found.agreement[getattr(case, name)] for name in ("core", "flexible", "false")}
    assert np.median(agreement["core"]) > 0.85
    assert 0.3 < np.median(agreement["flexible"]) < 0.7
    assert np.median(agreement["false"]) < 0.2
    assert auc(agreement["core"], agreement["false"]) > 0.99
    assert auc(agreement["core"], agreement["flexible"]) > 0.95
    change = {name: found.change[getattr(case, name)] for name in ("core", "flexible", "false")}
    assert np.median(change["false"]) > 0.7
    assert np.median(change["core"]) < 0.15
    assert auc(change["false"], change["core"]) > 0.99


def test_values_are_shares_on_the_grid_and_zero_outside_the_mask(case, found):
    for local_map in (found.agreement, found.change):
        assert local_map.shape == case.mask.shape
        assert local_map.dtype == np.float32
        assert local_map.min() == 0
        assert local_map.max() <= 1
        assert not local_map[case.mask < 0.01].any()


def test_window_is_chosen_from_the_resolution_and_returned(case, found):
    fsc = slow_spectra.fsc(*(half_map * case.mask for half_map in (half - half.mean() for half in case.halves)))
    resolution = resolution_at(fsc, 0.143, 60 * VOXEL, 2 * VOXEL).angstrom
    assert found.resolution == pytest.approx(resolution, rel=1e-3)
    assert found.window == pytest.approx(max(3 * resolution, 7 * VOXEL), rel=1e-3)
    assert case.maps(window=30.0).window == 30.0


def test_removed_noise_is_not_a_change_and_agrees(case):
    """The truth itself: all noise gone, nothing added."""
    found = case.maps([case.truth.astype("f4")] * 2)
    assert np.quantile(found.change[case.core], 0.95) < 0.05
    assert np.quantile(found.agreement[case.core], 0.05) > 0.85


def test_unchanged_maps_show_no_change(case):
    assert case.maps(case.halves).change.max() < 1e-5


def test_blurring_or_sharpening_the_whole_map_is_not_a_change(case):
    plain = case.maps(case.honest)
    blurred = case.maps([ndimage.gaussian_filter(map_, 0.8) for map_ in case.honest])
    np.testing.assert_allclose(blurred.change[case.core], plain.change[case.core], atol=0.05)
    np.testing.assert_allclose(blurred.agreement[case.core], plain.agreement[case.core], atol=0.1)


def test_removed_structure_is_a_change_where_it_was(case):
    """Half of the core is cut out of the denoised maps."""
    cut = np.arange(case.mask.shape[0]) < case.mask.shape[0] // 2
    found = case.maps([np.where(cut[:, np.newaxis, np.newaxis], 0, map_) for map_ in case.honest])
    removed, kept = (case.core & (side[:, np.newaxis, np.newaxis]) for side in (cut, ~cut))
    deep = np.abs(np.arange(case.mask.shape[0]) - case.mask.shape[0] / 2)[:, np.newaxis, np.newaxis] > 5
    assert found.change[removed & deep].min() > 0.6
    assert np.median(found.change[kept & deep]) < 0.2
    assert auc(found.agreement[kept & deep], found.agreement[removed & deep]) > 0.99


def test_exchanging_the_halves_changes_nothing(case, found):
    swapped = local_maps(*case.halves[::-1], *case.denoised[::-1], VOXEL, case.mask)
    np.testing.assert_allclose(swapped.agreement, found.agreement, atol=1e-4)
    np.testing.assert_allclose(swapped.change, found.change, atol=1e-4)


@pytest.mark.parametrize(
    ("of_noisy", "of_denoised"), [((1e4, 0), (1e-6, 0)), ((1e-15, 0), (3e12, 0)), ((1, -2), (7, 30))]
)
def test_scale_and_offset_change_nothing(case, found, of_noisy, of_denoised):
    halves = [(of_noisy[0] * half_map + of_noisy[1]).astype("f4") for half_map in case.halves]
    denoised = [(of_denoised[0] * map_ + of_denoised[1]).astype("f4") for map_ in case.denoised]
    rescaled = local_maps(*halves, *denoised, VOXEL, case.mask)
    np.testing.assert_allclose(rescaled.agreement, found.agreement, atol=2e-3)
    np.testing.assert_allclose(rescaled.change, found.change, atol=2e-3)


def test_rotated_density_agrees_nowhere(case):
    found = case.maps([-map_ for map_ in case.honest])
    assert not found.agreement[case.core].any()


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_an_empty_denoised_map_agrees_nowhere_and_has_lost_everything(case, value):
    found = case.maps([np.full(case.mask.shape, value, "f4")] * 2)
    assert not found.agreement.any()
    assert np.median(found.change[case.core]) > 0.9


def noise(shape, count):
    return list(np.random.default_rng(0).standard_normal((count, *shape)).astype("f4"))


@pytest.mark.parametrize("kind", ["only noise", "empty mask", "constant half-maps", "zero half-maps"])
def test_both_maps_are_zero_without_signal(kind):
    shape = (32, 32, 32)
    m1, m2, d1, d2 = noise(shape, 4)
    mask = np.zeros(shape, "f4") if kind == "empty mask" else np.ones(shape, "f4")
    if kind.endswith("half-maps"):
        # Constant, but for the last digit.
        m1 = m2 = np.where(m1 > 0, np.float32(100), np.nextafter(np.float32(100), 0)) if kind[0] == "c" else 0 * m1
    found = local_maps(m1, m2, d1, d2, VOXEL, mask)
    assert found.resolution is None
    assert found.window == 7 * VOXEL
    assert not found.agreement.any()
    assert not found.change.any()


@pytest.mark.parametrize("shape", [(8, 8, 8), (9, 20, 31), (32, 32, 32)])
def test_small_and_odd_boxes_and_maps_without_noise_give_finite_values(shape):
    m, d = noise(shape, 2)
    mask = np.zeros(shape, "f4")
    mask[2:-2, 3:, :-1] = 1
    for denoised, agrees in ((m, True), (d, False)):
        found = local_maps(m, m, denoised, denoised, VOXEL, mask)
        for local_map in (found.agreement, found.change):
            assert np.isfinite(local_map).all()
        inside = found.agreement[mask > 0.5]
        assert inside.min() > 0.9 if agrees else inside.mean() < 0.5


def test_the_inputs_are_not_changed(case):
    maps = [*case.halves, *case.denoised, case.mask]
    before = [map_.copy() for map_ in maps]
    case.maps(window=14.0)
    for map_, was in zip(maps, before, strict=True):
        np.testing.assert_array_equal(map_, was)


@pytest.mark.parametrize("window", [0.0, -3.0, math.nan, math.inf])
def test_an_invalid_window_raises(case, window):
    with pytest.raises(UserError, match="window above 0 Å"):
        case.maps(window=window)


def test_maps_of_different_boxes_raise(case):
    with pytest.raises(ValueError, match="shapes"):
        local_maps(*case.halves, *case.denoised, VOXEL, case.mask[1:])
