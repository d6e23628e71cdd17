"""Plot loss and validation over training, of one or more runs beside each other.

    python -m analysis convergence WORKDIR... -o DIR

WORKDIR is what `crefjax train --workdir` wrote. It writes convergence.csv (a row for each run and logged step),
convergence.json (settings, and the best held-out numbers of each run) and convergence.png and .svg. As figure S2 of
Agarwal et al. (2024), IUCrJ 11.

With `--by-run` every run has a panel: the losses of the training and of the held-out samples over the minutes of the
training, for runs whose losses cannot be compared. Beside the held-out loss of images stand the errors of images that
are left as they are (`noisy`) and of empty ones (`empty`), where the run has measured them.
"""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from analysis.framework.output import Output, table
from analysis.framework.study import Study
from crefjax.errors import UserError
from crefjax.io.files import read_json_lines
from crefjax.plotting import BLUE, GRAY, ORANGE, PALETTE, SKY

_METRICS = {"loss": "loss", "cref_rmse": "RMSE of FSC² to C_ref²", "fsc_truth": "mean FSC to the truth"}
_COLUMNS = 4  # panels beside each other
_LINES = (  # of a panel: number, color, kind of the row, and style
    ("loss", SKY, "training", "-"),
    ("noisy", GRAY, "evaluation", "--"),
    ("empty", ORANGE, "evaluation", "--"),
    ("loss", BLUE, "evaluation", "o-"),
)


def read_runs(workdirs: Sequence[str]) -> dict[str, list[dict]]:
    """Return the rows of `metrics.jsonl` of each run, by the name of its folder.

    Raises:
        UserError: a folder is not that of a run, the run was never evaluated, or two have the same name.
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


def write(runs: dict[str, list[dict]], output: Output, workdirs: Sequence[str], *, by_run: bool = False) -> dict:
    """Write the study's files, and return the best held-out numbers of each run, with their steps."""
    best = {name: _best(rows) for name, rows in runs.items()}
    output.write("csv", table([{"run": name, **row} for name, rows in runs.items() for row in rows]))
    output.write_json({"settings": {"workdirs": list(workdirs)}, "summary": best})
    output.write_figure(_panels(runs) if by_run else _figure(runs))
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


def _panels(runs):
    columns = min(len(runs), _COLUMNS)
    lines = -(-len(runs) // columns)
    page = Figure(figsize=(3.3 * columns, 2.8 * lines), layout="constrained")
    panels = page.subplots(lines, columns, squeeze=False).ravel()
    for axes in panels[len(runs) :]:
        axes.remove()
    labels = {}
    for axes, (name, rows) in zip(panels, runs.items(), strict=False):
        rows = _with_minutes(rows)
        for key, color, kind, style in _LINES:
            values = [(row["minutes"], row[key]) for row in rows if row["kind"] == kind and row.get(key) is not None]
            if values and min(value for _, value in values) > 0:  # unlike the loss of two networks of a GAN
                label = "training" if kind == "training" else "held out" if key == "loss" else key
                times, numbers = zip(*values, strict=True)
                (labels[label],) = axes.plot(times, numbers, style, color=color, markersize=3, linewidth=1, label=label)
        axes.set(yscale="log", xlabel="minutes of training", title=name)
    page.legend(labels.values(), labels, loc="outside lower center", ncols=len(labels), fontsize=8, frameon=False)
    return page


def _with_minutes(rows):
    """Return rows with `minutes`; an evaluation has those of the step before it."""
    minutes, timed = 0.0, []
    for row in rows:
        minutes = row.get("seconds", 60 * minutes) / 60
        timed.append(row | {"minutes": minutes})
    return timed


def _add_arguments(parser):
    parser.add_argument("workdirs", nargs="+", metavar="WORKDIR", help="folders of training runs")
    parser.add_argument("--by-run", action="store_true", help="draw a panel for each run, over the minutes")


def _run(arguments, output):
    runs = read_runs(arguments.workdirs)
    for name, best in write(runs, output, arguments.workdirs, by_run=arguments.by_run).items():
        print(f"{name}: " + ", ".join(f"{key} {value:.4f} at step {step}" for key, (value, step) in best.items()))


STUDY = Study(__name__, _run, _add_arguments)
