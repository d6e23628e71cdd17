"""Measure how denoising changes the half-maps' FSC-0.5: from (M1, M2) to (D2, M1), in Å.

    python -m analysis half_map_fsc ENTRY... -o DIR [--methods A,B] [--jobs N]

M1 is noisy and D2 was made of M2 alone, so that no noise is in both and the FSC cannot be inflated by what a program
does with its own input; it is the mean of (D2, M1) and (D1, M2). An FSC between D1 and D2 would not be a resolution:
both went through the same program. Agarwal et al. (2024), IUCrJ 11, figure 2. Methods without denoised half-maps
are left out.
"""

import numpy as np
from matplotlib.figure import Figure

from analysis.framework.entry_study import EntryStudy, MethodOutput, Row
from analysis.framework.output import FULL, Headline, box_plot, color_of, small_legend
from crefjax.plotting import GRAY, resolution_axis
from crefjax.spectral.covariances import shell_covariances
from crefjax.spectral.curves import FscCurve, solvent_level

_MASKED = Headline("gain_masked", "gain in FSC-0.5, masked (Å)", 1, 2)
_UNMASKED = Headline("gain_unmasked", "gain in FSC-0.5, unmasked (Å)", 1, 2)


def measure(maps: MethodOutput) -> Row | None:
    """Return FSC-0.5 before and after denoising; a gain is positive."""
    if maps.method == FULL or maps.halves is None:
        return None
    arrays = [half_map.array for half_map in (*maps.pair, *maps.halves)]
    levels = [solvent_level(array, maps.mask) for array in arrays]
    numbers, curves = {}, {}
    for name, mask in (("masked", maps.mask), ("unmasked", None)):
        covariances = shell_covariances(arrays, mask, levels=levels)
        before, after = covariances.fsc(0, 1), (covariances.fsc(0, 3) + covariances.fsc(1, 2)) / 2
        pair = [FscCurve(arrays[0].shape, maps.voxel_size, fsc) for fsc in (before, after)]
        at = [curve.resolution(0.5) for curve in pair]
        numbers |= {f"half_maps_{name}": at[0].angstrom, f"denoised_{name}": at[1].angstrom}
        crossed = all(resolution.crossed for resolution in at)
        numbers[f"gain_{name}"] = at[0].angstrom - at[1].angstrom if crossed else None
        curves |= {f"before_{name}": before.tolist(), f"after_{name}": after.tolist()}
    return Row(numbers, curves | {"frequency": pair[0].frequency.tolist()})


def figure(rows: list[dict]) -> Figure:
    """Draw boxes, and the masked curves of up to three entries."""
    entries = list(dict.fromkeys(row["entry"] for row in rows))[:3]
    page = Figure(figsize=(15, 8 if entries else 4), layout="constrained")
    grid = page.add_gridspec(2 if entries else 1, 6)
    for place, headline in enumerate((_MASKED, _UNMASKED)):
        axes = page.add_subplot(grid[0, 3 * place : 3 * place + 3])
        box_plot(axes, rows, headline)
        axes.axhline(0, color=GRAY, linewidth=0.8)
    for number, entry in enumerate(entries):
        axes = page.add_subplot(grid[1, 2 * number : 2 * number + 2])
        of_entry = [row for row in rows if row["entry"] == entry]
        for row in of_entry:
            x, after = (np.array(row["curves"][name])[1:-1] for name in ("frequency", "after_masked"))
            axes.plot(x, after, color=color_of(rows, row["method"]), label=f"(D2, M1), {row['method']}")
        before = np.array(of_entry[0]["curves"]["before_masked"])[1:-1]
        axes.plot(x, before, color=GRAY, linestyle=":", label="(M1, M2)")
        axes.axhline(0.5, color=GRAY, linewidth=0.8)
        resolution_axis(axes, of_entry[0]["curves"]["frequency"][-1])
        axes.set(title=entry, ylabel="FSC, masked", ylim=(-0.1, 1.05))
        small_legend(axes)
    return page


STUDY = EntryStudy(__name__, measure, (_MASKED, _UNMASKED), figure)
