"""Test the estimates of signal, noise, bias, and residual noise, with denoisers whose effect is known.

    python -m analysis variances MODEL... -o DIR --weights W [W ...]

For each MODEL (PDB, mmCIF or phantom) pairs are simulated by both methods and denoised with a Wiener filter, a Gaussian
blur, a Wiener filter that pastes in false structure in a band of shells, and networks. The estimates of
`crefjax.spectral.variances` from one pair alone are compared with the truth: known because signal and noise are, or, of
networks, from other draws of the noise. It writes

    variances.csv          a row for each model, method, denoiser and shell
    variances.json         settings, versions, how often the truth was met, where planted structure was found
    variances.png, .svg    estimated and true: a row for each model, method and denoiser, a column for each
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure

from analysis.framework.output import unique_handles
from analysis.framework.simulation import (
    METHODS,
    add_simulation_arguments,
    entry_name,
    read_model,
    simulation_settings,
)
from analysis.framework.study import Study, add_weights, load_named
from crefjax.errors import UserError
from crefjax.inference.denoise import denoise_maps
from crefjax.inference.request import DenoiseRequest
from crefjax.io.maps import Map
from crefjax.plotting import BLUE, GRAY, GREEN, ORANGE, resolution_axis
from crefjax.simulate.atoms import Atoms
from crefjax.simulate.half_maps import SimulationConfig, simulate_half_maps
from crefjax.simulate.noise import NoiseLevelSolver, is_near
from crefjax.simulate.reconstruction import reconstruct_signal_and_noise
from crefjax.spectral.calibration import apply_calibration
from crefjax.spectral.covariances import shell_covariances
from crefjax.spectral.curves import shell_frequencies, solvent_level
from crefjax.spectral.shells import filter_shells
from crefjax.spectral.variances import ShellVariances, shell_variances
from crefjax.weights.store import Weights

QUANTITIES = {"signal": "var(S)", "noise": "var(N)", "bias": "var(B)", "residual_noise": "var(N_d)"}
DRAWS = 5  # pairs of half-maps of one signal: the first is measured, the others show the truth
PLANTED_POWER = 0.3  # of the signal's, in every shell of the band
PLANTED_BAND = 0.45, 0.65  # of the shell of the resolution
_KEY = 1  # folded into the seed for poses and noise
_NEAR = 0.1
_LEAST_SHOWN = 3e-3  # of the noise's power
_NOTABLE = 0.01  # of the signal that is left: added structure with less power is not counted

Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class ReferencePairs:
    """A signal and half-maps of it with several draws of noise; arrays float32 `(z, y, x)`.

    Attributes:
        signal: what two half-maps have in common.
        pairs: of half-maps, the same signal with other noise each.
        mask: 0 to 1.
        voxel_size: Å.
        to_truth: `(shells,)`, var(signal - truth) / var(truth): what the images lose of the density.
        resolution: where the masked FSC of the first pair was made to cross 0.143, Å.
    """

    signal: np.ndarray
    pairs: list[Pair]
    mask: np.ndarray
    voxel_size: float
    to_truth: np.ndarray
    resolution: float

    def power(self, array: np.ndarray) -> np.ndarray:
        """Return the mean power of a map's shells under the mask, as `shell_covariances` defines it."""
        return shell_covariances([array], self.mask).of(0, 0)


def reference_pairs(atoms: Atoms, settings: SimulationConfig) -> ReferencePairs:
    """Simulate a model by either method.

    Additive noise is drawn again for every pair. The noise of a reconstruction is made once, in two maps: shifted,
    exchanged and with its sign turned it is other noise. Its signal is the mean of the two half-maps without noise;
    their difference, because other views were imaged, is noise like any other.

    Args:
        atoms: the model.
        settings: with white and even noise, and a box.

    Raises:
        UserError: as `simulate_half_maps`, or no level of the noise gives the resolution.
    """
    simulation = simulate_half_maps(atoms, replace(settings, method="additive", unevenness=0.0))
    truth, mask = simulation.truth, simulation.mask
    random = np.random.default_rng(settings.seed)
    if settings.method == "additive":
        level, signal = simulation.report["level"]["noise_deviation"], truth
        pairs = [tuple(signal + level * _white(random, truth.shape) for _ in range(2)) for _ in range(DRAWS)]
    else:
        _check_sphere(simulation.atoms, truth.shape[0] * settings.voxel_size)
        signal, pairs = _reconstruct(truth, mask, settings)
    covariances = shell_covariances([signal - truth, truth], mask)
    to_truth = covariances.of(0, 0) / np.maximum(covariances.of(1, 1), 1e-30)
    return ReferencePairs(signal, pairs, mask, settings.voxel_size, to_truth, settings.resolution)


def _white(random, shape):
    return random.standard_normal(shape, np.float32)


