"""Inverted contrast is detected in one map and in two, with and without a mask, and only where it is present."""

import numpy as np
import pytest

from crefjax.inference.denoise import denoise_maps
from crefjax.inference.request import DenoiseRequest
from crefjax.io.maps import Map, read_map
from crefjax.masking.threshold import has_inverted_contrast


def ball(side=40, radius=11, noise=1.0, seed=0):
    """Return a lumpy ball off the center, brighter than the solvent, in white noise of its strength."""
    random = np.random.default_rng(seed)
    apart = np.linalg.norm(np.indices((side,) * 3) - side / 2 + 2, axis=0)
    density = (apart < radius) * (1 + 0.5 * random.standard_normal((side,) * 3))
    return (density + noise * random.standard_normal((side,) * 3)).astype(np.float32)


@pytest.mark.parametrize("voxel_size", [0.6, 2.0, 10.0])
@pytest.mark.parametrize("noise", [0.1, 0.6])
def test_only_the_negative_of_a_ball_is_inverted(voxel_size, noise):
    density = ball(noise=noise)
    assert not has_inverted_contrast(density, voxel_size)
    assert has_inverted_contrast(-density, voxel_size)


def test_noise_and_small_boxes_are_not_inverted():
    random = np.random.default_rng(2)
    for shape in ((40, 40, 40), (3, 9, 5), (33, 40, 57)):
        assert not has_inverted_contrast(random.standard_normal(shape).astype(np.float32), 1.5)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("masked", [False, True])
def test_denoising_reports_inverted_contrast_once(weights, count, masked):
    for sign in (1, -1):
        pair = tuple(Map.from_array(sign * ball(seed=0, noise=0.5 + 0.01 * n), 1.5) for n in range(count))
        mask = Map.from_array(np.ones((40, 40, 40), np.float32), 1.5) if masked else None
        notes = denoise_maps(DenoiseRequest(pair, weights, mask)).notes
        assert sum("inverted contrast" in note for note in notes) == (sign == -1)


def test_real_maps_are_not_inverted(shared):
    paths = sorted((shared / "maps").glob("*.m*"))
    assert len(paths) >= 4
    for path in paths:
        found = read_map(path)
        assert not has_inverted_contrast(found.array, found.voxel_size)
