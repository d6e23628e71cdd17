"""Time and memory against the number of voxels: network, default run, report, training step, and simulation.

    python -m experiments.benchmarks.all -o DIR --largest 128 --keras PYTHON

writes to DIR, which is made, `cost.json`, `cost.csv`, and `cost.png`. Every measurement is a process of its own.
Programs:

    network   the paper's network, in its second run: crefjax with JAX, crefjax with OpenVINO (if it is installed, the
              extra `cpu`), and Keras (with --keras, an interpreter that has TensorFlow, the extra `published`)
    default   `crefjax denoise` of a pair, from files to the file, with the compiled programs of an earlier run
    report    the same with --report
    train     a step of the paper's network and loss, batch 1: crefjax, and Keras
    simulate  `crefjax simulate phantom`, with compilation

A row gives the least seconds of --repeats runs in turn, the largest peak resident memory in GiB, and the ratios to
Keras at the same size, measured in the same minutes.
"""

import argparse
import csv
import io
import json
import os
import sys
import tempfile
from pathlib import Path

from experiments.benchmarks.common import run_command, run_worker

BOXES = (64, 96, 128, 192, 256, 384, 512)
_LARGEST_AT_ONCE, _LARGEST_PATCH = 192, 128  # of Keras, which takes 35 GiB at 384, and of training
_FIELDS = ("work", "program", "box", "voxels", "seconds", "peak_gib", "seconds_to_keras", "peak_gib_to_keras", "failed")


def main(argv=None) -> int:
    """Measure what the command line asks for, print a line for each row, and write table and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="folder to write")
    parser.add_argument("--largest", type=int, choices=BOXES, default=256, help="largest box, voxels a side")
    parser.add_argument("--work", nargs="+", choices=tuple(MEASURES), default=tuple(MEASURES), help="what to measure")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each, in turn")
    parser.add_argument("--keras", nargs="?", const=sys.executable, metavar="PYTHON", help="compare with Keras")
    arguments = parser.parse_args(argv)
    folder = Path(arguments.output)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for box in (box for box in BOXES if box <= arguments.largest):
        for work in arguments.work:
            rounds = [MEASURES[work](box, arguments.keras) for _ in range(arguments.repeats)]
            for row in with_ratios(best(rounds)):
                rows.append({"work": work, "box": box, "voxels": box**3, **row})
                print(line(rows[-1]), flush=True)
    (folder / "cost.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    (folder / "cost.csv").write_text(table(rows), encoding="utf-8")
    (folder / "cost.png").write_bytes(figure(rows))
    return 0


def best(rounds: list[dict[str, dict]]) -> dict[str, dict]:
    """Return of each program the least seconds and the largest memory of several rounds, or why all failed."""
    found = {}
    for program in rounds[0]:
        done = [measured[program] for measured in rounds if "failed" not in measured[program]]
        if done:
            peak = max(row["peak_gib"] for row in done)
            found[program] = {"seconds": min(row["seconds"] for row in done), "peak_gib": peak}
        else:
            found[program] = {"failed": rounds[0][program]["failed"]}
    return found


def with_ratios(programs: dict[str, dict]) -> list[dict]:
    """Return a row for each program, with its ratios to Keras if that was measured too."""
    keras = programs.get("Keras", {"failed": ""})
    rows = []
    for program, numbers in programs.items():
        row = {"program": program, **numbers}
        if program != "Keras" and "failed" not in keras and "failed" not in numbers:
            row |= {f"{name}_to_keras": numbers[name] / keras[name] for name in ("seconds", "peak_gib")}
        rows.append(row)
    return rows


def line(row: dict) -> str:
    """Return a row as text."""
    start = f"{row['work']:9} {row['program']:17} {row['box']:4d}"
    if "failed" in row:
        return f"{start}  failed: {row['failed']}"
    ratios = ""
    if "seconds_to_keras" in row:
        ratios = f"  to Keras: time {row['seconds_to_keras']:.2f}, memory {row['peak_gib_to_keras']:.2f}"
    return f"{start} {row['seconds']:8.2f} s {row['peak_gib']:6.2f} GiB{ratios}"


def table(rows: list[dict]) -> str:
    """Return the rows as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def figure(rows: list[dict]) -> bytes:
    """Return a PNG of seconds and of GiB against the number of voxels, a line for each program."""
    from matplotlib.figure import Figure

    from crefjax.plotting import figure_bytes

    drawing = Figure(figsize=(10, 4.5), layout="constrained")
    panels = drawing.subplots(1, 2)
    for axes, name, label in zip(panels, ("seconds", "peak_gib"), ("time (s)", "peak memory (GiB)"), strict=True):
        for work, program in dict.fromkeys((row["work"], row["program"]) for row in rows):
            measured = [row for row in rows if (row["work"], row["program"]) == (work, program) and name in row]
            if measured:
                line_style = {"Keras": ":", "crefjax, OpenVINO": "--"}.get(program, "-")
                points = [row["voxels"] for row in measured], [row[name] for row in measured]
                color = f"C{list(MEASURES).index(work)}"
                axes.loglog(*points, marker=".", linestyle=line_style, color=color, label=f"{work}, {program}")
        axes.set(xlabel="voxels", ylabel=label)
        axes.grid(visible=True, which="major", alpha=0.3)
    panels[1].legend(fontsize="small")
    return figure_bytes(drawing, "png")


