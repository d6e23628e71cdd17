import numpy as np
import pytest

from crefjax.report import volumes
from crefjax.report.volumes import NOT_SHOWN, bin_map, choose_grid, make_local_volume, make_volume

BOX = (12, 20, 15)  # z, y, x


@pytest.fixture
def largest_side(monkeypatch):
    """Let boxes of more than 8 voxels a side be binned."""
    monkeypatch.setattr(volumes, "LARGEST_SIDE", 8)


def block(box=BOX, start=(3, 4, 5), stop=(9, 16, 11)):
    mask = np.zeros(box, np.float32)
    mask[tuple(map(slice, start, stop))] = 1
    return mask


def place(grid, voxel):
    """Å along z, y, x of a voxel of the volumes."""
    first = np.array(grid.first) + np.array(voxel) * np.array(grid.bin)
    return np.array(grid.origin[::-1]) + grid.voxel_size * first


def test_box_of_the_largest_side_is_shown_whole():
    grid = choose_grid((160, 100, 160), 1.5, (3.0, 4.0, 5.0), block((160, 100, 160)))
    assert grid.shape == grid.part == (160, 100, 160)
    assert grid.first == (0, 0, 0)
    assert grid.bin == (1, 1, 1)
    assert not grid.is_cropped
    assert not grid.is_binned


def test_larger_box_is_cropped_to_the_mask_and_binned(largest_side):
    grid = choose_grid(BOX, 1.5, (0.0, 0.0, 0.0), block())
    # around the mask are two voxels, a tenth of 20; along y 16 voxels remain, two for each of 8
    assert grid.start == (1, 2, 3)
    assert grid.part == (10, 16, 10)
    assert grid.shape == (5, 8, 5)
    assert grid.bin == (2, 2, 2)
    assert grid.first == (1.5, 2.5, 3.5)
    assert grid.is_cropped
    assert grid.is_binned
    without_mask = choose_grid(BOX, 1.5, (0.0, 0.0, 0.0))
    assert without_mask.part == BOX
    assert without_mask.shape == (5, 8, 6)


def test_binned_map_equals_the_mean_of_the_parts_of_voxels(largest_side):
    array = np.random.default_rng(1).standard_normal(BOX).astype(np.float32)
    grid = choose_grid(BOX, 1.0, (0.0, 0.0, 0.0))
    expected = array.astype(np.float64)
    for axis, (side, bins) in enumerate(zip(BOX, (5, 8, 6), strict=True)):
        fine = np.repeat(expected, bins, axis)  # every voxel in `bins` equal parts, of which a bin has `side`
        shape = (*fine.shape[:axis], bins, side, *fine.shape[axis + 1 :])
        expected = fine.reshape(shape).mean(axis + 1)
    np.testing.assert_allclose(bin_map(array, grid), expected, atol=1e-6)


def test_voxels_of_the_volumes_lie_where_the_density_is(largest_side):
    """The center of mass, in Å, is that of the map, whose first voxel lies at the origin of its header."""
    z, y, x = np.meshgrid(*map(np.arange, BOX), indexing="ij")
    density = np.exp(-((z - 5.3) ** 2 + (y - 10.1) ** 2 + (x - 7.6) ** 2) / 3).astype(np.float32)
    for mask in (None, block()):
        grid = choose_grid(BOX, 1.5, (7.0, -20.0, 100.0), mask)
        binned = bin_map(density, grid).astype(np.float64)
        voxels = np.array(list(np.ndindex(*grid.shape)))
        center = np.average([place(grid, voxel) for voxel in voxels], axis=0, weights=binned.ravel())
        expected = (100 + 1.5 * 5.3, -20 + 1.5 * 10.1, 7 + 1.5 * 7.6)
        np.testing.assert_allclose(center, expected, atol=0.08)


def test_levels_are_densities_to_half_a_step():
    array = np.random.default_rng(2).standard_normal((30, 40, 50)).astype(np.float32)
    grid = choose_grid(array.shape, 1.0, (0.0, 0.0, 0.0))
    volume = make_volume("a", array, grid)
    ordered = np.sort(array, axis=None)
    assert ordered[4] < volume.low < ordered[7]  # 0.01 % of 60,000 voxels are 6
    assert ordered[-8] < volume.high < ordered[-5]
    step = (volume.high - volume.low) / volume.highest
    shown = volume.low + step * volume.levels.astype(np.float64)
    assert np.abs(shown - np.clip(array, volume.low, volume.high)).max() <= 0.501 * step
    assert volume.levels.min() == 0
    assert volume.levels.max() == volume.highest


def test_noise_is_stored_in_steps_of_a_quarter_of_its_standard_deviation():
    array = np.random.default_rng(2).standard_normal((30, 40, 50)).astype(np.float32)
    array[4:6, 4:6, 4:6] = 30  # a structure far above it, in 8 of 60,000 voxels
    volume = make_volume("a", array, choose_grid(array.shape, 1.0, (0.0, 0.0, 0.0)))
    assert (volume.high - volume.low) / volume.highest == pytest.approx(0.25, rel=0.05)


def test_smooth_map_has_all_levels():
    z, y, x = np.meshgrid(*map(np.arange, (30, 40, 50)), indexing="ij")
    array = np.exp(-((z - 15) ** 2 + (y - 20) ** 2 + (x - 25) ** 2) / 30).astype(np.float32)
    assert make_volume("a", array, choose_grid(array.shape, 1.0, (0.0, 0.0, 0.0))).highest == 255


def test_map_with_two_values_has_two_levels():
    array = np.zeros((30, 30, 30), np.float32)
    array[3, 4, 5] = 2  # less than the 0.01 % that may be clipped
    volume = make_volume("a", array, choose_grid(array.shape, 1.0, (0.0, 0.0, 0.0)))
    assert (volume.low, volume.high) == (0, 2)
    assert volume.levels[3, 4, 5] == 255
    assert volume.levels.sum() == 255


def test_local_map_is_not_shown_outside_the_mask():
    local = np.linspace(0, 1, np.prod(BOX)).reshape(BOX).astype(np.float32)
    mask = block()
    volume = make_local_volume("agreement", local, mask, choose_grid(BOX, 1.0, (0.0, 0.0, 0.0)))
    assert np.array_equal(volume.levels == NOT_SHOWN, mask == 0)
    inside = mask > 0
    np.testing.assert_allclose(volume.levels[inside] / 254, local[inside], atol=0.5 / 254 + 1e-6)
