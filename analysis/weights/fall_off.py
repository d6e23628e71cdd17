"""Measure how the fall-off of the network's input changes its output.

    python -m analysis fall_off ENTRY... -o DIR [--weights W] [--ratios R ...]

For entries with `truth.mrc`, and the working grid of `crefjax denoise`. The full map is denoised with its signal at the
B-factors that are given, in units of the squared resolution, as it is, and as `crefjax denoise` brings it there
(`b_factors.best_blur`). The mean FSC to the truth of the network's own output is measured under the entry's mask over
shells 1 to N/2 - 1. DIR/fall_off.csv has a row for each entry, and DIR/fall_off.json the same; a table of all is
printed.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from analysis.framework.study import Study
from crefjax.errors import UserError
from crefjax.inference.denoise import denoise_maps
from crefjax.inference.memory_plan import plan_denoise
from crefjax.inference.request import read_request
from crefjax.io.entries import Entry, find_entry
from crefjax.io.maps import read_map
from crefjax.spectral.b_factors import signal_b_factor
from crefjax.spectral.covariances import shell_covariances
from crefjax.spectral.curves import shell_frequencies, shell_products, solvent_level

RATIOS = (2.0, 4.0, 6.0, 9.0, 13.0)


def measure(entry: Entry, weights: str | None, ratios: list[float]) -> dict:
    """Return the row of an entry: resolution and B-factor of its half-maps, and mean FSC to the truth by fall-off."""
    request = read_request(entry.half_map_1, entry.half_map_2, entry.mask, weights, scale="input")
    plan = plan_denoise(request)
    if request.mask is None or plan.grid.resolution is None:
        missing = "mask" if request.mask is None else "resolution by which a working grid is chosen"
        raise UserError(f"{entry.path}: expected a {missing}, found none; take another entry, or other weights")
    halves, mask = [half_map.array for half_map in request.pair], request.mask.array
    products = shell_products(halves, mask, levels=[solvent_level(half, mask) for half in halves])
    estimate = signal_b_factor(products, shell_frequencies(mask.shape, request.pair[0].voxel_size))
    if estimate is None:
        raise UserError(f"{entry.path}: too few shells show the fall-off of the signal; leave it out")
    b_factor, squared = estimate[0], plan.grid.resolution**2
    truth = read_map(entry.truth).array
    blurs = {"as it is": 0.0, "default": plan.grid.blur} | {f"{r:g}": r * squared - b_factor for r in ratios}
    row = {"entry": entry.name, "resolution": plan.grid.resolution, "b_factor": b_factor, "error": estimate[1]}
    for name, blur in blurs.items():
        changed = replace(plan, grid=replace(plan.grid, blur=float(blur)))
        row[name] = _mean_fsc(denoise_maps(request, changed).full.array, truth, mask)
    return row


def _mean_fsc(array, truth, mask):
    levels = [solvent_level(array, mask), solvent_level(truth, mask)]
    return float(shell_covariances([array, truth], mask, levels=levels).fsc(0, 1)[1:-1].mean())


def _add_arguments(parser):
    parser.add_argument("entries", metavar="ENTRY", type=Path, nargs="+", help="folders of entries with truth.mrc")
    parser.add_argument("--weights", metavar="W", help="name or folder (default: that of the package)")
    parser.add_argument(
        "--ratios", metavar="R", type=float, nargs="+", default=list(RATIOS), help="B-factors over squared resolution"
    )


def _run(arguments, output):
    entries = [find_entry(path) for path in arguments.entries]
    for entry in entries:
        if entry.truth is None:
            raise UserError(f"{entry.path}: expected an entry with truth.mrc, found none; simulate it")
    rows = []
    for entry in entries:
        rows.append(measure(entry, arguments.weights, arguments.ratios))
        print("  ".join(f"{name} {_text(value)}" for name, value in rows[-1].items()), flush=True)
    names = list(rows[0])[4:]
    print("mean  " + "  ".join(f"{name} {np.mean([row[name] for row in rows]):.4f}" for name in names))
    output.write_csv(list(rows[0]), (list(row.values()) for row in rows))
    output.write_json({"rows": rows})


def _text(value):
    return value if isinstance(value, str) else f"{value:.4g}"


STUDY = Study(__name__, _run, _add_arguments)
