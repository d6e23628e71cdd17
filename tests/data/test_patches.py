import itertools

import numpy as np
import pytest
from helpers.datasets import axis_starts, padded_slice, random_map
from hypothesis import given, settings
from hypothesis import strategies as st

from crefjax.data.patches import (
    CUBE_ROTATIONS,
    check_patch,
    cut,
    cut_positions,
    grid_positions,
    mask_fraction,
    rotate,
    standardize,
)
from crefjax.errors import UserError


def chiral():
    """Return three arms of different lengths from a corner, which no rotation turns into their mirror image."""
    array = np.zeros((5, 5, 5))
    array[2, 2, 2] = 1
    array[3, 2, 2], array[2, 3, 2], array[2, 2, 3] = 2, 3, 4
    return array


def test_there_are_24_different_rotations_and_the_first_changes_nothing():
    turned = {rotate(chiral(), index).tobytes() for index in range(24)}
    assert len(CUBE_ROTATIONS) == len(turned) == 24
    assert np.array_equal(rotate(chiral(), 0), chiral())


def test_no_rotation_is_a_mirror_image():
    array = chiral()
    for index in range(24):
        turned = rotate(array, index)
        arms = [np.argwhere(turned == value)[0] - 2 for value in (2, 3, 4)]
        assert np.dot(np.cross(arms[0], arms[1]), arms[2]) == 1  # as (z, y, x) of the array itself
    mirrored = array[::-1]
    assert not any(np.array_equal(rotate(array, index), mirrored) for index in range(24))


def test_rotations_are_closed():
    turned = {rotate(chiral(), index).tobytes() for index in range(24)}
    for first, second in itertools.product(range(24), repeat=2):
        assert rotate(rotate(chiral(), first), second).tobytes() in turned


def test_quarter_turns_equal_those_of_numpy():
    array = random_map((4, 4, 4), 0)
    turned = [rotate(array, index) for index in range(24)]
    for axes in ((0, 1), (1, 2), (0, 2)):
        assert any(np.array_equal(np.rot90(array, 1, axes), rotated) for rotated in turned)


@given(side=st.integers(1, 60), patch=st.integers(8, 20).map(lambda n: 2 * n), data=st.data())
@settings(max_examples=60, deadline=None)
def test_positions_cover_every_voxel(side, patch, data):
    stride = data.draw(st.integers(1, patch))
    found = cut_positions(side, patch, stride)
    assert found == axis_starts(side, patch, stride)
    covered = np.zeros(max(side, patch), bool)
    for first in found:
        shift = first if side > patch else 0
        covered[shift : shift + patch] = True
    assert covered.all()


def test_positions_by_hand():
    assert cut_positions(40, 16, 16) == [0, 16, 24]
    assert cut_positions(48, 16, 16) == [0, 16, 32]
    assert cut_positions(16, 16, 16) == [0]
    assert cut_positions(11, 16, 16) == [-2]
    assert grid_positions((16, 20, 12), 16, 8) == [(0, 0, -2), (0, 4, -2)]


@pytest.mark.parametrize("start", [(0, 0, 0), (4, 3, 9), (-3, 5, 9), (-16, 0, 0), (10, 10, 20), (20, 19, 25)])
def test_cut_equals_a_slice_of_the_padded_array(start):
    array = random_map((20, 19, 25), 1)
    assert np.array_equal(cut(array, start, 16), padded_slice(array, start, 16))


def test_mask_fraction_counts_only_voxels_in_the_box():
    mask = np.zeros((8, 20, 20))
    mask[0, 0, :4] = 0.5
    assert mask_fraction(mask, (-4, 0, 0), 16) == pytest.approx(2 / (8 * 16 * 16))
    assert mask_fraction(mask, (40, 0, 0), 16) == 0


def test_standardize_against_float64():
    first, second, truth = (3 + 5 * random_map((6, 7, 8), seed) for seed in range(3))
    mask = np.abs(random_map((6, 7, 8), 3)).clip(0, 1)
    full = (first.astype("f8") + second) / 2
    moves = (full.mean(), full.mean(), 0.0)
    maps = (first, second, truth)
    expected = [(map_.astype("f8") - move) / full.std() * mask for map_, move in zip(maps, moves, strict=True)]
    mean, deviation = standardize(first, second, mask, truth)
    assert (mean, deviation) == pytest.approx((full.mean(), full.std()), rel=1e-6)
    for found, expected_map in zip((first, second, truth), expected, strict=True):
        np.testing.assert_allclose(found, expected_map, atol=1e-5)


def test_half_maps_that_cancel_are_refused():
    array = random_map((4, 4, 4), 0)
    with pytest.raises(UserError, match="same value in every voxel of the full map"):
        standardize(array.copy(), -array, np.ones_like(array))


@pytest.mark.parametrize("patch", [0, 14, 17, 15.5, True, "16"])
def test_impossible_patches_are_refused(patch):
    with pytest.raises(UserError, match="even side of at least 16"):
        check_patch(patch)
