"""What a denoised map has that the truth does not: its error, and the bias measured with the truth, not estimated.

    python -m analysis.against_truth ENTRY... -o DIR [--methods A,B] [--jobs N]

For entries with `truth.mrc`. Within the mask m, with the truth t and the denoised full map x, every map relative to its
level in the solvent, the error is

    sum |m (x - t)|² / sum |m t|²

and for methods that denoised each half-map alone, with `cov` the mean over a shell of Re F1 conj(F2) of masked maps,

    bias             cov(D1,D2) - cov(T,D1) - cov(T,D2) + cov(T,T)      |E[D] - T|² on average over noise
    added structure  cov(D1,D2) - cov(T,D)² / cov(T,T)                  the part of it that is no factor on the truth

as shares of the signal, cov(T,T) and cov(T,D)² / cov(T,T), averaged over shells up to that where the FSC of the
half-maps falls below 0.143, and beyond it up to the last but one. The first depends on the scale of the map, the second
does not. Noise of either half is in neither, but for scatter: a share can come out below 0.
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
from crefjax.report.plots import resolution_axis
from crefjax.spectral.calibrate import solvent_level
from crefjax.spectral.covariances import shell_covariances

_ERROR = Headline("error", "error against the truth, within the mask", -1, 4)
_BIAS = Headline("bias_share", "bias/signal, with the truth, up to FSC-0.143", -1, 4)
_ADDED = Headline("added_share", "added structure/signal, with the truth, up to FSC-0.143", -1, 4)


def measure(subject: Subject) -> Row:
    """Error, and shares of bias and of added structure, by shell and on average."""
    truth = read_on_grid(subject.entry.truth, subject.pair[0]).map.array
    numbers = {"error": error(subject.full.array, truth, subject.mask)}
    if subject.method == FULL or subject.halves is None:
        return Row(numbers, {})
    curve = subject.measured.curve
    at = curve.resolution(0.143).angstrom
    bias, added = shares([one.array for one in subject.halves], truth, subject.mask)
    within = (curve.frequency > 0) & (curve.frequency <= 1 / at)
    beyond = ~within & (np.arange(len(within)) > 0) & (np.arange(len(within)) < len(within) - 1)
    for name, one in (("bias", bias), ("added", added)):
        numbers |= {f"{name}_share": _mean(one[within]), f"{name}_share_beyond": _mean(one[beyond])}
    curves = {"relative": curve.frequency * at, "frequency": curve.frequency, "bias": bias, "added": added}
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


def shares(halves: Sequence[np.ndarray], truth: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bias and added structure of two denoised half-maps as shares of the signal, `(shells,)` each.

    Args:
        halves: of independent noise, `(z, y, x)`.
        truth: the same.
        mask: the same, 0 to 1.
    """
    maps = [truth, *halves]
    found = shell_covariances(maps, mask, levels=[solvent_level(one, mask) for one in maps])
    signal = np.maximum(found.of(0, 0), np.finfo(np.float64).tiny)
    with_truth, common = (found.of(0, 1) + found.of(0, 2)) / 2, found.of(1, 2)
    kept = np.maximum(with_truth**2 / signal, np.finfo(np.float64).tiny)
    return (common - 2 * with_truth + signal) / signal, (common - kept) / kept


def _mean(values):
    return float(values.mean()) if len(values) else None


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
