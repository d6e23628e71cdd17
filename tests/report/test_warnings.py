"""Each kind of warning in its case, none for a map that was denoised well, and what is recommended."""

import functools
import re
from dataclasses import replace

import numpy as np
import pytest
from helpers import denoised_pairs as pairs
from helpers.denoised_pairs import warning_texts

from crefjax.report.measure import measure, report_numbers
from crefjax.report.warnings import recommendations, shell_ranges

LONGEST = pairs.SIDE * pairs.VOXEL


def filtered(maps, factors):
    return [pairs.filtered(array, factors) for array in maps]


@functools.cache
def well_denoised():
    halves = pairs.half_maps()
    return halves, tuple(pairs.denoise_well(half_map) for half_map in halves)


@pytest.mark.parametrize("with_halves", [True, False])
@pytest.mark.parametrize("level", [0.25, 0.5, 1.0])
def test_well_denoised_maps_give_no_warning(level, with_halves):
    halves = pairs.half_maps(level)
    denoised = tuple(pairs.denoise_well(half_map) for half_map in halves)
    assert warning_texts(halves, sum(denoised) / 2, denoised if with_halves else None) == {}


@pytest.mark.parametrize("factor", [0.01, 3.0, 1000.0])
def test_another_scale_is_a_note_and_not_a_warning(factor):
    halves, denoised = well_denoised()
    numbers = report_numbers(pairs.report_inputs(halves, denoised_halves=[factor * half_map for half_map in denoised]))
    assert numbers["warnings"] == []
    assert numbers["gain"] == pytest.approx(1 / factor, rel=0.1)
    assert any("scale" in note and f"{numbers['gain']:.4g}" in note for note in numbers["notes"])


def test_half_maps_of_noise_give_the_no_signal_warning():
    halves = pairs.noise(1), pairs.noise(2)
    texts = warning_texts(halves, denoised_halves=filtered(halves, np.exp(-pairs.SHELLS / 4)))
    assert next(iter(texts)) == "no_signal"
    assert "Å" in texts["no_signal"]


def test_sharpened_half_maps_have_nothing_removed():
    halves = pairs.half_maps(1.0)
    texts = warning_texts(halves, denoised_halves=filtered(halves, np.exp(pairs.SHELLS / 9)))
    assert "or sharpened" in texts["nothing_removed"]
    assert "not_denoised" not in texts
    sharpened = filtered(halves, np.exp(pairs.SHELLS / 9))
    own = warning_texts(halves, denoised_halves=sharpened, scale="signal")["nothing_removed"]
    assert "the network did not help" in own.lower()


def test_pure_noise_gives_only_the_no_signal_warning():
    for seed in range(4):
        halves = pairs.noise(10 + seed), pairs.noise(20 + seed)
        denoised = filtered(halves, np.exp(-pairs.SHELLS / 4))
        texts = warning_texts(halves, np.roll(sum(denoised), 3, 0), denoised[::-1])
        assert set(texts) == {"no_signal"}


@pytest.mark.parametrize("scale", [1e18, 1e-18])
def test_scale_of_all_maps_does_not_matter(scale):
    halves, denoised = well_denoised()
    moved = np.roll(sum(denoised) / 2, 2, 2)
    expected = warning_texts(halves, moved, denoised)
    scaled, *half_maps = (scale * array for array in (moved, *halves))
    assert warning_texts(half_maps, scaled, [scale * array for array in denoised]) == expected


def test_denoised_half_maps_that_depend_on_each_other_contradict_the_equations():
    halves, _ = well_denoised()
    mixed = 0.6 * halves[0] + 0.4 * halves[1], 0.4 * halves[0] + 0.6 * halves[1]
    texts = warning_texts(halves, denoised_halves=mixed)
    assert "Å" in texts["contradicted"]
    assert "one_map" not in texts


