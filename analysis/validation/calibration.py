"""Compare calibrated maps to the full map, the Wiener filter, and the network's own output.

    python -m analysis calibration ENTRY... -o DIR --weights W [W ...]

Every ENTRY has `truth.mrc` and `mask.mrc`. Its half-maps are denoised as `crefjax denoise` does, without a mask (or
with `--mask` the entry's), once with one factor for the network's own output (`--scale input`), once on the signal's
scale, calibrated. The Wiener filter is `2 FSC / (1 + FSC)` of the masked half-maps, 0 from where that FSC first falls
below 0.143; the mean is kept. Within the mask m they are compared with the truth t by

    error          sum |m (x - t)|² / sum |m t|²
    correlation    of the voxels with m > 0.5
    FSC            mean over shells 1 to N/2 - 1, masked

A calibrated map passes if its error is at most the Wiener filter's, its correlation at least that of the Wiener filter
and of the network's own output, and its mean FSC at most 0.002 below that of the network's own output. It writes

    calibration.csv          a row for each entry and map
    calibration.txt          the same as a table to read
    calibration.json         settings, versions, how many maps pass and by how much the worst one fails
    calibration.png, .svg    FSC to the truth and each shell's part of the error, a row for each entry
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from analysis.baselines.filters import wiener
from analysis.framework.output import FULL
from analysis.framework.resample import correlation
from analysis.framework.study import Study, add_weights, load_named
from analysis.metrics.truth_error import error
from crefjax.errors import UserError
from crefjax.inference.denoise import denoise_maps
from crefjax.inference.request import DenoiseRequest
from crefjax.io.entries import Entry, find_entry, load_mask, load_pair
from crefjax.io.maps import full_map, read_map
from crefjax.plotting import AMBER, BLUE, GRAY, GREEN, ORANGE, PINK, resolution_axis
from crefjax.spectral.covariances import shell_covariances
from crefjax.spectral.curves import FscCurve
from crefjax.spectral.fsc import fsc_curve

WIENER, OWN, CALIBRATED = "Wiener filter", "network's own", "calibrated"
ALLOWED_FSC = 0.002
_COLORS = (ORANGE, BLUE, GREEN, PINK, AMBER)


class Score(NamedTuple):
    """One map of one entry against the truth; `weights` is empty if no network made it."""

    entry: str
    weights: str
    map: str
    error: float
    correlation: float
    curve: FscCurve
    error_shells: np.ndarray

    @property
    def fsc(self) -> float:
        """Mean FSC to the truth, shells 1 to N/2 - 1."""
        return float(self.curve.fsc[1:-1].mean())


def _add_arguments(parser):
    parser.add_argument("entries", nargs="+", metavar="ENTRY", help="entry folder with a mask and a truth")
    add_weights(parser)
    parser.add_argument("--mask", action="store_true", help="denoise with the entry's mask, not without one")


def _run(arguments, output):
    start = time.monotonic()
    entries = [_find(path) for path in arguments.entries]
    if len({entry.name for entry in entries}) != len(entries):
        names = ", ".join(entry.name for entry in entries)
        raise UserError(f"expected every entry once, found {names}; name each once")
    weights = load_named(arguments.weights)
    scores = []
    for entry in entries:
        of_entry = score_entry(entry, weights, with_mask=arguments.mask)
        scores += of_entry
        print(_table(of_entry), end="", flush=True)
    shortfall = shortfalls(scores)
    passes = sum(max(by.values()) <= 0 for by in shortfall.values())
    report = {
        "entries": [str(path) for path in arguments.entries],
        "weights": [{"path": str(each.path), "sha256": each.card["sha256"]} for each in weights.values()],
        "mask_given": arguments.mask,
        "calibrated_maps": len(shortfall),
        "passes": passes,
        "worst": {name: max(by[name] for by in shortfall.values()) for name in ("error", "correlation", "fsc")},
        "missed": [
            {"entry": entry, "weights": name, "by": {criterion: value for criterion, value in by.items() if value > 0}}
            for (entry, name), by in shortfall.items()
            if max(by.values()) > 0
        ],
    }
    header = ["entry", "box", "voxel_size", "weights", "map", "error", "correlation", "mean_fsc_truth", "passes"]
    output.write_csv(header, _rows(scores))
    output.write("txt", _table(scores))
    output.write_json(report, seconds=time.monotonic() - start)
    output.write_figure(_figure(scores))
    print(f"passes: {passes} of {len(shortfall)}")


def _find(path):
    entry = find_entry(path)
    for file in ("mask", "truth"):
        if getattr(entry, file) is None:
            raise UserError(f"{path}: expected an entry with {file}.mrc, found none; give a simulated entry")
    return entry


def score_entry(entry: Entry, weights: dict, *, with_mask: bool = False) -> list[Score]:
    """Compare every map of an entry to its truth.

    Args:
        entry: with mask and truth.
        weights: loaded, by the name for the table.
        with_mask: whether the entry's mask is given to the denoiser.
    """
    pair = load_pair(entry.half_map_1, entry.half_map_2)
    mask, truth = load_mask(entry.mask, pair[0]), read_map(entry.truth).array
    full = full_map(pair[0].array, pair[1].array)
    curve = fsc_curve(pair[0].array, pair[1].array, pair[0].voxel_size, mask.array, leveled=True)
    maps = {("", FULL): full, ("", WIENER): wiener(full, curve)}
    for name, each in weights.items():
        given = mask if with_mask else None
        for scale, label in (("input", OWN), ("signal", CALIBRATED)):
            maps[name, label] = denoise_maps(DenoiseRequest(pair, each, given, scale=scale)).full.array
    return [
        Score(entry.name, name, label, *_compare(array, truth, mask.array, pair[0].voxel_size))
        for (name, label), array in maps.items()
    ]


def _compare(array, truth, mask, voxel_size):
    """Return error, correlation, FSC to the truth, and each shell's part of the error."""
    array = np.asarray(array, np.float32)
    inside = mask > 0.5
    power = np.sum((mask * truth.astype(np.float64)) ** 2)
    covariances = shell_covariances([array - truth], mask)
    volume = np.sum(mask.astype(np.float64) ** 2) / (mask.size * power)
    shells = covariances.of(0, 0) * covariances.voxels * volume
    whole = error(array, truth, mask, leveled=False)
    return whole, correlation(array[inside], truth[inside]), fsc_curve(array, truth, voxel_size, mask), shells


