"""The classifier's grid, against waves and counts by hand."""

import numpy as np
import pytest

from crefjax.data.unit_grid import on_unit_grid, scale_density, unit_grid
from crefjax.errors import UserError


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
