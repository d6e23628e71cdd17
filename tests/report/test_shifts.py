"""Where the content of a map lies, in boxes of its own making."""

import numpy as np
import pytest
from scipy import ndimage

from crefjax.report.checks import shift_between


def numbers(shape, last):
    """Voxels per shell, counted, up to the last to look at; longest side 1."""
    longest = max(shape)
    k = np.meshgrid(*(np.fft.fftfreq(n, 1 / longest) for n in shape), indexing="ij")
    shell = np.floor(np.sqrt(sum(one**2 for one in k)) + 0.5).astype(int)
    count = np.bincount(shell.ravel())[: longest // 2 + 1].astype(float)
    return np.where(np.arange(len(count)) <= last, count, 0)


def body(shape, seed):
    """White noise, a little blurred, in a ball."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    made = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1)
    return made / made.std() * (z**2 + y**2 + x**2 < 0.4)


def noise(shape, seed, level=0.3):
    return level * np.random.default_rng(1000 + seed).standard_normal(shape)


def told(before, denoised, last, voxel=1.5):
    mask = np.ones(before.shape, np.float32)
    arrays = before.astype(np.float32), denoised.astype(np.float32)
    return shift_between(*arrays, mask, voxel, independent=numbers(before.shape, last))


@pytest.mark.parametrize("sign", [1, -1])
def test_shift_of_several_axes_in_a_box_that_is_no_cube(sign):
    shape = (16, 20, 25)
    moved = np.roll(sign * body(shape, 1), (1, -2, 3), (0, 1, 2))
    assert told(body(shape, 1) + noise(shape, 1), moved, 9) == pytest.approx((4.5, -3.0, 1.5))


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("last", [7, 15])
def test_one_voxel_in_a_small_box(axis, last):
    shape = (32, 32, 32)
    expected = np.roll([1.5, 0, 0], 2 - axis)
    assert told(body(shape, 2) + noise(shape, 2), np.roll(body(shape, 2), 1, axis), last) == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(16, 16, 16), (24, 32, 17), (32, 32, 32)])
@pytest.mark.parametrize("last", [2, 5, 8])
def test_nothing_is_told_of_what_is_in_place_or_of_something_else(shape, last):
    for seed in range(5):
        before = body(shape, seed) + noise(shape, seed, 1.0)
        blurred = ndimage.gaussian_filter(before, 1.5)
        for denoised in (body(shape, seed), blurred, body(shape, seed + 50), noise(shape, seed + 50), np.zeros(shape)):
            assert told(before, denoised, last) == (0.0, 0.0, 0.0)


def test_less_than_half_a_voxel_is_no_shift():
    shape = (24, 24, 24)
    moved = np.fft.ifftn(np.fft.fftn(body(shape, 3)) * np.exp(-2j * np.pi * 0.4 * np.fft.fftfreq(24))).real
    assert told(body(shape, 3), moved, 8) == (0.0, 0.0, 0.0)


def test_no_shells_tell_nothing_and_large_values_do_not_overflow():
    shape = (20, 20, 20)
    before, moved = body(shape, 4), np.roll(body(shape, 4), 2, 2)
    assert told(before, moved, 0) == (0.0, 0.0, 0.0)
    for scale in (1e18, 1e-18):
        assert told(scale * before, scale * moved, 6) == pytest.approx((3.0, 0, 0))
