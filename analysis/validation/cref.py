"""Test whether C_ref predicts the FSC of the full map to the truth, on simulated half-maps of known truth.

    python -m analysis cref MODEL... phantom -o DIR

For every model and method it simulates an entry (kept in DIR/entries) and writes

    cref.csv          a row for each model, method and shell
    cref.json         settings, versions, and how well C_ref held
    cref.png, .svg    a panel for each model and method

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

and a deviation is given in units of it: `(artanh(h) - artanh(c² / (2 - c²))) sqrt(n)` for a true FSC of c. C_ref of a
negative h is taken as `-C_ref(-h)` here.

**The number of independent voxels.** A mask `m` makes neighbors in the spectrum alike: white noise under it has the
covariance `r(k - k')`, `r` the transform of `m²` divided by its value at 0. With it the variance of e is `v²` times the
mean of `|r|²` over all pairs of voxels of the shell, hence `n = N² / sum_{k, k' in shell} |r(k - k')|²`, for N voxels.

**What C_ref cannot see.** A fault that both half-maps share, such as the blur by errors of pose, is signal to it. For
the reconstruction the truth is the density itself; the same particles without noise give the correlation with the truth
of what both halves share, and C_ref times this is what the true FSC should be.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

import jax
import numpy as np
from matplotlib.figure import Figure
from scipy import fft

from analysis.framework.output import unique_handles
from analysis.framework.simulation import (
    METHODS,
    add_simulation_arguments,
    entry_name,
    read_model,
    simulation_settings,
)
from analysis.framework.study import Study
from crefjax.errors import UserError
from crefjax.io.maps import full_map
from crefjax.plotting import BLUE, GRAY, GREEN, ORANGE, resolution_axis
from crefjax.simulate.half_maps import Simulation, SimulationConfig, check_entry_folder, simulate_half_maps, write_entry
from crefjax.simulate.reconstruction import reconstruct_signal_and_noise
from crefjax.spectral.fsc import c_ref, fsc_curve

QUANTILE = 1.96  # of the normal distribution: 95 % lie within


@dataclass(frozen=True, eq=False)
class Curves:
    """Curves of one simulated pair; arrays `(shells,)` from shell 0 to Nyquist.

    Attributes:
        frequency: 1/Å.
        voxels: of the shell, in the whole spectrum.
        independent: number of independent ones among them.
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


def measure(simulation: Simulation, shared: np.ndarray | None = None) -> Curves:
    """Compare C_ref with the true FSC; `shared` as in `Curves`."""
    mask, voxel_size = simulation.mask, simulation.voxel_size
    halves = simulation.half_map_1, simulation.half_map_2
    half = fsc_curve(*halves, voxel_size, mask)
    true = fsc_curve(full_map(*halves), simulation.truth, voxel_size, mask).fsc
    voxels, independent = independent_voxels(mask)
    shared = np.ones(len(voxels)) if shared is None else shared
    z = np.arctanh(np.clip(half.fsc, -1 + 1e-12, 1 - 1e-12))
    low, high = (signed_c_ref(np.tanh(z + sign * QUANTILE / np.sqrt(independent))) for sign in (-1, 1))
    deviations = [(z - np.arctanh(fsc_of_c_ref(true / factor))) * np.sqrt(independent) for factor in (1.0, shared)]
    return Curves(
        half.frequency, voxels, independent, half.fsc, half.cref, low, high, true, deviations[0], shared, deviations[1]
    )


def signed_c_ref(fsc_half: np.ndarray) -> np.ndarray:
    """Return C_ref, continued below 0 as `-C_ref(-h)`."""
    return np.sign(fsc_half) * np.sqrt(2 * np.abs(fsc_half) / (1 + np.abs(fsc_half)))


def fsc_of_c_ref(cref: np.ndarray) -> np.ndarray:
    """Return the half-map FSC that gives this C_ref, kept below 1: `c² / (2 - c²)`, with the sign of c."""
    c = np.clip(cref, -1, 1)
    return np.clip(np.sign(c) * c**2 / (2 - c**2), -1 + 1e-12, 1 - 1e-12)


