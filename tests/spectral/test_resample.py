"""Fourier cropping and padding: sums over all frequencies by hand, waves and blobs known on any grid."""

import numpy as np
import pytest

from crefjax.spectral.resample import fourier_resample, working_shape

SHAPES = [
    ((12, 12, 12), (18, 18, 18)), ((12, 12, 12), (8, 8, 8)), ((11, 11, 11), (16, 15, 20)), ((13, 12, 11), (9, 8, 7)),
    ((12, 11, 10), (11, 14, 8)), ((10, 9, 12), (9, 10, 15)),
]  # fmt: skip


def interpolated(array, shape):
    """The box's own waves summed at the new voxels; Nyquist as the mean of both signs, what does not fit left out.

    Where the new side is even, the two waves that fall on its Nyquist become one there.
    """
    out = array.astype(complex)
    for axis, side in enumerate(shape):
        before = out.shape[axis]
        spectrum = np.fft.fft(out, axis=axis) / before
        frequency = np.fft.fftfreq(before, 1 / before).round().astype(int)
        at = np.arange(side) / side
        waves = np.zeros((side, before), complex)
        for column, k in enumerate(frequency):
            both = (k, -k) if before % 2 == 0 and abs(k) == before // 2 else (k,)
            for wave in both:
                if abs(wave) <= side / 2:
                    waves[:, column] += np.exp(2j * np.pi * wave * at) / len(both)
        out = np.moveaxis(np.tensordot(waves, np.moveaxis(spectrum, axis, 0), 1), 0, axis)
    return out.real


@pytest.mark.parametrize(("before", "after"), SHAPES)
def test_resampling_is_the_sum_of_the_waves_that_fit(before, after):
    array = np.random.default_rng(1).normal(size=before).astype(np.float32)
    found = fourier_resample(array, after)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found, interpolated(array, after), atol=2e-6)


@pytest.mark.parametrize(("before", "after"), SHAPES)
def test_a_wave_is_the_same_wave_on_both_grids(before, after):
    def wave(shape):
        z, y, x = np.meshgrid(*(np.arange(side) / side for side in shape), indexing="ij")
        return 0.7 + np.cos(2 * np.pi * (2 * z - 3 * y + x) + 0.4)

    np.testing.assert_allclose(fourier_resample(wave(before).astype(np.float32), after), wave(after), atol=2e-6)


@pytest.mark.parametrize("box", [(40, 40, 40), (41, 41, 41), (36, 41, 45)])
@pytest.mark.parametrize("ratio", [0.7, 1.3])
def test_a_blob_keeps_its_position(box, ratio):
    """Its center, in parts of the box, is that of the other grid to a thousandth of a voxel."""
    place = np.array([0.47, 0.52, 0.49])

    def blob(shape):
        axes = np.meshgrid(*(np.arange(side) / side for side in shape), indexing="ij")
        distance = sum((axis - at) ** 2 * side**2 for axis, at, side in zip(axes, place, box, strict=True))
        return np.exp(-distance / (2 * 3.0**2))

    after = tuple(round(side * ratio) for side in box)
    found = fourier_resample(blob(box).astype(np.float32), after).astype(np.float64)
    for axis, (side, at) in enumerate(zip(after, place, strict=True)):
        profile = found.sum(axis=tuple({0, 1, 2} - {axis}))
        center = np.sum(profile * np.arange(side)) / profile.sum() / side
        assert center * box[axis] == pytest.approx(at * box[axis], abs=1e-3)


@pytest.mark.parametrize(("before", "after"), [((12, 13, 14), (18, 20, 15)), ((10, 10, 10), (11, 12, 10))])
def test_padding_and_cropping_back_restores_a_map(before, after):
    array = np.random.default_rng(2).normal(size=before).astype(np.float32)
    np.testing.assert_allclose(fourier_resample(fourier_resample(array, after), before), array, atol=3e-6)


@pytest.mark.parametrize(("after", "width"), [((25, 27, 21), 1.2), ((24, 28, 22), 2.8)])
def test_cropping_and_padding_back_is_a_low_pass(after, width):
    """The blob for even sides is so wide that there is nothing at their Nyquist."""
    box = (36, 40, 33)
    z, y, x = np.meshgrid(*(np.arange(side) for side in box), indexing="ij")
    blob = np.exp(-((z - 17.3) ** 2 + (y - 20.6) ** 2 + (x - 15.8) ** 2) / (2 * width**2))
    kz, ky, kx = np.meshgrid(*(np.abs(np.fft.fftfreq(side, 1 / side)) for side in box), indexing="ij")
    fits = (2 * kz <= after[0]) & (2 * ky <= after[1]) & (2 * kx <= after[2])
    low_passed = np.fft.ifftn(np.fft.fftn(blob) * fits).real
    found = fourier_resample(fourier_resample(blob.astype(np.float32), after), box)
    np.testing.assert_allclose(found, low_passed, atol=2e-6)


