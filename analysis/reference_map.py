"""How near full and denoised map are to a better map of the specimen, or to the truth: their FSC to it.

    python -m analysis.reference_map ENTRY... -o DIR [--methods A,B] [--jobs N]

For entries with `truth.mrc`, or else `reference.mrc`, on the grid of the half-maps or brought to it. Masked, every map
relative to its level in the solvent; mean over shells 1 to N/2 - 1, where the curve falls below 0.5 and 0.143, and the
least difference in any of these shells to the full map's FSC: below 0 the method makes a shell worse than it was. As
figure 3 of Agarwal et al. (2024), IUCrJ 11.
"""

import sys
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from analysis.grids import read_on_grid
from analysis.over_entries import Headline, Row, Study
from analysis.study_main import study_main
from analysis.subjects import FULL, Subject
from analysis.tables import box_plot, colour_of, small_legend
from crefjax.io.entries import Entry
from crefjax.plotting import resolution_axis
from crefjax.spectral.covariances import shell_covariances
from crefjax.spectral.curves import FscCurve, solvent_level

_MEAN = Headline("mean_fsc", "mean FSC to the reference", 1, 4)
_HALF = Headline("fsc_0.5", "FSC-0.5 to the reference (Å)", -1, 2)


def measure(subject: Subject) -> Row:
    """FSC to the truth, or else to the reference, and the normalized error and correlation within the mask."""
    entry = subject.entry
    better = read_on_grid(entry.truth or entry.reference, subject.pair[0]).map.array
    first, second = (half.array for half in subject.pair)
    maps = [subject.full.array, better, (first + second) * np.float32(0.5)]
    levels = [solvent_level(one, subject.mask) for one in maps]
    found = shell_covariances(maps, subject.mask, levels=levels)
    curve = FscCurve(better.shape, subject.voxel_size, found.fsc(0, 1))
    gain = curve.fsc - found.fsc(2, 1)
    numbers = {"reference": "truth" if entry.truth else "reference", "mean_fsc": float(curve.fsc[1:-1].mean())}
    numbers["least_gain"] = float(gain[1:-1].min())
    for threshold in (0.5, 0.143):
        at = curve.resolution(threshold)
        numbers |= {f"fsc_{threshold}": at.angstrom, f"falls_below_{threshold}": int(at.crossed)}
    inside = subject.mask > 0.5
    numbers["correlation"] = float(np.corrcoef(maps[0][inside], maps[1][inside])[0, 1])
    return Row(numbers, {"frequency": curve.frequency.tolist(), "fsc": curve.fsc.tolist()})


def figure(rows: list[dict]) -> Figure:
    """Boxes of both numbers, and the curves of up to six entries."""
    entries = list(dict.fromkeys(row["entry"] for row in rows))[:6]
    page = Figure(figsize=(15, 4 * (1 + -(-len(entries) // 3))), layout="constrained")
    grid = page.add_gridspec(1 + -(-len(entries) // 3), 6)
    for place, headline in enumerate((_MEAN, _HALF)):
        box_plot(page.add_subplot(grid[0, 3 * place : 3 * place + 3]), rows, headline)
    for number, entry in enumerate(entries):
        column = 2 * (number % 3)
        axes = page.add_subplot(grid[1 + number // 3, column : column + 2])
        for row in (row for row in rows if row["entry"] == entry):
            x, fsc = (np.array(row["curves"][name])[1:-1] for name in ("frequency", "fsc"))
            color = colour_of(rows, row["method"])
            axes.plot(x, fsc, color=color, label=row["method"], linestyle=":" if row["method"] == FULL else "-")
        resolution_axis(axes, row["curves"]["frequency"][-1])
        axes.set(title=f"{entry}: FSC to its {row['reference']}", ylabel="FSC, masked", ylim=(-0.1, 1.05))
        small_legend(axes)
    return page


def needs(entry: Entry) -> str | None:
    """Why an entry cannot be measured."""
    return None if entry.truth or entry.reference else "it has no truth.mrc or reference.mrc"


STUDY = Study("reference_map", __doc__.splitlines()[0], measure, (_MEAN, _HALF), figure, needs)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study; returns 0, or 2 after a mistake of the user's, told in one line."""
    return study_main(STUDY, argv)


if __name__ == "__main__":
    sys.exit(main())
