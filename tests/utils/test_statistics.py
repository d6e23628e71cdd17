"""Statistics of arrays, by hand and against SciPy."""

import math

import numpy as np
import pytest
from scipy import stats

from crefjax.utils.statistics import robust_std


def test_robust_std_is_the_scaled_median_absolute_deviation():
    values = np.random.default_rng(0).standard_normal(999).astype(np.float32)
    assert robust_std(values) == pytest.approx(stats.median_abs_deviation(values, scale="normal"), rel=1e-4)


def test_robust_std_ignores_outliers_and_takes_a_center():
    values = np.array([1.0, 2.0, 3.0, 4.0, 1e9])  # median 3, deviations 2, 1, 0, 1, 1e9
    assert robust_std(values) == pytest.approx(1 / stats.norm.ppf(0.75), rel=1e-4)
    assert robust_std(values, 0.0) == pytest.approx(3 / stats.norm.ppf(0.75), rel=1e-4)
    assert math.isclose(robust_std(np.zeros(3)), 0.0)
