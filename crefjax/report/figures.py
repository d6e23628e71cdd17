"""The figures of a report: correlations, power, ratios; every frequency axis in Å.

Values that are not trusted are not drawn: a curve has a gap there, and a hatched strip in its color at the foot of the
figure indicates that the gap is due to an unreliable estimate.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from crefjax.plotting import BLACK, BLUE, GRAY, GREEN, ORANGE, PINK, SKY, figure_bytes, resolution_axis
from crefjax.spectral.variances import QUANTITIES

_SIZE = (6.6, 4.4)  # inches
_MARGINS = {"left": 0.115, "right": 0.98, "bottom": 0.115}
_STRIP_HEIGHT = 0.022  # of the axes
_DECADES = 7  # of a logarithmic axis, at most
_LINE_WIDTH = 1.8
_HATCHED = {"facecolor": "none", "hatch": "//////", "linewidth": 0}
_UNTRUSTED_LABEL = "not to be trusted"

# Color and line style of the quantities of `crefjax.spectral.variances` that have their own; in the order of legends.
_STYLES = {
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
_OTHER_STYLE = (BLACK, ":")


class RenderedFigure(NamedTuple):
    """A figure as files, with its texts.

    Attributes:
        name: of its files, without suffix.
        title: a few words.
        caption: how to read it, in sentences.
        alt: its content in words, for readers who cannot see it.
        png: a file's bytes.
        svg: a file's bytes.
    """

    name: str
    title: str
    caption: str
    alt: str
    png: bytes
    svg: bytes


class _Line(NamedTuple):
    """One curve.

    Attributes:
        label: for the legend.
        color: of the curve.
        style: matplotlib's line style.
        value: `(shells,)`, NaN where unknown.
        error: the same shape, NaN where unknown; None for a curve without errors.
        trusted: the same shape, bool; None if all of it is trusted.
    """

    label: str
    color: str
    style: object
    value: np.ndarray
    error: np.ndarray | None = None
    trusted: np.ndarray | None = None

    @property
    def shown(self) -> np.ndarray:
        """Values where they are trusted, NaN elsewhere; shell 0 is the mean and is never shown."""
        value = self.value.copy() if self.trusted is None else np.where(self.trusted, self.value, np.nan)
        value[:1] = np.nan
        return value

    @property
    def complete(self) -> bool:
        """Whether every shell but 0 is trusted."""
        return self.trusted is None or bool(self.trusted[1:].all())


def draw_figures(numbers: dict) -> list[RenderedFigure]:
    """Draw all figures for which there are numbers.

    Args:
        numbers: what `crefjax.report.measure.report_numbers` returns.

    Returns:
        Three figures of correlations and one of power; with denoised half-maps, two more; with a sharpened copy, one.
    """
    figures = [_fsc(numbers), _fit(numbers), _power(numbers), _directional(numbers)]
    if numbers["ratios"] is not None:
        figures += [_ratios(numbers), _kept(numbers)]
    if numbers["guinier"] is not None:
        figures.append(_guinier(numbers))
    return figures


def _fsc(numbers):
    lines = [
        _curve(numbers, "fsc_halves", "half-maps, masked", BLUE, "-"),
        _curve(numbers, "fsc_halves_unmasked", "half-maps, no mask", SKY, "-."),
        _curve(numbers, "cref", r"$C_{ref}$: full map to the truth, expected", ORANGE, "--"),
    ]
    figure, axes = _correlation_axes(numbers, lines)
    crossings = []
    for name, resolution in numbers["resolution"].items():
        threshold = float(name.removeprefix("fsc_"))
        crossed = resolution["crossed"]
        crossing = f"{resolution['angstrom']:.2f} Å at {threshold:g}" if crossed else f"never below {threshold:g}"
        crossings.append(crossing)
        axes.axhline(threshold, color=GRAY, linewidth=0.8, linestyle=":")
        _annotate(axes, crossing, threshold)
        if crossed:
            axes.plot(1 / resolution["angstrom"], threshold, "o", color=BLUE, markersize=6, markeredgecolor="white")
    _legend(axes, lines, columns=2)
    return _rendered(
        figure,
        "fsc",
        "Resolution of the half-maps",
        "Fourier shell correlation of the two noisy half-maps: where it falls below 0.143 is the resolution of this "
        "data, and denoising does not change it. C_ref, computed from the masked curve, is how well the full map "
        "should correlate with the map without noise.",
        f"The masked FSC of the half-maps: {', '.join(crossings)}.",
    )


def _fit(numbers):
    lines = [
        _curve(numbers, "cref", r"$C_{ref}$", ORANGE, "--"),
        _curve(numbers, "fsc_denoised_full", "denoised map to full map, masked", BLUE, "-"),
        _curve(numbers, "fsc_denoised_full_unmasked", "no mask", SKY, "-."),
    ]
    figure, axes = _correlation_axes(numbers, lines)
    _legend(axes, lines, columns=3)
    rmse = "unknown" if numbers["cref_rmse"] is None else f"{numbers['cref_rmse']:.3g}"
    return _rendered(
        figure,
        "fit_to_cref",
        "How much was removed",
        "If the denoised map were the truth, its correlation with the noisy full map would lie on C_ref. Above it, "
        "noise was left in; below it, signal was taken out or something was put in.",
        f"FSC of denoised map and full map beside C_ref; root mean square difference of their squares {rmse}.",
    )


def _power(numbers):
    variances = numbers["variances"] or {}
    lines = [
        _curve(numbers, "power_full", "full map", GRAY, "-"),
        _curve(numbers, "power_denoised", "denoised map", BLACK, (0, (5, 2))),
        *_estimates(variances),
    ]
    figure, axes = _log_axes(numbers, lines, "power per Fourier voxel (map's units²)")
    _legend(axes, lines, columns=3)
    explanation = (
        " Signal and noise are those of a noisy half-map, residual noise is the noise that is left in a denoised one, "
        "and bias is what denoising changed of the signal: damped or made up. Bands: one standard error."
        if variances
        else ""
    )
    return _rendered(
        figure,
        "power",
        "Power, shell by shell",
        f"Mean squared amplitude in every shell, within the mask, on a logarithmic axis.{explanation}",
        f"Power over resolution of {', '.join(line.label for line in lines)}.",
    )


def _ratios(numbers):
    lines = _estimates(numbers["ratios"])
    figure, axes = _log_axes(numbers, lines, "ratio of powers")
    axes.axhline(1, color=BLACK, linewidth=1)
    _legend(axes, lines, columns=2)
    return _rendered(
        figure,
        "ratios",
        "Signal against noise and against bias",
        "Above 1, the black line, there is more signal than noise, or than bias. A denoised map whose signal / noise "
        "is high and whose signal / bias is low looks clean and is wrong: there, do not believe what you see. Added "
        "structure is what both denoised half-maps show and the signal of the noisy ones does not explain.",
        "Ratios of the signal's power to that of noise, before and after, and to that of bias, over resolution.",
    )


def _kept(numbers):
    lines = _estimates(numbers)
    figure, axes = _line_axes(numbers, lines, "share of amplitude kept")
    highest = np.nanmax([1.0, *(np.nanmax(line.shown, initial=0) for line in lines)])
    axes.set_ylim(max(1.1 * _lowest(lines), -1) - 0.05, min(1.1 * highest, 2) + 0.02)
    axes.axhline(1, color=BLACK, linewidth=1)
    _legend(axes, lines, columns=3)
    return _rendered(
        figure,
        "kept",
        "What denoising kept",
        "Share of the amplitude that is left: 1 is all of it. Signal below 1 is damped: detail at that resolution "
        "looks weaker than it is. Where both curves fall together, the map was smoothed more than it was denoised.",
        "Shares of the signal's and of the noise's amplitude that denoising kept, over resolution.",
    )


def _directional(numbers):
    """Draw the FSC of all directions together over the range of those within cones."""
    directional = numbers["directional"]
    low, high = (_array(directional[name]) for name in ("fsc_low", "fsc_high"))
    lines = [_curve(numbers, "fsc_halves", "half-maps, masked, all directions", BLUE, "-")]
    figure, axes = _correlation_axes(numbers, lines)
    frequency = np.asarray(numbers["frequency"])[1 : len(low)]
    axes.fill_between(frequency, low[1:], high[1:], color=ORANGE, alpha=0.3, linewidth=0)
    axes.set_ylim(min(-0.08, np.nanmin(low[1:]) - 0.03), 1.05)
    axes.axhline(0.143, color=GRAY, linewidth=0.8, linestyle=":")
    _legend(axes, lines, columns=1)
    return _rendered(
        figure,
        "directional",
        "Resolution by direction",
        f"FSC of the half-maps within cones of {directional['half_angle']:g}° around {len(directional['direction'])} "
        "directions: the band holds nine tenths of them, each smoothed over three shells. It is wide at low "
        f"resolution, where a cone holds few voxels. {directional['text'][0].upper()}{directional['text'][1:]}.",
        f"FSC of the half-maps and its range over directions; {directional['text']}.",
    )


def _guinier(numbers):
    """Draw the logarithm of amplitudes over the squared frequency, labeled in Å, with the fitted line."""
    guinier = numbers["guinier"]
    squared = np.square(numbers["frequency"])
    figure = Figure(figsize=_SIZE)
    axes = figure.add_subplot()
    amplitude, weighted = (_array(guinier[name]) for name in ("log_amplitude", "log_weighted"))
    axes.plot(squared[1:], amplitude[1:], color=GRAY, linewidth=_LINE_WIDTH, label="full map")
    axes.plot(squared[1:], weighted[1:], color=BLUE, linewidth=_LINE_WIDTH, label=r"full map times $C_{ref}$")
    own = ""
    if guinier["fit"] is not None:
        start, slope = guinier["fit"]
        ends = np.array([1 / guinier["coarsest"], 1 / guinier["resolution"]]) ** 2
        axes.plot(ends, start + slope * ends, color=ORANGE, linestyle="--", linewidth=_LINE_WIDTH, label="fitted line")
        own = f" Its slope gives {4 * slope:.0f} Å²."
    _squared_axis(axes, squared, guinier["resolution"], amplitude, weighted)
    axes.legend(frameon=False)
    figure.subplots_adjust(**_MARGINS, top=0.97)
    given = ", as given" if guinier["given"] else ""
    return _rendered(
        figure,
        "guinier",
        "Guinier plot",
        "Amplitudes of the full map within the mask, before denoising. The line is fitted from "
        f"{guinier['coarsest']:g} Å to the resolution (dotted).{own} The sharpened copy of the denoised map was "
        f"multiplied by C_ref and by a B-factor of {guinier['b_factor']:.0f} Å²{given}, and low-passed at "
        f"{guinier['resolution']:.2f} Å. It is for building by eye; the denoised map itself is not sharpened.",
        f"Guinier plot; B-factor {guinier['b_factor']:.0f} Å².",
    )


def _squared_axis(axes, squared, resolution, amplitude, weighted):
    """Show squared frequencies up to a little beyond the resolution, labeled in Å."""
    end = min(squared[-1], 1.6 / resolution**2)
    shown = np.concatenate([amplitude[1:][squared[1:] <= end], weighted[1:][squared[1:] <= 1 / resolution**2]])
    if np.isfinite(shown).any():
        axes.set_ylim(np.nanmin(shown) - 0.5, np.nanmax(shown) + 0.5)
    ticks = end * np.arange(1, 7) / 6
    axes.set_xlim(0, end)
    axes.set_xticks(ticks, [f"{tick**-0.5:.3g}" for tick in ticks])
    axes.set_xlabel("Resolution (Å), spaced by its squared inverse")
    axes.set_ylabel("ln of the amplitude")
    axes.axvline(1 / resolution**2, color=GRAY, linewidth=0.8, linestyle=":")
    axes.grid(alpha=0.25, linewidth=0.6)


def _curve(numbers, name, label, color, style):
    return _Line(label, color, style, _array(numbers["curves"][name]))


def _estimates(numbers):
    """Return the lines of all quantities in a section of the numbers, `{"value", "error", "trusted"}` each."""
    labels = {quantity.name: quantity.label for quantity in QUANTITIES if quantity.name in numbers}
    lines = []
    for name in [*(name for name in _STYLES if name in labels), *(name for name in labels if name not in _STYLES)]:
        value, error, trusted = (numbers[name][key] for key in ("value", "error", "trusted"))
        style = _STYLES.get(name, _OTHER_STYLE)
        lines.append(_Line(labels[name], *style, _array(value), _array(error), np.array(trusted, bool)))
    return lines


def _array(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _line_axes(numbers, lines, label):
    """Draw the lines, their error bands, and strips where they are not trusted."""
    figure = Figure(figsize=_SIZE)
    axes = figure.add_subplot()
    frequency = np.asarray(numbers["frequency"])
    for line in lines:
        value = line.shown
        axes.plot(frequency, value, color=line.color, linestyle=line.style, linewidth=_LINE_WIDTH)
        axes.plot(frequency, _isolated(value), ".", color=line.color)
        if line.error is not None:
            low, high = value - line.error, value + line.error
            axes.fill_between(frequency, low, high, color=line.color, alpha=0.18, linewidth=0)
    _draw_strips(axes, frequency, lines)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_ylabel(label)
    resolution_axis(axes, frequency[-1])
    return figure, axes


def _isolated(value):
    """Return the values that stand alone between gaps, where a line cannot show them; NaN elsewhere."""
    known = np.isfinite(np.concatenate([[np.nan], value, [np.nan]]))
    return np.where(known[1:-1] & ~known[:-2] & ~known[2:], value, np.nan)


def _draw_strips(axes, frequency, lines):
    """Draw hatched strips at the foot, one lane for each line with values that are not trusted."""
    step = frequency[1] - frequency[0]
    for lane, line in enumerate(line for line in lines if not line.complete):
        edges = np.flatnonzero(np.diff(np.concatenate([[True], line.trusted[1:], [True]]).astype(int)))
        spans = [((start + 0.5) * step, (end - start) * step) for start, end in edges.reshape(-1, 2)]
        heights = (lane * _STRIP_HEIGHT, 0.8 * _STRIP_HEIGHT)
        transform = axes.get_xaxis_transform()
        axes.broken_barh(spans, heights, transform=transform, edgecolor=line.color, zorder=3, **_HATCHED)


def _annotate(axes, text, height):
    """Write at the left end of a horizontal line, where correlations are far above it."""
    axes.annotate(
        text,
        (0, height),
        (5, 4),
        axes.get_yaxis_transform(),
        "offset points",
        bbox={"boxstyle": "square,pad=0.15", "facecolor": "white", "alpha": 0.85, "linewidth": 0},
        zorder=4,
    )


def _lowest(lines):
    return np.nanmin([0.0, *(np.nanmin(line.shown, initial=0) for line in lines)])


def _correlation_axes(numbers, lines):
    """Draw lines on an axis from a little below 0, or the lowest value, to 1."""
    figure, axes = _line_axes(numbers, lines, "Fourier shell correlation")
    axes.set_ylim(min(-0.08, 1.1 * _lowest(lines)), 1.05)
    axes.axhline(0, color=GRAY, linewidth=0.8)
    return figure, axes


def _log_axes(numbers, lines, label):
    """Draw lines on a logarithmic axis around the positive values, of at most `_DECADES` decades."""
    figure, axes = _line_axes(numbers, lines, label)
    values = np.concatenate([line.shown for line in lines])
    values = values[np.isfinite(values) & (values > 0)]
    highest, lowest = (values.max(), values.min()) if len(values) else (1.0, 0.1)
    axes.set_yscale("log", nonpositive="clip")
    axes.set_ylim(max(lowest / 3, highest * 10.0**-_DECADES), highest * 2)
    return figure, axes


def _legend(axes, lines, columns):
    """Put the legend above the axes, where it hides nothing."""
    handles = [axes.plot([], [], color=line.color, linestyle=line.style, linewidth=_LINE_WIDTH)[0] for line in lines]
    labels = [line.label for line in lines]
    if not all(line.complete for line in lines):
        handles.append(Patch(edgecolor=GRAY, **_HATCHED))
        labels.append(_UNTRUSTED_LABEL)
    rows = -(-len(labels) // columns)
    place = {"loc": "lower left", "bbox_to_anchor": (-0.02, 1.0)}
    axes.legend(handles, labels, ncols=columns, frameon=False, columnspacing=1.4, **place)
    axes.figure.subplots_adjust(**_MARGINS, top=0.975 - 0.056 * rows)


def _rendered(figure, name, title, caption, alt):
    return RenderedFigure(name, title, caption, alt, figure_bytes(figure, "png"), figure_bytes(figure, "svg"))
