"""What a denoised map has that the truth does not: its error, and the bias measured with the truth, not estimated.

    python -m analysis.against_truth ENTRY... -o DIR [--methods A,B] [--jobs N]

For entries with `truth.mrc`. Within the mask m, with the truth t and the denoised full map x, every map relative to its
level in the solvent, the error is

    sum |m (x - t)|² / sum |m t|²

and for methods that denoised each half-map alone, with `cov` the mean over a shell of Re F1 conj(F2) of masked maps,

    bias             cov(D1,D2) - cov(T,D1) - cov(T,D2) + cov(T,T)      |E[D] - T|² on average over noise
    added structure  cov(D1,D2) - cov(T,D)² / cov(T,T)                  the part of it that is no factor on the truth

in every shell over cov(T,T), and averaged over shells up to that where the FSC of the half-maps falls below 0.143, and
beyond it up to the last but one. The share of added structure is told over what is left of the signal, the average of
cov(T,D)² / cov(T,T)²: one factor on all shells does not change it, as it does that of bias. Noise of either half is in
neither, but for scatter: a share can come out below 0.
"""

import sys
from collections.abc import Sequence
from typing import NamedTuple

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
from crefjax.spectral.curves import solvent_level

_ERROR = Headline("error", "error against the truth, within the mask", -1, 4)
_BIAS = Headline("bias_share", "bias/signal, with the truth, up to FSC-0.143", -1, 4)
_ADDED = Headline("added_share", "added structure/signal, with the truth, up to FSC-0.143", -1, 4)
_LEAST_KEPT = 1e-9  # of the signal's power


def measure(subject: Subject) -> Row:
    """Error, and shares of bias and of added structure, by shell and on average."""
    truth = read_on_grid(subject.entry.truth, subject.pair[0]).map.array
    numbers = {"error": error(subject.full.array, truth, subject.mask)}
    if subject.method == FULL or subject.halves is None:
        return Row(numbers, {})
    curve = subject.measured.curve
    at = curve.resolution(0.143).angstrom
    found = per_signal([one.array for one in subject.halves], truth, subject.mask)
    within = up_to(curve.frequency, at)
    numbers |= averaged(found, within)
    numbers |= {f"{name}_beyond": one for name, one in averaged(found, up_to(curve.frequency, 0) & ~within).items()}
    curves = {"relative": curve.frequency * at, "frequency": curve.frequency, **found._asdict()}
    return Row(numbers, {name: one.tolist() for name, one in curves.items()})


def error(one: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """The squared error within the mask over the power of the truth there.

    Args:
        one: `(z, y, x)`.
        truth: the same.
        mask: the same, 0 to 1.
    """
    one, truth = (
        mask * (each.astype(np.float64) - solvent_level(each.astype(np.float32), mask)) for each in (one, truth)
    )
    return float(np.sum((one - truth) ** 2) / np.sum(truth**2))


class PerSignal(NamedTuple):
    """Powers in two denoised half-maps over that of the truth, `(shells,)` each.

    Attributes:
        bias: of the difference to the truth, on average over noise.
        added: of the part of it that is no factor on the truth.
        kept: of the truth's part in them.
    """

    bias: np.ndarray
    added: np.ndarray
    kept: np.ndarray


def per_signal(halves: Sequence[np.ndarray], truth: np.ndarray, mask: np.ndarray) -> PerSignal:
    """Bias, added structure and what is kept, by shell.

    Args:
        halves: of independent noise, `(z, y, x)`.
        truth: the same.
        mask: the same, 0 to 1.
    """
    maps = [truth, *halves]
    found = shell_covariances(maps, mask, levels=[solvent_level(one, mask) for one in maps])
    signal = np.maximum(found.of(0, 0), np.finfo(np.float64).tiny)
    with_truth, common = (found.of(0, 1) + found.of(0, 2)) / 2, found.of(1, 2)
    kept = (with_truth / signal) ** 2
    return PerSignal((common - 2 * with_truth + signal) / signal, common / signal - kept, kept)


def up_to(frequency: np.ndarray, resolution: float) -> np.ndarray:
    """Which shells lie between the first and the last but one and, if a resolution in Å is given, not beyond it."""
    inner = np.arange(len(frequency))
    return (inner > 0) & (inner < len(frequency) - 1) & (frequency * resolution <= 1)


def averaged(found: PerSignal, shells: np.ndarray) -> dict[str, float | None]:
    """`bias_share` and `added_share` over some shells; None where there are none."""
    if not shells.any():
        return {"bias_share": None, "added_share": None}
    bias, added, kept = (float(one[shells].mean()) for one in found)
    # A map of which nothing is kept adds to no signal: the quotient of two roundings would say anything.
    return {"bias_share": bias, "added_share": added / kept if kept > _LEAST_KEPT else None}


def figure(rows: list[dict]) -> Figure:
    """Boxes of the three numbers, and the shares by shell of up to three entries."""
    entries = list(dict.fromkeys(row["entry"] for row in rows if row["curves"]))[:3]
    page = Figure(figsize=(15, 4 * (1 + bool(entries))), layout="constrained")
    panels = page.subplots(1 + bool(entries), 3, squeeze=False)
    for axes, headline in zip(panels[0], (_ERROR, _BIAS, _ADDED), strict=True):
        box_plot(axes, rows, headline)
    for axes, entry in zip(panels[-1] if entries else (), entries, strict=False):
        for row in (row for row in rows if row["entry"] == entry and row["curves"]):
            x, y = (np.array(row["curves"][name])[1:-1] for name in ("frequency", "added"))
            axes.semilogy(x, np.where(y > 0, y, np.nan), color=colour_of(rows, row["method"]), label=row["method"])
        resolution_axis(axes, row["curves"]["frequency"][-1])
        axes.set(title=entry, ylabel="added structure/signal")
        small_legend(axes)
    for axes in panels[-1][len(entries) :] if entries else ():
        axes.remove()
    return page


def needs(entry: Entry) -> str | None:
    """Why an entry cannot be measured."""
    return None if entry.truth else "it has no truth.mrc"


STUDY = Study("against_truth", __doc__.splitlines()[0], measure, (_ERROR, _BIAS, _ADDED), figure, needs)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study; returns 0, or 2 after a mistake of the user's, told in one line."""
    return study_main(STUDY, argv)


if __name__ == "__main__":
    sys.exit(main())
