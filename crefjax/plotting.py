"""Figures of FSC curves, training runs, and the demonstration; palette and axes that all figures share.

Figures are legible in the size of a page, safe for color-blind readers, and have units; frequency axes show Å.
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import matplotlib

matplotlib.use("agg")

import numpy as np
from matplotlib.figure import Figure

from crefjax.io.files import read_json_lines
from crefjax.spectral.curves import FscCurve

if TYPE_CHECKING:
    from crefjax.spectral.fsc import CorrectedFsc

# The palette of Okabe & Ito, distinct with any color vision; their vermillion is ORANGE here, their orange AMBER.
BLUE, ORANGE, GREEN, PINK, AMBER, SKY, YELLOW, BLACK = PALETTE = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#F0E442",
    "#000000",
)
GRAY = "#666666"

_EVALUATION_METRICS = {
    "cref_rmse": ("RMSE of FSC² to $C_{ref}$²", ORANGE, "-"),
    "fsc_truth": ("mean FSC to the truth", GREEN, "-"),
    "fsc_truth_full": ("full map's mean FSC to the truth", GRAY, "--"),
}


def resolution_axis(axes, highest: float) -> None:
    """Label a frequency axis in Å.

    Args:
        axes: axes whose x is a frequency in 1/Å.
        highest: highest frequency, 1/Å.
    """
    ticks = highest * np.arange(1, 7) / 6
    axes.set_xlim(0, highest)
    axes.set_xticks(ticks, [f"{1 / tick:.3g}" for tick in ticks])
    axes.set_xlabel("Resolution (Å)")


def figure_bytes(figure: Figure, kind: str) -> bytes:
    """Return a figure as the bytes of a `png`, `svg` or `pdf` file."""
    stream = io.BytesIO()
    figure.savefig(stream, format=kind, dpi=150)
    return stream.getvalue()


def fsc_figure(
    curve: FscCurve, thresholds: tuple[float, ...], kind: str, corrected: "CorrectedFsc | None" = None
) -> bytes:
    """Draw an FSC curve with C_ref and the resolutions at thresholds.

    Args:
        curve: of two maps.
        thresholds: thresholds to mark, such as 0.143.
        kind: `png`, `svg` or `pdf`.
        corrected: the curves of phase randomization, which are drawn in place of C_ref; the resolutions are then those
            of the corrected one.

    Returns:
        The figure file's bytes.
    """
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    frequency = curve.frequency[1:]
    if corrected is None:
        axes.plot(frequency, curve.fsc[1:], color=BLUE, label="FSC")
        axes.plot(frequency, curve.cref[1:], color=ORANGE, linestyle="--", label=r"$C_{ref}$, if these are half-maps")
    else:
        for name, color in (("corrected", BLACK), ("unmasked", GREEN), ("masked", BLUE), ("randomized", ORANGE)):
            label = "phases randomized" if name == "randomized" else name
            axes.plot(frequency, getattr(corrected, name).fsc[1:], color=color, label=label)
        curve = corrected.corrected
    axes.axhline(0, color=GRAY, linewidth=0.8)
    for threshold in thresholds:
        resolution = curve.resolution(threshold)
        axes.axhline(threshold, color=GRAY, linewidth=0.8, linestyle=":")
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


def convergence_figure(rows: list[dict], kind: str) -> bytes:
    """Draw the losses of a training run, and below them the metrics of its evaluations, over the steps.

    Args:
        rows: of `metrics.jsonl`.
        kind: `png`, `svg` or `pdf`.

    Returns:
        The figure file's bytes.
    """
    training = [row for row in rows if row["kind"] == "training"]
    evaluations = [row for row in rows if row["kind"] == "evaluation"]
    figure = Figure(figsize=(6.4, 6.0), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True)
    top.plot([row["step"] for row in training], [row["loss"] for row in training], color=BLUE, linewidth=0.8)
    steps = [row["step"] for row in evaluations]
    top.plot(steps, [row["loss"] for row in evaluations], "o-", color=ORANGE, markersize=3)
    top.set(ylabel="loss")
    top.legend(top.lines, ["training", "held out"], loc="upper right")
    for name, (label, color, line) in _EVALUATION_METRICS.items():
        values = [row.get(name) for row in evaluations]
        if any(value is not None for value in values):
            bottom.plot(steps, values, line, color=color, marker="o", markersize=3, label=f"held out: {label}")
    bottom.set(xlabel="step", ylabel="metric", ylim=(0, 1))
    if bottom.lines:
        bottom.legend(loc="center right")
    return figure_bytes(figure, kind)


def write_convergence_figure(workdir: Path) -> None:
    """Write `convergence.png` of a run, replacing an earlier one; ignore an incomplete last line of metrics."""
    hidden = workdir / ".convergence.png"
    hidden.write_bytes(convergence_figure(read_json_lines(workdir / "metrics.jsonl"), "png"))
    hidden.replace(workdir / "convergence.png")


class DemoPanels(NamedTuple):
    """The panels of the figure of `crefjax demo`; maps `(z, y, x)` of one grid.

    Attributes:
        full: mean of the half-maps.
        denoised: by the network.
        truth: without noise.
        mask: 0 to 1.
        half_map_fsc: of the half-maps.
        full_to_truth: FSC of the full map.
        denoised_to_truth: FSC of the denoised map.
    """

    full: np.ndarray
    denoised: np.ndarray
    truth: np.ndarray
    mask: np.ndarray
    half_map_fsc: FscCurve
    full_to_truth: FscCurve
    denoised_to_truth: FscCurve


def demo_figure(panels: DemoPanels, kind: str) -> bytes:
    """Draw three slices through the middle, and FSC curves to the truth below.

    Args:
        panels: maps and curves.
        kind: `png`, `svg` or `pdf`.

    Returns:
        The figure file's bytes.
    """
    figure = Figure(figsize=(8.4, 7.2), layout="constrained")
    grid = figure.add_gridspec(2, 3, height_ratios=(1, 1.15))
    maps = {"full map": panels.full, "denoised": panels.denoised, "truth": panels.truth}
    for column, (name, array) in enumerate(maps.items()):
        _demo_slice(figure.add_subplot(grid[0, column]), name, array, panels)
    axes = figure.add_subplot(grid[1, :])
    frequency = panels.half_map_fsc.frequency[1:]
    axes.plot(frequency, panels.half_map_fsc.cref[1:], color=GRAY, linestyle=":", label=r"$C_{ref}$ from the half-maps")
    axes.plot(frequency, panels.full_to_truth.fsc[1:], color=ORANGE, linestyle="--", label="full map to truth")
    axes.plot(frequency, panels.denoised_to_truth.fsc[1:], color=BLUE, label="denoised to truth")
    axes.axhline(0.5, color=GREEN, linewidth=0.8)
    axes.set(ylabel="FSC, masked", ylim=(-0.1, 1.05))
    resolution_axis(axes, frequency[-1])
    axes.legend(loc="lower left")
    return figure_bytes(figure, kind)


def _demo_slice(axes, name, array, panels):
    """Show the plane with most of the truth, at the truth's contrast: each map by the scale that fits it best."""
    plane = int(np.argmax(np.square(panels.truth * panels.mask).sum((1, 2))))
    inside = panels.mask > 0.5
    variation, target = array[inside] - array[inside].mean(), panels.truth[inside] - panels.truth[inside].mean()
    scale = np.dot(variation, target) / max(np.dot(variation, variation), 1e-30)
    image = (array[plane] - array[inside].mean()) * (scale if scale > 0 else 1) * (panels.mask[plane] > 0)
    reach = 3 * target.std()
    axes.imshow(image, cmap="gray", vmin=-reach / 2, vmax=reach, origin="lower")
    axes.set_title(name)
    axes.set_xticks([])
    axes.set_yticks([])
