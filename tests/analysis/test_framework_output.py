"""Medians, intervals, paired tests, and box plots, against numbers by hand and by counting."""

import itertools

import numpy as np
import pytest
from matplotlib.figure import Figure

from analysis.framework.output import Headline, box_plot, median, paired


def test_median_ignores_missing_numbers():
    found = median([3.0, None, 1.0, float("nan"), 2.0, 10.0])
    assert (found.count, found.median) == (4, 2.5)
    assert 1.0 <= found.low <= found.median <= found.high <= 10.0
    assert median([3.0, 1.0, 2.0, 10.0]) == median([10.0, 1.0, 3.0, 2.0]) == found


def test_median_of_no_numbers_is_none():
    assert median([None, float("nan")]) == (0, None, None, None)


def test_interval_matches_all_bootstrap_samples():
    """All 3125 samples of five numbers with replacement can be counted."""
    numbers = [1.0, 2.0, 4.0, 8.0, 16.0]
    middles = np.median(list(itertools.product(numbers, repeat=5)), axis=1)
    low, high = np.quantile(middles, (0.025, 0.975))
    found = median(numbers)
    assert (found.low, found.high) == (low, high)


def test_interval_covers_the_true_median():
    random = np.random.default_rng(3)
    held = 0
    for _ in range(200):
        found = median(random.standard_normal(25).tolist())
        held += found.low <= 0 <= found.high
    assert 0.88 <= held / 200 <= 1  # the percentile bootstrap of a median is a little too narrow or too wide


def test_paired_counts_and_p_by_hand():
    first = dict(zip("abcdefg", (1, 2, 3, 4, 5, 6, None), strict=True))
    second = dict.fromkeys("abcdefgh", 0.0)
    found = paired(first, second)
    assert (found.above, found.below, found.difference.count, found.difference.median) == (6, 0, 6, 3.5)
    assert found.p == pytest.approx(2 / 2**6)  # of 64 sets of signs two are as one-sided


def test_too_few_or_equal_pairs_have_no_p():
    five = {name: float(number) for number, name in enumerate("abcde", 1)}
    assert paired(five, dict.fromkeys(five, 0.0)).p is None
    eight = dict.fromkeys("abcdefgh", 1.0)
    found = paired(eight, dict(eight))
    assert (found.p, found.above, found.below, found.difference.median) == (None, 0, 0, 0.0)


def heights_of(values):
    """Return the places of the entries of each method in the panel, 0 to 1 from bottom to top."""
    rows = [
        {"entry": f"entry {n}", "method": method, "error": value}
        for method, several in values.items()
        for n, value in enumerate(several)
    ]
    page = Figure()
    axes = page.subplots()
    box_plot(axes, rows, Headline("error", "error", 3))
    page.draw_without_rendering()
    points = [line for line in axes.get_lines() if line.get_marker() == "o"]
    across = axes.transData + axes.transAxes.inverted()
    return [[across.transform((0, y))[1] for y in line.get_ydata()] for line in points]


def test_an_outlying_method_does_not_flatten_the_others():
    heights = heights_of({"full map": [1.0, 1.2], "a": [2.0, 2.2], "b": [3.0, 3.4], "far": [9000.0, 11000.0]})
    assert heights[1][0] - heights[0][0] > 0.04
    assert heights[3][0] > heights[2][0]


def test_similar_numbers_get_a_linear_axis():
    (low,), (middle,), (high,) = heights_of({"full map": [1.0], "a": [2.0], "b": [3.0]})
    assert high - middle == pytest.approx(middle - low)
