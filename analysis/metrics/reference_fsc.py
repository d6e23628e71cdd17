"""Measure the FSC of full and denoised maps to a better map of the specimen, or to the truth.

    python -m analysis reference_fsc ENTRY... -o DIR [--methods A,B] [--jobs N]

For entries with `truth.mrc`, or else `reference.mrc`, on the grid of the half-maps or brought to it. Masked, every map
relative to its level in the solvent; mean over shells 1 to N/2 - 1, where the curve falls below 0.5 and 0.143, and the
least difference in any of these shells to the full map's FSC: below 0 the method makes a shell worse than it was. As
figure 3 of Agarwal et al. (2024), IUCrJ 11.
"""

import numpy as np
from matplotlib.figure import Figure

from analysis.framework.entry_study import EntryStudy, MethodOutput, Row
from analysis.framework.output import FULL, Headline, box_plot, color_of, small_legend
from analysis.framework.resample import correlation, read_resampled
from crefjax.io.entries import Entry
from crefjax.plotting import resolution_axis
from crefjax.spectral.covariances import shell_covariances
from crefjax.spectral.curves import FscCurve, solvent_level

_MEAN = Headline("mean_fsc", "mean FSC to the reference", 1, 4)
_HALF = Headline("fsc_0.5", "FSC-0.5 to the reference (Å)", -1, 2)


def measure(maps: MethodOutput) -> Row:
    """Return the FSC to the truth, or else to the reference, and the correlation within the mask."""
    entry = maps.entry
    reference = read_resampled(entry.truth or entry.reference, maps.pair[0]).map.array
    arrays = [maps.full.array, reference, maps.mean]
    levels = [solvent_level(array, maps.mask) for array in arrays]
    covariances = shell_covariances(arrays, maps.mask, levels=levels)
    curve = FscCurve(reference.shape, maps.voxel_size, covariances.fsc(0, 1))
    gain = curve.fsc - covariances.fsc(2, 1)
    numbers = {"reference": "truth" if entry.truth else "reference", "mean_fsc": float(curve.fsc[1:-1].mean())}
    numbers["least_gain"] = float(gain[1:-1].min())
    for threshold in (0.5, 0.143):
        at = curve.resolution(threshold)
        numbers |= {f"fsc_{threshold}": at.angstrom, f"falls_below_{threshold}": int(at.crossed)}
    inside = maps.mask > 0.5
    numbers["correlation"] = correlation(maps.full.array[inside], reference[inside])
    return Row(numbers, {"frequency": curve.frequency.tolist(), "fsc": curve.fsc.tolist()})


def figure(rows: list[dict]) -> Figure:
    """Draw boxes of both numbers, and the curves of up to six entries."""
    entries = list(dict.fromkeys(row["entry"] for row in rows))[:6]
    lines = 1 + -(-len(entries) // 3)
    page = Figure(figsize=(15, 4 * lines), layout="constrained")
    grid = page.add_gridspec(lines, 6)
    for place, headline in enumerate((_MEAN, _HALF)):
        box_plot(page.add_subplot(grid[0, 3 * place : 3 * place + 3]), rows, headline)
    for number, entry in enumerate(entries):
        column = 2 * (number % 3)
        axes = page.add_subplot(grid[1 + number // 3, column : column + 2])
        for row in (row for row in rows if row["entry"] == entry):
            x, fsc = (np.array(row["curves"][name])[1:-1] for name in ("frequency", "fsc"))
            line = ":" if row["method"] == FULL else "-"
            axes.plot(x, fsc, color=color_of(rows, row["method"]), label=row["method"], linestyle=line)
        resolution_axis(axes, row["curves"]["frequency"][-1])
        axes.set(title=f"{entry}: FSC to its {row['reference']}", ylabel="FSC, masked", ylim=(-0.1, 1.05))
        small_legend(axes)
    return page


def skip_reason(entry: Entry) -> str | None:
    """Return why an entry cannot be measured, or None."""
    return None if entry.truth or entry.reference else "it has no truth.mrc or reference.mrc"


STUDY = EntryStudy(__name__, measure, (_MEAN, _HALF), figure, skip_reason)
