"""Whether signal, noise, bias and residual noise are what they are said to be, with denoisers of which that is known.

    python -m analysis.known_denoisers MODEL... -o DIR --weights W [W ...]

For each MODEL (PDB, mmCIF or phantom) pairs are simulated by both methods and denoised with a Wiener filter, a Gaussian
blur, a Wiener filter that pastes in false structure in a band of shells, and networks. What crefjax.spectral.variances
tells from one pair alone is compared with the truth: known because signal and noise are, or, of networks, from other
draws of the noise; see `known_pairs.py`. It writes

    known_denoisers.csv          a row for each model, method, denoiser and shell
    known_denoisers.json         settings, versions, how often the truth was met, where planted structure was found
    known_denoisers.png, .svg    estimated and true: a row for each model, method and denoiser, a column for each
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
from typing import NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure

from analysis.files import check_output, load_named, put, run_study
from analysis.known_pairs import PLANTED_POWER, Known, known_denoisers, known_pairs, true_variances
from crefjax import __version__
from crefjax.plotting import BLUE, GREEN, GREY, ORANGE, figure_bytes, resolution_axis
from crefjax.simulate.atoms import read_atoms
from crefjax.simulate.half_maps import SimulationConfig
from crefjax.simulate.imaging import Particles
from crefjax.simulate.phantom import phantom
from crefjax.spectral.curves import shell_frequencies
from crefjax.spectral.variances import ShellVariances, shell_variances

NAME = "known_denoisers"
METHODS = ("additive", "reconstruction")
QUANTITIES = {"signal": "var(S)", "noise": "var(N)", "bias": "var(B)", "residual_noise": "var(N_d)"}
_NEAR = 0.1
_LEAST_SHOWN = 3e-3  # of the noise's power
_NOTABLE = 0.01  # of the signal that is left: added structure with less power is not spoken of


class Trial(NamedTuple):
    """One denoiser on one pair: what is said and what is true."""

    model: str
    method: str
    denoiser: str
    band: np.ndarray
    found: ShellVariances
    true: dict[str, np.ndarray]
    frequency: np.ndarray

    @property
    def strong(self) -> np.ndarray:
        """Where the signal of a half-map is above its noise, shells 1 to N/2 - 1."""
        inner = (np.arange(len(self.frequency)) > 0) & (np.arange(len(self.frequency)) < len(self.frequency) - 1)
        return inner & (self.true["signal"] > self.true["noise"])

    @property
    def flagged(self) -> np.ndarray:
        """Where structure is said to have been added."""
        left = self.found.signal_kept.value**2 * self.found.signal.value
        return self.found.added.trusted & (self.found.added.value > _NOTABLE * left)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study; returns 0, or 2 after a mistake of the user's, told in one line."""
    return run_study(NAME, _parser(), _run, argv)


def _parser():
    parser = argparse.ArgumentParser(
        prog=f"python -m analysis.{NAME}",
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="PDB or mmCIF file, or phantom")
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="folder to write")
    parser.add_argument("--weights", nargs="*", default=[], metavar="W", help="names or folders of weights")
    for name, kind, default, text in (
        ("--voxel-size", float, 1.5, "Å"),
        ("--resolution", float, 4.0, "where the FSC of the half-maps crosses 0.143, Å"),
        ("--box", int, 96, "voxels"),
        ("--seed", int, 0, "random seed; does not affect the phantom"),
        ("--residues", int, 400, "of the phantom"),
        ("--particles", int, 2000, "images in each half"),
        ("--refinements", int, 1, "of the reconstruction"),
    ):
        parser.add_argument(name, type=kind, default=default, help=text)
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run")
    return parser


