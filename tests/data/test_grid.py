"""The working grid: its resolution, resampling to it and back, and the blur that it undoes."""

import numpy as np
import pytest

from crefjax.data.grid import WorkingGrid, find_grid, level_and_rms, on_unit_grid, scale_density, unit_grid
from crefjax.errors import UserError
from crefjax.simulate.half_maps import SimulationConfig, simulate_half_maps
from crefjax.simulate.phantom import phantom
from crefjax.spectral.b_factors import apply_b_factor
from crefjax.spectral.curves import shell_products, solvent_level

VOXEL = 1.1


@pytest.fixture(scope="module")
def pair():
    return simulate_half_maps(
        phantom(250, seed=3), SimulationConfig(voxel_size=VOXEL, resolution=4.4, seed=5, b_factor=60.0, margin=10.0)
    )


@pytest.fixture(scope="module")
def fine_pair():
    """A pair whose fall-off is known to 15 Å²."""
    return simulate_half_maps(
        phantom(250, seed=3), SimulationConfig(voxel_size=VOXEL, resolution=3.2, seed=5, b_factor=20.0, margin=10.0)
    )


def slow_resolution(first, second, mask):
    """Return the resolution at which the masked FSC falls below 0.143, by NumPy."""
    spectra = []
    for half in (first, second):
        level = np.average(half, weights=1 - mask.astype(np.float64))
        spectra.append(np.fft.fftn((half - level) * mask))
    side = len(mask)
    k = np.fft.fftfreq(side, 1 / side)
    shell = np.floor(np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2) + 0.5).astype(int).ravel()

    def total(values):
        return np.bincount(shell, values.ravel())[: side // 2 + 1]

    cross = total((spectra[0] * spectra[1].conj()).real)
    fsc = cross / np.sqrt(total(abs(spectra[0]) ** 2) * total(abs(spectra[1]) ** 2))
    below = np.flatnonzero(fsc[1:] < 0.143)[0] + 1
    return side * VOXEL / (below - 1 + (fsc[below - 1] - 0.143) / (fsc[below - 1] - fsc[below]))


def grid_of(pair, halves=None, **more):
    halves = halves or [pair.half_map_1, pair.half_map_2]
    return find_grid(halves, VOXEL, pair.mask, **{"voxels": 3.0} | more)


def test_the_working_grid_has_the_requested_sampling(pair):
    grid = grid_of(pair)
    assert grid.resolution == pytest.approx(slow_resolution(pair.half_map_1, pair.half_map_2, pair.mask), rel=1e-3)
    assert grid.resolution / grid.voxel_size == pytest.approx(3.0, rel=0.05)
    assert grid.voxel_size * grid.shape[0] == pytest.approx(VOXEL * len(pair.mask))
    assert grid.shape[0] < len(pair.mask)
    assert grid.notes == ()
    assert abs(grid.blur) < 50
    finer = grid_of(pair, voxels=5.0)
    assert finer.shape[0] > len(pair.mask)


def test_products_that_were_measured_before_give_the_same_grid(pair):
    halves = [pair.half_map_1, pair.half_map_2]
    products = shell_products(halves, pair.mask, levels=[solvent_level(half, pair.mask) for half in halves])
    assert grid_of(pair, products=products) == grid_of(pair)


def test_a_nearly_right_grid_is_kept(pair):
    side = len(pair.mask)
    assert grid_of(pair, voxels=4.2).shape == (side,) * 3
    assert grid_of(pair, keep=True).shape == (side,) * 3
    assert grid_of(pair, resolution=3.4).shape == (side,) * 3


def test_pure_noise_keeps_its_grid_with_a_note():
    random = np.random.default_rng(1)
    halves = [random.normal(size=(40,) * 3).astype(np.float32) for _ in range(2)]
    grid = find_grid(halves, 1.0, None, voxels=3.0)
    assert grid.shape == (40,) * 3
    assert grid.resolution is None
    assert "too little in common" in grid.notes[0]


@pytest.mark.parametrize("b_factor", [-250.0, 250.0])
def test_strong_sharpening_and_blurring_are_undone(pair, b_factor):
    """Sharpening is undone within two standard errors of 50 Å²; of blurring, which adds to the error, a part."""
    halves = [apply_b_factor(half, VOXEL, b_factor) for half in (pair.half_map_1, pair.half_map_2)]
    plain, grid = grid_of(pair), grid_of(pair, halves)
    assert grid.resolution == pytest.approx(plain.resolution, rel=0.06)
    if b_factor > 0:
        assert -250 < grid.blur - plain.blur < -60
    else:
        assert grid.blur - plain.blur == pytest.approx(250, abs=100)
        assert "strongly sharpened" in grid.notes[0]


def test_half_maps_look_the_same_to_the_network_however_they_are_sharpened(fine_pair):
    """What was added to the B-factor is taken back to one standard error of 15 Å²; a note says so if it was much."""
    blurs = {}
    for b_factor in (-250.0, -60.0, 60.0, 250.0):
        halves = [apply_b_factor(half, VOXEL, b_factor) for half in (fine_pair.half_map_1, fine_pair.half_map_2)]
        grid = find_grid(halves, VOXEL, fine_pair.mask, voxels=3.0)
        blurs[b_factor] = grid.blur + b_factor
        assert len(grid.notes) == (abs(b_factor) == 250)
    np.testing.assert_allclose(list(blurs.values()), blurs[-60.0], atol=20)
    assert abs(find_grid([fine_pair.half_map_1, fine_pair.half_map_2], VOXEL, fine_pair.mask, voxels=3.0).blur) < 15


def test_sharpening_for_the_network_ends_at_the_resolution():
    """With a steep fall-off and little noise, noise beyond the resolution would else outgrow the signal."""
    noise = np.random.default_rng(2).normal(size=(32,) * 3).astype(np.float32)
    grid = WorkingGrid((32,) * 3, VOXEL, resolution=4.0, blur=-250.0)
    k = np.fft.fftfreq(32, VOXEL)
    frequency = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)
    gain = np.fft.fftn(grid.resample(noise)) / np.fft.fftn(noise)
    np.testing.assert_allclose(gain.real, np.exp(250 * np.minimum(frequency, 1 / 4.0) ** 2 / 4), rtol=2e-3)
    np.testing.assert_allclose(grid.restore(grid.resample(noise), noise.shape), noise, atol=1e-4)


