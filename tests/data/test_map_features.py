"""The features of a map against slow NumPy, and what they must not depend on."""

import numpy as np
import pytest

from crefjax.data.grid import scale_density
from crefjax.data.map_features import FEATURES, measure_features, standardize_features
from crefjax.masking.threshold import estimate_contour


def particle(side=32, width=3.0, noise=0.02, seed=0):
    """A soft ball with ripples, in noise, scaled to 0 to 1."""
    z, y, x = np.indices((side, side + 4, side - 2), dtype=np.float64)
    squared = (z - side / 2) ** 2 + (y - side / 2) ** 2 + (x - side / 2) ** 2
    density = np.exp(-squared / (2 * width**2)) * (1 + 0.3 * np.sin(x) * np.cos(y))
    density += noise * np.random.default_rng(seed).standard_normal(density.shape)
    return scale_density(density.astype(np.float32), 1.0)


def slow_features(density):
    contour = estimate_contour(density)
    squares = {1: [], 2: [], 3: []}
    values, outside = [], []
    for at in np.ndindex(density.shape):
        here = float(density[at])
        if here > contour:
            values.append(here)
        for lag, axis in np.ndindex(3, 3):
            before, after = list(at), list(at)
            before[axis] = max(at[axis] - lag - 1, 0)
            after[axis] = min(at[axis] + lag + 1, density.shape[axis] - 1)
            second = float(density[tuple(before)]) + float(density[tuple(after)]) - 2 * here
            if here > contour:
                squares[lag + 1].append(second**2)
            elif lag == 0:
                outside.append(abs(second))
    d1, d2, d3 = (np.sqrt(np.mean(squares[lag])) for lag in (1, 2, 3))
    spread, noise = np.std(values), np.median(outside)
    return np.log([contour, spread / contour, d1 / d2, d2 / d3, d3 / spread, noise / contour + 0.01])


@pytest.mark.parametrize("width", [2.0, 3.0])
def test_the_features_are_those_of_slow_sums(width):
    density = particle(24, width)
    np.testing.assert_allclose(measure_features(density), slow_features(density), rtol=1e-5, atol=1e-6)


def test_a_gain_changes_the_contour_alone():
    density = particle()
    scaled = measure_features(density * np.float32(0.5))
    np.testing.assert_allclose(scaled, measure_features(density) + np.log([0.5, 1, 1, 1, 1, 1]), atol=1e-5)
    by_gain = standardize_features(measure_features(density), 0.5)
    np.testing.assert_allclose(by_gain, standardize_features(scaled), atol=1e-4)


def test_the_features_do_not_depend_on_the_size_of_the_box():
    small, large = (measure_features(particle(side, width=4.0, noise=0.005)) for side in (40, 60))
    np.testing.assert_allclose(large, small, atol=0.05)


def test_more_noise_raises_the_feature_of_the_noise_and_blur_lowers_the_sharpness():
    noise = FEATURES.index("noise")
    assert measure_features(particle(noise=0.02))[noise] > measure_features(particle(noise=0.005))[noise] + 1
    sharp, blurred = (measure_features(particle(width=width, noise=0.0)) for width in (2.0, 4.0))
    assert sharp[4] > blurred[4] + 0.1  # second differences over three voxels, relative to the spread


def test_standardized_features_stay_within_three():
    extreme = standardize_features(np.full(len(FEATURES), 100.0))
    assert extreme.dtype == np.float32
    np.testing.assert_array_equal(extreme, np.full(len(FEATURES), 3, np.float32))


def test_maps_without_a_particle_or_without_solvent_noise_have_finite_features():
    noise = np.random.default_rng(0).random((16, 16, 16)).astype(np.float32)
    masked = particle(noise=0.0)
    masked[masked < 0.2] = 0
    for density in (noise, masked, np.ones((8, 8, 8), np.float32), np.zeros((8, 8, 8), np.float32)):
        assert np.isfinite(measure_features(density)).all()
