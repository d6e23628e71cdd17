"""Whether C_ref predicts the FSC of the full map to the truth, on simulated half-maps of known truth.

    python -m analysis.simulated_cref MODEL... phantom -o DIR

For every model and method it simulates an entry (kept in DIR/entries) and writes

    simulated_cref.csv          a row for each model, method and shell
    simulated_cref.json         settings, versions, and how well C_ref held
    simulated_cref.png, .svg    a panel for each model and method

**The scatter that C_ref may have.** Let the half-maps be `S + N_i` under the mask, with noise of `v` times the power
of the signal, so that FSC = h = 1/(1 + v). Both C_ref and the true FSC scatter with the noise, but nearly together: to
first order in the shell means of `S conj(N_i)`, `|N_i|²` and `N_1 conj(N_2)` all terms of their difference cancel but
one,

    C_ref - FSC(full map, truth) = C_ref e / 2,    e = Re <N_1 conj(N_2)> / <|S|²>,    var e = v² / n,

the chance correlation of the two noises, over `n` independent voxels of the shell (of the whole spectrum, so that both
Friedel mates count). That is as if the FSC alone were off by `(1 - h²) / sqrt(n)`, which is the standard error of a
correlation coefficient of `n` pairs (Fisher 1915, Biometrika 10, 507; for the FSC: Rosenthal & Henderson 2003, J. Mol.
Biol. 333, 721). So the band is drawn by Fisher's transformation (1921, Metron 1, 3), which is good at all h,

    C_ref(tanh(artanh(h) ± 1.96 / sqrt(n))),

and a deviation is told in units of it: `(artanh(h) - artanh(c² / (2 - c²))) sqrt(n)` for a true FSC of c. C_ref of a
negative h is taken as `-C_ref(-h)` here.

**The number of independent voxels.** A mask `m` makes neighbours in the spectrum alike: white noise under it has the
covariance `r(k - k')`, `r` the transform of `m²` divided by its value at 0. With it the variance of e is `v²` times the
mean of `|r|²` over all pairs of voxels of the shell, hence `n = N² / sum_{k, k' in shell} |r(k - k')|²`, for N voxels.

**What C_ref cannot see.** A fault that both half-maps share, such as the blur by errors of pose, is signal to it. For
the reconstruction the truth is the density itself; the same particles without noise give the correlation with the truth
of what both halves share, and C_ref times this is what the true FSC should be.
"""

import argparse
import csv
import io
import json
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gemmi
import jax
import numpy as np
from matplotlib.figure import Figure
from scipy import fft

from analysis.files import check_output, put
from crefjax.errors import UserError
from crefjax.report.plots import BLUE, GREEN, GREY, ORANGE, figure_bytes, resolution_axis
from crefjax.simulate.atoms import read_atoms
from crefjax.simulate.entry import check_folder, write_entry
from crefjax.simulate.halfmaps import Settings, simulate_half_maps
from crefjax.simulate.phantom import phantom
from crefjax.simulate.poses import Particles
from crefjax.simulate.reconstruction import reconstruct_parts
from crefjax.spectral.fsc import c_ref, fsc_curve
from crefjax.version import __version__

NAME = "simulated_cref"
METHODS = ("additive", "reconstruction")
QUANTILE = 1.96  # of the normal distribution: 95 % lie within


@dataclass(frozen=True, eq=False)
class Curves:
    """What was measured on one simulated pair; arrays `(shells,)` from shell 0 to Nyquist.

    Attributes:
        frequency: 1/Å.
        voxels: of the shell, in the whole spectrum.
        independent: how many of them count.
        fsc_half: of the masked half-maps.
        cref: from it.
        low, high: the band in which the true FSC should lie 95 % of the time.
        fsc_truth: of the masked full map and truth.
        deviation: of `cref` from `fsc_truth`, in units of the scatter that is allowed.
        shared: correlation of what both half-maps have in common with the truth; 1 for noise that was added.
        deviation_shared: the same deviation of `cref * shared`.
    """

    frequency: np.ndarray
    voxels: np.ndarray
    independent: np.ndarray
    fsc_half: np.ndarray
    cref: np.ndarray
    low: np.ndarray
    high: np.ndarray
    fsc_truth: np.ndarray
    deviation: np.ndarray
    shared: np.ndarray
    deviation_shared: np.ndarray


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study; returns 0, or 2 after a mistake of the user's, told in one line."""
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as stop:
        return stop.code or 0
    try:
        return _run(arguments)
    except UserError as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return 2


def measure(simulation, shared=None) -> Curves:
    """Compare C_ref with the true FSC on a `crefjax.simulate` Simulation; `shared` as in `Curves`."""
    mask, voxel_size = simulation.mask, simulation.voxel_size
    halves = simulation.half_map_1, simulation.half_map_2
    half = fsc_curve(*halves, voxel_size, mask)
    true = fsc_curve((halves[0] + halves[1]) / 2, simulation.truth, voxel_size, mask).fsc
    voxels, independent = independent_voxels(mask)
    shared = np.ones(len(voxels)) if shared is None else shared
    z = np.arctanh(np.clip(half.fsc, -1 + 1e-12, 1 - 1e-12))
    low, high = (signed_c_ref(np.tanh(z + sign * QUANTILE / np.sqrt(independent))) for sign in (-1, 1))
    deviations = [(z - np.arctanh(fsc_of_c_ref(true / factor))) * np.sqrt(independent) for factor in (1.0, shared)]
    return Curves(
        half.frequency, voxels, independent, half.fsc, half.cref, low, high, true, deviations[0], shared, deviations[1]
    )


