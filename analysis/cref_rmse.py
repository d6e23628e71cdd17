"""How closely a denoised map follows C_ref: RMSE between FSC(denoised, full)² and C_ref², a box for each method.

    python -m analysis.cref_rmse ENTRY... -o DIR [--methods A,B] [--jobs N]

FSC² keeps the sign of the FSC. Masked with the entry's mask, or one made of its half-maps, and once more in the whole
box, where the FSC of the half-maps, and so C_ref, is lower; shells 1 to N/2 - 1. Agarwal et al. (2024), IUCrJ 11,
figures 1 and S1. Following C_ref is consistent with the half-maps; it is not nearness to the truth, which
`reference_map` measures.
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
from crefjax.spectral.fsc import fsc_curve

_RMSE = Headline("cref_rmse", "RMSE of FSC² to C_ref²", -1, 4)
_IN_BOX = Headline("cref_rmse_box", "RMSE of FSC² to C_ref², whole box", -1, 4)


def measure(subject: Subject) -> Row:
    """The RMSE, and both curves."""
    measured = subject.measured
    cref, found = measured.curve.cref, measured.with_full
    first, second = (one.array for one in subject.pair)
    in_box = fsc_curve(subject.full.array, (first + second) * np.float32(0.5), subject.voxel_size).fsc
    cref_in_box = fsc_curve(first, second, subject.voxel_size).cref
    numbers = {"cref_rmse": _rmse(found, cref), "cref_rmse_box": _rmse(in_box, cref_in_box)}
    numbers["fsc_half_0.143"] = measured.curve.resolution(0.143).angstrom
    curves = {"frequency": measured.curve.frequency, "cref": cref, "fsc": found}
    return Row(numbers, {name: one.tolist() for name, one in curves.items()})


def _rmse(found, cref):
    return float(np.sqrt(np.mean((found * np.abs(found) - cref**2)[1:-1] ** 2)))


def figure(rows: list[dict]) -> Figure:
    """Boxes, and the curves of up to four entries."""
    shown = [row for row in rows if row["method"] != FULL] or rows
    entries = list(dict.fromkeys(row["entry"] for row in shown))[:4]
    page = Figure(figsize=(4.2 * (1 + len(entries)), 4), layout="constrained")
    first, *others = page.subplots(1, 1 + len(entries), squeeze=False)[0]
    box_plot(first, shown, _RMSE)
    for axes, entry in zip(others, entries, strict=True):
        here = [row for row in shown if row["entry"] == entry]
        for row in here:
            x, fsc = (np.array(row["curves"][name])[1:-1] for name in ("frequency", "fsc"))
            color = colour_of(shown, row["method"])
            axes.plot(x, fsc * np.abs(fsc), color=color, label=row["method"])
        axes.plot(x, np.array(here[0]["curves"]["cref"])[1:-1] ** 2, color=GREY, linestyle="--", label="C_ref²")
        resolution_axis(axes, here[0]["curves"]["frequency"][-1])
        axes.set(title=entry, ylabel="FSC(denoised, full)²", ylim=(-0.1, 1.05))
        small_legend(axes)
    return page


STUDY = Study("cref_rmse", __doc__.splitlines()[0], measure, (_RMSE, _IN_BOX), figure)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study; returns 0, or 2 after a mistake of the user's, told in one line."""
    return study_main(STUDY, argv)


if __name__ == "__main__":
    sys.exit(main())