def _run(arguments):
    folder, start = Path(arguments.output), time.monotonic()
    check_output(folder, f"{NAME}.csv", overwrite=arguments.overwrite)
    weights = load_named(arguments.weights)
    atoms = {
        Path(one).name.split(".")[0]: phantom(arguments.residues) if one == "phantom" else read_atoms(one)
        for one in arguments.models
    }
    trials, lost = [], {}
    for name, one in atoms.items():
        for method in METHODS:
            known = known_pairs(one, _settings(arguments, method))
            lost[f"{name} {method}"] = float(np.mean(known.to_truth[known.power(known.signal) > 0][1:-1]))
            for trial in _trials(name, method, known, weights, arguments.seed):
                trials.append(trial)
                print(_told(trial), flush=True)
    folder.mkdir(exist_ok=True)
    report = _report(arguments, trials, lost, weights, time.monotonic() - start)
    put(folder / f"{NAME}.csv", _csv(trials))
    put(folder / f"{NAME}.json", (json.dumps(report, indent=2) + "\n").encode())
    for kind in ("png", "svg"):
        put(folder / f"{NAME}.{kind}", _figure(trials, kind))
    return 0


def _settings(arguments, method):
    return SimulationConfig(
        voxel_size=arguments.voxel_size,
        resolution=arguments.resolution,
        seed=arguments.seed,
        box=arguments.box,
        method=method,
        particles=Particles(arguments.particles),
        refinements=arguments.refinements,
    )


def _trials(model, method, known: Known, weights, seed):
    frequency = shell_frequencies(known.mask.shape, known.voxel_size)
    for one in known_denoisers(known, weights, seed=seed):
        denoised = one.run(known.pairs[0])
        found = shell_variances(*known.pairs[0], *denoised, known.mask)
        yield Trial(model, method, one.name, one.band, found, true_variances(known, one, denoised), frequency)


def summary(trial: Trial) -> dict:
    """How often the truth was met where signal is above noise, and where structure was said to have been added."""
    told = {"shells_with_signal_above_noise": int(trial.strong.sum())}
    for name in QUANTITIES:
        one, true = getattr(trial.found, name), trial.true[name]
        apart = np.abs(one.value - true)
        trusted = trial.strong & one.trusted
        told[name] = {
            "trusted": int(trusted.sum()),
            "within_10_percent": _share(apart <= _NEAR * true, trusted),
            "within_2_errors": _share(apart <= 2 * one.error, trusted),
            "within_either": _share((apart <= 2 * one.error) | (apart <= _NEAR * true), trusted),
            "median_relative": float(np.median((apart / true)[trusted])) if trusted.any() else None,
        }
    told["planted_shells"] = int(trial.band.sum())
    told["planted_shells_found"] = int((trial.flagged & trial.band).sum())
    told["shells_said_to_have_added_structure"] = int(trial.flagged[1:-1].sum())
    false = trial.flagged & (trial.true["added"] < trial.found.added.value / 2)
    told["shells_falsely_said_to_have_it"] = int(false[1:-1].sum())
    told["contradicted_shells"] = np.flatnonzero(trial.found.inconsistent).tolist()
    return told


def _share(right, among):
    return round(float(np.mean(right[among])), 3) if among.any() else None


def _told(trial):
    told = summary(trial)
    parts = []
    for name, symbol in QUANTITIES.items():
        one = told[name]
        parts.append(f"{symbol} {one['within_10_percent']} / {one['within_2_errors']} of {one['trusted']}")
    line = f"{trial.model} {trial.method}, {trial.denoiser}: within 10% / 2 errors: {', '.join(parts)}"
    line += f"; planted {told['planted_shells_found']} of {told['planted_shells']} found"
    line += f"; {told['shells_said_to_have_added_structure']} said to have added structure"
    line += f", {told['shells_falsely_said_to_have_it']} falsely"
    return line + f", {len(told['contradicted_shells'])} contradicted"


