"""Maps that are not what they are given for: turned over, moved, in the wrong order, of something else."""

import numpy as np
import pytest
from helpers import denoised_pairs as made

from crefjax.report.measure import account


def warned(*arguments, **words):
    """Texts by kind, in their order."""
    return {one["kind"]: one["text"] for one in account(made.study(*arguments, **words))["warnings"]}


@pytest.fixture(scope="module")
def pair():
    """Half-maps, and decent denoised ones."""
    halves = made.half_maps()
    return halves, tuple(made.decent(one) for one in halves)


def test_inverted_map(pair):
    halves, denoised = pair
    found = warned(halves, -sum(denoised) / 2)
    assert set(found) == {"inverted"}
    assert "contrast" in found["inverted"]
    assert found["inverted"].endswith(".")


@pytest.mark.parametrize("signs", [(-1, -1), (-1, 1)])
def test_inverted_half_maps_are_not_swapped(signs, pair):
    halves, denoised = pair
    turned = [sign * one for sign, one in zip(signs, denoised, strict=True)]
    found = warned(halves, sum(denoised) / 2, turned)
    assert next(iter(found)) == "inverted"
    assert "swapped" not in found
    told = "half-map 1 and half-map 2 have" if signs == (-1, -1) else "half-map 1 has"
    assert f"The denoised {told} the opposite contrast" in found["inverted"]
    assert "swapped" in warned(halves, sum(denoised) / 2, turned[::-1])


@pytest.mark.parametrize(
    ("axis", "voxels", "told"),
    [
        (2, 2, (2 * made.VOXEL, 0, 0)),
        (2, -1, (-made.VOXEL, 0, 0)),
        (1, 3, (0, 3 * made.VOXEL, 0)),
        (0, -4, (0, 0, -4 * made.VOXEL)),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_shifted_map(axis, voxels, told, sign, pair):
    """Content moved towards larger x has a positive shift in x."""
    halves, denoised = pair
    moved = np.roll(sign * sum(denoised) / 2, voxels, axis).astype(np.float32)
    arrays = [one.astype(np.float32) for one in halves]
    text = warned(arrays, moved)["shifted"]
    assert f"denoised map lies ({told[0]:g}, {told[1]:g}, {told[2]:g}) Å in (x, y, z)" in text


def test_one_half_that_is_shifted(pair):
    """By one voxel, the other half-map and the full map are in place."""
    halves, denoised = pair
    text = warned(halves, sum(denoised) / 2, (denoised[0], np.roll(denoised[1], 1, 1)))["shifted"]
    assert f"denoised half-map 2 lies (0, {made.VOXEL:g}, 0) Å in (x, y, z) from that of half-map 2" in text
    assert "half-map 1" not in text


def other_structure():
    inside = made.filtered(made.noise(77), np.exp(-7 * made.SHELLS / (made.SIDE // 2))) * made.ball(9)
    return inside / inside[made.ball(9) > 0.5].std()


@pytest.mark.parametrize("which", ["map", "halves"])
def test_another_structure_is_not_told_to_be_shifted(which, pair):
    halves, denoised = pair
    other = other_structure()
    if which == "map":
        found = warned(halves, other, denoised)
        assert "denoised map does not fit" in found["unrelated"]
    else:
        found = warned(halves, sum(denoised) / 2, [other + 0.1 * made.noise(7), other + 0.1 * made.noise(8)])
        assert "denoised half-map 1 and half-map 2 do not fit" in found["unrelated"]
    assert not {"shifted", "inverted"} & set(found)


def test_a_map_that_is_cut_off_at_a_coarse_resolution_still_fits(pair):
    """All is in shells 1 to 5 of ten with signal."""
    halves, _ = pair
    cut = [made.filtered(one, 1.0 * (made.SHELLS < 5)) for one in halves]
    found = warned(halves, denoised_halves=cut)
    assert "damped" in found
    assert not {"unrelated", "inverted", "shifted"} & set(found)


def test_a_mask_of_one_voxel_says_nothing_of_the_maps(pair):
    halves, denoised = pair
    mask = np.zeros_like(made.MASK)
    mask[(made.SIDE // 2,) * 3] = 1
    found = warned(halves, -sum(denoised), denoised, mask=mask)
    assert not {"not_denoised", "unrelated", "inverted", "shifted", "swapped"} & set(found)


@pytest.mark.parametrize("level", [0.5, 1.0])
def test_swapped_halves(level):
    halves = made.half_maps(level)
    found = warned(halves, denoised_halves=[made.decent(one) for one in halves[::-1]])
    assert next(iter(found)) == "swapped"


def test_one_map_in_place_of_two(pair):
    halves, denoised = pair
    one = sum(denoised) / 2
    assert "one and the same" in warned(halves, denoised_halves=(one, one))["one_map"]
