"""What a study over entries writes: a row for each entry and method, a summary over entries, a figure."""

import csv
import io
import json
import platform
import textwrap
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from analysis.files import put
from analysis.over_entries import Headline, Run, Study
from analysis.subjects import FULL
from analysis.summaries import median, paired
from crefjax import __version__
from crefjax.plotting import BLUE, GREEN, GREY, ORANGE, figure_bytes

COMPARED_WITH = (FULL, "crefdenoiser")
_FEWEST_FOR_BOX = 5
_DWARFED = 30  # the largest number over the typical median
_DWARFED_BELOW_0 = 100
_LABEL_WIDTH = 36  # letters beside a panel of usual height
COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")  # of Okabe & Ito's palette


def write_study(study: Study, run: Run, folder: Path, settings: dict) -> dict:
    """Write NAME.csv, .json, .png and .svg; returns the summary.

    Args:
        study: what was measured.
        run: what was found.
        folder: to write in.
        settings: for the record.
    """
    rows = run.rows[study.name]
    summary = summarize(study.headlines, rows)
    report = {
        "crefjax": __version__,
        "jax": jax.__version__,
        "python": platform.python_version(),
        "seconds": round(run.seconds, 1),
        "settings": settings,
        "left_out": [{"entry": entry, "why": why} for entry, name, why in run.left_out if name in ("", study.name)],
        "summary": summary,
    }
    put(folder / f"{study.name}.csv", table(rows).encode())
    put(folder / f"{study.name}.json", (json.dumps(report, indent=2) + "\n").encode())
    for kind in ("png", "svg"):
        put(folder / f"{study.name}.{kind}", figure_bytes(study.figure(rows), kind))
    return summary


def table(rows: list[dict]) -> str:
    """CSV of all numbers; curves are not in it."""
    names = list(dict.fromkeys(key for row in rows for key in row if key != "curves"))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([_cell(row.get(name)) for name in names])
    return stream.getvalue()


def _cell(value):
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value


def methods_of(rows: list[dict]) -> list[str]:
    """The methods, the full map first, in the order in which they came."""
    found = list(dict.fromkeys(row["method"] for row in rows))
    return sorted(found, key=lambda one: one != FULL)


def by_entry(rows: list[dict], method: str, key: str) -> dict[str, float | None]:
    """A number of one method, by the entry's name."""
    return {row["entry"]: row.get(key) for row in rows if row["method"] == method}


def summarize(headlines: Sequence[Headline], rows: list[dict]) -> dict:
    """Medians of each method, and how it compares with the full map and with crefdenoiser, entry by entry."""
    told = {}
    for one in headlines:
        told[one.key] = {"label": one.label, "better": "more" if one.better > 0 else "less", "methods": {}}
        for method in methods_of(rows):
            numbers = by_entry(rows, method, one.key)
            found = {**median(list(numbers.values()))._asdict(), "against": {}}
            for other in COMPARED_WITH:
                if other != method and other in methods_of(rows):
                    against = paired(numbers, by_entry(rows, other, one.key))
                    found["against"][other] = {**against._asdict(), "difference": against.difference._asdict()}
            told[one.key]["methods"][method] = found
    return told


def summary_lines(study: Study, summary: dict) -> list[str]:
    """The summary to read on a terminal."""
    lines = []
    for one in study.headlines:
        lines.append(f"{one.label} (median, 95 %, entries; against the {FULL}: median difference, p)")
        for method, found in summary[one.key]["methods"].items():
            if not found["count"]:
                continue
            d = one.digits
            line = f"  {method:20} {found['median']:9.{d}f}  {found['low']:.{d}f} to {found['high']:.{d}f}"
            line += f"  n = {found['count']}"
            against = found["against"].get(FULL)
            if against and against["difference"]["count"]:
                line += f"   {against['difference']['median']:+.{d}f}"
                line += "" if against["p"] is None else f", p = {against['p']:.2g}"
            lines.append(line)
    return lines


def colour_of(rows: list[dict], method: str) -> str:
    """The method's colour in all panels that show these rows; the full map is grey."""
    others = [one for one in methods_of(rows) if one != FULL]
    return GREY if method == FULL else COLOURS[others.index(method) % len(COLOURS)]


def small_legend(axes) -> None:
    """A legend, where there is something to tell."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, frameon=False)


def box_plot(axes, rows: list[dict], headline: Headline) -> None:
    """A point for each entry, and a box for each method that has five; the number of entries beneath its name.

    Where one number would flatten all others, the axis is logarithmic beyond the typical median.
    """
    methods = [m for m in methods_of(rows) if median(list(by_entry(rows, m, headline.key).values())).count]
    shown = []
    for place, method in enumerate(methods):
        numbers = by_entry(rows, method, headline.key).values()
        values = np.array([one for one in numbers if one is not None and np.isfinite(one)])
        color = colour_of(rows, method)
        shown.append(values)
        if len(values) >= _FEWEST_FOR_BOX:
            line = {"color": color, "linewidth": 2}
            axes.boxplot(values, positions=[place], widths=0.55, showfliers=False, medianprops=line)
        else:
            axes.plot([place - 0.28, place + 0.28], [np.median(values)] * 2, color=color, linewidth=2)
        spread = np.random.default_rng(place).uniform(-0.15, 0.15, len(values))
        axes.plot(place + spread, values, "o", color=color, markersize=4, alpha=0.7)
    counts = [median(list(by_entry(rows, one, headline.key).values())).count for one in methods]
    axes.set_xticks(range(len(methods)), [f"{m}\nn = {n}" for m, n in zip(methods, counts, strict=True)], fontsize=8)
    axes.tick_params(axis="x", rotation=30 if len(methods) > 5 else 0)
    axes.set_ylabel(textwrap.fill(headline.label, _LABEL_WIDTH))
    _spread_axis(axes, shown)
    if not methods:
        axes.text(0.5, 0.5, "no entry has what is needed", ha="center", va="center", transform=axes.transAxes)


def _spread_axis(axes, values):
    """A logarithmic axis where one number would flatten all others; with numbers below 0, linear around it."""
    if not values:
        return
    typical = np.median([abs(np.median(one)) for one in values])
    low, high = min(one.min() for one in values), max(one.max() for one in values)
    if low > 0 and high > _DWARFED * typical:
        axes.set_yscale("log")
    elif 0 < typical < high / _DWARFED_BELOW_0 and low <= 0:
        axes.set_yscale("symlog", linthresh=typical)
        axes.set_yticks([0, *(10.0**n for n in range(int(np.ceil(np.log10(typical))), int(np.log10(high)) + 2))])
        axes.set_ylim(2 * low - typical, 2 * high)
