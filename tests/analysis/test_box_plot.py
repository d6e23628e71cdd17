"""What a reader can tell apart in the boxes of a study."""

import pytest
from matplotlib.figure import Figure

from analysis.over_entries import Headline
from analysis.tables import box_plot


def _heights(values):
    """The places in the panel, 0 to 1 from its foot to its top, of the entries of each method."""
    rows = [
        {"entry": f"entry {n}", "method": method, "error": one}
        for method, several in values.items()
        for n, one in enumerate(several)
    ]
    page = Figure()
    axes = page.subplots()
    box_plot(axes, rows, Headline("error", "error", 3))
    page.draw_without_rendering()
    points = [line for line in axes.get_lines() if line.get_marker() == "o"]
    across = axes.transData + axes.transAxes.inverted()
    return [[across.transform((0, y))[1] for y in line.get_ydata()] for line in points]


def test_one_far_method_does_not_flatten_the_others():
    found = _heights({"full map": [1.0, 1.2], "a": [2.0, 2.2], "b": [3.0, 3.4], "far": [9000.0, 11000.0]})
    assert found[1][0] - found[0][0] > 0.04
    assert found[3][0] > found[2][0]


def test_numbers_alike_are_on_a_linear_axis():
    (low,), (middle,), (high,) = _heights({"full map": [1.0], "a": [2.0], "b": [3.0]})
    assert high - middle == pytest.approx(middle - low)
