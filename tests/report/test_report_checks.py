"""Maps that are not what they are given as: inverted, shifted, in the wrong order, of something else."""

import numpy as np
import pytest
from helpers import denoised_pairs as pairs
from helpers.denoised_pairs import warning_texts
from scipy import ndimage

from crefjax.report.measure import estimate_shift


@pytest.fixture(scope="module")
def pair():
    """Half-maps, and decent denoised ones."""
    halves = pairs.half_maps()
    return halves, tuple(pairs.denoise_well(half_map) for half_map in halves)


def test_inverted_map(pair):
    halves, denoised = pair
    texts = warning_texts(halves, -sum(denoised) / 2)
    assert set(texts) == {"inverted"}
    assert "contrast" in texts["inverted"]
    assert texts["inverted"].endswith(".")


@pytest.mark.parametrize("signs", [(-1, -1), (-1, 1)])
def test_inverted_half_maps_are_not_swapped(signs, pair):
    halves, denoised = pair
    turned = [sign * map_ for sign, map_ in zip(signs, denoised, strict=True)]
    texts = warning_texts(halves, sum(denoised) / 2, turned)
    assert next(iter(texts)) == "inverted"
    assert "swapped" not in texts
    subject = "half-map 1 and half-map 2 have" if signs == (-1, -1) else "half-map 1 has"
    assert f"The denoised {subject} the opposite contrast" in texts["inverted"]
    assert "swapped" in warning_texts(halves, sum(denoised) / 2, turned[::-1])


