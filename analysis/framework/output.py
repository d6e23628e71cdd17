"""Output of studies: files in a folder, tables, medians over entries with intervals and tests, and box plots."""

import csv
import io
import json
import platform
import textwrap
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import wilcoxon

from crefjax import __version__
from crefjax.plotting import GRAY, PALETTE, figure_bytes
from crefjax.utils.atomic import write_bytes

FULL = "full map"  # the method that does nothing: the mean of the half-maps
COMPARED_WITH = (FULL, "crefdenoiser")
_DRAWS = 5000  # of the bootstrap
_FEWEST_FOR_TEST = 6  # with fewer pairs Wilcoxon's test cannot reach 0.05 (two-sided)
_FEWEST_FOR_BOX = 5
_DWARFED = 30  # the largest number over the typical median
_DWARFED_BELOW_0 = 100
_LABEL_WIDTH = 36  # letters beside a panel of usual height


class Output(NamedTuple):
    """The files of a study: NAME.csv, NAME.json, NAME.png, and NAME.svg in a folder.

    Attributes:
        folder: made with the first file.
        name: stem of the files.
    """

    folder: Path
    name: str

    def write(self, suffix: str, content: str | bytes) -> None:
        """Write NAME.SUFFIX, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_bytes(self.folder / f"{self.name}.{suffix}", content.encode() if isinstance(content, str) else content)

    def write_csv(self, header: Sequence[str], rows: Iterable[Sequence]) -> None:
        """Write NAME.csv."""
        self.write("csv", csv_text(header, rows))

    def write_json(self, content: dict, *, seconds: float | None = None) -> None:
        """Write NAME.json: versions of the programs, the seconds that the study took, and the content."""
        versions = {"crefjax": __version__, "python": platform.python_version()}
        versions |= {name: version(name) for name in ("jax", "numpy", "gemmi")}
        header = versions if seconds is None else versions | {"seconds": round(seconds, 1)}
        self.write("json", json.dumps(header | content, indent=2) + "\n")

    def write_figure(self, figure: Figure) -> None:
        """Write NAME.png and NAME.svg."""
        for kind in ("png", "svg"):
            self.write(kind, figure_bytes(figure, kind))


def csv_text(header: Sequence[str], rows: Iterable[Sequence]) -> str:
    """Return a CSV file; numbers that are not text yet get six digits, and None is an empty cell."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row] for row in rows)
    return stream.getvalue()


def table(rows: list[dict]) -> str:
    """Return a CSV file of all numbers of rows over entries, without their curves."""
    names = list(dict.fromkeys(key for row in rows for key in row if key != "curves"))
    return csv_text(names, ([row.get(name) for name in names] for row in rows))


class Headline(NamedTuple):
    """A number of a row that is summarized over entries.

    Attributes:
        key: in the row.
        label: with its unit.
        better: 1 if more is better, -1 if less is.
        digits: after the point.
    """

    key: str
    label: str
    better: int
    digits: int = 3


class Median(NamedTuple):
    """Median of the numbers that are given.

    Attributes:
        count: of the numbers.
        median: None without numbers.
        low, high: 95 % of the medians of samples drawn from the numbers with replacement (percentile bootstrap).
    """

    count: int
    median: float | None
    low: float | None
    high: float | None


class Paired(NamedTuple):
    """The difference between two methods, over the entries that have both.

    Attributes:
        difference: median of the first less the second, with its interval.
        above, below: entries in which the first has the larger, the smaller number.
        p: p-value of Wilcoxon's signed-rank test, two-sided; None with fewer than six entries or no difference.
    """

    difference: Median
    above: int
    below: int
    p: float | None


def median(values: Sequence[float | None]) -> Median:
    """Return the median of the finite numbers; the interval does not depend on their order."""
    numbers = np.sort(np.array([value for value in values if value is not None and np.isfinite(value)], np.float64))
    if not len(numbers):
        return Median(0, None, None, None)
    samples = np.random.default_rng(0).choice(numbers, (_DRAWS, len(numbers)))
    low, high = np.quantile(np.median(samples, axis=1), (0.025, 0.975))
    return Median(len(numbers), float(np.median(numbers)), float(low), float(high))


def paired(first: dict[str, float | None], second: dict[str, float | None]) -> Paired:
    """Compare two methods.

    Args:
        first: number of each entry, by its name.
        second: of the method to compare with.
    """
    both = [(first[name], second.get(name)) for name in first]
    both = [pair for pair in both if all(value is not None and np.isfinite(value) for value in pair)]
    differences = np.array([a - b for a, b in both], np.float64)
    p = None
    if len(differences) >= _FEWEST_FOR_TEST and np.any(differences):
        p = float(wilcoxon(differences, method="auto").pvalue)
    return Paired(median(differences.tolist()), int(np.sum(differences > 0)), int(np.sum(differences < 0)), p)


