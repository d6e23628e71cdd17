"""Each kind of warning comes in its case, and none where a map is decent."""

import functools
import re
from dataclasses import replace

import numpy as np
import pytest
from helpers import denoised_pairs as made

from crefjax.report.measure import account, measure
from crefjax.report.warnings import ranges

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


def test_half_maps_that_are_only_sharpened():
    halves = made.half_maps(1.0)
    found = warned(halves, denoised_halves=[made.filtered(one, np.exp(made.SHELLS / 9)) for one in halves])
    assert "or sharpened" in found["nothing_removed"]
    assert "not_denoised" not in found
    sharpened = [made.filtered(one, np.exp(made.SHELLS / 9)) for one in halves]
    own = warned(halves, denoised_halves=sharpened, scale="signal")["nothing_removed"]
    assert "the network did not help" in own.lower()


def test_nothing_but_a_lack_of_signal_is_told_of_noise():
    for seed in range(4):
        halves = made.noise(10 + seed), made.noise(20 + seed)
        denoised = [made.filtered(one, np.exp(-made.SHELLS / 4)) for one in halves]
        found = warned(halves, np.roll(sum(denoised), 3, 0), denoised[::-1])
        assert set(found) == {"no_signal"}


@pytest.mark.parametrize("scale", [1e18, 1e-18])
def test_scale_of_all_maps_does_not_matter(scale):
    halves, denoised = decent()
    moved = np.roll(sum(denoised) / 2, 2, 2)
    expected = warned(halves, moved, denoised)
    assert warned([scale * one for one in halves], scale * moved, [scale * one for one in denoised]) == expected


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


@pytest.mark.parametrize("share", [0.0, 0.02])
@pytest.mark.parametrize("factor", [0.3, 2.0])
def test_half_maps_times_a_factor_are_no_denoised_ones(factor, share):
    """Or with a small share of denoised ones in them."""
    halves = made.half_maps()
    mixed = [factor * ((1 - share) * one + share * made.decent(one)) for one in halves]
    numbers = account(made.study(halves, denoised_halves=mixed))
    found = {one["kind"]: one["text"] for one in numbers["warnings"]}
    assert list(found) == ["not_denoised", "nothing_removed"]
    assert "denoised map equals the noisy full map" in found["not_denoised"]
    assert "denoised half-map 2 equals the noisy half-map 2" in found["not_denoised"]
    assert "times what it was" in found["nothing_removed"]
    assert numbers["use"]["for"][0].startswith("Nothing, until this is put right: give the map that was denoised")


def test_a_tenth_less_noise_is_next_to_nothing():
    """Not the same map, and no better than 1.05 times in amplitude."""
    halves = made.half_maps(1.0)
    found = warned(halves, denoised_halves=[0.04 * made.signal() + 0.96 * one for one in halves])
    assert "nothing_removed" in found
    gained = float(re.search(r"is (\S+) times", found["nothing_removed"])[1])
    assert gained == pytest.approx(1 / 0.96**2, abs=0.03)


@pytest.mark.parametrize("which", ["parameters", "label"])
def test_where_crefjax_fades_by_itself_it_is_a_note(which):
    halves = made.half_maps()
    blur = np.exp(-((made.SHELLS / 9) ** 2))
    study = made.study(halves, denoised_halves=[made.filtered(one, blur) for one in halves])
    (plain,) = account(study)["warnings"]
    if which == "parameters":
        study.parameters["scale"] = "signal"
    else:
        assert not measure(study).signal_scale
        header = study.denoised.header
        label = b"crefjax 0.1.0 denoised, weights w, scale signal".ljust(80)
        header = replace(header, raw=header.raw[:224] + label + header.raw[304:])
        study = replace(study, denoised=replace(study.denoised, header=header))
    numbers = account(study)
    assert numbers["warnings"] == []
    (note,) = (one for one in numbers["notes"] if "no better than a filter" in one)
    told = re.search(r"from (\S+ to \S+) Å", plain["text"])[1]
    assert note.startswith(f"From {told} Å")


def test_damped_is_one_range_to_the_last_shell_of_which_something_is_known():
    """Also where signal is below noise: halves of which little is left beyond shell 6."""
    halves = made.half_maps(0.7)
    blur = np.where(made.SHELLS < 6, 1.0, 0.4)
    found = warned(halves, denoised_halves=[made.filtered(one, blur) for one in halves])["damped"]
    assert found.count("from") == 1
    first, last = (round(LONGEST / float(one)) for one in re.search(r"from (\S+) to (\S+) Å", found).groups())
    before = made.signal() * made.MASK
    power = np.bincount(made.shell_index().ravel(), np.abs(np.fft.fftn(before)).ravel() ** 2)[: made.SIDE // 2 + 1]
    noise = 0.49 * np.bincount(made.shell_index().ravel())[: made.SIDE // 2 + 1] * np.sum(made.MASK**2)
    weak = np.flatnonzero(power < noise)[0]
    assert 5 <= first <= 7
    assert last > weak


def test_mask_that_cuts_the_particle():
    halves, denoised = decent()
    cutting = made.MASK.copy()
    cutting[: made.SIDE // 2] = 0
    found = warned(halves, denoised_halves=denoised, mask=cutting)
    share = 1 - np.sum((cutting * made.signal()) ** 2) / np.sum(made.signal() ** 2)
    assert 0.3 < share < 0.7
    told = int(found["cut"].split(" %")[0].split()[-1])
    assert told == pytest.approx(100 * share, abs=10)


def test_a_mask_on_another_scale_does_not_cut():
    halves, denoised = decent()
    assert "cut" not in warned(halves, denoised_halves=denoised, mask=0.6 * made.MASK)


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
    assert "half-map" not in found["inverted"]
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