@pytest.mark.parametrize(
    ("axis", "voxels", "expected"),
    [
        (2, 2, (2 * pairs.VOXEL, 0, 0)),
        (2, -1, (-pairs.VOXEL, 0, 0)),
        (1, 3, (0, 3 * pairs.VOXEL, 0)),
        (0, -4, (0, 0, -4 * pairs.VOXEL)),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_shifted_map(axis, voxels, expected, sign, pair):
    """Content moved towards larger x has a positive shift in x."""
    halves, denoised = pair
    moved = np.roll(sign * sum(denoised) / 2, voxels, axis).astype(np.float32)
    arrays = [half_map.astype(np.float32) for half_map in halves]
    text = warning_texts(arrays, moved)["shifted"]
    assert f"denoised map lies ({expected[0]:g}, {expected[1]:g}, {expected[2]:g}) Å in (x, y, z)" in text


def test_one_shifted_denoised_half_map(pair):
    """By one voxel, the other half-map and the full map are in place."""
    halves, denoised = pair
    text = warning_texts(halves, sum(denoised) / 2, (denoised[0], np.roll(denoised[1], 1, 1)))["shifted"]
    assert f"denoised half-map 2 lies (0, {pairs.VOXEL:g}, 0) Å in (x, y, z) from that of half-map 2" in text
    assert "half-map 1" not in text


def other_structure():
    inside = pairs.filtered(pairs.noise(77), np.exp(-7 * pairs.SHELLS / (pairs.SIDE // 2))) * pairs.ball(9)
    return inside / inside[pairs.ball(9) > 0.5].std()


@pytest.mark.parametrize("which", ["map", "halves"])
def test_another_structure_is_not_reported_as_shifted(which, pair):
    halves, denoised = pair
    other = other_structure()
    if which == "map":
        texts = warning_texts(halves, other, denoised)
        assert "denoised map does not fit" in texts["unrelated"]
    else:
        texts = warning_texts(halves, sum(denoised) / 2, [other + 0.1 * pairs.noise(7), other + 0.1 * pairs.noise(8)])
        assert "denoised half-map 1 and half-map 2 do not fit" in texts["unrelated"]
    assert not {"shifted", "inverted"} & set(texts)


def test_low_pass_filtered_map_still_fits(pair):
    """All is in shells 1 to 5 of ten with signal."""
    halves, _ = pair
    cut = [pairs.filtered(half_map, 1.0 * (pairs.SHELLS < 5)) for half_map in halves]
    texts = warning_texts(halves, denoised_halves=cut)
    assert "damped" in texts
    assert not {"unrelated", "inverted", "shifted"} & set(texts)


def test_mask_of_one_voxel_gives_no_warning_about_the_maps(pair):
    halves, denoised = pair
    mask = np.zeros_like(pairs.MASK)
    mask[(pairs.SIDE // 2,) * 3] = 1
    texts = warning_texts(halves, -sum(denoised), denoised, mask=mask)
    assert not {"not_denoised", "unrelated", "inverted", "shifted", "swapped"} & set(texts)


@pytest.mark.parametrize("level", [0.5, 1.0])
def test_swapped_denoised_half_maps(level):
    halves = pairs.half_maps(level)
    texts = warning_texts(halves, denoised_halves=[pairs.denoise_well(half_map) for half_map in halves[::-1]])
    assert next(iter(texts)) == "swapped"


def test_one_denoised_half_map_given_twice(pair):
    halves, denoised = pair
    mean = sum(denoised) / 2
    assert "one and the same" in warning_texts(halves, denoised_halves=(mean, mean))["one_map"]


def independent_numbers(shape, last):
    """Voxels per shell, counted, up to the last to look at; longest side 1."""
    longest = max(shape)
    k = np.meshgrid(*(np.fft.fftfreq(n, 1 / longest) for n in shape), indexing="ij")
    shell = np.floor(np.sqrt(sum(component**2 for component in k)) + 0.5).astype(int)
    count = np.bincount(shell.ravel())[: longest // 2 + 1].astype(float)
    return np.where(np.arange(len(count)) <= last, count, 0)


def body(shape, seed):
    """White noise, a little blurred, in a ball."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    density = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1)
    return density / density.std() * (z**2 + y**2 + x**2 < 0.4)


def noise(shape, seed, level=0.3):
    return level * np.random.default_rng(1000 + seed).standard_normal(shape)


def shift_of(before, denoised, last, voxel=1.5):
    mask = np.ones(before.shape, np.float32)
    arrays = before.astype(np.float32), denoised.astype(np.float32)
    return estimate_shift(*arrays, mask, voxel, independent=independent_numbers(before.shape, last))


@pytest.mark.parametrize("sign", [1, -1])
def test_shift_along_several_axes_in_a_box_of_unequal_sides(sign):
    shape = (16, 20, 25)
    moved = np.roll(sign * body(shape, 1), (1, -2, 3), (0, 1, 2))
    assert shift_of(body(shape, 1) + noise(shape, 1), moved, 9) == pytest.approx((4.5, -3.0, 1.5))


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("last", [7, 15])
def test_shift_by_one_voxel_in_a_small_box(axis, last):
    shape = (32, 32, 32)
    expected = np.roll([1.5, 0, 0], 2 - axis)
    assert shift_of(body(shape, 2) + noise(shape, 2), np.roll(body(shape, 2), 1, axis), last) == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(16, 16, 16), (24, 32, 17), (32, 32, 32)])
@pytest.mark.parametrize("last", [2, 5, 8])
def test_maps_in_place_or_unrelated_have_no_shift(shape, last):
    for seed in range(5):
        before = body(shape, seed) + noise(shape, seed, 1.0)
        blurred = ndimage.gaussian_filter(before, 1.5)
        for denoised in (body(shape, seed), blurred, body(shape, seed + 50), noise(shape, seed + 50), np.zeros(shape)):
            assert shift_of(before, denoised, last) == (0.0, 0.0, 0.0)


def test_less_than_half_a_voxel_is_not_a_shift():
    shape = (24, 24, 24)
    moved = np.fft.ifftn(np.fft.fftn(body(shape, 3)) * np.exp(-2j * np.pi * 0.4 * np.fft.fftfreq(24))).real
    assert shift_of(body(shape, 3), moved, 8) == (0.0, 0.0, 0.0)


def test_shift_needs_shells_and_does_not_depend_on_the_scale():
    shape = (20, 20, 20)
    before, moved = body(shape, 4), np.roll(body(shape, 4), 2, 2)
    assert shift_of(before, moved, 0) == (0.0, 0.0, 0.0)
    for scale in (1e18, 1e-18):
        assert shift_of(scale * before, scale * moved, 6) == pytest.approx((3.0, 0, 0))