def test_added_structure_is_found_where_it_was_added():
    """In shells 7 to 9, with twice the signal's power; under the mask a shell more on either side holds some."""
    halves, denoised = well_denoised()
    band = (pairs.SHELLS >= 7) & (pairs.SHELLS <= 9)
    inside = pairs.noise(9) * pairs.ball(9)
    false = pairs.filtered(inside, np.where(band, np.exp(-7 * pairs.SHELLS / (pairs.SIDE // 2)), 0))
    strength = np.sqrt(2) * np.std(pairs.filtered(pairs.signal(), 1.0 * band)) / np.std(false)
    texts = warning_texts(halves, denoised_halves=[half_map + strength * false for half_map in denoised])
    assert list(texts) == ["added"]
    limits = re.search(r"from (\S+) to (\S+) Å", texts["added"]).groups()
    first, last = (round(LONGEST / float(limit)) for limit in limits)
    assert 6 <= first <= 7
    assert 9 <= last <= 10


@pytest.mark.parametrize("level", [0.5, 1.0])
def test_a_blur_is_called_a_filter(level):
    halves = pairs.half_maps(level)
    blur = np.exp(-((pairs.SHELLS / 9) ** 2))
    numbers = report_numbers(pairs.report_inputs(halves, denoised_halves=filtered(halves, blur)))
    assert [warning["kind"] for warning in numbers["warnings"]] == ["damped"]
    *limits, share = re.search(r"from (\S+) to (\S+) Å: (\d+) %", numbers["warnings"][0]["text"]).groups()
    first, last = (round(LONGEST / float(limit)) for limit in limits)
    # the share refers to the scale that leaves the least bias over all shells
    left = numbers["gain"] * blur[first : last + 1]
    assert int(share) == pytest.approx(100 * np.median(left), abs=5)


@pytest.mark.parametrize("share", [0.0, 0.02])
@pytest.mark.parametrize("factor", [0.3, 2.0])
def test_half_maps_times_a_factor_are_not_denoised(factor, share):
    """Or with a small share of denoised ones in them."""
    halves = pairs.half_maps()
    mixed = [factor * ((1 - share) * half_map + share * pairs.denoise_well(half_map)) for half_map in halves]
    numbers = report_numbers(pairs.report_inputs(halves, denoised_halves=mixed))
    texts = {warning["kind"]: warning["text"] for warning in numbers["warnings"]}
    assert list(texts) == ["not_denoised", "nothing_removed"]
    assert "denoised map equals the noisy full map" in texts["not_denoised"]
    assert "denoised half-map 2 equals the noisy half-map 2" in texts["not_denoised"]
    assert "times what it was" in texts["nothing_removed"]
    assert numbers["use"]["for"][0].startswith("Nothing, until this is corrected: give the map that was denoised")


def test_little_less_noise_counts_as_nothing_removed():
    """Not the same map, and no better than 1.05 times in amplitude."""
    halves = pairs.half_maps(1.0)
    texts = warning_texts(halves, denoised_halves=[0.04 * pairs.signal() + 0.96 * half_map for half_map in halves])
    assert "nothing_removed" in texts
    gained = float(re.search(r"is (\S+) times", texts["nothing_removed"])[1])
    assert gained == pytest.approx(1 / 0.96**2, abs=0.03)


@pytest.mark.parametrize("which", ["parameters", "label"])
def test_fading_on_the_signals_scale_is_a_note(which):
    halves = pairs.half_maps()
    blur = np.exp(-((pairs.SHELLS / 9) ** 2))
    inputs = pairs.report_inputs(halves, denoised_halves=filtered(halves, blur))
    (plain,) = report_numbers(inputs)["warnings"]
    if which == "parameters":
        inputs.parameters["scale"] = "signal"
    else:
        assert not measure(inputs).signal_scale
        header = inputs.denoised.header
        label = b"crefjax 0.1.0 denoised, weights w, scale signal".ljust(80)
        header = replace(header, raw=header.raw[:224] + label + header.raw[304:])
        inputs = replace(inputs, denoised=replace(inputs.denoised, header=header))
    numbers = report_numbers(inputs)
    assert numbers["warnings"] == []
    (note,) = (note for note in numbers["notes"] if "not better than a filter" in note)
    limits = re.search(r"from (\S+ to \S+) Å", plain["text"])[1]
    assert note.startswith(f"From {limits} Å")


def test_damped_shells_are_one_range_up_to_the_last_measured_shell():
    """Also where signal is below noise: halves of which little is left beyond shell 6."""
    halves = pairs.half_maps(0.7)
    blur = np.where(pairs.SHELLS < 6, 1.0, 0.4)
    text = warning_texts(halves, denoised_halves=filtered(halves, blur))["damped"]
    assert text.count("from") == 1
    first, last = (round(LONGEST / float(limit)) for limit in re.search(r"from (\S+) to (\S+) Å", text).groups())
    before = pairs.signal() * pairs.MASK
    power = np.bincount(pairs.shell_index().ravel(), np.abs(np.fft.fftn(before)).ravel() ** 2)[: pairs.SIDE // 2 + 1]
    noise = 0.49 * np.bincount(pairs.shell_index().ravel())[: pairs.SIDE // 2 + 1] * np.sum(pairs.MASK**2)
    weak = np.flatnonzero(power < noise)[0]
    assert 5 <= first <= 7
    assert last > weak


def test_mask_that_cuts_the_particle_gives_a_warning():
    halves, denoised = well_denoised()
    cutting = pairs.MASK.copy()
    cutting[: pairs.SIDE // 2] = 0
    texts = warning_texts(halves, denoised_halves=denoised, mask=cutting)
    share = 1 - np.sum((cutting * pairs.signal()) ** 2) / np.sum(pairs.signal() ** 2)
    assert 0.3 < share < 0.7
    percent = int(texts["cut"].split(" %")[0].split()[-1])
    assert percent == pytest.approx(100 * share, abs=10)


def test_a_mask_on_another_scale_does_not_cut():
    halves, denoised = well_denoised()
    assert "cut" not in warning_texts(halves, denoised_halves=denoised, mask=0.6 * pairs.MASK)


@pytest.mark.parametrize("radius", [9, 14])
def test_mask_around_the_particle_does_not_cut_it(radius):
    halves, denoised = well_denoised()
    assert "cut" not in warning_texts(halves, denoised_halves=denoised, mask=pairs.ball(radius))


def test_fsc_that_never_falls_gives_a_warning():
    halves = pairs.half_maps(1e-4)
    texts = warning_texts(halves, denoised_halves=[pairs.denoise_well(half_map) for half_map in halves])
    assert "never_falls" in texts


def test_the_gravest_warning_comes_first():
    """Turned over and swapped, in a mask that cuts."""
    halves, denoised = well_denoised()
    cutting = pairs.MASK.copy()
    cutting[: pairs.SIDE // 2] = 0
    texts = warning_texts(halves, -sum(denoised) / 2, denoised[::-1], mask=cutting)
    assert list(texts)[:2] == ["inverted", "swapped"]
    assert "half-map" not in texts["inverted"]
    assert list(texts)[-1] == "cut"


@pytest.mark.parametrize(
    ("chosen", "expected"),
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
def test_shells_in_words(chosen, expected):
    """Shell s of a box of 60 Å is at 60 / s Å."""
    assert shell_ranges(np.isin(np.arange(11), chosen), np.arange(11) / 60) == expected


def test_a_map_without_warnings_is_recommended_for_looking_and_building():
    use = recommendations([], None)
    assert [line.split()[0] for line in use["for"]] == ["Looking", "Building"]
    assert [line.split()[0] for line in use["not_for"]] == ["Resolution:", "Refining", "Claiming"]


def test_a_map_of_noise_is_recommended_for_nothing():
    (only,) = recommendations(["no_signal", "added", "shifted"], 5.0)["for"]
    assert only.startswith("Nothing:")


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        ("unrelated", "from these half-maps"),
        ("inverted", "invert the denoised map"),
        ("shifted", "shift the denoised map back"),
        ("swapped", "in the order of the half-maps"),
        ("one_map", "denoise each half-map by itself"),
        ("contradicted", "share no noise"),
        ("not_denoised", "give the map that was denoised"),
        ("nothing_removed", "only as the noisy map can"),
    ],
)
def test_a_remedy_comes_before_any_use(kind, step):
    use = recommendations(["cut", kind, "added"], 5.0)
    assert len(use["for"]) == 1
    assert use["for"][0].startswith("Nothing, until this is corrected:")
    assert step in use["for"][0]
    assert use["not_for"][0].startswith("Anything else")


def test_two_remedies_are_both_named():
    (only,) = recommendations(["swapped", "inverted"], None)["for"]
    assert only.index("invert the") < only.index("in the order")


def test_doubts_limit_the_use():
    assert "independent" in recommendations(["never_falls"], None)["not_for"][-1]
    assert "outside the mask" in recommendations(["cut"], None)["not_for"][-1]


def test_building_ends_where_added_structure_begins():
    """Twice the signal's power in shells 7 to 9; the mask spreads it by a shell."""
    halves = pairs.half_maps()
    band = (pairs.SHELLS >= 7) & (pairs.SHELLS <= 9)
    false = pairs.filtered(pairs.noise(9) * pairs.ball(9), np.where(band, np.exp(-7 * pairs.SHELLS / 18), 0))
    false *= np.sqrt(2) * np.std(pairs.filtered(pairs.signal(), 1.0 * band)) / np.std(false)
    denoised = [pairs.denoise_well(half_map) + false for half_map in halves]
    use = report_numbers(pairs.report_inputs(halves, denoised_halves=denoised))["use"]
    longest = pairs.SIDE * pairs.VOXEL
    possible = [f"{longest / shell:.3g} Å" for shell in (6, 7)]
    assert any(f"down to {limit} and not beyond" in use["for"][1] for limit in possible)
    assert any(f"Anything finer than {limit}" in use["not_for"][-1] for limit in possible)