def _network(box, keras):
    from crefjax.models.unet3d_openvino import is_installed

    programs = {"crefjax": ("slabs", sys.executable)}
    if is_installed():
        programs["crefjax, OpenVINO"] = ("openvino", sys.executable)
    if keras and box <= _LARGEST_AT_ONCE:
        programs["Keras"] = ("keras", keras)
    found = {}
    for program, (method, python) in programs.items():
        row = run_worker("whole_map", "--worker", method, box, python=python)
        found[program] = row if "failed" in row else {"seconds": row["second_seconds"], "peak_gib": row["peak_gib"]}
    return found


def _train(box, keras):
    if box > _LARGEST_PATCH:
        return {}
    size = ("--patch", box, "--steps", 3)
    found = {"crefjax": run_worker("train_step", "--worker", 1, "float32", "--no-parts", *size)}
    if keras:
        found["Keras"] = run_worker("train_step_keras", "--batch", 1, "--shells", "segments", *size, python=keras)
    return found


def _simulate(box, keras):
    with tempfile.TemporaryDirectory() as folder:
        return {"crefjax": _command(_simulation(box), folder)}


def _denoise(box, keras, *options):
    with tempfile.TemporaryDirectory() as folder:
        row = _command(_simulation(box), folder)
        for _ in range(2):  # the first compiles
            if "failed" not in row:
                halves = ["entry/half_map_1.mrc", "entry/half_map_2.mrc"]
                row = _command(["denoise", *halves, "-o", "out.mrc", "--overwrite", *options], folder)
        return {"crefjax": row}


def _report(box, keras):
    return _denoise(box, keras, "--report", "report")


def _simulation(box):
    size = ["--voxel-size", "1", "--resolution", "4", "--box", str(box)]
    return ["simulate", "phantom", "-o", "entry", *size, "--overwrite"]


def _command(words, folder):
    """Return seconds and memory of a command in a folder, with compiled programs kept in a folder beside it."""
    variables = os.environ | {"CREFJAX_CACHE": str(Path(folder) / "compiled")}
    seconds, peak, error = run_command([sys.executable, "-m", "crefjax", *words], cwd=folder, env=variables)
    return {"failed": error} if error else {"seconds": seconds, "peak_gib": peak}


MEASURES = {"network": _network, "default": _denoise, "report": _report, "train": _train, "simulate": _simulate}

if __name__ == "__main__":
    sys.exit(main())
