"""Plot loss and validation over training, of one or more runs beside each other.

    python -m analysis convergence WORKDIR... -o DIR

WORKDIR is what `crefjax train --workdir` wrote. It writes convergence.csv (a row for each run and logged step),
convergence.json (settings, and the best held-out numbers of each run) and convergence.png and .svg. As figure S2 of
Agarwal et al. (2024), IUCrJ 11.
"""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from analysis.framework.output import Output, table
from analysis.framework.study import Study
from crefjax.errors import UserError
from crefjax.io.files import read_json_lines
from crefjax.plotting import PALETTE

_METRICS = {"loss": "loss", "cref_rmse": "RMSE of FSC² to C_ref²", "fsc_truth": "mean FSC to the truth"}


def read_runs(workdirs: Sequence[str]) -> dict[str, list[dict]]:
    """Return the rows of `metrics.jsonl` of each run, by the name of its folder.

    Raises:
        UserError: a folder is not a run's, the run was never evaluated, or two have one name.
    """
    runs: dict[str, list[dict]] = {}
    for path in map(Path, workdirs):
        if not (path / "metrics.jsonl").is_file():
            raise UserError(f"{path}: expected the folder of a training run, found no metrics.jsonl; check the path")
        rows = read_json_lines(path / "metrics.jsonl")
        if not any(row["kind"] == "evaluation" for row in rows):
            raise UserError(f"{path}: expected a run that was evaluated at least once, found none; let it run longer")
        name = path.resolve().name
        if name in runs:
            raise UserError(f"{path}: expected runs of different names, found two named {path.name}; rename one")
        runs[name] = rows
    return runs


def write(runs: dict[str, list[dict]], output: Output, workdirs: Sequence[str]) -> dict:
    """Write the study's files, and return the best held-out numbers of each run, with their steps."""
    best = {name: _best(rows) for name, rows in runs.items()}
    output.write("csv", table([{"run": name, **row} for name, rows in runs.items() for row in rows]))
    output.write_json({"settings": {"workdirs": list(workdirs)}, "summary": best})
    output.write_figure(_figure(runs))
    return best


def _best(rows):
    """Return the best held-out number of each kind and its step; less is better but for the FSC."""
    best = {}
    for key in _METRICS:
        values = _values(rows, "evaluation", key)
        if values:
            step, value = (max if key == "fsc_truth" else min)(values, key=lambda pair: pair[::-1])
            best[key] = value, step
    return best


def _values(rows, kind, key):
    return [(row["step"], row[key]) for row in rows if row["kind"] == kind and row.get(key) is not None]


def _figure(runs):
    metrics = [key for key in _METRICS if any(row.get(key) is not None for rows in runs.values() for row in rows)]
    page = Figure(figsize=(5 * len(metrics), 4), layout="constrained")
    for axes, key in zip(page.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
        for number, (name, rows) in enumerate(runs.items()):
            color = PALETTE[number % len(PALETTE)]
            trained, held_out = (_values(rows, kind, key) for kind in ("training", "evaluation"))
            if trained and key == "loss":
                axes.plot(*zip(*trained, strict=True), color=color, linewidth=0.7, alpha=0.5, label=f"{name}, training")
            if held_out:
                axes.plot(*zip(*held_out, strict=True), "o-", color=color, markersize=3, label=f"{name}, held out")
        axes.set(xlabel="step", ylabel=_METRICS[key])
        axes.legend(loc="upper right", fontsize=8, frameon=False)
    return page


def _add_arguments(parser):
    parser.add_argument("workdirs", nargs="+", metavar="WORKDIR", help="folders of training runs")


def _run(arguments, output):
    for name, best in write(read_runs(arguments.workdirs), output, arguments.workdirs).items():
        print(f"{name}: " + ", ".join(f"{key} {value:.4f} at step {step}" for key, (value, step) in best.items()))


STUDY = Study(__name__, _run, _add_arguments)
