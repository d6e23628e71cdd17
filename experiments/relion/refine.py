"""Refine simulated particles with RELION from a low-passed reference, plain and with the denoiser as a regularizer.

    python -m experiments.relion.refine MODELS -o runs/relion --seeds 1 2 3

simulates the small particle sets of `experiments.relion.specimens` (or those of `--specimens`) with every seed, refines
them plain and with the denoiser (`--ways`), and writes `summary.csv`, `summary.json`, and `summary.png`: FSC to the
truth, half-map FSC, C_ref against the FSC to the truth, errors of pose, and the time of an iteration. What is there is
not done again, so that it may be interrupted. `--check noise` takes images of noise, `--check phases` images whose
phases are randomized beyond `--beyond` Å: neither may gain anything there. It needs
RELION 3.1 or later on the path.
"""

import argparse
import csv
import json
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from crefjax.plotting import PALETTE, figure_bytes, resolution_axis
from crefjax.relion import COMBINATIONS
from crefjax.utils.atomic import write_json
from experiments.relion.measure import measure
from experiments.relion.particle_sets import make_noise, make_particles, randomize_phases
from experiments.relion.run import is_installed, refine
from experiments.relion.specimens import SMALL, SPECIMENS

PLAIN = "plain"


def prepare(output: Path, models: Path, name: str, seed: int, check: str | None, beyond: float) -> Path:
    """Make the particle set of a specimen and a seed; return its folder."""
    spec = SPECIMENS[name]
    folder = output / f"{name}_{seed}"
    if check == "noise":
        folder = output / f"{name}_{seed}_noise"
        make_noise(folder, spec, models, seed)
        return folder
    make_particles(folder, spec, models, seed)
    if check == "phases":
        source, folder = folder, output / f"{name}_{seed}_phases_{beyond:g}"
        randomize_phases(source, folder, beyond, seed)
    return folder


def summarize(output: Path) -> list[dict]:
    """Measure all finished refinements below a folder, and write the summary; return its rows."""
    rows, curves = [], {}
    for times in sorted(output.glob("*/*/times.json")):
        particles, run = times.parents[1], times.parent.name
        numbers, found = measure(particles, run)
        spent = _read(times)
        per_iteration = {key: spent[key] / spent["iterations"] for key in ("seconds", "cpu_seconds")}
        rows.append(
            {"set": particles.name, "run": run, **numbers}
            | {"iterations": spent["iterations"]}
            | {f"{key}_per_iteration": value for key, value in per_iteration.items()}
        )
        curves[f"{particles.name}/{run}"] = {key: np.round(value, 5).tolist() for key, value in found.items()}
    if rows:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        with open(output / "summary.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows({key: _short(value) for key, value in row.items()} for row in rows)
        write_json(output / "summary.json", {"rows": rows, "curves": curves})
        figure(curves, output / "summary.png")
    return rows


def figure(curves: dict, path: Path) -> None:
    """Draw one panel for every particle set: FSC to the truth, and C_ref of the half-maps (dashed), of every run."""
    sets = sorted({name.split("/")[0] for name in curves})
    columns = min(len(sets), 3)
    rows = -(-len(sets) // columns)
    drawn = Figure(figsize=(4.2 * columns, 3.2 * rows), layout="constrained")
    for number, name in enumerate(sets, start=1):
        axes = drawn.add_subplot(rows, columns, number)
        runs = sorted(key.split("/")[1] for key in curves if key.split("/")[0] == name)
        for color, run in zip(PALETTE, runs, strict=False):
            found = curves[f"{name}/{run}"]
            axes.plot(found["frequency"], found["truth_fsc"], "-", color=color, label=f"{run}: FSC to the truth")
            axes.plot(found["frequency"], found["cref"], "--", color=color, label=f"{run}: $C_{{ref}}$")
        resolution_axis(axes, found["frequency"][-1])
        axes.set(title=name, ylim=(-0.1, 1.05))
        axes.legend(fontsize="x-small")
    path.write_bytes(figure_bytes(drawn, "png"))


def _read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def _short(value):
    return f"{value:.5g}" if isinstance(value, float) else value


def main(argv=None) -> int:
    """Refine and summarize; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m experiments.relion.refine", description=__doc__)
    parser.add_argument("models", type=Path, help="folder of the models")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--specimens", nargs="+", choices=SPECIMENS, default=list(SMALL))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--ways", nargs="+", choices=(PLAIN, "none", *COMBINATIONS), default=[PLAIN, COMBINATIONS[0]])
    parser.add_argument("--check", choices=("noise", "phases"), help="images without signal, at all or beyond --beyond")
    parser.add_argument("--beyond", type=float, default=12.0, metavar="Å")
    parser.add_argument("--keep", action="store_true", help="keep the data of every iteration, for .combinations")
    parser.add_argument("--summary", action="store_true", help="summarize what is there, and refine nothing")
    arguments = parser.parse_args(argv)
    if not arguments.summary:
        if not is_installed():
            print("RELION is not on the path: install it (Debian: apt-get install relion)", file=sys.stderr)
            return 2
        for seed in arguments.seeds:
            for name in arguments.specimens:
                particles = prepare(arguments.output, arguments.models, name, seed, arguments.check, arguments.beyond)
                for way in arguments.ways:
                    print(f"{particles.name}: {way}", flush=True)
                    combine = None if way == PLAIN else way
                    refine(
                        particles,
                        way,
                        diameter=SPECIMENS[name].diameter,
                        seed=seed,
                        combine=combine,
                        keep=arguments.keep,
                    )
    for row in summarize(arguments.output):
        print(
            f"{row['set']:24} {row['run']:9} FSC to the truth {row['truth_fsc_mean']:.3f} "
            f"(0.5 at {row['truth_0.5']:.2f} Å), C_ref above it by {row['cref_excess_mean']:+.3f}"
        )
        print(
            f"{'':34} error {row['angle_median']:.1f}°, {row['offset_median']:.2f} Å; "
            f"{row['cpu_seconds_per_iteration']:.1f} CPU s an iteration"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
