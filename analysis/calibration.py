"""How near to the truth a calibrated map is: beside the full map, the Wiener filter and the network's own output.

    python -m analysis.calibration ENTRY... -o DIR --weights W [W ...]

Every ENTRY has `truth.mrc` and `mask.mrc`. Its half-maps are denoised as `crefjax denoise` does, without a mask (or
with `--mask` the entry's), once with one factor for the network's own output (`--scale input`), once on the signal's
scale, calibrated. The Wiener filter is `2 FSC / (1 + FSC)` of the masked half-maps, 0 from where that FSC first falls
below 0.143; the mean is kept. Within the mask m they are compared with the truth t by

    error          sum |m (x - t)|² / sum |m t|²
    correlation    of the voxels with m > 0.5
    FSC            mean over shells 1 to N/2 - 1, masked

A calibrated map is as wanted if its error is at most the Wiener filter's, its correlation at least that of the Wiener
filter and of the network's own output, and its mean FSC at most 0.002 below that of the network's own output. It writes

    calibration.csv          a row for each entry and map
    calibration.txt          the same as a table to read
    calibration.json         settings, versions, how many are as wanted and by how much the worst is not
    calibration.png, .svg    FSC to the truth and what a shell adds to the error, a row for each entry
"""

import argparse
import csv
import io
import json
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure

from analysis.files import check_output, load_named, put, run_study
from analysis.filters import wiener
from crefjax import __version__
from crefjax.errors import UserError
from crefjax.inference.denoise import denoise_maps
from crefjax.inference.request import DenoiseRequest
from crefjax.io.entries import find_entry, load_mask, load_pair
from crefjax.io.maps import read_map
from crefjax.plotting import BLUE, GREEN, GREY, ORANGE, figure_bytes, resolution_axis
from crefjax.spectral.covariances import shell_covariances
from crefjax.spectral.curves import FscCurve
from crefjax.spectral.fsc import fsc_curve

NAME = "calibration"
FULL, WIENER, OWN, CALIBRATED = "full map", "Wiener filter", "network's own", "calibrated"
ALLOWED_FSC = 0.002
_COLOURS = (ORANGE, BLUE, GREEN, "#CC79A7", "#E69F00")  # of Okabe & Ito's palette, as the others


class Scored(NamedTuple):
    """One map of one entry beside the truth; `weights` is empty where there is no network."""

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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study; returns 0, or 2 after a mistake of the user's, told in one line."""
    return run_study(NAME, _parser(), _run, argv)


def _parser():
    parser = argparse.ArgumentParser(prog=f"python -m analysis.{NAME}", description=__doc__.splitlines()[0])
    parser.add_argument("entries", nargs="+", metavar="ENTRY", help="entry folder with a mask and a truth")
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="folder to write")
    parser.add_argument("--weights", nargs="+", required=True, metavar="W", help="names or folders of weights")
    parser.add_argument("--mask", action="store_true", help="denoise with the entry's mask, not without one")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run")
    return parser


def _run(arguments):
    folder, start = Path(arguments.output), time.monotonic()
    check_output(folder, f"{NAME}.csv", overwrite=arguments.overwrite)
    entries = [_entry(path) for path in arguments.entries]
    if len({one.name for one in entries}) != len(entries):
        raise UserError(f"expected every entry once, found {', '.join(one.name for one in entries)}; name each once")
    weights = load_named(arguments.weights)
    folder.mkdir(exist_ok=True)
    scores = []
    for entry in entries:
        scores += score(entry, weights, with_mask=arguments.mask)
        print(_table([one for one in scores if one.entry == entry.name]), end="", flush=True)
    report = _summary(scores, arguments, weights, time.monotonic() - start)
    put(folder / f"{NAME}.csv", _csv(scores))
    put(folder / f"{NAME}.txt", _table(scores).encode())
    put(folder / f"{NAME}.json", (json.dumps(report, indent=2) + "\n").encode())
    for kind in ("png", "svg"):
        put(folder / f"{NAME}.{kind}", _figure(scores, kind))
    print(f"as wanted: {report['as_wanted']} of {report['calibrated_maps']}")
    return 0


def _entry(path):
    entry = find_entry(path)
    for what in ("mask", "truth"):
        if getattr(entry, what) is None:
            raise UserError(f"{path}: expected an entry with {what}.mrc, found none; give a simulated entry")
    return entry


def score(entry, weights: dict, *, with_mask: bool = False) -> list[Scored]:
    """Every map of an entry beside its truth.

    Args:
        entry: with mask and truth.
        weights: loaded, by the name to tell.
        with_mask: whether the entry's mask is given to the denoiser.
    """
    pair = load_pair(entry.half_map_1, entry.half_map_2)
    mask, truth = load_mask(entry.mask, pair[0]), read_map(entry.truth).array
    full = (pair[0].array + pair[1].array) / 2
    curve = fsc_curve(pair[0].array, pair[1].array, pair[0].voxel_size, mask.array, leveled=True)
    maps = {("", FULL): full, ("", WIENER): wiener(full, curve)}
    for name, one in weights.items():
        given = mask if with_mask else None
        for scale, label in (("input", OWN), ("signal", CALIBRATED)):
            maps[name, label] = denoise_maps(DenoiseRequest(pair, one, given, scale=scale)).full.array
    return [
        Scored(entry.name, name, label, *_beside(one, truth, mask.array, pair[0].voxel_size))
        for (name, label), one in maps.items()
    ]


