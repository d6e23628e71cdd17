"""Covariances and degrees of freedom against whole-spectrum NumPy and against many boxes of noise."""

import numpy as np
import pytest
from helpers import filtered_pairs as pairs
from reference import spectra as slow

from crefjax.spectral.covariances import degrees_of_freedom, shell_covariances

SHAPES = [(16, 16, 16), (15, 15, 15), (20, 13, 16)]


def maps_of(shape, count=3):
    random = np.random.default_rng(1)
    common = random.standard_normal(shape)
    return [(3 + common + random.standard_normal(shape)).astype(np.float32) for _ in range(count)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("masked", [False, True])
def test_covariances_match_numpy(shape, masked):
    maps = maps_of(shape)
    mask = np.random.default_rng(5).uniform(0, 1, shape).astype(np.float32) if masked else None
    found = shell_covariances(maps, mask)
    assert found.matrix.shape == (max(shape) // 2 + 1, 3, 3)
    assert found.matrix.dtype == np.float64
    for i in range(3):
        for j in range(3):
            expected = pairs.cross(maps[i].astype(float), maps[j].astype(float), mask)
            size = np.sqrt(np.abs(pairs.cross(maps[i], maps[i], mask) * pairs.cross(maps[j], maps[j], mask)))
            np.testing.assert_allclose(found.of(i, j) / size, expected / size, atol=3e-7)
    np.testing.assert_array_equal(found.voxels, slow.shell_sums(np.ones(shape), shape))


def test_covariances_of_a_steep_spectrum_are_accurate():
    """Shells whose power is 1e-12 of the strongest one's are as right as the others."""
    fall = np.exp(-14 * np.arange(17) / 16)
    first, second = (pairs.filtered(map_, fall) for map_ in maps_of((32, 32, 32), 2))
    found = shell_covariances(
        [first, second]
    )  # float64 input: float32 itself would hold no more than 1e-14 of the power
    np.testing.assert_allclose(found.of(0, 0), pairs.cross(first, first), rtol=1e-6)


def test_mean_is_in_shell_0():
    maps = [np.full((8, 8, 8), value, np.float32) for value in (2, 3)]
    found = shell_covariances(maps)
    np.testing.assert_allclose(found.of(0, 1)[0], 6 * 8**3)  # |sum|² over one voxel and over the 8³ of the mask
    np.testing.assert_allclose(found.matrix[1:], 0, atol=1e-12)


@pytest.mark.parametrize("radius", [None, 12, 5])
def test_white_noise_has_its_variance_under_any_mask(radius):
    shape, random = (32, 32, 32), np.random.default_rng(2)
    mask = None if radius is None else pairs.ball(shape, radius).astype(np.float32)
    draws = [2 * random.standard_normal(shape) for _ in range(40)]
    found = [shell_covariances([map_], mask) for map_ in draws]
    mean = np.mean([covariances.of(0, 0) for covariances in found], axis=0)
    independent = found[0].dof
    # The mean of n squared normal numbers scatters by sqrt(2 / n); 40 draws, four deviations.
    np.testing.assert_array_less(np.abs(mean / 4 - 1), 4 * np.sqrt(2 / (40 * independent)))


def test_degrees_of_freedom_without_a_mask_are_the_voxels():
    found = shell_covariances(maps_of((16, 16, 16)))
    np.testing.assert_array_equal(found.dof, found.voxels)
    np.testing.assert_allclose(degrees_of_freedom(np.ones((16, 16, 16), np.float32)), found.voxels, rtol=1e-6)


MASKS = {
    "ball": pairs.ball((32, 32, 32), 9),
    "small ball": pairs.ball((32, 32, 32), 4),
    "rod": np.sqrt(pairs.ball((32, 32, 32), 5)[16])[None] * pairs.ball((32, 32, 32), 11)[:, 16:17, 16:17],
    "two balls": np.roll(pairs.ball((32, 32, 32), 4), 8, 0) + np.roll(pairs.ball((32, 32, 32), 4), -8, 0),
}


@pytest.mark.parametrize("name", MASKS)
def test_degrees_of_freedom_match_the_scatter_of_many_boxes_of_noise(name):
    """The power of a shell scatters by `2 / n` of its square. 400 draws tell that variance within 7 %."""
    mask, random = MASKS[name], np.random.default_rng(3)
    index = slow.shell_index(mask.shape)[:, :, :17].ravel()
    weight = np.where((np.arange(17) % 16) == 0, 1.0, 2.0)
    voxels = slow.shell_sums(np.ones(mask.shape), mask.shape)
    powers = []
    for _ in range(400):
        spectrum = np.fft.rfftn(random.standard_normal(mask.shape) * mask)
        powers.append(np.bincount(index, (np.abs(spectrum) ** 2 * weight).ravel())[:17] / voxels)
    shown = 2 * np.mean(powers, axis=0) ** 2 / np.var(powers, axis=0)
    found = degrees_of_freedom(mask.astype(np.float32))
    many, few = shown > 20, (shown > 6) & (shown <= 20)
    assert many.sum() >= 10
    np.testing.assert_allclose(found[many] / shown[many], 1, atol=0.25)
    np.testing.assert_allclose(found[few] / shown[few], 1, atol=0.4)


def test_degrees_of_freedom_are_bounded():
    for mask in MASKS.values():
        found = degrees_of_freedom(mask.astype(np.float32))
        assert (found >= 1).all()
        assert (found <= slow.shell_sums(np.ones(mask.shape), mask.shape)).all()


def test_invalid_arguments_raise():
    map_ = np.ones((8, 8, 8), np.float32)
    for arguments in [([],), ([map_, map_[:4]],), ([map_], map_[:4])]:
        with pytest.raises(ValueError, match="one shape"):
            shell_covariances(*arguments)
    with pytest.raises(ValueError, match="mask"):
        shell_covariances([map_], 0 * map_)
