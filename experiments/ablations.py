"""Measure training choices: runs of the same budget that differ from `configs/weights.py` in one choice each.

    python -m experiments.ablations MODELS -o DIR [--rows NAME ...] [--seeds N]

Every row of `ROWS` is trained on the same number of voxels, with one or more seeds, and denoises `ENTRIES`, whose
models no run was trained on, as `crefjax denoise` does. The command writes

    ablations.csv    a row for each choice and seed: the means over the entries
    ablations.md     a table for reading: the difference of each choice from the first row, and the scatter of seeds

A command that was killed continues when it is run again. MODELS contains `cryoem/`, `em/`, and `docking/`. Five to ten
minutes for each row and seed on two cores.
"""

import argparse
import csv
import io
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from analysis.baselines.filters import wiener
from analysis.framework.command import run_command
from analysis.framework.simulation import simulate_entry
from analysis.metrics.truth_error import average_shells, bias_by_shell, error, shells_up_to
from crefjax.cli.main import main as crefjax
from crefjax.errors import UserError
from crefjax.inference.denoise import denoise_maps
from crefjax.inference.request import DenoiseRequest
from crefjax.io.entries import find_entry, load_mask, load_pair
from crefjax.io.maps import read_map
from crefjax.losses import cref_rmse
from crefjax.spectral.curves import solvent_level
from crefjax.spectral.fsc import fsc_curve
from crefjax.utils.atomic import write_bytes
from crefjax.weights.store import load_weights
from experiments.configs.weights import EXCLUDE

