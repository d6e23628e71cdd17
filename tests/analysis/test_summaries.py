"""Medians, intervals and paired tests, beside numbers by hand and by counting."""

import itertools

import numpy as np
import pytest

from analysis.summaries import median, paired


def test_median_of_what_is_there():
    found = median([3.0, None, 1.0, float("nan"), 2.0, 10.0])
    assert (found.count, found.median) == (4, 2.5)
    assert 1.0 <= found.low <= found.median <= found.high <= 10.0
    assert median([3.0, 1.0, 2.0, 10.0]) == median([10.0, 1.0, 3.0, 2.0]) == found


def test_no_numbers():
    assert median([None, float("nan")]) == (0, None, None, None)


def test_interval_is_that_of_all_samples():
    """Of five numbers all 3125 samples with replacement can be counted."""
    numbers = [1.0, 2.0, 4.0, 8.0, 16.0]
    middles = np.median(list(itertools.product(numbers, repeat=5)), axis=1)
    low, high = np.quantile(middles, (0.025, 0.975))
    found = median(numbers)
    assert (found.low, found.high) == (low, high)


def test_interval_holds_the_median():
    random = np.random.default_rng(3)
    held = 0
    for _ in range(200):
        found = median(random.standard_normal(25).tolist())
        held += found.low <= 0 <= found.high
    assert 0.88 <= held / 200 <= 1  # the percentile bootstrap of a median is a little too narrow or too wide


def test_paired_counts_and_p():
    first = dict(zip("abcdefg", (1, 2, 3, 4, 5, 6, None), strict=True))
    second = dict.fromkeys("abcdefgh", 0.0)
    found = paired(first, second)
    assert (found.above, found.below, found.difference.count, found.difference.median) == (6, 0, 6, 3.5)
    assert found.p == pytest.approx(2 / 2**6)  # of 64 sets of signs two are as one-sided


def test_too_few_or_no_difference_has_no_p():
    five = {name: float(number) for number, name in enumerate("abcde", 1)}
    assert paired(five, dict.fromkeys(five, 0.0)).p is None
    eight = dict.fromkeys("abcdefgh", 1.0)
    found = paired(eight, dict(eight))
    assert (found.p, found.above, found.below, found.difference.median) == (None, 0, 0, 0.0)
