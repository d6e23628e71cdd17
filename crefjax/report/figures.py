"""The figures of a report: correlations, power, ratios; every frequency axis in Å.

What must not be trusted is not drawn: a curve has a gap there, and a hatched strip in its color at the foot of the
figure says that the gap is due to an unreliable estimate.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from crefjax.plotting import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, SKY, figure_bytes, resolution_axis
from crefjax.spectral.variances import QUANTITIES

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


# What an account may tell: its name there; label, colour and style of the curve.
_STYLES = {  # color and line style of quantities that have one of their own
    "signal": (BLUE, "-"),
    "noise": (ORANGE, "--"),
    "bias": (GREEN, "-."),
    "added": (SKY, (0, (3, 1, 1, 1, 1, 1))),
    "residual_noise": (PINK, (0, (1, 1))),
    "signal_to_noise_before": (ORANGE, "--"),
    "signal_to_noise_after": (BLUE, "-"),
    "signal_to_bias": (GREEN, "-."),
    "signal_to_added": (SKY, (0, (3, 1, 1, 1, 1, 1))),
    "signal_kept": (BLUE, "-"),
    "noise_kept": (ORANGE, "--"),
}


def estimates(numbers: dict) -> list[Line]:
    """Return the lines of all quantities of `crefjax.spectral.variances` that a section of the report's numbers has."""
    labels = {quantity.name: quantity.label for quantity in QUANTITIES if quantity.name in numbers}
    lines = []
    for name in sorted(labels, key=lambda name: list(_STYLES).index(name) if name in _STYLES else len(_STYLES)):
        found = numbers[name]
        value, error, trusted = array(found["value"]), array(found["error"]), np.array(found["trusted"], bool)
        lines.append(Line(labels[name], *_STYLES.get(name, (BLACK, ":")), value, error, trusted))
    return lines


class RenderedFigure(NamedTuple):
    """A figure that was drawn.

    Attributes:
        name: of its files, without suffix.
        title: a few words.
        caption: how to read it, in sentences.
        alt: what is in it, for who cannot see it.
        png: a file's bytes.
        svg: a file's bytes.
    """

    name: str
    title: str
    caption: str
    alt: str
    png: bytes
    svg: bytes


def draw_figures(numbers: dict) -> list[RenderedFigure]:
    """All figures for which there are numbers.

    Args:
        numbers: what `crefjax.report.measure.account` returns.

    Returns:
        two figures of correlations and one of power; two more where denoised half-maps were given.
    """
    drawn = [_fsc(numbers), _fit(numbers), _power(numbers)]
    if numbers["ratios"] is not None:
        drawn += [_ratios(numbers), _kept(numbers)]
    return drawn


def _fsc(numbers):
    curves = numbers["curves"]
    lines = [
        Line("half-maps, masked", BLUE, "-", array(curves["fsc_halves"])),
        Line("half-maps, no mask", SKY, "-.", array(curves["fsc_halves_unmasked"])),
        Line(r"$C_{ref}$: full map to the truth, expected", ORANGE, "--", array(curves["cref"])),
    ]
    figure, axes = correlation_axes(numbers, lines)
    found = []
    for name, resolution in numbers["resolution"].items():
        threshold = float(name.removeprefix("fsc_"))
        words = (
            f"{resolution['angstrom']:.2f} Å at {threshold:g}"
            if resolution["crossed"]
            else f"never below {threshold:g}"
        )
        found.append(words)
        axes.axhline(threshold, color=GREY, linewidth=0.8, linestyle=":")
        note(axes, words, threshold)
        if resolution["crossed"]:
            axes.plot(1 / resolution["angstrom"], threshold, "o", color=BLUE, markersize=6, markeredgecolor="white")
    legend(axes, lines, columns=2)
    return _drawn(
        figure,
        "fsc",
        "Resolution of the half-maps",
        "Fourier shell correlation of the two noisy half-maps: where it falls below 0.143 is the resolution of this "
        "data, and denoising does not change it. C_ref, computed from the masked curve, is how well the full map "
        "should correlate with the map without noise.",
        f"The masked FSC of the half-maps: {', '.join(found)}.",
    )