def independent_voxels(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count the voxels of every shell, and those that are independent in white noise under a mask; see above.

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


def shared_with_truth(simulation: Simulation, settings: SimulationConfig) -> np.ndarray:
    """Return the correlation with the truth of what the half-maps would share without noise, `(shells,)`.

    The particles are those of the simulation. The mean of their noise-free maps has the correlation `c` with the
    truth. Differences between these maps, as errors of pose cause, are noise like any other, and C_ref of their FSC is
    their part of `c`.
    """
    key = jax.random.fold_in(jax.random.key(settings.seed), 1)  # as in `simulate_half_maps`; a test holds it
    parts = reconstruct_signal_and_noise(
        simulation.truth, settings.voxel_size, key, settings.particles, refinements=settings.refinements
    )
    signals = [np.asarray(signal) for signal in (parts.signal_1, parts.signal_2)]
    correlation = fsc_curve(sum(signals) / 2, simulation.truth, settings.voxel_size, simulation.mask).fsc
    within = np.asarray(c_ref(fsc_curve(*signals, settings.voxel_size, simulation.mask).fsc))
    return np.clip(correlation / np.maximum(within, 1e-3), 1e-3, 1)


def summarize(curves: Curves) -> dict:
    """Return how well C_ref held over the shells 1 to N/2 - 1, over all and over those with an FSC above chance."""
    inner = slice(1, len(curves.cref) - 1)
    signal = np.tanh(QUANTILE / np.sqrt(curves.independent)) < curves.fsc_half
    summary = {}
    for name, deviation in (("", curves.deviation), ("_with_shared", curves.deviation_shared)):
        for which, chosen in (("all", np.ones(len(signal), bool)), ("signal", signal)):
            sizes = np.abs(deviation[inner][chosen[inner]])
            summary[f"{which}_shells{name}"] = {
                "count": len(sizes),
                "share_within_95": round(float(np.mean(sizes < QUANTILE)), 4),
                "root_mean_square_deviation": round(float(np.sqrt(np.mean(sizes**2))), 3),
                "largest_deviation": round(float(sizes.max()), 3),
            }
    difference = (curves.cref - curves.fsc_truth)[inner][signal[inner]]
    summary["largest_difference_in_signal_shells"] = round(float(difference[np.abs(difference).argmax()]), 4)
    summary["least_shared_in_signal_shells"] = round(float(curves.shared[inner][signal[inner]].min()), 4)
    return summary


def figure(results: dict, methods: Sequence[str]) -> Figure:
    """Draw a panel for each method (rows) and model (columns).

    Args:
        results: Curves by (model, method).
        methods: the rows.
    """
    models = list(dict.fromkeys(model for model, _ in results))
    page = Figure(figsize=(3.3 * max(len(models), 2), 3.2 * len(methods) + 0.5), layout="constrained")
    panels = page.subplots(len(methods), len(models), squeeze=False, sharey=True)
    for row, method in zip(panels, methods, strict=True):
        for axes, model in zip(row, models, strict=True):
            _panel(axes, results[model, method], method == "reconstruction")
            axes.set_title(f"{model}, {method}", fontsize=10)
            if axes is row[0]:
                axes.set_ylabel("Fourier shell correlation")
    handles = unique_handles(panels.ravel())
    columns = min(len(models), 3)
    page.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=columns, fontsize=9, frameon=False)
    return page


def _panel(axes, curves, with_shared):
    inner = slice(1, len(curves.frequency) - 1)
    x, cref = curves.frequency[inner], curves.cref[inner]
    axes.axhline(0, color=GRAY, linewidth=0.8)
    band = {"color": BLUE, "alpha": 0.25, "linewidth": 0, "label": "95% band of $C_{ref}$"}
    axes.fill_between(x, curves.low[inner], curves.high[inner], **band)
    axes.plot(x, curves.fsc_half[inner], color=GRAY, linestyle=":", label="FSC of the half-maps")
    axes.plot(x, cref, color=BLUE, linewidth=1.2, label=r"$C_{ref}$")
    if with_shared:
        label = r"$C_{ref}$ × FSC of common signal and truth"
        axes.plot(x, cref * curves.shared[inner], color=GREEN, linestyle=(0, (2, 3)), linewidth=2, label=label)
    axes.plot(x, curves.fsc_truth[inner], ".", color=ORANGE, markersize=5, label="FSC of full map and truth")
    axes.set_ylim(-0.15, 1.05)
    resolution_axis(axes, curves.frequency[-1])
    axes.tick_params(labelsize=8)


