"""What many entries say together: medians with intervals, and paired tests between methods."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import wilcoxon

_DRAWS = 5000
_FEWEST_FOR_TEST = 6  # with fewer pairs Wilcoxon's test cannot reach 0.05 (two-sided)


class Median(NamedTuple):
    """Of numbers that are there.

    Attributes:
        count: how many.
        median: None for none.
        low, high: 95 % of the medians of samples drawn from the numbers with replacement (percentile bootstrap).
    """

    count: int
    median: float | None
    low: float | None
    high: float | None


class Paired(NamedTuple):
    """One method less another, over the entries that have both.

    Attributes:
        difference: its median and interval.
        above, below: entries in which the first has the larger, the smaller number.
        p: of Wilcoxon's signed-rank test, two-sided; None with fewer than six entries, or no difference in any.
    """

    difference: Median
    above: int
    below: int
    p: float | None


def median(values: Sequence[float | None]) -> Median:
    """The median of the finite numbers; the interval does not depend on their order."""
    numbers = np.sort(np.array([one for one in values if one is not None and np.isfinite(one)], np.float64))
    if not len(numbers):
        return Median(0, None, None, None)
    drawn = np.random.default_rng(0).choice(numbers, (_DRAWS, len(numbers)))
    low, high = np.quantile(np.median(drawn, axis=1), (0.025, 0.975))
    return Median(len(numbers), float(np.median(numbers)), float(low), float(high))


def paired(first: dict[str, float | None], second: dict[str, float | None]) -> Paired:
    """Compare two methods.

    Args:
        first: number of each entry, by its name.
        second: of the method to compare with.
    """
    both = [
        (first[name], second[name])
        for name in first
        if all(one is not None and np.isfinite(one) for one in (first[name], second.get(name)))
    ]
    differences = np.array([a - b for a, b in both], np.float64)
    p = None
    if len(differences) >= _FEWEST_FOR_TEST and np.any(differences):
        p = float(wilcoxon(differences, method="auto").pvalue)
    return Paired(median(differences.tolist()), int(np.sum(differences > 0)), int(np.sum(differences < 0)), p)