def _check_sphere(atoms, side):
    reach = 2 * float(np.linalg.norm(atoms.positions - side / 2, axis=1).max())
    if reach > side - 10:
        raise UserError(
            f"{atoms.source}: expected a box of at least {reach + 10:.4g} Å for a model that is turned to be imaged, "
            f"found {side:.4g} Å; use a larger --box or --voxel-size"
        )


def _reconstruct(truth, mask, settings):
    key = jax.random.fold_in(jax.random.key(settings.seed), _KEY)
    parts = reconstruct_signal_and_noise(
        truth, settings.voxel_size, key, settings.particles, refinements=settings.refinements
    )
    signals = [np.asarray(signal) for signal in (parts.signal_1, parts.signal_2)]
    noises = [np.asarray(noise) for noise in (parts.noise_1, parts.noise_2)]
    level, reached = NoiseLevelSolver(signals, noises, mask, settings.voxel_size).solve(settings.resolution)
    if not is_near(reached, settings.resolution):
        raise UserError(
            f"no level of the noise lets the FSC cross 0.143 at {settings.resolution:g} Å, the nearest was "
            f"{reached:.3g} Å; choose another --resolution or --seed"
        )
    pairs = []
    for draw in range(DRAWS):
        first, second = noises if draw % 2 == 0 else noises[::-1]
        shift, sign = (draw * len(truth)) // DRAWS, 1 if draw < 2 else -1
        moved = [np.roll(first, (shift,) * 3, (0, 1, 2)), sign * np.roll(second, (shift,) * 3, (2, 1, 0))]
        pairs.append(tuple(signal + np.float32(level) * noise for signal, noise in zip(signals, moved, strict=True)))
    return (signals[0] + signals[1]) / 2, pairs


@dataclass(frozen=True, eq=False)
class Denoiser:
    """A function of a pair of half-maps whose effect is known.

    Attributes:
        name: for the table.
        run: takes and gives a pair.
        of_signal: its output for the signal, on average over noise; None where it must be measured.
        band: bool `(shells,)`, where it adds false structure.
    """

    name: str
    run: Callable[[Pair], Pair]
    of_signal: np.ndarray | None
    band: np.ndarray


