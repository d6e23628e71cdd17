"""A few numbers of a whole map, by which the classifier's network is conditioned.

They say how bright the particle is on the scale of the map, how sharp it is, and how strong the noise around it is; the
surroundings of a voxel do not tell. Sharpness is measured by second differences over one, two, and three voxels, the
real-space counterpart of the fall-off of the spectrum, but within the particle alone.
"""

import numpy as np

from crefjax.errors import UserError
from crefjax.masking.threshold import estimate_contour

FEATURES = ("contour", "spread", "sharpness_1", "sharpness_2", "sharpness_3", "noise")
_LAGS = (1, 2, 3)  # voxels
_SAMPLES = 200_000  # voxels, of the particle and of its surroundings, that are looked at
_FLOOR = 1e-5  # of differences and of the spread, on the scale of the map, where 1 is the brightest density
_LEAST_NOISE = 0.01  # over the contour; what is far below it makes no difference
# Mean and standard deviation of the features over 46 simulated labeled maps (docs/classification.md).
_MEANS = np.array([-2.43, 0.74, -1.11, -0.455, 0.32, -3.22])
_DEVIATIONS = np.array([0.41, 0.12, 0.16, 0.17, 0.51, 1.08])
_OUTERMOST = 3.0  # standard deviations, so that an unusual map does not lead far outside what was trained


def measure_features(density: np.ndarray) -> np.ndarray:
    """Measure the features of a map, float64, in the order of `FEATURES`.

    With `c` the estimated contour, `s` the standard deviation above it, and `D(k)` the root mean square of
    `d(x + k) + d(x - k) - 2 d(x)` there over all axes, they are `log c`, `log(s / c)`, `log(D(1) / D(2))`,
    `log(D(2) / D(3))`, `log(D(3) / s)`, and `log(n / c + 0.01)`, where `n` is the median of
    `|d(x + 1) + d(x - 1) - 2 d(x)|` below the contour: the particle's edge hardly changes it, however large the box is.
    In a masked map `n` is 0.

    Args:
        density: `(z, y, x)`, 0 to 1, on the classifier's grid (`crefjax.data.grid.on_unit_grid`).

    Returns:
        The features; those of an average map if nothing stands out of the noise.
    """
    try:
        contour = max(estimate_contour(density), _FLOOR)
    except UserError:
        return _MEANS.copy()
    particle = density > contour
    inside = _sample(particle)
    root_mean_squares = [np.sqrt(np.square(_second_differences(density, inside, lag)).mean()) for lag in _LAGS]
    first, second, third, spread = _logs([*root_mean_squares, density[inside].std(dtype=np.float64)])
    outside = np.abs(_second_differences(density, _sample(~particle), 1))
    noise = np.median(outside) / contour if outside.size else 0.0
    level = np.log(contour)
    return np.array(
        [level, spread - level, first - second, second - third, third - spread, np.log(noise + _LEAST_NOISE)]
    )


def standardize_features(features: np.ndarray, gain: float = 1.0) -> np.ndarray:
    """Return features on the scale of the maps trained on, float32, within three standard deviations of 0.

    Args:
        features: from `measure_features`.
        gain: factor by which the density was multiplied afterwards.
    """
    scaled = features + np.log(gain) * (np.arange(len(FEATURES)) == 0)  # the others are ratios
    return np.clip((scaled - _MEANS) / _DEVIATIONS, -_OUTERMOST, _OUTERMOST).astype(np.float32)


def _sample(where):
    """Return the indices of at most `_SAMPLES` voxels, evenly spread over those of a region."""
    voxels = np.flatnonzero(where)
    return np.unravel_index(voxels[:: max(1, -(-voxels.size // _SAMPLES))], where.shape)


def _second_differences(density, at, lag):
    """Return `d(x + lag) + d(x - lag) - 2 d(x)` along every axis, `(3, voxels)`; the border is repeated outside."""
    found = []
    for axis, side in enumerate(density.shape):
        before, after = (
            density[tuple(np.clip(index + step, 0, side - 1) if a == axis else index for a, index in enumerate(at))]
            for step in (-lag, lag)
        )
        found.append(before.astype(np.float64) + after - 2 * density[at])
    return np.array(found)


def _logs(values):
    return np.log(np.maximum(values, _FLOOR))