def _beside(one, truth, mask, voxel_size):
    """Error, correlation, FSC to the truth, and what every shell adds to the error."""
    one = np.asarray(one, np.float32)
    inside = mask > 0.5
    power = np.sum((mask * truth.astype(np.float64)) ** 2)
    error = float(np.sum((mask * (one.astype(np.float64) - truth)) ** 2) / power)
    found = shell_covariances([one - truth], mask)
    shells = found.of(0, 0) * found.voxels * np.sum(mask.astype(np.float64) ** 2) / (mask.size * power)
    correlation = float(np.corrcoef(one[inside].astype(np.float64), truth[inside].astype(np.float64))[0, 1])
    return error, correlation, fsc_curve(one, truth, voxel_size, mask), shells


def misses(scores: Sequence[Scored]) -> dict[tuple[str, str], dict[str, float]]:
    """By how much each calibrated map, by (entry, weights), is not as wanted: above 0 only where it is not.

    Error: relative to the Wiener filter's. Correlation: below the better of the Wiener filter and the network's own
    output. FSC: below the network's own output, less what is allowed.
    """
    found = {(one.entry, one.weights, one.map): one for one in scores}
    told = {}
    for (entry, weights, label), one in found.items():
        if label != CALIBRATED:
            continue
        filtered, own = found[entry, "", WIENER], found[entry, weights, OWN]
        told[entry, weights] = {
            "error": one.error / filtered.error - 1,
            "correlation": max(filtered.correlation, own.correlation) - one.correlation,
            "fsc": own.fsc - one.fsc - ALLOWED_FSC,
        }
    return told


def _csv(scores):
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        ["entry", "box", "voxel_size", "weights", "map", "error", "correlation", "mean_fsc_truth", "as_wanted"]
    )
    told = misses(scores)
    for one in scores:
        wanted = "" if one.map != CALIBRATED else int(max(told[one.entry, one.weights].values()) <= 0)
        row = [one.entry, max(one.curve.box), f"{one.curve.voxel_size:.4g}", one.weights, one.map]
        writer.writerow([*row, f"{one.error:.6f}", f"{one.correlation:.6f}", f"{one.fsc:.6f}", wanted])
    return stream.getvalue().encode()


def _table(scores):
    told = misses(scores)
    width = max(len(one.weights) for one in scores) + 2
    lines = [f"{'entry':14}{'weights':{width}}{'map':15}{'error':>9}{'correlation':>13}{'mean FSC':>10}"]
    for one in scores:
        line = f"{one.entry:14}{one.weights:{width}}{one.map:15}{one.error:9.4f}{one.correlation:13.4f}{one.fsc:10.4f}"
        missed = told.get((one.entry, one.weights), {}) if one.map == CALIBRATED else {}
        lines.append(line + "".join(f"  {name} not as wanted, by {by:.4f}" for name, by in missed.items() if by > 0))
    return "\n".join(lines) + "\n"


def _summary(scores, arguments, weights, seconds):
    told = misses(scores)
    return {
        "crefjax": __version__,
        "jax": jax.__version__,
        "python": platform.python_version(),
        "seconds": round(seconds, 1),
        "entries": [str(path) for path in arguments.entries],
        "weights": [{"path": str(one.path), "sha256": one.card["sha256"]} for one in weights.values()],
        "mask_given": arguments.mask,
        "calibrated_maps": len(told),
        "as_wanted": sum(max(one.values()) <= 0 for one in told.values()),
        "worst": {name: max(one[name] for one in told.values()) for name in ("error", "correlation", "fsc")},
        "missed": [
            {"entry": entry, "weights": name, "by": {criterion: by for criterion, by in one.items() if by > 0}}
            for (entry, name), one in told.items()
            if max(one.values()) > 0
        ],
    }


def _figure(scores, kind):
    names = list(dict.fromkeys(one.entry for one in scores))
    figure = Figure(figsize=(11, 2.7 * len(names) + 0.6), layout="constrained")
    rows = figure.subplots(len(names), 2, squeeze=False)
    weights = [one for one in dict.fromkeys(one.weights for one in scores) if one]
    for row, name in zip(rows, names, strict=True):
        for one in (one for one in scores if one.entry == name):
            color = GREY if not one.weights else _COLOURS[weights.index(one.weights) % len(_COLOURS)]
            line = {FULL: ":", WIENER: "-", OWN: "--", CALIBRATED: "-"}[one.map]
            label = ", ".join(part for part in (one.weights, one.map) if part)
            style = {"color": color, "linestyle": line, "linewidth": 1.3, "label": label}
            row[0].plot(one.curve.frequency[1:-1], one.curve.fsc[1:-1], **style)
            if one.map != OWN:  # whose scale is not one to compare
                row[1].semilogy(one.curve.frequency[1:-1], one.error_shells[1:-1], **style)
        row[0].set(title=name, ylabel="FSC to the truth, masked", ylim=(-0.1, 1.05))
        row[1].set(ylabel="Error of the shell (of 1)", title=f"{name}: what adds to the error")
        for axes in row:
            resolution_axis(axes, one.curve.frequency[-1])
    handles, labels = rows[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 4), fontsize=8, frameon=False)
    return figure_bytes(figure, kind)


if __name__ == "__main__":
    sys.exit(main())
