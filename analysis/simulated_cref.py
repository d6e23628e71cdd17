"""Whether C_ref predicts the FSC of the full map to the truth, on simulated half-maps of known truth.

    python -m analysis.simulated_cref MODEL... phantom -o DIR

For every model and method it simulates an entry (kept in DIR/entries) and writes

    simulated_cref.csv          a row for each model, method and shell
    simulated_cref.json         settings, versions, and how well C_ref held
    simulated_cref.png, .svg    a panel for each model and method

What is measured, and how far C_ref may scatter by chance, is in `cref_scatter.py`.
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

import gemmi
import jax
import numpy as np
from matplotlib.figure import Figure

from analysis.cref_scatter import Curves, measure, shared_with_truth, summary
from analysis.files import check_output, put, run_study
from crefjax import __version__
from crefjax.errors import UserError
from crefjax.plotting import BLUE, GREEN, GREY, ORANGE, figure_bytes, resolution_axis
from crefjax.simulate.atoms import read_atoms
from crefjax.simulate.half_maps import SimulationConfig, check_entry_folder, simulate_half_maps, write_entry
from crefjax.simulate.imaging import Particles
from crefjax.simulate.phantom import phantom

NAME = "simulated_cref"
METHODS = ("additive", "reconstruction")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study; returns 0, or 2 after a mistake of the user's, told in one line."""
    return run_study(NAME, _parser(), _run, argv)


def figure(results: dict, methods: Sequence[str]) -> Figure:
    """A panel for each method (rows) and model (columns).

    Args:
        results: Curves by (model, method).
        methods: the rows.
    """
    models = list(dict.fromkeys(model for model, _ in results))
    drawn = Figure(figsize=(3.3 * max(len(models), 2), 3.2 * len(methods) + 0.5), layout="constrained")
    panels = drawn.subplots(len(methods), len(models), squeeze=False, sharey=True)
    for row, method in zip(panels, methods, strict=True):
        for axes, model in zip(row, models, strict=True):
            _panel(axes, results[model, method], method == "reconstruction")
            axes.set_title(f"{model}, {method}", fontsize=10)
            if axes is row[0]:
                axes.set_ylabel("Fourier shell correlation")
    handles = {}
    for axes in panels.ravel():
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    columns = min(len(models), 3)
    drawn.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=columns, fontsize=9, frameon=False)
    return drawn


def _panel(axes, curves, with_shared):
    x, inner = curves.frequency, slice(1, len(curves.frequency) - 1)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.fill_between(
        x[inner],
        curves.low[inner],
        curves.high[inner],
        color=BLUE,
        alpha=0.25,
        linewidth=0,
        label="95% band of $C_{ref}$",
    )
    axes.plot(x[inner], curves.fsc_half[inner], color=GREY, linestyle=":", label="FSC of the half-maps")
    axes.plot(x[inner], curves.cref[inner], color=BLUE, linewidth=1.2, label=r"$C_{ref}$")
    if with_shared:
        expected = (curves.cref * curves.shared)[inner]
        axes.plot(
            x[inner],
            expected,
            color=GREEN,
            linestyle=(0, (2, 3)),
            linewidth=2,
            label=r"$C_{ref}$ × FSC of common signal and truth",
        )
    axes.plot(x[inner], curves.fsc_truth[inner], ".", color=ORANGE, markersize=5, label="FSC of full map and truth")
    axes.set_ylim(-0.15, 1.05)
    resolution_axis(axes, x[-1])
    axes.tick_params(labelsize=8)


def _run(arguments):
    folder, start = Path(arguments.output), time.monotonic()
    names = [_name_of(model) for model in arguments.models]
    if len(set(names)) != len(names):
        raise UserError(f"expected every model once, found {', '.join(names)}; name each once")
    _check(folder, names, arguments)
    atoms = {name: _atoms(model, arguments) for name, model in zip(names, arguments.models, strict=True)}
    made, results, rows = {}, {}, {}
    for name, method in ((name, method) for name in names for method in arguments.methods):
        settings = _settings(arguments, method)
        simulation = simulate_half_maps(atoms[name], settings)
        shared = shared_with_truth(simulation, settings) if method == "reconstruction" else None
        made[name, method], results[name, method] = simulation, measure(simulation, shared)
        told = ("box", "atoms", "mask_fraction", "resolution_reached", "level")
        row = {field: simulation.report[field] for field in told} | summary(results[name, method])
        rows[f"{name} {method}"] = row
        print(_line(name, method, row), flush=True)
    _write(folder, made, results, _report(arguments, names, rows, time.monotonic() - start), arguments)
    return 0


