"""Figures: legible, colour-blind safe, with units; frequency axes show Å."""

import io

import matplotlib

matplotlib.use("agg")

import numpy as np
from matplotlib.figure import Figure

from crefjax.spectral.curve import FscCurve

# Okabe & Ito's palette, told apart with any colour vision.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"


def fsc_figure(curve: FscCurve, thresholds: tuple[float, ...], kind: str) -> bytes:
    """An FSC curve with C_ref and the resolutions at thresholds.

    Args:
        curve: of two maps.
        thresholds: to mark, such as 0.143.
        kind: `png`, `svg` or `pdf`.

    Returns:
        The figure file's bytes.
    """
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    frequency = curve.frequency[1:]
    axes.plot(frequency, curve.fsc[1:], color=BLUE, label="FSC")
    axes.plot(frequency, curve.cref[1:], color=ORANGE, linestyle="--", label=r"$C_{ref}$, if these are half-maps")
    axes.axhline(0, color=GREY, linewidth=0.8)
    for threshold in thresholds:
        resolution = curve.resolution(threshold)
        axes.axhline(threshold, color=GREY, linewidth=0.8, linestyle=":")
        text = (
            f"{resolution.angstrom:.2f} Å at {threshold:g}" if resolution.crossed else f"above {threshold:g} to Nyquist"
        )
        axes.annotate(text, (frequency[-1], threshold), xytext=(-4, 3), textcoords="offset points", ha="right")
        if resolution.crossed:
            axes.plot(1 / resolution.angstrom, threshold, "o", color=GREEN, markersize=5)
    axes.set(ylabel="Fourier shell correlation", ylim=(min(-0.1, 1.05 * curve.fsc[1:].min()), 1.05))
    resolution_axis(axes, frequency[-1])
    axes.legend(loc="lower left")
    return figure_bytes(figure, kind)


def resolution_axis(axes, highest: float) -> None:
    """Label a frequency axis in Å.

    Args:
        axes: whose x runs over 1/Å.
        highest: frequency, 1/Å.
    """
    ticks = highest * np.arange(1, 7) / 6
    axes.set_xlim(0, highest)
    axes.set_xticks(ticks, [f"{1 / tick:.3g}" for tick in ticks])
    axes.set_xlabel("Resolution (Å)")


def figure_bytes(figure: Figure, kind: str) -> bytes:
    """A figure as the bytes of a `png`, `svg` or `pdf` file."""
    stream = io.BytesIO()
    figure.savefig(stream, format=kind, dpi=150)
    return stream.getvalue()
