"""Measure how closely a denoised map follows C_ref: RMSE between FSC(denoised, full)² and C_ref².

    python -m analysis cref_rmse ENTRY... -o DIR [--methods A,B] [--jobs N]

FSC² keeps the sign of the FSC. Masked with the entry's mask, or one made of its half-maps, and once more in the whole
box, where the FSC of the half-maps, and so C_ref, is lower; shells 1 to N/2 - 1. Agarwal et al. (2024), IUCrJ 11,
figures 1 and S1. Following C_ref is consistent with the half-maps; it does not measure nearness to the truth, as
`reference_fsc` does.
"""

import numpy as np
from matplotlib.figure import Figure

from analysis.framework.entry_study import EntryStudy, MethodOutput, Row
from analysis.framework.output import FULL, Headline, box_plot, color_of, small_legend
from crefjax.plotting import GRAY, resolution_axis
from crefjax.spectral.fsc import fsc_curve

_RMSE = Headline("cref_rmse", "RMSE of FSC² to C_ref²", -1, 4)
_IN_BOX = Headline("cref_rmse_box", "RMSE of FSC² to C_ref², whole box", -1, 4)


def measure(maps: MethodOutput) -> Row:
    """Return the RMSE, masked and in the whole box, and the masked curves."""
    curve, fsc = maps.measured.curve, maps.measured.fsc_to_full
    first, second = (half_map.array for half_map in maps.pair)
    fsc_in_box = fsc_curve(maps.full.array, maps.mean, maps.voxel_size).fsc
    cref_in_box = fsc_curve(first, second, maps.voxel_size).cref
    numbers = {"cref_rmse": _rmse(fsc, curve.cref), "cref_rmse_box": _rmse(fsc_in_box, cref_in_box)}
    numbers["fsc_half_0.143"] = curve.resolution(0.143).angstrom
    return Row(numbers, {"frequency": curve.frequency.tolist(), "cref": curve.cref.tolist(), "fsc": fsc.tolist()})


def _rmse(fsc, cref):
    return float(np.sqrt(np.mean((fsc * np.abs(fsc) - cref**2)[1:-1] ** 2)))


def figure(rows: list[dict]) -> Figure:
    """Draw boxes, and the curves of up to four entries."""
    shown = [row for row in rows if row["method"] != FULL] or rows
    entries = list(dict.fromkeys(row["entry"] for row in shown))[:4]
    page = Figure(figsize=(4.2 * (1 + len(entries)), 4), layout="constrained")
    first, *others = page.subplots(1, 1 + len(entries), squeeze=False)[0]
    box_plot(first, shown, _RMSE)
    for axes, entry in zip(others, entries, strict=True):
        of_entry = [row for row in shown if row["entry"] == entry]
        for row in of_entry:
            x, fsc = (np.array(row["curves"][name])[1:-1] for name in ("frequency", "fsc"))
            axes.plot(x, fsc * np.abs(fsc), color=color_of(shown, row["method"]), label=row["method"])
        axes.plot(x, np.array(of_entry[0]["curves"]["cref"])[1:-1] ** 2, color=GRAY, linestyle="--", label="C_ref²")
        resolution_axis(axes, of_entry[0]["curves"]["frequency"][-1])
        axes.set(title=entry, ylabel="FSC(denoised, full)²", ylim=(-0.1, 1.05))
        small_legend(axes)
    return page


STUDY = EntryStudy(__name__, measure, (_RMSE, _IN_BOX), figure)
