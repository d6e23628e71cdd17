"""Each kind of warning comes in its case, and none where a map is decent."""

import functools
import re

import numpy as np
import pairs_for_accounts as made
import pytest

from crefjax.report.account import account
from crefjax.report.warnings import ranges, shift_between

LONGEST = made.SIDE * made.VOXEL


def warned(*arguments, **words):
    """Texts by kind, in their order."""
    return {one["kind"]: one["text"] for one in account(made.study(*arguments, **words))["warnings"]}


@functools.cache
def decent():
    halves = made.half_maps()
    return halves, tuple(made.decent(one) for one in halves)


@pytest.mark.parametrize("with_halves", [True, False])
@pytest.mark.parametrize("level", [0.25, 0.5, 1.0])
def test_decent_maps_are_not_warned_of(level, with_halves):
    halves = made.half_maps(level)
    denoised = tuple(made.decent(one) for one in halves)
    assert warned(halves, sum(denoised) / 2, denoised if with_halves else None) == {}


@pytest.mark.parametrize("factor", [0.01, 3.0, 1000.0])
def test_another_scale_is_a_note_and_no_warning(factor):
    halves, denoised = decent()
    numbers = account(made.study(halves, denoised_halves=[factor * one for one in denoised]))
    assert numbers["warnings"] == []
    assert numbers["gain"] == pytest.approx(1 / factor, rel=0.1)
    assert any("scale" in note and f"{numbers['gain']:.4g}" in note for note in numbers["notes"])


def test_half_maps_of_noise():
    halves = made.noise(1), made.noise(2)
    found = warned(halves, denoised_halves=[made.filtered(one, np.exp(-made.SHELLS / 4)) for one in halves])
    assert next(iter(found)) == "no_signal"
    assert "Å" in found["no_signal"]


def test_inverted_map():
    halves, denoised = decent()
    found = warned(halves, -sum(denoised) / 2)
    assert set(found) == {"inverted"}
    assert "contrast" in found["inverted"]
    assert found["inverted"].endswith(".")


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
def test_shifted_map(axis, voxels, told, sign):
    """Content moved towards larger x has a positive shift in x."""
    halves, denoised = decent()
    moved = np.roll(sign * sum(denoised) / 2, voxels, axis).astype(np.float32)
    arrays = [one.astype(np.float32) for one in halves]
    assert shift_between(*arrays, moved, made.MASK.astype(np.float32), made.VOXEL) == pytest.approx(told)
    if sign > 0:
        text = warned(halves, moved)["shifted"]
        assert f"({told[0]:g}, {told[1]:g}, {told[2]:g}) Å in (x, y, z)" in text


def test_shift_of_several_axes_in_a_box_that_is_no_cube():
    random = np.random.default_rng(3)
    content = np.zeros((16, 20, 25))
    content[5:9, 7:12, 9:15] = 5 * random.standard_normal((4, 5, 6))
    halves = [(content + 0.3 * random.standard_normal(content.shape)).astype(np.float32) for _ in range(2)]
    moved = np.roll(content, (1, -2, 3), (0, 1, 2)).astype(np.float32)
    found = shift_between(*halves, moved, np.ones(content.shape, np.float32), 1.5)
    assert found == pytest.approx((4.5, -3.0, 1.5))


@pytest.mark.parametrize("level", [0.5, 1.0])
def test_swapped_halves(level):
    halves = made.half_maps(level)
    found = warned(halves, denoised_halves=[made.decent(one) for one in halves[::-1]])
    assert next(iter(found)) == "swapped"


def test_one_map_in_place_of_two():
    halves, denoised = decent()
    one = sum(denoised) / 2
    assert "one and the same" in warned(halves, denoised_halves=(one, one))["one_map"]


def test_denoised_halves_that_know_of_each_other():
    halves, _ = decent()
    mixed = 0.6 * halves[0] + 0.4 * halves[1], 0.4 * halves[0] + 0.6 * halves[1]
    found = warned(halves, denoised_halves=mixed)
    assert "Å" in found["contradicted"]
    assert "one_map" not in found


