"""What denoising does to the half-maps' FSC-0.5: from (M1, M2) to (D2, M1), masked and unmasked, in Å.

    python -m analysis.fsc_half ENTRY... -o DIR [--methods A,B] [--jobs N]

M1 is noisy and D2 was made of M2 alone, so that no noise is in both and the FSC cannot be inflated by what a program
does with its own input; it is the mean of (D2, M1) and (D1, M2). One between D1 and D2 would be no resolution: both
went through the same program. Agarwal et al. (2024), IUCrJ 11, figure 2. Methods without denoised half-maps
are not in it.
"""

import sys
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from analysis.over_entries import Headline, Row, Study
from analysis.study_main import study_main
from analysis.subjects import FULL, Subject
from analysis.tables import box_plot, colour_of, small_legend
from crefjax.plotting import GREY, resolution_axis
from crefjax.spectral.covariances import shell_covariances
from crefjax.spectral.curves import FscCurve, solvent_level

_MASKED = Headline("gain_masked", "gain in FSC-0.5, masked (Å)", 1, 2)
_UNMASKED = Headline("gain_unmasked", "gain in FSC-0.5, unmasked (Å)", 1, 2)


def measure(subject: Subject) -> Row | None:
    """FSC-0.5 of both pairs of maps; a gain is positive."""
    if subject.method == FULL or subject.halves is None:
        return None
    arrays = [one.array for one in (*subject.pair, *subject.halves)]
    levels = [solvent_level(one, subject.mask) for one in arrays]
    numbers, curves = {}, {}
    for name, mask in (("masked", subject.mask), ("unmasked", None)):
        found = shell_covariances(arrays, mask, levels=levels)
        before = found.fsc(0, 1)
        after = (found.fsc(0, 3) + found.fsc(1, 2)) / 2
        pair = [FscCurve(arrays[0].shape, subject.voxel_size, one) for one in (before, after)]
        at = [one.resolution(0.5) for one in pair]
        numbers |= {f"half_maps_{name}": at[0].angstrom, f"denoised_{name}": at[1].angstrom}
        numbers[f"gain_{name}"] = at[0].angstrom - at[1].angstrom if all(one.crossed for one in at) else None
        curves |= {f"before_{name}": before.tolist(), f"after_{name}": after.tolist()}
    return Row(numbers, curves | {"frequency": pair[0].frequency.tolist()})


def figure(rows: list[dict]) -> Figure:
    """Boxes, and the masked curves of up to three entries."""
    entries = list(dict.fromkeys(row["entry"] for row in rows))[:3]
    page = Figure(figsize=(15, 8 if entries else 4), layout="constrained")
    grid = page.add_gridspec(2 if entries else 1, 6)
    for place, headline in enumerate((_MASKED, _UNMASKED)):
        axes = page.add_subplot(grid[0, 3 * place : 3 * place + 3])
        box_plot(axes, rows, headline)
        axes.axhline(0, color=GREY, linewidth=0.8)
    for number, entry in enumerate(entries):
        axes = page.add_subplot(grid[1, 2 * number : 2 * number + 2])
        here = [row for row in rows if row["entry"] == entry]
        for row in here:
            x, after = (np.array(row["curves"][name])[1:-1] for name in ("frequency", "after_masked"))
            color = colour_of(rows, row["method"])
            axes.plot(x, after, color=color, label=f"(D2, M1), {row['method']}")
        axes.plot(x, np.array(here[0]["curves"]["before_masked"])[1:-1], color=GREY, linestyle=":", label="(M1, M2)")
        axes.axhline(0.5, color=GREY, linewidth=0.8)
        resolution_axis(axes, here[0]["curves"]["frequency"][-1])
        axes.set(title=entry, ylabel="FSC, masked", ylim=(-0.1, 1.05))
        small_legend(axes)
    return page


STUDY = Study("fsc_half", __doc__.splitlines()[0], measure, (_MASKED, _UNMASKED), figure)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study; returns 0, or 2 after a mistake of the user's, told in one line."""
    return study_main(STUDY, argv)


if __name__ == "__main__":
    sys.exit(main())
