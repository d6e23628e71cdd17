"""Measure signal to noise and signal to bias, before and after denoising, against resolution.

    python -m analysis snr_and_bias ENTRY... -o DIR [--methods A,B] [--jobs N]

By the equations of `crefjax.spectral.variances`, masked; for methods that denoised each half-map alone. The ratio
after denoising is that of the signal that is left. Shells whose estimate cannot be trusted have no value. As
figures 7 and S4 of Agarwal et al. (2024), IUCrJ 11; frequencies are multiples of that where the FSC of the half-maps
falls below 0.143, so that entries of all resolutions lie over each other.
"""

import numpy as np
from matplotlib.figure import Figure

from analysis.framework.entry_study import EntryStudy, MethodOutput, Row
from analysis.framework.output import FULL, Headline, color_of, methods_of, small_legend
from crefjax.plotting import BLUE, GRAY, GREEN, ORANGE, resolution_axis

_SNR = Headline("snr_gain", "signal/noise after over before, median up to FSC-0.143", 1, 2)
_BIAS = Headline("signal_to_bias", "signal/bias, median up to FSC-0.143", 1, 1)
_ADDED = Headline("signal_to_added", "signal/added structure, median up to FSC-0.143", 1, 1)
_RATIOS = ("signal_to_noise_before", "signal_to_noise_after", "signal_to_bias", "signal_to_added")
_VARIANCES = {"signal": BLUE, "noise": GRAY, "bias": ORANGE, "residual_noise": GREEN}
_BINS = np.arange(0.0, 1.45, 0.1)  # of frequency over that of FSC-0.143


def measure(maps: MethodOutput) -> Row | None:
    """Return all ratios by shell, and medians up to FSC-0.143."""
    curve, variances = maps.measured.curve, maps.measured.variances
    if maps.method == FULL or variances is None:
        return None
    at, frequency = curve.resolution(0.143).angstrom, curve.frequency
    within = (frequency > 0) & (frequency <= 1 / at)
    curves = {"frequency": frequency.tolist(), "relative": (frequency * at).tolist()}
    for name in (*_RATIOS, *_VARIANCES):
        estimate = getattr(variances, name)
        curves[name] = [float(v) if ok else None for v, ok in zip(estimate.value, estimate.trusted, strict=True)]
    numbers = {"fsc_half_0.143": at, "contradicted_shells": int(variances.inconsistent.sum())}
    ratios = {name: _array(curves[name]) for name in _RATIOS}
    numbers["snr_gain"] = _median((ratios["signal_to_noise_after"] / ratios["signal_to_noise_before"])[within])
    for name in ("signal_to_bias", "signal_to_added"):
        numbers[name] = _median(ratios[name][within])
        numbers[f"{name}_shells"] = int(np.isfinite(ratios[name][within]).sum())
    return Row(numbers, curves)


def _array(values):
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _median(values):
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else None


def figure(rows: list[dict]) -> Figure:
    """Draw ratios over all entries, medians and quartiles in bins of frequency; below, the variances of one entry."""
    methods = methods_of(rows)
    page = Figure(figsize=(15, 4 + 3.4 * bool(methods)), layout="constrained")
    grid = page.add_gridspec(2, 12)
    entries = len({row["entry"] for row in rows})
    panels = (
        ("signal_to_noise_after", "signal/noise (dashed: before)"),
        ("signal_to_bias", "signal/bias"),
        ("signal_to_added", "signal/added structure"),
    )
    for place, (name, label) in enumerate(panels):
        axes = page.add_subplot(grid[0, 4 * place : 4 * place + 4])
        for number, method in enumerate(methods):
            _plot_binned(axes, rows, method, name, color_of(rows, method), method)
            if number == 0 and name == "signal_to_noise_after":
                _plot_binned(axes, rows, method, "signal_to_noise_before", GRAY, "half-map, before", "--")
        axes.set(yscale="log", ylabel=label, xlabel="frequency over that of FSC-0.143", title=f"{entries} entries")
        small_legend(axes)
    shown = [row for row in rows if row["entry"] == rows[0]["entry"]][:4]
    for place, row in enumerate(shown):
        width = 12 // len(shown)
        axes = page.add_subplot(grid[1, width * place : width * place + width])
        x = np.array(row["curves"]["frequency"])
        for name, color in _VARIANCES.items():
            axes.semilogy(x[1:-1], _array(row["curves"][name])[1:-1], color=color, label=name.replace("_", " "))
        resolution_axis(axes, x[-1])
        axes.set(title=f"{row['entry']}: {row['method']}", ylabel="variance within the mask")
        small_legend(axes)
    return page


def _plot_binned(axes, rows, method, name, color, label, linestyle="-"):
    chosen = [row["curves"] for row in rows if row["method"] == method]
    x = np.concatenate([_array(curves["relative"]) for curves in chosen])
    y = np.concatenate([_array(curves[name]) for curves in chosen])
    bins = np.digitize(x, _BINS)
    centers, quartiles = [], []
    for number in range(1, len(_BINS)):
        values = y[(bins == number) & np.isfinite(y)]
        if len(values):
            centers.append((_BINS[number - 1] + _BINS[number]) / 2)
            quartiles.append(np.quantile(values, (0.25, 0.5, 0.75)))
    if quartiles:
        low, middle, high = np.transpose(quartiles)
        axes.plot(centers, middle, linestyle, color=color, label=label, marker=".")
        axes.fill_between(centers, low, high, color=color, alpha=0.15, linewidth=0)


STUDY = EntryStudy(__name__, measure, (_SNR, _BIAS, _ADDED), figure)