@pytest.mark.parametrize(("before", "after"), SHAPES)
def test_the_mean_and_a_constant_are_kept(before, after):
    noise = np.random.default_rng(3).normal(5, 1, before).astype(np.float32)
    mean = noise.mean(dtype=np.float64)
    assert fourier_resample(noise, after).mean(dtype=np.float64) == pytest.approx(mean, rel=1e-6)
    constant = fourier_resample(np.full(before, 2.5, np.float32), after)
    np.testing.assert_allclose(constant, np.full(after, 2.5), rtol=1e-6)


def test_the_same_shape_returns_the_array():
    array = np.ones((4, 5, 6), np.float32)
    assert fourier_resample(array, (4, 5, 6)) is array


@pytest.mark.parametrize("shape", [(8, 8), (8, 0, 8)])
def test_invalid_shapes_raise(shape):
    with pytest.raises(ValueError, match="three sides"):
        fourier_resample(np.ones((8, 8, 8), np.float32), shape)


def test_an_empty_box_raises():
    with pytest.raises(ValueError, match="three sides"):
        fourier_resample(np.ones((8, 0, 8), np.float32), (8, 8, 8))


@pytest.mark.parametrize("resolution", [2.5, 3.3, 5.0, 9.0])
def test_a_resolution_takes_about_the_given_voxels_on_the_working_shape(resolution):
    for side in (80, 97, 128, 200, 311):
        (z, y, x) = working_shape((side, side, side), 1.1, resolution, 3.0)
        assert z == y == x
        assert z % 2 == 0
        exact = side * 1.1 * 3.0 / resolution
        if exact >= 48:
            assert abs(np.log(z / exact)) < 0.0527  # the middle of 72 and 80
        rest = z
        for factor in (2, 3, 5, 7):
            while rest % factor == 0:
                rest //= factor
        assert rest == 1


def test_working_shapes_match_values_by_hand():
    assert working_shape((128, 128, 128), 1.0, 4.0, 3.0) == (96, 96, 96)
    assert working_shape((100, 100, 100), 1.0, 4.0, 3.0) == (72, 72, 72)  # 75: 72 is 4.1 % off, 80 is 6.5 %
    assert working_shape((8, 8, 8), 1.0, 9.0, 3.0) == (8, 8, 8)
    # Each side by itself would be 72 for 75.8 and 80 for 76.0: voxels 11 % unlike in place of all but alike.
    assert working_shape((758, 760, 758), 0.1, 3.0, 3.0) in {(72, 72, 72), (80, 80, 80)}


def test_the_voxels_of_a_working_shape_are_nearly_alike():
    generator = np.random.default_rng(4)
    unlike, off = [], []
    for exact in np.exp(generator.uniform(np.log(48), np.log(400), (300, 3))):
        shape = tuple(np.ceil(exact * 10).astype(int).tolist())  # so fine that the sides are all but continuous
        ratios = np.log(np.array(working_shape(shape, 0.1, 3.0, 3.0)) / (np.array(shape) * 0.1))
        unlike.append(np.ptp(ratios))
        off.append(np.abs(ratios).max())
    assert max(unlike) < np.log(1.08)
    assert np.percentile(unlike, 90) < np.log(1.035)
    assert np.median(unlike) < np.log(1.02)
    assert max(off) < np.log(1.084)


@pytest.mark.parametrize("numbers", [(1.0, 0.0, 3.0), (-1.0, 3.0, 3.0), (1.0, 3.0, np.nan), (np.inf, 3.0, 3.0)])
def test_a_working_shape_needs_numbers_above_0(numbers):
    with pytest.raises(ValueError, match="above 0"):
        working_shape((8, 8, 8), *numbers)


@pytest.mark.parametrize("shape", [(8, 8), (8, 0, 8)])
def test_a_working_shape_needs_three_sides(shape):
    with pytest.raises(ValueError, match="three sides"):
        working_shape(shape, 1.0, 3.0, 3.0)
