"""Statistics of large arrays, in float64 without a copy of the array."""

import numpy as np

_STD_PER_MEDIAN = 1.4826  # standard deviation of a normal distribution over its median absolute deviation


def mean_and_std(array: np.ndarray, mask: np.ndarray | None = None) -> tuple[float, float]:
    """Return mean and standard deviation, computed in float64 plane by plane.

    Args:
        array: `(z, y, x)`.
        mask: weights of the voxels, the same shape; None for equal weights.
    """
    planes = [None] * len(array) if mask is None else mask
    weight = float(array.size) if mask is None else sum(float(plane.sum(dtype=np.float64)) for plane in mask)

    def total(values):
        return sum(
            float((value if plane is None else value * plane).sum(dtype=np.float64))
            for value, plane in zip(values, planes, strict=True)
        )

    mean = total(array) / weight
    squares = (np.square(np.subtract(plane, mean, dtype=np.float64)) for plane in array)
    return mean, float(np.sqrt(total(squares) / weight))


def extremes(array: np.ndarray) -> tuple[float, float]:
    """Return minimum and maximum, NaN if a voxel is; slab by slab, so that a large map is not copied."""
    with np.errstate(invalid="ignore"):
        low = np.min([slab.min() for slab in array])
        high = np.max([slab.max() for slab in array])
    return float(low), float(high)


def robust_std(values: np.ndarray, center: float | None = None) -> float:
    """Return the standard deviation by the median absolute deviation, which outliers hardly change.

    Args:
        values: any shape, at least one.
        center: value from which they deviate; None for their median.
    """
    center = np.median(values) if center is None else center
    return _STD_PER_MEDIAN * float(np.median(np.abs(values - values.dtype.type(center))))
