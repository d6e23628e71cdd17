"""Validation of half-maps: hot voxels and the scale are corrected, and maps that are not a pair are refused."""

import numpy as np
import pytest
from test_pair_check import VOXEL, body

from crefjax.data.pair_check import find_hot_voxels, replace_hot_voxels, validate_maps
from crefjax.errors import UserError
from crefjax.io.maps import Map


@pytest.fixture(scope="module")
def pair():
    random = np.random.default_rng(1)
    return tuple(Map.from_array(body() + 0.4 * random.standard_normal((40,) * 3), VOXEL) for _ in range(2))


def test_a_sound_pair_is_returned_unchanged(pair):
    found = validate_maps(pair)
    assert found.notes == ()
    assert all(half_map is other for half_map, other in zip(found.pair, pair, strict=True))
    assert validate_maps(pair[:1]).pair[0] is pair[0]


@pytest.mark.parametrize(("ratio", "offset"), [(37, 5), (3, 0), (1, 20), (0.01, -2), (-1, 0)])
def test_half_map_2_is_put_on_the_scale_of_half_map_1(pair, ratio, offset):
    changed = pair[1].replace_array(ratio * pair[1].array + np.float32(offset))
    found = validate_maps((pair[0], changed))
    assert "is not on the scale of half-map 1" in found.notes[0]
    deviation = pair[1].array.std()
    # As far as the two differ in power and level themselves, by their noise.
    np.testing.assert_allclose(found.pair[1].array, pair[1].array, rtol=0.02, atol=0.03 * deviation)


def test_the_scale_is_that_of_the_signal_not_of_the_noise(pair):
    """Half-map 2 has twice the noise: its standard deviation is larger, its signal is not."""
    random = np.random.default_rng(2)
    noisy = pair[1].replace_array(pair[1].array + 0.7 * random.standard_normal((40,) * 3))
    assert noisy.array.std() > 1.5 * pair[0].array.std()
    scaled = validate_maps((pair[0], noisy.replace_array(3 * noisy.array))).pair[1].array
    assert np.polyfit(noisy.array.ravel(), scaled.ravel(), 1)[0] == pytest.approx(1, abs=0.2)


def test_maps_that_are_not_a_pair_are_refused_unless_the_user_insists(pair):
    shifted = (pair[0], pair[1].replace_array(np.roll(pair[1].array, 2, 2)))
    for insist, words in ((False, "or `insist` on these"), (None, "of one refinement")):
        with pytest.raises(UserError, match="half-map 2 is shifted by 4, 0, 0 Å") as caught:
            validate_maps(shifted, insist=insist)
        assert str(caught.value).endswith(words)
        assert "\n" not in str(caught.value)
    found = validate_maps(shifted, insist=True)
    assert found.pair[1] is shifted[1]
    assert "half-map 2 is shifted by 4, 0, 0 Å" in found.notes[0]


def test_hot_voxels_are_found_and_replaced(pair):
    sound = pair[0].array
    hot = sound.copy()
    places = [(0, 39, 20), (20, 21, 20), (20, 21, 21), (7, 7, 7)]  # at a border, two side by side in the particle
    for number, place in enumerate(places):
        hot[place] = (-1) ** number * (400 + 100 * number)
    assert find_hot_voxels(sound) == []
    assert sorted(find_hot_voxels(hot)) == sorted(places)
    filled = replace_hot_voxels(hot, places)
    untouched = np.ones(hot.shape, bool)
    untouched[tuple(np.transpose(places))] = False
    assert np.array_equal(filled[untouched], sound[untouched])
    for place in places:
        around = [np.arange(at - 1, at + 2) % 40 for at in place]
        cube = [hot[z, y, x] for z in around[0] for y in around[1] for x in around[2] if (z, y, x) not in places]
        assert filled[place] == pytest.approx(np.mean(cube, dtype=float), rel=1e-5)
    validated = validate_maps((pair[0].replace_array(hot),))
    assert np.array_equal(validated.pair[0].array, filled)
    assert "the map has 4 hot voxels at x, y, z = 7, 7, 7 (" in validated.notes[0]
    validated_pair = validate_maps((pair[0].replace_array(hot), pair[1]))
    assert np.array_equal(validated_pair.pair[0].array, filled)
    assert validated_pair.pair[1] is pair[1]
    assert ["hot voxels" in note for note in validated_pair.notes] == [True]


def test_a_bright_particle_is_not_hot():
    """It has a hundred standard deviations of the solvent, but with neighbors; or there are too many single voxels."""
    array = np.random.default_rng(0).standard_normal((30, 30, 30)).astype(np.float32)
    array[14:17, 14:17, 14:17] += 100
    assert find_hot_voxels(array) == []
    array = np.random.default_rng(0).standard_normal((30, 30, 30)).astype(np.float32)
    array[::4, ::4, ::4] = 100
    assert find_hot_voxels(array) == []
    assert find_hot_voxels(np.zeros((8, 8, 8), np.float32)) == []