NAME = "ablations"
CONFIG = Path(__file__).parent / "configs" / "weights.py"
VOXELS = 800 * 64**3  # total over the patches of a run
MODELS = ("cryoem/*.cif.gz", "em/*.gz")
# Models that no run is trained on and that are in no benchmark, so that benchmarks influence no choice. Large complexes
# come first: small ones alone did not show what matters for most maps.
ENTRIES = {
    "em/6o1p.pdb.gz": "--voxel-size 1.1 --resolution 3.3 --b-factor 60 --seed 9001",
    "em/7pbl.pdb.gz": "--voxel-size 1.25 --resolution 4.1 --b-factor 40 --seed 9002 --noise-b-factor 30",
    "em/6out.pdb.gz": "--voxel-size 0.9 --resolution 2.5 --b-factor 30 --seed 9003",
    "em/7nsg.cif.gz": "--voxel-size 1.2 --resolution 3.5 --b-factor 100 --seed 9004 --noise-power 0.4",
    "docking/4FQI_target.pdb.gz": "--voxel-size 1.9 --resolution 4.9 --seed 8001",
    "docking/1T6B_target.pdb.gz": "--voxel-size 1.6 --resolution 5.6 --b-factor 80 --seed 8002 --noise-power 0.7",
    "docking/3LVK_target.pdb.gz": "--voxel-size 1.4 --resolution 4.2 --seed 8003 --noise-b-factor 30",
    "docking/4LW4_target.pdb.gz": "--voxel-size 1.7 --resolution 4.1 --method reconstruction --seed 8004",
}
_BASE = {
    "average": 0.98, "schedule.name": "cosine", "schedule.cycle_steps": 0,
    "evaluation.every_epochs": 0, "checkpoint.every_minutes": 0.0,
}  # fmt: skip
# The models of `analysis/weights/simulated_benchmark.py` (with one that is the same protein as one of them) and of
# `ENTRIES`.
_DOCKING_NEVER = ",".join(
    f"{name}_target" for name in ("1GP2", "2VDB", "4GAM", "1H1V", "1EXB", "1KXP", "4FQI", "1T6B", "3LVK", "4LW4")
)
_TRUTH_OFF = {"losses.truth_fsc": 0.0, "losses.truth_l2": 0.0}
_CREF = _TRUTH_OFF | {"losses.cref_l1": 0.5, "losses.cref_l1_masked": 0.5}
ROWS = {
    "all as in weights.py": {},
    "noise and scale of each patch": {
        "data.stream.whole_map": False, "data.stream.gain": (0.9, 2.2), "data.stream.level": (0.1, 1.0),
    },
    "docking complexes too": {
        "models": (*MODELS, "docking/*.pdb.gz"), "data.stream.exclude": f"{EXCLUDE},{_DOCKING_NEVER}",
    },
    "FSC-0.143 at 2.1 to 5 voxels": {"data.stream.resolution": (2.1, 5.0)},
    "FSC-0.143 at 2.9 to 3.1 voxels": {"data.stream.resolution": (2.9, 3.1)},
    "B-factors of 10 to 150 Å² alone": {"data.stream.b_factor": (10.0, 150.0)},
    "voxels of 0.8 to 1.6 Å alone": {"data.stream.voxel_size": (0.8, 1.6)},
    "no sharpened and low-passed inputs": {"data.stream.sharpened": 0.0, "data.stream.low_passed": 0.0},
    "no belts and flexible parts": {"data.stream.belt": 0.0, "data.stream.flexible": 0.0},
    "white, even noise alone": {
        "data.stream.noise_b": (0.0, 0.0), "data.stream.noise_power": (0.0, 0.0), "data.stream.unevenness": (0.0, 0.0),
    },
    "inputs never masked": {"data.stream.masked": 0.0},
    "inputs always masked": {"data.stream.masked": 1.0},
    "loss: truth_fsc alone": {"losses.truth_l2": 0.0},
    "loss: 0.1 of truth_l2": {"losses.truth_l2": 0.1},
    "loss: 1 of truth_l2": {"losses.truth_l2": 1.0},
    "loss: truth_fsc within the mask": {"losses.truth_fsc": 0.0, "losses.truth_fsc_masked": 1.0},
    "by half-maps alone: 0.5 cref_l1, 0.5 cref_l1_masked, 0.3 gain_l1": _CREF | {"losses.gain_l1": 0.3},
    "width 24 and 48": {"network.down_width": 24, "network.up_width": 48, "network.last_widths": (24, 12)},
    "width 8 and 16": {"network.down_width": 8, "network.up_width": 16, "network.last_widths": (8, 8)},
    "depth 2": {"network.depth": 2},
    "depth 4": {"network.depth": 4},
    "depth 5": {"network.depth": 5},
    "patches of 96³, as many voxels": {"data.patch": 96, "batch": 1},
    "patches of 32³, as many voxels": {"data.patch": 32, "batch": 16},
    "optimizer: Adam": {"optimizer.name": "adam"},
    "rate 1e-3": {"schedule.rate": 1e-3},
    "rate 4e-3": {"schedule.rate": 4e-3},
    "no average of the weights": {"average": 0.0},
}  # fmt: skip
COLUMNS = {
    "mean_fsc": "mean FSC to the truth",
    "own_fsc": "of the network's own output",
    "least_gain": "its smallest gain in any shell",
    "error": "error after calibration, relative to the Wiener filter",
    "cref_rmse": "RMSE to C_ref²",
    "bias_share": "bias/signal, up to FSC-0.143",
    "added_share": "added structure/signal, up to FSC-0.143",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 2 after a mistake by the user."""
    parser = argparse.ArgumentParser(prog=f"python -m experiments.{NAME}", description=__doc__.splitlines()[0])
    parser.add_argument("models", metavar="MODELS", type=Path, help="folder with cryoem/, em/, and docking/")
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--rows", nargs="+", metavar="NAME", help="rows to run, by the beginnings of their names (default: all)"
    )
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="number of seeds of every row (default: 1)")
    return run_command(NAME, parser, _run, argv)


def _run(arguments):
    folder = arguments.output
    names = [name for name in ROWS if not arguments.rows or name.startswith(tuple(arguments.rows))]
    if not names:
        raise UserError(f"--rows: expected beginnings of {'; '.join(ROWS)}, found {', '.join(arguments.rows)}")
    if arguments.seeds < 1:
        raise UserError(f"--seeds: expected at least 1, found {arguments.seeds}")
    entries = [
        simulate_entry(arguments.models / model, options, folder / "entries") for model, options in ENTRIES.items()
    ]
    for seed in range(arguments.seeds):
        for name in names:
            run = folder / f"{re.sub('[^a-z0-9]+', '-', name.lower())}--{seed}"
            if not (run / "scores.json").is_file():
                start = time.monotonic()
                scores = {"row": name, "seed": seed, **_trained(run, ROWS[name], seed, arguments.models, entries)}
                scores["minutes"] = (time.monotonic() - start) / 60
                write_bytes(run / "scores.json", (json.dumps(scores, indent=2) + "\n").encode())
                print(f"{name}, seed {seed}: " + ", ".join(f"{key} {scores[key]:.4f}" for key in COLUMNS), flush=True)
    write(folder)
    return 0


def fields(changes: dict, seed: int, models: str | Path) -> list[str]:
    """Return the arguments of `crefjax train` for the run of a row.

    Args:
        changes: Fields of `CONFIG` that the row changes.
        seed: Random seed of the run.
        models: Folder with `cryoem/`, `em/`, and, for a row that uses it, `docking/`.
    """
    changes = dict(changes)
    patterns = ",".join(f"{models}/{pattern}" for pattern in changes.pop("models", MODELS))
    settings = {"batch": 2, "data.patch": 64, **_BASE, **changes, "seed": seed, "data.stream.models": patterns}
    steps = round(VOXELS / settings["batch"] / settings["data.patch"] ** 3)
    settings |= {"steps": steps, "epoch_steps": steps}
    return [f"--config.{name}={value}" for name, value in settings.items()]


def _trained(run, changes, seed, models, entries):
    """Train a run, and return its mean scores over the entries."""
    if crefjax(["train", f"--config={CONFIG}", f"--workdir={run}", *fields(changes, seed, models)]) != 0:
        raise UserError(f"{run}: the run failed, see above")
    weights = load_weights(run / "last")
    scores = [measure(weights, entry) for entry in entries]
    return {key: float(np.mean([score[key] for score in scores])) for key in COLUMNS} | {"entries": scores}


def measure(weights, path: Path) -> dict:
    """Return the scores of weights on an entry with truth and mask, with the keys of `COLUMNS`.

    Args:
        weights: Loaded weights.
        path: Folder of the entry.
    """
    entry = find_entry(path)
    pair = load_pair(entry.half_map_1, entry.half_map_2)
    mask, truth = load_mask(entry.mask, pair[0]).array, read_map(entry.truth).array
    done = denoise_maps(DenoiseRequest(pair, weights, half_maps=True))
    own = denoise_maps(DenoiseRequest(pair, weights, scale="none")).full.array
    curve = fsc_curve(pair[0].array, pair[1].array, pair[0].voxel_size, mask)
    full = (pair[0].array + pair[1].array) / 2
    own_curve, full_curve, done_curve = (
        fsc_curve(array - np.float32(solvent_level(array, mask)), truth, pair[0].voxel_size, mask).fsc[1:-1]
        for array in (own, full, done.full.array)
    )
    shares = bias_by_shell([done.half_map_1.array, done.half_map_2.array], truth, mask)
    maps = [
        np.asarray((array - np.float32(solvent_level(array, mask))) * mask, np.float32)[None]
        for array in (own, pair[0].array, pair[1].array)
    ]
    return {
        "entry": path.name,
        "mean_fsc": float(done_curve.mean()),
        "own_fsc": float(own_curve.mean()),
        "least_gain": float((own_curve - full_curve).min()),
        "error": error(done.full.array, truth, mask) / error(wiener(full, curve), truth, mask),
        "cref_rmse": float(cref_rmse(*maps)[0]),
        **average_shells(shares, shells_up_to(curve.frequency, curve.resolution(0.143).angstrom)),
    }


def write(folder: Path) -> None:
    """Write the tables of all runs in a folder."""
    runs = [json.loads(path.read_text()) for path in sorted(folder.glob("*/scores.json"))]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["row", "seed", *COLUMNS, "minutes"])
    writer.writerows([[run["row"], run["seed"], *(f"{run[key]:.5f}" for key in (*COLUMNS, "minutes"))] for run in runs])
    write_bytes(folder / "ablations.csv", stream.getvalue().encode())
    write_bytes(folder / "ablations.md", table(runs).encode())


def table(runs: Sequence[dict]) -> str:
    """Return a Markdown table of the means over seeds.

    The first row shows the standard deviation of its seeds; the others show the mean difference from it, seed by seed.

    Args:
        runs: Contents of the files `scores.json`.
    """
    first = {run["seed"]: run for run in runs if run["row"] == next(iter(ROWS))}
    lines = ["| choice | seeds | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 2) + "|"]
    for name in ROWS:
        row = [run for run in runs if run["row"] == name]
        if not row:
            continue
        cells = []
        for key in COLUMNS:
            values = np.array([run[key] for run in row])
            cell = f"{values.mean():.3f}"
            if name == next(iter(ROWS)):
                cell += f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else ""
            elif differences := [run[key] - first[run["seed"]][key] for run in row if run["seed"] in first]:
                cell += f" ({np.mean(differences):+.3f})"
            cells.append(cell)
        lines.append(f"| {name} | {len(row)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