def _write(folder, made, results, report, arguments):
    (folder / "entries").mkdir(parents=True, exist_ok=True)
    for (name, method), simulation in made.items():
        write_entry(_entry(folder, name, method), simulation, overwrite=arguments.overwrite)
    put(folder / f"{NAME}.csv", _csv(results))
    put(folder / f"{NAME}.json", (json.dumps(report, indent=1) + "\n").encode())
    drawn = figure(results, arguments.methods)
    for kind in ("png", "svg"):
        put(folder / f"{NAME}.{kind}", figure_bytes(drawn, kind))
    print(f"wrote {folder}/{NAME}.csv, .json, .png, .svg and {len(made)} entries")


def _report(arguments, names, rows, seconds):
    settings = {key: value for key, value in vars(arguments).items() if key not in ("output", "overwrite", "models")}
    modules = {module.__name__: module.__version__ for module in (jax, np, gemmi)}
    return {
        "study": NAME,
        "settings": settings,
        "models": names,
        "versions": {"crefjax": __version__, "python": platform.python_version(), **modules},
        "seconds": round(seconds, 1),
        "summary": rows,
    }


def _line(name, method, row):
    every, signal, shared = (row[key] for key in ("all_shells", "signal_shells", "signal_shells_with_shared"))
    line = (
        f"{name} {method}, {row['resolution_reached']:.2f} Å: {every['share_within_95']:.0%} of {every['count']} "
        f"shells within the 95% band, {signal['share_within_95']:.0%} of {signal['count']} with signal, largest "
        f"deviation {signal['largest_deviation']:.1f}"
    )
    if method == "reconstruction":
        line += f"; with what the halves share {shared['share_within_95']:.0%}, {shared['largest_deviation']:.1f}"
    return line


def _csv(results):
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    fields = list(Curves.__dataclass_fields__)
    writer.writerow(["model", "method", "shell", *fields])
    for (model, method), curves in results.items():
        for shell in range(len(curves.frequency)):
            writer.writerow([model, method, shell, *(f"{getattr(curves, field)[shell]:.7g}" for field in fields)])
    return stream.getvalue().encode()


def _name_of(model):
    return Path(model).name.split(".")[0]


def _entry(folder, name, method):
    return folder / "entries" / f"{name}_{method}"


def _check(folder, names, arguments):
    """What would be refused at the end is refused before the work."""
    check_output(folder, f"{NAME}.csv", overwrite=arguments.overwrite)
    for name in names:
        for method in arguments.methods:
            if (folder / "entries").is_dir():
                check_entry_folder(_entry(folder, name, method), overwrite=arguments.overwrite)


def _atoms(model, arguments):
    return phantom(arguments.residues) if model == "phantom" else read_atoms(model)


def _settings(arguments, method):
    particles = Particles(arguments.particles, arguments.pose_error, arguments.shift_error, arguments.preferred_views)
    if method == "reconstruction":
        particles.check()
    return SimulationConfig(
        voxel_size=arguments.voxel_size,
        resolution=arguments.resolution,
        seed=arguments.seed,
        box=arguments.box,
        b_factor=arguments.b_factor,
        method=method,
        particles=particles,
        refinements=arguments.refinements,
    )


def _methods(text):
    found = text.split(",")
    if not found or not set(found) <= set(METHODS) or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"expected some of {','.join(METHODS)}, found {text!r}")
    return found


def _parser():
    parser = argparse.ArgumentParser(
        prog=f"python -m analysis.{NAME}",
        description="C_ref against the true FSC on simulated half-maps.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("models", metavar="MODEL", nargs="+", help="PDB or mmCIF file, or phantom")
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="folder to write")
    parser.add_argument("--methods", type=_methods, default=list(METHODS), help="with commas between")
    for name, kind, default, text in (
        ("--voxel-size", float, 2.0, "Å"),
        ("--resolution", float, 6.0, "where the FSC of the half-maps crosses 0.143, Å"),
        ("--b-factor", float, 60.0, "blur of the signal, Å²"),
        ("--box", int, None, "voxels; none to have it chosen"),
        ("--seed", int, 0, "random seed; does not affect the phantom"),
        ("--residues", int, 400, "of the phantom"),
        ("--particles", int, 1000, "images in each half"),
        ("--pose-error", float, 0.0, "of orientations, degrees about each axis"),
        ("--shift-error", float, 0.0, "of positions, Å along each axis"),
        ("--preferred-views", float, 0.0, "how closely views gather around z"),
        ("--refinements", int, 1, "of the reconstruction"),
    ):
        parser.add_argument(name, type=kind, default=default, help=text)
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier run wrote")
    return parser


if __name__ == "__main__":
    sys.exit(main())