def signed_c_ref(fsc_half: np.ndarray) -> np.ndarray:
    """C_ref that goes on below 0: `-C_ref(-h)` there."""
    return np.sign(fsc_half) * np.sqrt(2 * np.abs(fsc_half) / (1 + np.abs(fsc_half)))


def fsc_of_c_ref(cref: np.ndarray) -> np.ndarray:
    """The half-map FSC that gives this C_ref, kept below 1: `c² / (2 - c²)`, with the sign of c."""
    c = np.clip(cref, -1, 1)
    return np.clip(np.sign(c) * c**2 / (2 - c**2), -1 + 1e-12, 1 - 1e-12)


def independent_voxels(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The voxels of every shell and how many of them are independent in white noise under a mask; see above.

    Args:
        mask: `(n, n, n)`.

    Returns:
        Two arrays `(n // 2 + 1,)`; the second is at most the first.
    """
    side, half = len(mask), len(mask) // 2
    k = np.fft.fftfreq(side, 1 / side)
    shell = np.floor(np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2) + 0.5)
    correlation = np.abs(fft.fftn(mask.astype(np.float64) ** 2)) ** 2
    correlation = fft.rfftn(correlation / correlation[0, 0, 0]).real
    weight = np.full(half + 1, 2.0)
    weight[0] = 1
    if side % 2 == 0:
        weight[-1] = 1
    voxels, independent = np.empty(half + 1), np.empty(half + 1)
    for number in range(half + 1):
        inside = (shell == number).astype(np.float64)
        power = np.abs(fft.rfftn(inside)) ** 2
        voxels[number] = inside.sum()
        pairs = (power * correlation * weight).sum() / mask.size
        independent[number] = min(voxels[number] ** 2 / pairs, voxels[number])
    return voxels, independent


def shared_with_truth(simulation, settings: Settings) -> np.ndarray:
    """Correlation with the truth of what the two half-maps would have in common without noise, `(shells,)`.

    The particles are those of the simulation. The mean of their noise-free maps has the correlation `c` with the
    truth. What differs between these maps, as errors of pose do, is noise like any other, and C_ref of their FSC is the
    part of `c` that it takes.
    """
    key = jax.random.fold_in(jax.random.key(settings.seed), 1)  # as `simulate_half_maps` draws them; a test holds it
    parts = reconstruct_parts(
        simulation.truth, settings.voxel_size, key, settings.particles, refinements=settings.refinements
    )
    signals = [np.asarray(one) for one in (parts.signal_1, parts.signal_2)]
    correlation = fsc_curve(sum(signals) / 2, simulation.truth, settings.voxel_size, simulation.mask).fsc
    within = np.asarray(c_ref(fsc_curve(*signals, settings.voxel_size, simulation.mask).fsc))
    return np.clip(correlation / np.maximum(within, 1e-3), 1e-3, 1)


def summary(curves: Curves) -> dict:
    """How well C_ref held over the shells 1 to N/2 - 1, all and those where the FSC is above chance."""
    inner = slice(1, len(curves.cref) - 1)
    seen = np.tanh(QUANTILE / np.sqrt(curves.independent)) < curves.fsc_half
    found = {}
    for name, deviation in (("", curves.deviation), ("_with_shared", curves.deviation_shared)):
        for which, chosen in (("all", np.ones(len(seen), bool)), ("signal", seen)):
            some = np.abs(deviation[inner][chosen[inner]])
            found[f"{which}_shells{name}"] = {
                "count": len(some),
                "share_within_95": round(float(np.mean(some < QUANTILE)), 4),
                "root_mean_square_deviation": round(float(np.sqrt(np.mean(some**2))), 3),
                "largest_deviation": round(float(some.max()), 3),
            }
    difference = (curves.cref - curves.fsc_truth)[inner][seen[inner]]
    found["largest_difference_in_signal_shells"] = round(float(difference[np.abs(difference).argmax()]), 4)
    found["least_shared_in_signal_shells"] = round(float(curves.shared[inner][seen[inner]].min()), 4)
    return found


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
                check_folder(_entry(folder, name, method), overwrite=arguments.overwrite)


def _atoms(model, arguments):
    return phantom(arguments.residues) if model == "phantom" else read_atoms(model)


def _settings(arguments, method):
    particles = Particles(arguments.particles, arguments.pose_error, arguments.shift_error, arguments.preferred_views)
    if method == "reconstruction":
        particles.check()
    return Settings(
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
        ("--seed", int, 0, "of all that is random but the phantom"),
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
