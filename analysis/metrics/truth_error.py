"""Measure error, bias, and added structure of denoised maps against the truth.

    python -m analysis truth_error ENTRY... -o DIR [--methods A,B] [--jobs N]

For entries with `truth.mrc`. Within the mask m, with the truth t and the denoised full map x, every map relative to its
level in the solvent, the error is

    sum |m (x - t)|² / sum |m t|²

and for methods that denoised each half-map alone, with `cov` the mean over a shell of Re F1 conj(F2) of masked maps,

    bias             cov(D1,D2) - cov(T,D1) - cov(T,D2) + cov(T,T)      |E[D] - T|² on average over noise
    added structure  cov(D1,D2) - cov(T,D)² / cov(T,T)                  what no rescaling of the truth explains

both in every shell, relative to cov(T,T), and averaged up to the shell where the FSC of the half-maps falls below
0.143, and from there to the last but one. The share of added structure is relative to what is left of the signal,
the average of cov(T,D)² / cov(T,T)²: unlike the share of bias, it does not depend on a factor on all shells. Noise of
either half adds only scatter to both, so that a share can be below 0.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from analysis.framework.entry_study import EntryStudy, MethodOutput, Row
from analysis.framework.output import FULL, Headline, box_plot, color_of, small_legend
from analysis.framework.resample import read_resampled
from crefjax.io.entries import Entry
from crefjax.plotting import resolution_axis
from crefjax.spectral.covariances import shell_covariances
from crefjax.spectral.curves import solvent_level

_ERROR = Headline("error", "error against the truth, within the mask", -1, 4)
_BIAS = Headline("bias_share", "bias/signal, with the truth, up to FSC-0.143", -1, 4)
_ADDED = Headline("added_share", "added structure/signal, with the truth, up to FSC-0.143", -1, 4)
_LEAST_KEPT = 1e-9  # of the signal's power


def measure(maps: MethodOutput) -> Row:
    """Return the error, and the shares of bias and of added structure, by shell and on average."""
    truth = read_resampled(maps.entry.truth, maps.pair[0]).map.array
    numbers = {"error": error(maps.full.array, truth, maps.mask)}
    if maps.method == FULL or maps.halves is None:
        return Row(numbers, {})
    curve = maps.measured.curve
    at = curve.resolution(0.143).angstrom
    bias = bias_by_shell([half_map.array for half_map in maps.halves], truth, maps.mask)
    within = shells_up_to(curve.frequency, at)
    beyond = average_shells(bias, shells_up_to(curve.frequency, 0) & ~within)
    numbers |= average_shells(bias, within) | {f"{name}_beyond": share for name, share in beyond.items()}
    curves = {"relative": curve.frequency * at, "frequency": curve.frequency, **bias._asdict()}
    return Row(numbers, {name: values.tolist() for name, values in curves.items()})


def error(array: np.ndarray, truth: np.ndarray, mask: np.ndarray, *, leveled: bool = True) -> float:
    """Return the squared error within the mask over the power of the truth there.

    Args:
        array: the map, `(z, y, x)`.
        truth: the same.
        mask: the same, 0 to 1.
        leveled: whether each map is taken relative to its level in the solvent.
    """
    array, truth = (
        mask * (each.astype(np.float64) - (solvent_level(each.astype(np.float32), mask) if leveled else 0))
        for each in (array, truth)
    )
    return float(np.sum((array - truth) ** 2) / np.sum(truth**2))


class BiasByShell(NamedTuple):
    """Powers in two denoised half-maps over that of the truth, `(shells,)` each.

    Attributes:
        bias: of the difference to the truth, on average over noise.
        added: of the part of it that no factor on the truth gives.
        kept: of the truth's part in them.
    """

    bias: np.ndarray
    added: np.ndarray
    kept: np.ndarray


def bias_by_shell(halves: Sequence[np.ndarray], truth: np.ndarray, mask: np.ndarray) -> BiasByShell:
    """Return bias, added structure, and what is kept of the signal, by shell.

    Args:
        halves: denoised half-maps, `(z, y, x)`, of independent noise.
        truth: the same.
        mask: the same, 0 to 1.
    """
    arrays = [truth, *halves]
    covariances = shell_covariances(arrays, mask, levels=[solvent_level(array, mask) for array in arrays])
    signal = np.maximum(covariances.of(0, 0), np.finfo(np.float64).tiny)
    with_truth, common = (covariances.of(0, 1) + covariances.of(0, 2)) / 2, covariances.of(1, 2)
    kept = (with_truth / signal) ** 2
    return BiasByShell((common - 2 * with_truth + signal) / signal, common / signal - kept, kept)


def shells_up_to(frequency: np.ndarray, resolution: float) -> np.ndarray:
    """Return which shells, without the first and the last, lie within a resolution in Å; all for 0."""
    shells = np.arange(len(frequency))
    return (shells > 0) & (shells < len(frequency) - 1) & (frequency * resolution <= 1)


def average_shells(by_shell: BiasByShell, shells: np.ndarray) -> dict[str, float | None]:
    """Return `bias_share` and `added_share` over some shells; None for no shells."""
    if not shells.any():
        return {"bias_share": None, "added_share": None}
    bias, added, kept = (float(values[shells].mean()) for values in by_shell)
    # Where nothing of the signal is kept, the quotient would be that of two rounding errors.
    return {"bias_share": bias, "added_share": added / kept if kept > _LEAST_KEPT else None}


def figure(rows: list[dict]) -> Figure:
    """Draw box plots of the three numbers, and the shares by shell of up to three entries."""
    entries = list(dict.fromkeys(row["entry"] for row in rows if row["curves"]))[:3]
    page = Figure(figsize=(15, 4 * (1 + bool(entries))), layout="constrained")
    panels = page.subplots(1 + bool(entries), 3, squeeze=False)
    for axes, headline in zip(panels[0], (_ERROR, _BIAS, _ADDED), strict=True):
        box_plot(axes, rows, headline)
    for axes, entry in zip(panels[-1] if entries else (), entries, strict=False):
        for row in (row for row in rows if row["entry"] == entry and row["curves"]):
            x, y = (np.array(row["curves"][name])[1:-1] for name in ("frequency", "added"))
            axes.semilogy(x, np.where(y > 0, y, np.nan), color=color_of(rows, row["method"]), label=row["method"])
        resolution_axis(axes, row["curves"]["frequency"][-1])
        axes.set(title=entry, ylabel="added structure/signal")
        small_legend(axes)
    for axes in panels[-1][len(entries) :] if entries else ():
        axes.remove()
    return page


def skip_reason(entry: Entry) -> str | None:
    """Return why an entry cannot be measured, or None."""
    return None if entry.truth else "it has no truth.mrc"


STUDY = EntryStudy(__name__, measure, (_ERROR, _BIAS, _ADDED), figure, skip_reason)