def methods_of(rows: list[dict]) -> list[str]:
    """Return the methods in the order of the rows, the full map first."""
    return sorted(dict.fromkeys(row["method"] for row in rows), key=lambda method: method != FULL)


def by_entry(rows: list[dict], method: str, key: str) -> dict[str, float | None]:
    """Return a number of one method, by the entry's name."""
    return {row["entry"]: row.get(key) for row in rows if row["method"] == method}


def summarize(headlines: Sequence[Headline], rows: list[dict]) -> dict:
    """Return medians of each method, and how it compares with the full map and crefDenoiser, entry by entry."""
    summary = {}
    for headline in headlines:
        methods = {}
        for method in methods_of(rows):
            numbers = by_entry(rows, method, headline.key)
            methods[method] = median(list(numbers.values()))._asdict() | {"against": {}}
            for other in COMPARED_WITH:
                if other != method and other in methods_of(rows):
                    against = paired(numbers, by_entry(rows, other, headline.key))
                    methods[method]["against"][other] = against._asdict() | {"difference": against.difference._asdict()}
        better = "more" if headline.better > 0 else "less"
        summary[headline.key] = {"label": headline.label, "better": better, "methods": methods}
    return summary


def summary_lines(headlines: Sequence[Headline], summary: dict) -> list[str]:
    """Return the summary as lines for a terminal."""
    lines = []
    for headline in headlines:
        lines.append(f"{headline.label} (median, 95 %, entries; against the {FULL}: median difference, p)")
        for method, numbers in summary[headline.key]["methods"].items():
            if not numbers["count"]:
                continue
            d = headline.digits
            line = f"  {method:20} {numbers['median']:9.{d}f}  {numbers['low']:.{d}f} to {numbers['high']:.{d}f}"
            line += f"  n = {numbers['count']}"
            against = numbers["against"].get(FULL)
            if against and against["difference"]["count"]:
                line += f"   {against['difference']['median']:+.{d}f}"
                line += "" if against["p"] is None else f", p = {against['p']:.2g}"
            lines.append(line)
    return lines


def color_of(rows: list[dict], method: str) -> str:
    """Return the method's color in all panels that show these rows; the full map is gray."""
    others = [name for name in methods_of(rows) if name != FULL]
    return GRAY if method == FULL else PALETTE[others.index(method) % len(PALETTE)]


def small_legend(axes) -> None:
    """Add a legend, unless nothing has a label."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper right", fontsize=7, frameon=False)  # "best" takes seconds with long curves


def unique_handles(panels) -> dict:
    """Return the handles of a legend for several panels, by their labels."""
    handles = {}
    for axes in panels:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    return handles


def box_plot(axes, rows: list[dict], headline: Headline) -> None:
    """Draw a point for each entry and, for methods with five or more, a box; names with the number of entries.

    Where one number would flatten all others, the axis is logarithmic beyond the typical median.
    """
    counts, samples = {}, []
    for method in methods_of(rows):
        numbers = list(by_entry(rows, method, headline.key).values())
        if count := median(numbers).count:
            counts[method] = count
            samples.append(np.array([number for number in numbers if number is not None and np.isfinite(number)]))
    for place, (method, values) in enumerate(zip(counts, samples, strict=True)):
        color = color_of(rows, method)
        if len(values) >= _FEWEST_FOR_BOX:
            line = {"color": color, "linewidth": 2}
            axes.boxplot(values, positions=[place], widths=0.55, showfliers=False, medianprops=line)
        else:
            axes.plot([place - 0.28, place + 0.28], [np.median(values)] * 2, color=color, linewidth=2)
        spread = np.random.default_rng(place).uniform(-0.15, 0.15, len(values))
        axes.plot(place + spread, values, "o", color=color, markersize=4, alpha=0.7)
    axes.set_xticks(range(len(counts)), [f"{method}\nn = {count}" for method, count in counts.items()], fontsize=8)
    axes.tick_params(axis="x", rotation=30 if len(counts) > 5 else 0)
    axes.set_ylabel(textwrap.fill(headline.label, _LABEL_WIDTH))
    _scale_axis(axes, samples)
    if not counts:
        axes.text(0.5, 0.5, "no entry has what is needed", ha="center", va="center", transform=axes.transAxes)


def _scale_axis(axes, samples):
    """Make the axis logarithmic where one number would flatten all others; with numbers below 0, linear around it."""
    if not samples:
        return
    typical = np.median([abs(np.median(values)) for values in samples])
    low, high = min(values.min() for values in samples), max(values.max() for values in samples)
    if low > 0 and high > _DWARFED * typical:
        axes.set_yscale("log")
    elif 0 < typical < high / _DWARFED_BELOW_0 and low <= 0:
        axes.set_yscale("symlog", linthresh=typical)
        axes.set_yticks([0, *(10.0**n for n in range(int(np.ceil(np.log10(typical))), int(np.log10(high)) + 2))])
        axes.set_ylim(2 * low - typical, 2 * high)
