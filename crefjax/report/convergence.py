"""How a training run converged: its losses and held-out metrics over the steps."""

from pathlib import Path

from matplotlib.figure import Figure

from crefjax.io.files import read_json_lines
from crefjax.report.plots import BLUE, GREEN, GREY, ORANGE, figure_bytes

_METRICS = {
    "cref_rmse": ("RMSE of FSC² to $C_{ref}$²", ORANGE, "-"),
    "fsc_truth": ("mean FSC to the truth", GREEN, "-"),
    "fsc_truth_full": ("full map's mean FSC to the truth", GREY, "--"),
}


def convergence_figure(rows: list[dict], kind: str) -> bytes:
    """Losses, and below them the metrics of the evaluations, over the steps.

    Args:
        rows: of `metrics.jsonl`.
        kind: `png`, `svg` or `pdf`.

    Returns:
        The figure file's bytes.
    """
    trained = [row for row in rows if row["kind"] == "training"]
    evaluated = [row for row in rows if row["kind"] == "evaluation"]
    figure = Figure(figsize=(6.4, 6.0), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True)
    top.plot([r["step"] for r in trained], [r["loss"] for r in trained], color=BLUE, linewidth=0.8, label="training")
    steps = [row["step"] for row in evaluated]
    top.plot(steps, [row["loss"] for row in evaluated], "o-", color=ORANGE, markersize=3, label="held out")
    top.set(ylabel="loss")
    top.legend()
    for name, (label, color, line) in _METRICS.items():
        values = [row.get(name) for row in evaluated]
        if any(value is not None for value in values):
            bottom.plot(steps, values, line, color=color, marker="o", markersize=3, label=f"held out: {label}")
    bottom.set(xlabel="step", ylabel="metric", ylim=(0, 1))
    if bottom.lines:
        bottom.legend(loc="center right")
    return figure_bytes(figure, kind)


def write_figure(workdir: Path) -> None:
    """Write `convergence.png` of a run, an earlier one is replaced; a line of metrics that was cut off is left out."""
    hidden = workdir / ".convergence.png"
    hidden.write_bytes(convergence_figure(read_json_lines(workdir / "metrics.jsonl"), "png"))
    hidden.replace(workdir / "convergence.png")