def reference_denoisers(reference: ReferencePairs, weights: dict[str, Weights], *, seed: int = 0) -> list[Denoiser]:
    """Return a Wiener filter, a Gaussian blur, the Wiener filter with false structure, and networks.

    Args:
        reference: what they are for.
        weights: of networks, by the name for the table; they denoise as `crefjax denoise` does.
        seed: of the false structure.
    """
    shape = reference.mask.shape
    shells = np.arange(max(shape) // 2 + 1)
    signal = reference.power(reference.signal)
    noise = np.mean([reference.power(half - reference.signal) for pair in reference.pairs for half in pair], axis=0)
    at = max(shape) * reference.voxel_size / reference.resolution
    wiener, blur = signal / (signal + noise), np.exp(-((shells / (0.6 * at)) ** 2))
    band = (shells >= round(PLANTED_BAND[0] * at)) & (shells <= round(PLANTED_BAND[1] * at))
    white = _white(np.random.default_rng([seed, 1]), shape)
    false = filtered(white, np.where(band, np.sqrt(PLANTED_POWER * signal), 0))
    no_band = np.zeros_like(band)
    denoisers = []
    for name, factors, added, where in (
        ("Wiener filter", wiener, 0, no_band),
        ("Gaussian blur", blur, 0, no_band),
        ("Wiener filter, false structure planted", wiener, false, band),
    ):

        def run(pair, factors=factors, added=added):
            return tuple(filtered(half, factors) + added for half in pair)

        denoisers.append(Denoiser(name, run, filtered(reference.signal, factors) + added, where))
    networks = [Denoiser(name, _network(each, reference), None, no_band) for name, each in weights.items()]
    return denoisers + networks


def _network(weights, reference):
    """Return the network with the factors that calibration finds on the first pair.

    The factors differ a little from pair to pair. Found again for each, they would be a part of the network's effect on
    average; but the estimates are those of one pair and its factors.
    """

    def denoised(pair, scale):
        maps = tuple(Map.from_array(half, reference.voxel_size) for half in pair)
        return denoise_maps(DenoiseRequest(maps, weights, scale=scale, half_maps=True))

    first = denoised(reference.pairs[0], "signal")

    def run(pair):
        raw = denoised(pair, "none")
        outputs = []
        for half, output in zip(pair, (raw.half_map_1.array, raw.half_map_2.array), strict=True):
            level = np.float32(solvent_level(half, first.region))
            output = output - np.float32(solvent_level(output, first.region))
            outputs.append(apply_calibration(output, half - level, first.calibration) + level)
        return tuple(outputs)

    return run


def filtered(array: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Multiply every shell of a map by a factor; voxels beyond the last shell take its factor."""
    return filter_shells(array, factors, beyond=factors[-1])


def true_variances(reference: ReferencePairs, denoiser: Denoiser, denoised: Pair) -> dict[str, np.ndarray]:
    """Return the true variances of the first pair, `(shells,)` each.

    Noise and residual noise are those in this pair. `E[D | S]` of a network is not known, but products of outputs whose
    noise is independent have no noise on average: with n outputs D of the other pairs, |E[D|S]|² is the mean of all
    products of two of them.

    Args:
        reference: the pairs.
        denoiser: one of `reference_denoisers`.
        denoised: its output for the first pair.
    """
    if denoiser.of_signal is not None:
        middle, excess = denoiser.of_signal, 0.0
        bias, common = reference.power(middle - reference.signal), reference.power(middle)
    else:
        outputs = [output for pair in reference.pairs[1:] for output in denoiser.run(pair)]
        middle, excess = sum(outputs) / len(outputs), _noise(reference, outputs) / len(outputs)
        bias = _common(reference, [output - reference.signal for output in outputs])
        common = _common(reference, outputs)
    covariances = shell_covariances([reference.signal, middle], reference.mask)
    signal = covariances.of(0, 0)
    return {
        "signal": signal,
        "added": common - covariances.of(0, 1) ** 2 / np.maximum(signal, np.finfo(np.float64).tiny),
        "noise": np.mean([reference.power(half - reference.signal) for half in reference.pairs[0]], axis=0),
        "bias": bias,
        "residual_noise": np.mean([reference.power(half - middle) for half in denoised], axis=0) - excess,
    }


def _common(reference, maps):
    """Return the power of what all maps have in common."""
    own, count = sum(reference.power(array) for array in maps), len(maps)
    return (reference.power(sum(maps)) - own) / (count * (count - 1))


def _noise(reference, maps):
    """Return the mean power of what each map has besides."""
    return np.mean([reference.power(array) for array in maps], axis=0) - _common(reference, maps)


class Trial(NamedTuple):
    """Estimates and truth for one denoiser on one pair."""

    model: str
    method: str
    denoiser: str
    band: np.ndarray
    estimates: ShellVariances
    true: dict[str, np.ndarray]
    frequency: np.ndarray

    @property
    def strong(self) -> np.ndarray:
        """Shells, of 1 to N/2 - 1, in which the signal of a half-map is above its noise."""
        inner = (np.arange(len(self.frequency)) > 0) & (np.arange(len(self.frequency)) < len(self.frequency) - 1)
        return inner & (self.true["signal"] > self.true["noise"])

    @property
    def flagged(self) -> np.ndarray:
        """Shells in which the estimates find added structure."""
        left = self.estimates.signal_kept.value**2 * self.estimates.signal.value
        return self.estimates.added.trusted & (self.estimates.added.value > _NOTABLE * left)


def summarize(trial: Trial) -> dict:
    """Return how often the truth was met where signal is above noise, and where added structure was found."""
    summary = {"shells_with_signal_above_noise": int(trial.strong.sum())}
    for name in QUANTITIES:
        estimate, true = getattr(trial.estimates, name), trial.true[name]
        apart = np.abs(estimate.value - true)
        trusted = trial.strong & estimate.trusted
        near, within = apart <= _NEAR * true, apart <= 2 * estimate.error
        summary[name] = {
            "trusted": int(trusted.sum()),
            "within_10_percent": _share(near, trusted),
            "within_2_errors": _share(within, trusted),
            "within_either": _share(near | within, trusted),
            "median_relative": float(np.median((apart / true)[trusted])) if trusted.any() else None,
        }
    false = trial.flagged & (trial.true["added"] < trial.estimates.added.value / 2)
    return summary | {
        "planted_shells": int(trial.band.sum()),
        "planted_shells_found": int((trial.flagged & trial.band).sum()),
        "shells_said_to_have_added_structure": int(trial.flagged[1:-1].sum()),
        "shells_falsely_said_to_have_it": int(false[1:-1].sum()),
        "contradicted_shells": np.flatnonzero(trial.estimates.inconsistent).tolist(),
    }


def _share(right, among):
    return round(float(np.mean(right[among])), 3) if among.any() else None


def _add_arguments(parser):
    parser.add_argument("models", nargs="+", metavar="MODEL", help="PDB or mmCIF file, or phantom")
    add_weights(parser, required=False)
    add_simulation_arguments(
        parser,
        **{"voxel_size": 1.5, "resolution": 4.0, "box": 96, "seed": 0, "residues": 400},
        **{"particles": 2000, "refinements": 1},
    )


def _run(arguments, output):
    start, weights = time.monotonic(), load_named(arguments.weights)
    atoms = {entry_name(model): read_model(model, arguments.residues) for model in arguments.models}
    trials, lost = [], {}
    for name, model in atoms.items():
        for method in METHODS:
            reference = reference_pairs(model, simulation_settings(arguments, method=method))
            lost[f"{name} {method}"] = float(np.mean(reference.to_truth[reference.power(reference.signal) > 0][1:-1]))
            for trial in _trials(name, method, reference, weights, arguments.seed):
                trials.append(trial)
                print(_line(trial), flush=True)
    keys = ("models", "voxel_size", "resolution", "box", "seed", "residues", "particles", "refinements")
    report = {
        "settings": {key: getattr(arguments, key) for key in keys},
        "planted_power": PLANTED_POWER,
        "weights": [{"path": str(each.path), "sha256": each.card["sha256"]} for each in weights.values()],
        "signal_differs_from_the_model_by": lost,
        "trials": [
            {"model": trial.model, "method": trial.method, "denoiser": trial.denoiser, **summarize(trial)}
            for trial in trials
        ],
    }
    quantities = [f"{name}_{part}" for name in QUANTITIES for part in ("true", "value", "error", "trusted")]
    header = ["model", "method", "denoiser", "shell", "frequency", "planted", *quantities, "added", "added_error"]
    output.write_csv(header, (row for trial in trials for row in _rows(trial)))
    output.write_json(report, seconds=time.monotonic() - start)
    output.write_figure(_figure(trials))


def _trials(model, method, reference: ReferencePairs, weights, seed):
    frequency = shell_frequencies(reference.mask.shape, reference.voxel_size)
    for denoiser in reference_denoisers(reference, weights, seed=seed):
        denoised = denoiser.run(reference.pairs[0])
        estimates = shell_variances(*reference.pairs[0], *denoised, reference.mask)
        true = true_variances(reference, denoiser, denoised)
        yield Trial(model, method, denoiser.name, denoiser.band, estimates, true, frequency)


def _line(trial):
    summary = summarize(trial)
    parts = []
    for name, symbol in QUANTITIES.items():
        counts = summary[name]
        parts.append(f"{symbol} {counts['within_10_percent']} / {counts['within_2_errors']} of {counts['trusted']}")
    line = f"{trial.model} {trial.method}, {trial.denoiser}: within 10% / 2 errors: {', '.join(parts)}"
    line += f"; planted {summary['planted_shells_found']} of {summary['planted_shells']} found"
    line += f"; {summary['shells_said_to_have_added_structure']} reported to have added structure"
    line += f", {summary['shells_falsely_said_to_have_it']} falsely"
    return line + f", {len(summary['contradicted_shells'])} contradicted"


def _rows(trial):
    added = trial.estimates.added
    for s, frequency in enumerate(trial.frequency):
        row = [trial.model, trial.method, trial.denoiser, s, f"{frequency:.6g}", int(trial.band[s])]
        for name in QUANTITIES:
            estimate = getattr(trial.estimates, name)
            row += [f"{values[s]:.6g}" for values in (trial.true[name], estimate.value, estimate.error)]
            row.append(int(estimate.trusted[s]))
        yield [*row, f"{added.value[s]:.6g}", f"{added.error[s]:.6g}"]


def _figure(trials):
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
    handles = unique_handles(rows.ravel())
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=6, frameon=False)
    return figure


def _panel(axes, trial, name, unit):
    inner, x, estimate = slice(1, len(trial.frequency) - 1), trial.frequency, getattr(trial.estimates, name)
    step = x[1] / 2
    for s in np.flatnonzero(~estimate.trusted[inner]) + 1:
        label = "estimate not to be trusted"
        axes.axvspan(x[s] - step, x[s] + step, facecolor="none", edgecolor="#cccccc", hatch="////", lw=0, label=label)
    for s in np.flatnonzero(trial.band):
        axes.axvspan(x[s] - step, x[s] + step, color=ORANGE, alpha=0.2, lw=0, label="planted")
    true = np.where(trial.true[name] > 0, trial.true[name], np.nan) / unit
    axes.semilogy(x[inner], true[inner], color=GRAY, linewidth=3, alpha=0.7, label="true")
    parts = estimate.value, estimate.error
    value, error = (np.where(estimate.trusted, part, np.nan)[inner] / unit for part in parts)
    low = np.maximum(value - 2 * error, 1e-30)
    axes.fill_between(x[inner], low, value + 2 * error, color=BLUE, alpha=0.3, lw=0, label="two errors")
    axes.semilogy(x[inner], value, ".-", color=BLUE, markersize=4, linewidth=1, label="estimated from one pair")
    if trial.strong.any():
        axes.axvline(x[np.flatnonzero(trial.strong)[-1]] + step, color=GREEN, linestyle="--", label="var(S) = var(N)")
    resolution_axis(axes, x[-1])
    axes.tick_params(labelsize=8)


STUDY = Study(__name__, _run, _add_arguments)
