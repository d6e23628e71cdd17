"""The numbers of a report, against slow NumPy."""

import json

import numpy as np
import pytest
from helpers import denoised_pairs as pairs

from crefjax.io.maps import Map
from crefjax.report.measure import ReportInputs, measure, report_numbers

INNER = slice(1, pairs.SIDE // 2)


@pytest.fixture(scope="module")
def halves():
    return pairs.half_maps()


@pytest.fixture(scope="module")
def inputs(halves):
    """On a level of 5, which is no density."""
    denoised = [5 + pairs.denoise_well(half_map) for half_map in halves]
    return pairs.report_inputs([5 + half_map for half_map in halves], denoised_halves=denoised, weights="by-hand")


@pytest.fixture(scope="module")
def numbers(inputs):
    return report_numbers(inputs)


def spectrum(array, mask):
    """Of a map relative to the mean outside the mask."""
    array = array.astype(np.float64)
    return np.fft.fftn((array - np.average(array, weights=1 - pairs.MASK)) * mask)


def sums(values):
    return np.bincount(pairs.shell_index().ravel(), values.real.ravel())[: pairs.SIDE // 2 + 1]


def cross(first, second, mask=pairs.MASK):
    """Mean of a shell's products over the sum of the squared mask."""
    total = sums(spectrum(first, mask) * spectrum(second, mask).conj())
    return total / sums(np.ones((pairs.SIDE,) * 3)) / np.sum(mask**2)


def fsc(first, second, mask=pairs.MASK):
    return cross(first, second, mask) / np.sqrt(cross(first, first, mask) * cross(second, second, mask))


def arrays(inputs):
    return [map_.array for map_ in (inputs.half_map_1, inputs.half_map_2, inputs.denoised, inputs.denoised_1)]


def test_curves_match_numpy(inputs, numbers):
    first, second, denoised, _ = arrays(inputs)
    full = (first + second) / 2
    whole = np.ones_like(pairs.MASK)
    curves = numbers["curves"]
    h = fsc(first, second)
    for name, expected in {
        "fsc_halves": h,
        "fsc_halves_unmasked": fsc(first, second, whole),
        "cref": np.sqrt(2 * np.maximum(h, 0) / (1 + np.maximum(h, 0))),
        "fsc_denoised_full": fsc(denoised, full),
        "fsc_denoised_full_unmasked": fsc(denoised, full, whole),
    }.items():
        np.testing.assert_allclose(curves[name][1:], expected[1:], atol=3e-5, err_msg=name)
    np.testing.assert_allclose(curves["power_full"], cross(full, full), rtol=1e-4)
    np.testing.assert_allclose(curves["power_denoised"], cross(denoised, denoised), rtol=1e-4)


def test_resolution_and_rmse_follow_from_the_curves(inputs, numbers):
    first, second, denoised, _ = arrays(inputs)
    h, fsc_to_full = np.maximum(fsc(first, second), 0), fsc(denoised, (first + second) / 2)
    difference = fsc_to_full * np.abs(fsc_to_full) - 2 * h / (1 + h)
    assert numbers["cref_rmse"] == pytest.approx(np.sqrt(np.mean(difference[INNER] ** 2)), rel=1e-3)
    for threshold in (0.143, 0.5):
        shell = np.flatnonzero(fsc(first, second)[1:] < threshold)[0] + 1
        resolution = numbers["resolution"][f"fsc_{threshold}"]
        assert resolution["crossed"]
        longest = pairs.SIDE * pairs.VOXEL
        assert longest / shell <= resolution["angstrom"] <= longest / (shell - 1)


def test_variances_match_the_truth(halves, inputs, numbers):
    """Within a few of their errors: signal, noise, and the noise that is left."""
    left = [inputs.denoised_1.array - 5 - pairs.signal(), inputs.denoised_2.array - 5 - pairs.signal()]
    true = {
        "signal": cross(pairs.signal(), pairs.signal()),
        "noise": sum(cross(half_map - pairs.signal(), half_map - pairs.signal()) for half_map in halves) / 2,
        "residual_noise": sum(cross(half_map, half_map) for half_map in left) / 2,
    }
    for name, expected in true.items():
        estimate = {key: np.array(values) for key, values in numbers["variances"][name].items()}
        trusted = estimate["trusted"].astype(bool)
        assert trusted[1:-1].sum() >= 8
        difference = np.abs(estimate["value"].astype(float) - expected)[trusted]
        assert np.all(difference < 4 * estimate["error"][trusted].astype(float) + 0.02 * expected[trusted]), name
    gain = numbers["gain"]
    assert gain == pytest.approx(1, abs=0.05)
    passed = 0.3 / (1 + np.exp(pairs.SHELLS - 13.0))  # as the denoised half-maps were made
    for name, expected in (("signal_kept", 1), ("noise_kept", passed)):
        estimate = {key: np.array(values) for key, values in numbers[name].items()}
        trusted = estimate["trusted"].astype(bool)
        assert trusted[1:-1].sum() >= 8
        difference = np.abs(estimate["value"].astype(float) - gain * expected)[trusted]
        assert np.all(difference < 4 * estimate["error"][trusted].astype(float) + 0.01), name


def test_ratios_are_those_of_the_variances(numbers):
    value = {name: np.array(estimate["value"], float) for name, estimate in numbers["variances"].items()}
    kept = np.array(numbers["signal_kept"]["value"], float)
    ratios = {name: np.array(estimate["value"], float) for name, estimate in numbers["ratios"].items()}
    with np.errstate(divide="ignore", invalid="ignore"):
        expected_ratios = {
            "signal_to_noise_before": value["signal"] / value["noise"],
            "signal_to_noise_after": kept**2 * value["signal"] / value["residual_noise"],
            "signal_to_bias": value["signal"] / value["bias"],
            "signal_to_added": kept**2 * value["signal"] / value["added"],
        }
    for name, expected in expected_ratios.items():
        usable = np.isfinite(ratios[name])
        assert usable[1:-1].sum() > 8
        np.testing.assert_allclose(ratios[name][usable], expected[usable], rtol=1e-4, err_msg=name)
    before, after = (numbers["ratios"][f"signal_to_noise_{when}"] for when in ("before", "after"))
    both = np.array(before["trusted"]) & np.array(after["trusted"])
    assert both.sum() >= 5
    assert np.all(np.array(after["value"], float)[both] > 4 * np.array(before["value"], float)[both])


def test_box_mask_and_recommendations_are_those_of_the_inputs(numbers):
    shells = pairs.SIDE // 2 + 1
    assert numbers["box"] == [pairs.SIDE] * 3
    assert numbers["voxel_size"] == pairs.VOXEL
    assert numbers["shell"] == list(range(shells))
    np.testing.assert_allclose(numbers["frequency"], np.arange(shells) / (pairs.SIDE * pairs.VOXEL))
    inside = np.count_nonzero(pairs.MASK > 0.5)
    assert numbers["mask"]["from"] == "mask.mrc"
    assert numbers["mask"]["volume"] == pytest.approx(inside * pairs.VOXEL**3)
    assert numbers["mask"]["share"] == pytest.approx(inside / pairs.MASK.size)
    assert all(isinstance(text, str) for text in numbers["notes"])
    assert any("resolution" in text.lower() for text in numbers["use"]["not_for"])
    assert numbers["use"]["for"]


def lists(value):
    """All lists of numbers in a dictionary of dictionaries, with their keys."""
    for key, item in value.items():
        if isinstance(item, dict):
            yield from ((f"{key}.{name}", inner) for name, inner in lists(item))
        elif isinstance(item, list):
            yield key, item


@pytest.mark.parametrize("case", ["well denoised", "no halves", "noise", "zeros", "band-limited"])
def test_numbers_are_strict_json_with_lists_over_all_shells(case, inputs, halves):
    if case == "no halves":
        inputs = pairs.report_inputs(halves, inputs.denoised.array)
    elif case == "noise":
        inputs = pairs.report_inputs([pairs.noise(1), pairs.noise(2)], denoised_halves=[pairs.noise(3), pairs.noise(4)])
    elif case == "zeros":
        zero = np.zeros_like(pairs.MASK)
        inputs = pairs.report_inputs(halves, denoised_halves=[zero, zero])
    elif case == "band-limited":
        cut = [pairs.filtered(half_map, 1.0 * (pairs.SHELLS < 12)) for half_map in halves]
        denoised = [pairs.denoise_well(half_map) for half_map in cut]
        inputs = pairs.report_inputs(cut, denoised_halves=denoised, mask=np.ones_like(pairs.MASK))
    numbers = report_numbers(inputs)
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers
    assert (numbers["variances"] is None) == (case == "no halves")
    for part in ("curves", "variances", "ratios", "signal_kept", "noise_kept"):
        for name, values in lists(numbers[part] or {}):
            assert len(values) == pairs.SIDE // 2 + 1, name
            kind = bool if name.endswith("trusted") else (float, type(None))
            assert all(isinstance(value, kind) for value in values), name
    for part in ("variances", "ratios"):
        for name, estimate in (numbers[part] or {}).items():
            for value, error, trusted in zip(*(estimate[key] for key in ("value", "error", "trusted")), strict=True):
                assert not trusted or None not in (value, error), name


def test_without_denoised_half_maps_a_note_names_the_option(inputs, halves):
    numbers = report_numbers(pairs.report_inputs(halves, inputs.denoised.array))
    assert all(numbers[name] is None for name in ("variances", "ratios", "signal_kept", "noise_kept", "gain"))
    assert any("--denoised-halves" in note for note in numbers["notes"])


def test_box_of_unequal_sides():
    """Longest side first in no axis; `box` is x, y, z."""
    random = np.random.default_rng(0)
    shape = (12, 20, 16)
    maps = [Map.from_array(array, 1.5) for array in random.standard_normal((3, *shape))]
    inputs = ReportInputs(*maps, None, None, np.ones(shape, np.float32), "none", {})
    numbers = report_numbers(inputs)
    assert numbers["box"] == [16, 20, 12]
    assert len(numbers["curves"]["cref"]) == 11
    np.testing.assert_allclose(numbers["frequency"], np.arange(11) / 30)
    assert measure(inputs).variances is None
