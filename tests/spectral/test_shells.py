import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import spectra as slow

from crefjax.spectral.curves import shell_frequencies
from crefjax.spectral.shells import box_shells, half_spectrum, shell_means, shell_sums, shell_voxels

SHAPES = [(8, 8, 8), (9, 9, 9), (16, 10, 12), (7, 12, 9), (5, 4, 30), (1, 6, 6)]


def test_shells_of_a_box_of_four_by_hand():
    shells = box_shells((4, 4, 4))
    assert shells.count == 3
    index = shells.index
    assert index[0, 0].tolist() == [0, 1, 2]
    assert index[1, 1, 0] == 1  # sqrt(2) = 1.41
    assert index[1, 1, 1] == 2  # sqrt(3) = 1.73
    assert index[2, 1, 1] == 2  # sqrt(6) = 2.45
    assert index[2, 2, 0] == 3  # sqrt(8) = 2.83: beyond Nyquist, no shell
    assert shells.weight.tolist() == [1, 2, 1]


def test_shells_of_a_longer_box_by_hand():
    """A side half as long has frequencies twice as far apart in units of the longest side."""
    index = box_shells((8, 4, 8)).index
    assert index[:, 0, 0].tolist() == [0, 1, 2, 3, 4, 3, 2, 1]
    assert index[0, :, 0].tolist() == [0, 2, 4, 2]


@pytest.mark.parametrize("shape", SHAPES)
def test_index_on_the_half_spectrum_is_that_of_the_whole(shape):
    shells = box_shells(shape)
    whole = np.minimum(slow.shell_index(shape), shells.count)[..., : shape[2] // 2 + 1]
    np.testing.assert_array_equal(shells.index, whole)


@pytest.mark.parametrize("shape", SHAPES)
def test_sums_with_weights_are_those_over_the_whole_spectrum(shape):
    map_ = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    power = abs(np.fft.fftn(map_.astype(np.float64))) ** 2
    half = np.square(np.abs(np.fft.rfftn(map_.astype(np.float64)))).astype(np.float32)
    sums = jax.jit(lambda values: shell_sums(values, box_shells(shape)))(half)
    np.testing.assert_allclose(sums, slow.shell_sums(power, shape), rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_voxels_and_means(shape):
    shells = box_shells(shape)
    voxels = np.bincount(slow.shell_index(shape).ravel(), minlength=shells.count)[: shells.count]
    np.testing.assert_array_equal(shell_voxels(shells), voxels)
    means = shell_means(jnp.full(shells.index.shape, 3.0), shells)
    np.testing.assert_allclose(means, np.where(voxels > 0, 3.0, 0.0), rtol=1e-6)


def test_sums_of_a_batch_are_those_of_its_members():
    values = np.random.default_rng(1).standard_normal((2, 3, 6, 6, 4)).astype(np.float32)
    shells = box_shells((6, 6, 6))
    sums = shell_sums(values, shells)
    assert sums.shape == (2, 3, 4)
    for i in range(2):
        for j in range(3):
            np.testing.assert_allclose(sums[i, j], shell_sums(values[i, j], shells), rtol=1e-6)


def test_sums_of_a_large_box_in_stages_keep_float32_accurate():
    """Values of one sign in shells of up to 100,000 voxels: a running float32 sum would drift off by far more."""
    shape = (224, 224, 224)  # more planes than are taken at once
    values = np.random.default_rng(2).uniform(1, 2, (224, 224, 113)).astype(np.float32)
    shells = box_shells(shape)
    sums = np.asarray(jax.jit(shell_sums)(values, shells), np.float64)
    weighted = values.astype(np.float64) * shells.weight
    exact = np.bincount(shells.index.ravel(), weighted.ravel(), minlength=shells.count + 1)[:-1]
    assert np.abs(sums / exact - 1).max() < 1e-6


@pytest.mark.parametrize("shape", SHAPES)
def test_half_spectrum_is_that_of_numpy(shape):
    map_ = (np.random.default_rng(3).standard_normal(shape) + 100).astype(np.float32)
    expected = np.fft.rfftn(map_.astype(np.float64))
    np.testing.assert_allclose(half_spectrum(map_), expected, atol=1e-6 * np.abs(expected).max())


def test_an_offset_does_not_drown_the_other_shells():
    map_ = np.random.default_rng(4).standard_normal((24, 24, 24)).astype(np.float32)
    moved = map_ + np.float32(1000)
    expected = np.fft.rfftn(moved.astype(np.float64))
    expected[0, 0, 0] = 0
    found = np.array(half_spectrum(moved))
    found[0, 0, 0] = 0
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_frequencies_of_shells():
    np.testing.assert_allclose(shell_frequencies((4, 10, 6), 2.0), [0, 0.05, 0.1, 0.15, 0.2, 0.25])


def test_invalid_arguments_raise():
    with pytest.raises(ValueError, match="three sides"):
        box_shells((4, 4))
    with pytest.raises(ValueError, match="half-spectrum of shape"):
        shell_sums(jnp.zeros((4, 4, 4)), box_shells((4, 4, 4)))