def _csv(trials):
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    parts = ("true", "value", "error", "trusted")
    head = [f"{name}_{part}" for name in QUANTITIES for part in parts]
    writer.writerow(["model", "method", "denoiser", "shell", "frequency", "planted", *head, "added", "added_error"])
    for one in trials:
        for s, frequency in enumerate(one.frequency):
            row = [one.model, one.method, one.denoiser, s, f"{frequency:.6g}", int(one.band[s])]
            for name in QUANTITIES:
                estimate = getattr(one.found, name)
                row += [f"{v[s]:.6g}" for v in (one.true[name], estimate.value, estimate.error)]
                row.append(int(estimate.trusted[s]))
            row += [f"{v[s]:.6g}" for v in (one.found.added.value, one.found.added.error)]
            writer.writerow(row)
    return stream.getvalue().encode()


def _report(arguments, trials, lost, weights, seconds):
    keys = ("models", "voxel_size", "resolution", "box", "seed", "residues", "particles", "refinements")
    return {
        "crefjax": __version__,
        "jax": jax.__version__,
        "python": platform.python_version(),
        "seconds": round(seconds, 1),
        "settings": {key: getattr(arguments, key) for key in keys},
        "planted_power": PLANTED_POWER,
        "weights": [{"path": str(one.path), "sha256": one.card["sha256"]} for one in weights.values()],
        "signal_differs_from_the_model_by": lost,
        "trials": [
            {"model": one.model, "method": one.method, "denoiser": one.denoiser, **summary(one)} for one in trials
        ],
    }


def _figure(trials, kind):
    figure = Figure(figsize=(15, 2.5 * len(trials) + 0.8), layout="constrained")
    rows = figure.subplots(len(trials), len(QUANTITIES), squeeze=False)
    for row, trial in zip(rows, trials, strict=True):
        unit = trial.true["noise"][1:-1].mean()
        tops = [trial.true[name][1:-1].max() for name in QUANTITIES]
        for axes, name in zip(row, QUANTITIES, strict=True):
            _panel(axes, trial, name, unit)
            axes.set_ylim(_LEAST_SHOWN, 3 * max(tops) / unit)
        row[0].set_ylabel("mean var(N) = 1", fontsize=9)
        row[0].set_title(f"{trial.model}, {trial.method}: {trial.denoiser}", loc="left", fontsize=10)
    for axes, symbol in zip(rows[0], QUANTITIES.values(), strict=True):
        axes.annotate(symbol, (0.98, 0.9), xycoords="axes fraction", ha="right", fontsize=12)
    handles = {}
    for axes in rows.ravel():
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=6, frameon=False)
    return figure_bytes(figure, kind)


def _panel(axes, trial, name, unit):
    inner, x, one = slice(1, len(trial.frequency) - 1), trial.frequency, getattr(trial.found, name)
    step = x[1] / 2
    for s in np.flatnonzero(~one.trusted[inner]) + 1:
        label = "estimate not to be trusted"
        axes.axvspan(x[s] - step, x[s] + step, facecolor="none", edgecolor="#cccccc", hatch="////", lw=0, label=label)
    for s in np.flatnonzero(trial.band):
        axes.axvspan(x[s] - step, x[s] + step, color=ORANGE, alpha=0.2, lw=0, label="planted")
    true = np.where(trial.true[name] > 0, trial.true[name], np.nan) / unit
    axes.semilogy(x[inner], true[inner], color=GREY, linewidth=3, alpha=0.7, label="true")
    value, error = (np.where(one.trusted, part, np.nan)[inner] / unit for part in (one.value, one.error))
    low = np.maximum(value - 2 * error, 1e-30)
    axes.fill_between(x[inner], low, value + 2 * error, color=BLUE, alpha=0.3, lw=0, label="two errors")
    axes.semilogy(x[inner], value, ".-", color=BLUE, markersize=4, linewidth=1, label="estimated from one pair")
    if trial.strong.any():
        axes.axvline(x[np.flatnonzero(trial.strong)[-1]] + step, color=GREEN, linestyle="--", label="var(S) = var(N)")
    resolution_axis(axes, x[-1])
    axes.tick_params(labelsize=8)


if __name__ == "__main__":
    sys.exit(main())