def test_a_map_returns_unchanged_to_its_grid(pair):
    """All that the working grid can hold is preserved, nothing is shifted, and the blur is undone."""
    grid = grid_of(pair, [apply_b_factor(half, VOXEL, -250.0) for half in (pair.half_map_1, pair.half_map_2)])
    spectrum = np.fft.fftn(pair.truth)
    k = np.fft.fftfreq(len(pair.truth), VOXEL)
    spectrum[np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2) > 0.45 / grid.voxel_size] = 0
    smooth = np.fft.ifftn(spectrum).real.astype(np.float32)
    back = grid.restore(grid.resample(smooth), smooth.shape)
    # Undoing a blur of 300 Å² multiplies the rounding of the finest frequencies by 1200.
    np.testing.assert_allclose(back, smooth, atol=1e-3 * smooth.max())
    mask = grid.resample_mask(pair.mask)
    assert mask.min() >= 0
    assert mask.max() <= 1


def test_one_map_is_blurred_if_it_was_sharpened_but_not_without_limit(fine_pair):
    full = (fine_pair.half_map_1 + fine_pair.half_map_2) / 2
    plain, sharp, blurred = (
        find_grid([apply_b_factor(full, VOXEL, b_factor)], VOXEL, fine_pair.mask, voxels=3.0, resolution=3.2)
        for b_factor in (0.0, -250.0, 250.0)
    )
    assert abs(plain.blur) < 25
    assert plain.notes == ()
    assert sharp.blur == pytest.approx(6 * 3.2**2)
    assert "the map is strongly sharpened" in sharp.notes[0]
    assert -290 < blurred.blur < -210


def test_the_resolution_of_one_map_is_estimated(pair):
    full = (pair.half_map_1 + pair.half_map_2) / 2
    grid = find_grid([full], VOXEL, pair.mask, voxels=3.0)
    assert grid.resolution == pytest.approx(4.4, rel=0.2)
    assert "estimated from the map alone" in grid.notes[0]
    assert find_grid([full], VOXEL, pair.mask, voxels=3.0, resolution=4.4).notes == ()


def test_one_map_of_unknown_resolution_keeps_its_grid(pair):
    full = (pair.half_map_1 + pair.half_map_2) / 2
    for array, region, why in (
        (full, None, "no particle"),
        (full, np.ones_like(full), "too little solvent"),
    ):
        grid = find_grid([array], VOXEL, region, voxels=3.0)
        assert grid.shape == full.shape
        assert why in grid.notes[0]


def test_level_and_root_mean_square():
    random = np.random.default_rng(2)
    full, mask = random.normal(2, 3, (7, 8, 9)).astype(np.float32), random.uniform(size=(7, 8, 9)).astype(np.float32)
    level = np.average(full, weights=1 - mask.astype(np.float64))
    rms = np.sqrt(np.average((full - level) ** 2, weights=mask))
    np.testing.assert_allclose(level_and_rms(full, mask), (level, rms), rtol=1e-5)
    np.testing.assert_allclose(level_and_rms(full, None), (full.mean(), full.std()), rtol=1e-5)


def test_the_unit_grid_has_the_whole_number_of_angstroms_nearest_to_the_box():
    assert unit_grid((100, 80, 61), 0.65) == (65, 52, 40)
    assert unit_grid((64, 64, 64), 2.4) == (154, 154, 154)


def test_a_wave_keeps_its_place_on_the_unit_grid():
    side, voxel_size = 40, 1.5  # a box of 60 Å
    wave = 5 + np.cos(2 * np.pi * 3 * np.arange(side) / side)
    array = np.broadcast_to(wave, (side, side, side)).astype(np.float32)
    found = on_unit_grid(array, voxel_size, solvent=5.0)
    expected = np.clip(np.cos(2 * np.pi * 3 * np.arange(60) / 60), 0, None)
    assert found.shape == (60, 60, 60)
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=2e-5)


def test_density_is_scaled_by_what_a_thousand_cubic_angstroms_exceed():
    values = np.random.default_rng(0).permutation(np.arange(-8000, 19000)).astype(np.float32)
    found = scale_density(values.reshape(30, 30, 30), 1.0).ravel()
    # 1,000 voxels exceed 17,999.
    np.testing.assert_allclose(found, np.clip(values / 17999, 0, 1), rtol=1e-6)


def test_a_map_without_positive_density_is_refused():
    with pytest.raises(UserError, match="multiply the map by -1"):
        scale_density(np.full((8, 8, 8), -1, np.float32), 1.0)