def shortfalls(scores: Sequence[Score]) -> dict[tuple[str, str], dict[str, float]]:
    """Return by how much each calibrated map, by (entry, weights), fails each criterion: above 0 only if it does.

    Error: relative to the Wiener filter's. Correlation: below the better of the Wiener filter and the network's own
    output. FSC: below the network's own output, less the allowed difference.
    """
    by_map = {(score.entry, score.weights, score.map): score for score in scores}
    shortfall = {}
    for (entry, weights, label), score in by_map.items():
        if label != CALIBRATED:
            continue
        filtered, own = by_map[entry, "", WIENER], by_map[entry, weights, OWN]
        shortfall[entry, weights] = {
            "error": score.error / filtered.error - 1,
            "correlation": max(filtered.correlation, own.correlation) - score.correlation,
            "fsc": own.fsc - score.fsc - ALLOWED_FSC,
        }
    return shortfall


def _rows(scores):
    shortfall = shortfalls(scores)
    for score in scores:
        passes = "" if score.map != CALIBRATED else int(max(shortfall[score.entry, score.weights].values()) <= 0)
        row = [score.entry, max(score.curve.box), f"{score.curve.voxel_size:.4g}", score.weights, score.map]
        yield [*row, f"{score.error:.6f}", f"{score.correlation:.6f}", f"{score.fsc:.6f}", passes]


def _table(scores):
    shortfall = shortfalls(scores)
    width = max(len(score.weights) for score in scores) + 2
    lines = [f"{'entry':14}{'weights':{width}}{'map':15}{'error':>9}{'correlation':>13}{'mean FSC':>10}"]
    for score in scores:
        line = f"{score.entry:14}{score.weights:{width}}{score.map:15}"
        line += f"{score.error:9.4f}{score.correlation:13.4f}{score.fsc:10.4f}"
        by = shortfall.get((score.entry, score.weights), {}) if score.map == CALIBRATED else {}
        lines.append(line + "".join(f"  {name} fails by {value:.4f}" for name, value in by.items() if value > 0))
    return "\n".join(lines) + "\n"


def _figure(scores):
    names = list(dict.fromkeys(score.entry for score in scores))
    figure = Figure(figsize=(11, 2.7 * len(names) + 0.6), layout="constrained")
    rows = figure.subplots(len(names), 2, squeeze=False)
    weights = [name for name in dict.fromkeys(score.weights for score in scores) if name]
    lines = {FULL: ":", WIENER: "-", OWN: "--", CALIBRATED: "-"}
    for row, name in zip(rows, names, strict=True):
        for score in (score for score in scores if score.entry == name):
            color = GRAY if not score.weights else _COLORS[weights.index(score.weights) % len(_COLORS)]
            label = ", ".join(filter(None, (score.weights, score.map)))
            style = {"color": color, "linestyle": lines[score.map], "linewidth": 1.3, "label": label}
            row[0].plot(score.curve.frequency[1:-1], score.curve.fsc[1:-1], **style)
            if score.map != OWN:  # which is on another scale
                row[1].semilogy(score.curve.frequency[1:-1], score.error_shells[1:-1], **style)
        row[0].set(title=name, ylabel="FSC to the truth, masked", ylim=(-0.1, 1.05))
        row[1].set(ylabel="Error of the shell (of 1)", title=f"{name}: parts of the error")
        for axes in row:
            resolution_axis(axes, score.curve.frequency[-1])
    handles, labels = rows[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 4), fontsize=8, frameon=False)
    return figure


STUDY = Study(__name__, _run, _add_arguments)