def _methods(text):
    methods = text.split(",")
    if not methods or not set(methods) <= set(METHODS) or len(set(methods)) < len(methods):
        raise argparse.ArgumentTypeError(f"expected some of {','.join(METHODS)}, found {text!r}")
    return methods


def _add_arguments(parser):
    parser.add_argument("models", metavar="MODEL", nargs="+", help="PDB or mmCIF file, or phantom")
    methods = f"separated by commas (default: {','.join(METHODS)})"
    parser.add_argument("--methods", type=_methods, default=list(METHODS), metavar="A,B", help=methods)
    add_simulation_arguments(
        parser,
        **{"voxel_size": 2.0, "resolution": 6.0, "b_factor": 60.0, "box": None, "seed": 0, "residues": 400},
        **{"particles": 1000, "pose_error": 0.0, "shift_error": 0.0, "preferred_views": 0.0, "refinements": 1},
    )


def _run(arguments, output):
    start = time.monotonic()
    names = [entry_name(model) for model in arguments.models]
    if len(set(names)) != len(names):
        raise UserError(f"expected every model once, found {', '.join(names)}; name each once")
    entries = output.folder / "entries"
    folders = {(name, method): entries / f"{name}_{method}" for name in names for method in arguments.methods}
    for folder in folders.values() if entries.is_dir() else ():
        check_entry_folder(folder, overwrite=arguments.overwrite)
    atoms = {name: read_model(model, arguments.residues) for name, model in zip(names, arguments.models, strict=True)}
    simulations, results, summaries = {}, {}, {}
    for name, method in folders:
        settings = simulation_settings(arguments, method=method)
        if method == "reconstruction":
            settings.particles.check()
        simulation = simulate_half_maps(atoms[name], settings)
        shared = shared_with_truth(simulation, settings) if method == "reconstruction" else None
        simulations[name, method], results[name, method] = simulation, measure(simulation, shared)
        about = ("box", "atoms", "mask_fraction", "resolution_reached", "level")
        summary = {field: simulation.report[field] for field in about} | summarize(results[name, method])
        summaries[f"{name} {method}"] = summary
        print(_line(name, method, summary), flush=True)
    entries.mkdir(parents=True, exist_ok=True)
    for key, folder in folders.items():
        write_entry(folder, simulations[key], overwrite=arguments.overwrite)
    output.write_csv(["model", "method", "shell", *(field.name for field in fields(Curves))], _rows(results))
    settings = {key: value for key, value in vars(arguments).items() if key not in ("output", "overwrite", "models")}
    report = {"settings": settings, "models": names, "summary": summaries}
    output.write_json(report, seconds=time.monotonic() - start)
    output.write_figure(figure(results, arguments.methods))
    print(f"wrote {output.folder / output.name}.csv, .json, .png, .svg and {len(simulations)} entries")


def _rows(results):
    for (model, method), curves in results.items():
        for shell, values in enumerate(zip(*astuple(curves), strict=True)):
            yield [model, method, shell, *(f"{value:.7g}" for value in values)]


def _line(name, method, summary):
    every, signal, shared = (summary[key] for key in ("all_shells", "signal_shells", "signal_shells_with_shared"))
    line = (
        f"{name} {method}, {summary['resolution_reached']:.2f} Å: {every['share_within_95']:.0%} of {every['count']} "
        f"shells within the 95% band, {signal['share_within_95']:.0%} of {signal['count']} with signal, largest "
        f"deviation {signal['largest_deviation']:.1f}"
    )
    if method == "reconstruction":
        share, largest = shared["share_within_95"], shared["largest_deviation"]
        line += f"; with the signal that the halves share {share:.0%}, {largest:.1f}"
    return line


STUDY = Study(__name__, _run, _add_arguments)
