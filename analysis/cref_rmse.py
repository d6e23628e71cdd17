"""How closely a denoised map follows C_ref: RMSE between FSC(denoised, full)² and C_ref², a box for each method.

    python -m analysis.cref_rmse ENTRY... -o DIR [--methods A,B] [--jobs N]

FSC² keeps the sign of the FSC. Masked with the entry's mask, or one made of its half-maps; shells 1 to N/2 - 1. Agarwal
et al. (2024), IUCrJ 11, figures 1 and S1. Following C_ref is consistent with the half-maps; it is not nearness to the
truth, which `reference_map` measures.
"""

import sys
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from analysis.over_entries import Headline, Row, Study
from analysis.study_main import study_main
from analysis.subjects import FULL, Subject
from analysis.tables import box_plot, colour_of, small_legend
from crefjax.report.plots import GREY, resolution_axis

_RMSE = Headline("cref_rmse", "RMSE of FSC² to C_ref²", -1, 4)


def measure(subject: Subject) -> Row:
    """The RMSE, and both curves."""
    measured = subject.measured
    cref, found = measured.curve.cref, measured.with_full
    inner = slice(1, len(found) - 1)
    difference = found * np.abs(found) - cref**2
    numbers = {"cref_rmse": float(np.sqrt(np.mean(difference[inner] ** 2)))}
    numbers["fsc_half_0.143"] = measured.curve.resolution(0.143).angstrom
    curves = {"frequency": measured.curve.frequency, "cref": cref, "fsc": found}
    return Row(numbers, {name: one.tolist() for name, one in curves.items()})


def figure(rows: list[dict]) -> Figure:
    """Boxes, and the curves of up to four entries."""
    shown = [row for row in rows if row["method"] != FULL] or rows
    entries = list(dict.fromkeys(row["entry"] for row in rows))[:4]
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


STUDY = Study("cref_rmse", __doc__.splitlines()[0], measure, (_RMSE,), figure)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study; returns 0, or 2 after a mistake of the user's, told in one line."""
    return study_main(STUDY, argv)


if __name__ == "__main__":
    sys.exit(main())
