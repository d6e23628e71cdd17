"""Loss and validation over training, of one or more runs beside each other.

    python -m analysis.convergence WORKDIR... -o DIR

WORKDIR is what `crefjax train --workdir` wrote. It writes convergence.csv (a row for each run and step that was told),
convergence.json (settings, and the best held-out numbers of each run) and convergence.png and .svg. As figure S2 of
Agarwal et al. (2024), IUCrJ 11.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from analysis.files import check_output, put, run_study
from analysis.tables import COLOURS, table
from crefjax import __version__
from crefjax.errors import UserError
from crefjax.io.files import read_json_lines
from crefjax.plotting import figure_bytes

NAME = "convergence"
_METRICS = {"loss": "loss", "cref_rmse": "RMSE of FSC² to C_ref²", "fsc_truth": "mean FSC to the truth"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study; returns 0, or 2 after a mistake of the user's, told in one line."""
    parser = argparse.ArgumentParser(prog=f"python -m analysis.{NAME}", description=__doc__.splitlines()[0])
    parser.add_argument("workdirs", nargs="+", metavar="WORKDIR", help="folders of training runs")
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the results of an earlier run")
    return run_study(NAME, parser, _run, argv)


def _run(arguments):
    folder = Path(arguments.output)
    check_output(folder, f"{NAME}.csv", overwrite=arguments.overwrite)
    runs = read_runs(arguments.workdirs)
    folder.mkdir(exist_ok=True)
    for name, found in write_convergence(runs, folder, arguments.workdirs).items():
        print(f"{name}: " + ", ".join(f"{key} {value:.4f} at step {step}" for key, (value, step) in found.items()))
    return 0


def read_runs(workdirs: Sequence[str]) -> dict[str, list[dict]]:
    """The rows of `metrics.jsonl` of each run, by the name of its folder.

    Raises:
        UserError: a folder is no run's, or the run was never evaluated, or two have one name.
    """
    runs: dict[str, list[dict]] = {}
    for path in (Path(one) for one in workdirs):
        if not (path / "metrics.jsonl").is_file():
            raise UserError(f"{path}: expected the folder of a training run, found no metrics.jsonl; check the path")
        rows = read_json_lines(path / "metrics.jsonl")
        if not any(row["kind"] == "evaluation" for row in rows):
            raise UserError(f"{path}: expected a run that was evaluated at least once, found none; let it run longer")
        if path.resolve().name in runs:
            raise UserError(f"{path}: expected runs of different names, found two named {path.name}; rename one")
        runs[path.resolve().name] = rows
    return runs


def write_convergence(runs: dict[str, list[dict]], folder: Path, workdirs: Sequence[str]) -> dict:
    """Write the study's files; returns the best held-out numbers of each run, with their steps."""
    best = {name: _best(rows) for name, rows in runs.items()}
    put(folder / f"{NAME}.csv", table([{"run": name, **row} for name, rows in runs.items() for row in rows]).encode())
    report = {"crefjax": __version__, "settings": {"workdirs": list(workdirs)}, "summary": best}
    put(folder / f"{NAME}.json", (json.dumps(report, indent=2) + "\n").encode())
    for kind in ("png", "svg"):
        put(folder / f"{NAME}.{kind}", figure_bytes(_figure(runs), kind))
    return best


def _best(rows):
    """The best held-out number of each kind and its step; less is better but for the FSC."""
    evaluated = [row for row in rows if row["kind"] == "evaluation"]
    found = {}
    for key in _METRICS:
        there = [(row[key], row["step"]) for row in evaluated if row.get(key) is not None]
        if there:
            found[key] = max(there) if key == "fsc_truth" else min(there)
    return found


def _figure(runs):
    metrics = [key for key in _METRICS if any(row.get(key) is not None for rows in runs.values() for row in rows)]
    page = Figure(figsize=(5 * len(metrics), 4), layout="constrained")
    for axes, key in zip(page.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
        for number, (name, rows) in enumerate(runs.items()):
            color = COLOURS[number % len(COLOURS)]
            trained = [(r["step"], r[key]) for r in rows if r["kind"] == "training" and r.get(key) is not None]
            held = [(r["step"], r[key]) for r in rows if r["kind"] == "evaluation" and r.get(key) is not None]
            if trained and key == "loss":
                axes.plot(*zip(*trained, strict=True), color=color, linewidth=0.7, alpha=0.5, label=f"{name}, training")
            if held:
                axes.plot(*zip(*held, strict=True), "o-", color=color, markersize=3, label=f"{name}, held out")
        axes.set(xlabel="step", ylabel=_METRICS[key])
        axes.legend(fontsize=8, frameon=False)
    return page


if __name__ == "__main__":
    sys.exit(main())