def test_added_structure_is_found_where_it_was_added():
    """In shells 7 to 9, with twice the signal's power; under the mask a shell more on either side holds some."""
    halves, denoised = decent()
    band = (made.SHELLS >= 7) & (made.SHELLS <= 9)
    inside = made.noise(9) * made.ball(9)
    false = made.filtered(inside, np.where(band, np.exp(-7 * made.SHELLS / (made.SIDE // 2)), 0))
    strength = np.sqrt(2) * np.std(made.filtered(made.signal(), 1.0 * band)) / np.std(false)
    found = warned(halves, denoised_halves=[one + strength * false for one in denoised])
    assert list(found) == ["added"]
    told = re.search(r"from (\S+) to (\S+) Å", found["added"])
    first, last = (round(LONGEST / float(one)) for one in told.groups())
    assert 6 <= first <= 7
    assert 9 <= last <= 10


@pytest.mark.parametrize("level", [0.5, 1.0])
def test_a_blur_is_called_a_filter(level):
    halves = made.half_maps(level)
    blur = np.exp(-((made.SHELLS / 9) ** 2))
    numbers = account(made.study(halves, denoised_halves=[made.filtered(one, blur) for one in halves]))
    assert [one["kind"] for one in numbers["warnings"]] == ["damped"]
    told = re.search(r"from (\S+) to (\S+) Å: (\d+) %", numbers["warnings"][0]["text"])
    first, last = (round(LONGEST / float(one)) for one in told.groups()[:2])
    # what is left is told of the scale that leaves the least bias over all shells
    left = numbers["gain"] * blur[first : last + 1]
    assert int(told[3]) == pytest.approx(100 * np.median(left), abs=5)


def test_one_factor_for_all_shells_is_no_filter():
    halves = made.half_maps(0.25)
    assert warned(halves, denoised_halves=[0.3 * one for one in halves]) == {}


def test_mask_that_cuts_the_particle():
    halves, denoised = decent()
    cutting = made.MASK.copy()
    cutting[: made.SIDE // 2] = 0
    found = warned(halves, denoised_halves=denoised, mask=cutting)
    share = 1 - np.sum((cutting * made.signal()) ** 2) / np.sum(made.signal() ** 2)
    assert 0.3 < share < 0.7
    told = int(found["cut"].split(" %")[0].split()[-1])
    assert told == pytest.approx(100 * share, abs=10)


@pytest.mark.parametrize("radius", [9, 14])
def test_mask_around_the_particle_does_not_cut(radius):
    halves, denoised = decent()
    assert "cut" not in warned(halves, denoised_halves=denoised, mask=made.ball(radius))


def test_curve_that_never_falls():
    halves = made.half_maps(1e-4)
    found = warned(halves, denoised_halves=[made.decent(one) for one in halves])
    assert "never_falls" in found


def test_gravest_comes_first():
    """Turned over and swapped, in a mask that cuts."""
    halves, denoised = decent()
    cutting = made.MASK.copy()
    cutting[: made.SIDE // 2] = 0
    found = warned(halves, -sum(denoised) / 2, denoised[::-1], mask=cutting)
    assert list(found)[:2] == ["inverted", "swapped"]
    assert list(found)[-1] == "cut"


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        ([], ""),
        ([0], ""),
        ([4], "at 15 Å"),
        ([4, 5, 6], "from 15 to 10 Å"),
        ([0, 1, 2], "from 60 to 30 Å"),
        ([1, 5, 6], "at 60 Å and from 12 to 10 Å"),
        ([2, 4, 5, 8, 9, 10], "at 30 Å, from 15 to 12 Å and from 7.5 to 6 Å"),
        # of four runs the shortest is left out
        ([1, 2, 4, 6, 7, 9, 10], "from 60 to 30 Å, from 10 to 8.57 Å and from 6.67 to 6 Å"),
    ],
)
def test_shells_in_words(chosen, told):
    """Shell s of a box of 60 Å is at 60 / s Å."""
    assert ranges(np.isin(np.arange(11), chosen), np.arange(11) / 60) == told
