"""The figure of `crefjax demo`: full map, denoised map and truth, and their FSC."""

from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from crefjax.report.plots import BLUE, GREEN, GREY, ORANGE, figure_bytes, resolution_axis
from crefjax.spectral.curve import FscCurve


class DemoPanels(NamedTuple):
    """What the figure shows; maps `(z, y, x)` of one grid.

    Attributes:
        full: mean of the half-maps.
        denoised: by the network.
        truth: without noise.
        mask: 0 to 1.
        half: FSC of the half-maps.
        full_to_truth: FSC of the full map.
        denoised_to_truth: FSC of the denoised map.
    """

    full: np.ndarray
    denoised: np.ndarray
    truth: np.ndarray
    mask: np.ndarray
    half: FscCurve
    full_to_truth: FscCurve
    denoised_to_truth: FscCurve


def demo_figure(shown: DemoPanels, kind: str) -> bytes:
    """Three slices through the middle above, FSC curves to the truth below.

    Args:
        shown: maps and curves.
        kind: `png`, `svg` or `pdf`.

    Returns:
        The figure file's bytes.
    """
    figure = Figure(figsize=(8.4, 7.2), layout="constrained")
    grid = figure.add_gridspec(2, 3, height_ratios=(1, 1.15))
    maps = {"full map": shown.full, "denoised": shown.denoised, "truth": shown.truth}
    for column, (name, array) in enumerate(maps.items()):
        _slice(figure.add_subplot(grid[0, column]), name, array, shown)
    axes = figure.add_subplot(grid[1, :])
    frequency = shown.half.frequency[1:]
    axes.plot(frequency, shown.half.cref[1:], color=GREY, linestyle=":", label=r"$C_{ref}$ from the half-maps")
    axes.plot(frequency, shown.full_to_truth.fsc[1:], color=ORANGE, linestyle="--", label="full map to truth")
    axes.plot(frequency, shown.denoised_to_truth.fsc[1:], color=BLUE, label="denoised to truth")
    axes.axhline(0.5, color=GREEN, linewidth=0.8)
    axes.set(ylabel="FSC, masked", ylim=(-0.1, 1.05))
    resolution_axis(axes, frequency[-1])
    axes.legend(loc="lower left")
    return figure_bytes(figure, kind)


def _slice(axes, name, array, shown):
    """The plane in which the truth has most, at the truth's own contrast: each map by the scale that fits it best."""
    plane = int(np.argmax(np.square(shown.truth * shown.mask).sum((1, 2))))
    inside = shown.mask > 0.5
    variation, like = array[inside] - array[inside].mean(), shown.truth[inside] - shown.truth[inside].mean()
    scale = np.dot(variation, like) / max(np.dot(variation, variation), 1e-30)
    image = (array[plane] - array[inside].mean()) * (scale if scale > 0 else 1) * (shown.mask[plane] > 0)
    reach = 3 * like.std()
    axes.imshow(image, cmap="gray", vmin=-reach / 2, vmax=reach, origin="lower")
    axes.set_title(name)
    axes.set_xticks([])
    axes.set_yticks([])
