"""Axes of a report's figures: curves with error bands, over resolution in Å.

What must not be trusted is not drawn: a curve has a gap there, and a hatched strip in its colour at the foot of the
figure says that the gap is due to an unreliable estimate.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from crefjax.report.plots import GREY, resolution_axis

_SIZE = (6.6, 4.4)  # inches
_MARGINS = {"left": 0.115, "right": 0.98, "bottom": 0.115}
_STRIP = 0.022  # height of a strip of what is not trusted, of the axes
_DECADES = 7  # of a logarithmic axis, at most


class Line(NamedTuple):
    """One curve.

    Attributes:
        label: for the legend.
        color: of the curve.
        style: matplotlib's line style.
        value: `(shells,)`, NaN where there is none.
        error: the same shape; NaN where there is none, None for a curve without errors.
        trusted: the same shape, bool; None where all of it is.
    """

    label: str
    color: str
    style: object
    value: np.ndarray
    error: np.ndarray | None = None
    trusted: np.ndarray | None = None


def array(values: Sequence[float | None]) -> np.ndarray:
    """A list of the account as float64, None as NaN."""
    return np.array([np.nan if value is None else value for value in values], np.float64)


def estimate(found: dict, label: str, color: str, style) -> Line:
    """The line of an estimate, `{"value", "error", "trusted"}`."""
    return Line(label, color, style, array(found["value"]), array(found["error"]), np.array(found["trusted"], bool))


def shown(line):
    """A line's values where they are trusted, NaN elsewhere; shell 0 is the mean and is never shown."""
    value = line.value.copy() if line.trusted is None else np.where(line.trusted, line.value, np.nan)
    value[:1] = np.nan
    return value


def line_axes(numbers, lines, label):
    """A figure with the lines in it, their error bands, and strips where they are not trusted."""
    figure = Figure(figsize=_SIZE)
    axes = figure.add_subplot()
    frequency = np.asarray(numbers["frequency"])
    for line in lines:
        value = shown(line)
        axes.plot(frequency, value, color=line.color, linestyle=line.style, linewidth=1.8)
        axes.plot(frequency, _alone(value), ".", color=line.color)
        if line.error is not None:
            low, high = value - line.error, value + line.error
            axes.fill_between(frequency, low, high, color=line.color, alpha=0.18, linewidth=0)
    _strips(axes, frequency, lines)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_ylabel(label)
    resolution_axis(axes, frequency[-1])
    return figure, axes


def _alone(value):
    """The values that stand alone between gaps, where a line cannot show them; NaN elsewhere."""
    there = np.isfinite(np.concatenate([[np.nan], value, [np.nan]]))
    return np.where(there[1:-1] & ~there[:-2] & ~there[2:], value, np.nan)


def _strips(axes, frequency, lines):
    """Hatched strips at the foot, one lane for each line with values that are not trusted."""
    step, lane = frequency[1] - frequency[0], 0
    for line in lines:
        if line.trusted is None or line.trusted[1:].all():
            continue
        edges = np.flatnonzero(np.diff(np.concatenate([[True], line.trusted[1:], [True]]).astype(int)))
        spans = [((start + 0.5) * step, (end - start) * step) for start, end in edges.reshape(-1, 2)]
        axes.broken_barh(
            spans,
            (lane * _STRIP, 0.8 * _STRIP),
            transform=axes.get_xaxis_transform(),
            facecolor="none",
            edgecolor=line.color,
            hatch="//////",
            linewidth=0,
            zorder=3,
        )
        lane += 1


def note(axes, words, height):
    """Words at the left end of a horizontal line, where correlations are far above it."""
    axes.annotate(
        words,
        (0, height),
        (5, 4),
        axes.get_yaxis_transform(),
        "offset points",
        bbox={"boxstyle": "square,pad=0.15", "facecolor": "white", "alpha": 0.85, "linewidth": 0},
        zorder=4,
    )


def correlation_axes(numbers, lines):
    """A figure whose axis runs from a little below 0, or the lowest value, to 1."""
    figure, axes = line_axes(numbers, lines, "Fourier shell correlation")
    lowest = np.nanmin([0.0, *(np.nanmin(shown(line), initial=0) for line in lines)])
    axes.set_ylim(min(-0.08, 1.1 * lowest), 1.05)
    axes.axhline(0, color=GREY, linewidth=0.8)
    return figure, axes


def log_axes(numbers, lines, label):
    """A logarithmic axis around what is shown and above 0, of at most `_DECADES` decades."""
    figure, axes = line_axes(numbers, lines, label)
    values = np.concatenate([shown(line) for line in lines])
    values = values[np.isfinite(values) & (values > 0)]
    highest, lowest = (values.max(), values.min()) if len(values) else (1.0, 0.1)
    axes.set_yscale("log", nonpositive="clip")
    axes.set_ylim(max(lowest / 3, highest * 10.0**-_DECADES), highest * 2)
    return figure, axes


def legend(axes, lines, columns):
    """Above the axes, where it hides nothing."""
    handles = [axes.plot([], [], color=line.color, linestyle=line.style, linewidth=1.8)[0] for line in lines]
    labels = [line.label for line in lines]
    if any(line.trusted is not None and not line.trusted[1:].all() for line in lines):
        handles.append(Patch(facecolor="none", edgecolor=GREY, hatch="//////", linewidth=0))
        labels.append("not to be trusted")
    rows = -(-len(labels) // columns)
    axes.legend(
        handles,
        labels,
        ncols=columns,
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        frameon=False,
        columnspacing=1.4,
    )
    axes.figure.subplots_adjust(**_MARGINS, top=0.975 - 0.056 * rows)