def _fit(numbers):
    curves = numbers["curves"]
    lines = [
        Line(r"$C_{ref}$", ORANGE, "--", array(curves["cref"])),
        Line("denoised map to full map, masked", BLUE, "-", array(curves["fsc_denoised_full"])),
        Line("no mask", SKY, "-.", array(curves["fsc_denoised_full_unmasked"])),
    ]
    figure, axes = correlation_axes(numbers, lines)
    legend(axes, lines, columns=3)
    return _drawn(
        figure,
        "fit_to_cref",
        "How much was removed",
        "If the denoised map were the truth, its correlation with the noisy full map would lie on C_ref. Above it, "
        "noise was left in; below it, signal was taken out or something was put in.",
        f"FSC of denoised map and full map beside C_ref; root mean square difference of their squares "
        f"{_plain(numbers['cref_rmse'])}.",
    )


def _power(numbers):
    curves, parts = numbers["curves"], numbers["variances"] or {}
    lines = [
        Line("full map", GREY, "-", array(curves["power_full"])),
        Line("denoised map", BLACK, (0, (5, 2)), array(curves["power_denoised"])),
        *estimates(parts),
    ]
    figure, axes = log_axes(numbers, lines, "power per Fourier voxel (map's units²)")
    legend(axes, lines, columns=3)
    more = (
        " Signal and noise are those of a noisy half-map, residual noise is what noise is left in a denoised one, and "
        "bias is what denoising changed of the signal: damped or made up. Bands: one standard error."
        if parts
        else ""
    )
    return _drawn(
        figure,
        "power",
        "Power, shell by shell",
        f"Mean squared amplitude in every shell, within the mask, on a logarithmic axis.{more}",
        f"Power over resolution of {', '.join(line.label for line in lines)}.",
    )


def _ratios(numbers):
    ratios = numbers["ratios"]
    lines = estimates(ratios)
    figure, axes = log_axes(numbers, lines, "ratio of powers")
    axes.axhline(1, color=BLACK, linewidth=1)
    legend(axes, lines, columns=2)
    return _drawn(
        figure,
        "ratios",
        "Signal against noise and against bias",
        "Above 1, the black line, there is more signal than noise, or than bias. A denoised map whose signal / noise "
        "is high and whose signal / bias is low looks clean and is wrong: there, do not believe what you see. Added "
        "structure is what both denoised half-maps show and the signal of the noisy ones does not explain.",
        "Ratios of the signal's power to that of noise, before and after, and to that of bias, over resolution.",
    )


def _kept(numbers):
    lines = estimates(numbers)
    figure, axes = line_axes(numbers, lines, "share of amplitude kept")
    highest = np.nanmax([1.0, *(np.nanmax(shown(line), initial=0) for line in lines)])
    lowest = np.nanmin([0.0, *(np.nanmin(shown(line), initial=0) for line in lines)])
    axes.set_ylim(max(1.1 * lowest, -1) - 0.05, min(1.1 * highest, 2) + 0.02)
    axes.axhline(1, color=BLACK, linewidth=1)
    legend(axes, lines, columns=3)
    return _drawn(
        figure,
        "kept",
        "What denoising kept",
        "Share of the amplitude that is left: 1 is all of it. Signal below 1 is damped: detail at that resolution "
        "looks weaker than it is. Where both curves fall together, the map was smoothed more than it was denoised.",
        "Shares of the signal's and of the noise's amplitude that denoising kept, over resolution.",
    )


def _drawn(figure, name, title, caption, alt):
    return RenderedFigure(name, title, caption, alt, figure_bytes(figure, "png"), figure_bytes(figure, "svg"))


def _plain(number):
    return "unknown" if number is None else f"{number:.3g}"
