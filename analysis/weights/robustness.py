"""Denoise the same specimen presented in other ways, and noise alone, with given weights.

    python -m analysis robustness MODELS -o DIR --weights W [W ...]

MODELS has the `cryoem/` and `docking/` of `SPECIMENS`. Half-maps of each are simulated, and again in another box and
with other voxels; or turned by 90°, shifted, scaled, sharpened, masked or inverted. All are denoised as `crefjax
denoise` does. The score is the mean FSC to the truth from shell 1 up to the last frequency that all variants have,
under the mask; what counts is the gain of denoising over the full map.

Then noise alone, of the standard deviation that it has in the first specimen's half-maps, in the same units: eight
independent boxes, each a full map. Reported are the mean FSC of any two outputs, beside its scatter if they have
nothing in common, and how much of the noise's power passes, relative to the output for the specimen itself, in every
shell; and what is left of a pair of half-maps that are noise alone on the scale of the signal. It writes

    robustness.csv          a row for each specimen, variant and weights
    robustness.md           the same as a table to read, and the noise
    robustness.json         settings, versions, every number
    robustness.png, .svg    the noise that passes, by shell
"""

import functools
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from analysis.framework.output import FULL
from analysis.framework.simulation import check_models, entry_name
from analysis.framework.study import Study, add_weights, load_named
from crefjax.data.grid import level_and_rms
from crefjax.inference.denoise import denoise_maps
from crefjax.inference.memory_plan import plan_denoise
from crefjax.inference.network import run_network
from crefjax.inference.request import DenoiseRequest
from crefjax.io.maps import Map, full_map
from crefjax.plotting import BLUE, GRAY, GREEN, ORANGE
from crefjax.simulate.atoms import Atoms, read_atoms
from crefjax.simulate.half_maps import SimulationConfig, simulate_half_maps
from crefjax.spectral.b_factors import apply_b_factor
from crefjax.spectral.covariances import shell_covariances
from crefjax.spectral.curves import has_no_signal, solvent_level
from crefjax.spectral.fsc import fsc_curve
from crefjax.spectral.windows import raised_cosine
from crefjax.weights.store import Weights

SPECIMENS = {
    "cryoem/8tze.cif.gz": SimulationConfig(voxel_size=1.4, resolution=3.64, seed=6001, b_factor=40.0),
    "docking/2VDB_target.pdb.gz": SimulationConfig(voxel_size=1.3, resolution=3.9, seed=6002, b_factor=60.0),
}
_LARGEST_VOXEL = 1.25  # times the specimen's, of all variants
_SHARPENED = (60.0, 250.0, -250.0)  # Å²; below 0: blurred
_SHIFT = 5, -3, 6  # voxels, less than the margin around a particle
_BOXES = 8  # of noise alone
_COLORS = (ORANGE, BLUE, GREEN, GRAY)
_NOISE_LABELS = (
    "FSC of any two of the outputs for eight boxes, mean over shells",
    "shells in which it is beyond 3 times its scatter",
    "the last of them",
    "power that passes, over that of the map's own output, median over shells",
    "the most",
    "standard deviation left on the scale of the signal, of 1",
    "warned that the half-maps hardly correlate",
)


class Variant(NamedTuple):
    """A specimen presented in one way; arrays `(z, y, x)`.

    Attributes:
        way: in words.
        halves: two half-maps.
        truth: as it lies in them.
        mask: 0 to 1.
        voxel_size: Å.
        sign: -1 where the contrast is inverted.
        masked: whether the mask is given to the denoiser.
    """

    way: str
    halves: tuple[np.ndarray, np.ndarray]
    truth: np.ndarray
    mask: np.ndarray
    voxel_size: float
    sign: int = 1
    masked: bool = False

    def change_all(self, way: str, function) -> "Variant":
        """Return the variant with half-maps, truth, and mask changed by a function."""
        halves = tuple(function(half) for half in self.halves)
        return self._replace(way=way, halves=halves, truth=function(self.truth), mask=function(self.mask))

    def change_halves(self, way: str, function) -> "Variant":
        """Return the variant with half-maps changed by a function."""
        return self._replace(way=way, halves=tuple(function(half) for half in self.halves))


def variants(atoms: Atoms, settings: SimulationConfig) -> Iterator[Variant]:
    """Yield a specimen in all ways, as it is first."""
    simulation = simulate_half_maps(atoms, settings)
    side, halves = len(simulation.truth), (simulation.half_map_1, simulation.half_map_2)
    plain = Variant("as it is", halves, simulation.truth, simulation.mask, settings.voxel_size)
    yield plain
    yield plain.change_all("turned by 90° about z", lambda array: np.ascontiguousarray(np.rot90(array, axes=(1, 2))))
    yield plain.change_all(
        "shifted by {} {} {} voxels".format(*_SHIFT), lambda array: np.roll(array, _SHIFT, (0, 1, 2))
    )
    yield plain.change_halves("times 1000", lambda array: array * np.float32(1000))
    for b_factor in _SHARPENED:
        way = f"{'sharpened' if b_factor > 0 else 'blurred'} by {abs(b_factor):g} Å²"
        change = functools.partial(apply_b_factor, voxel_size=settings.voxel_size, b_factor=-b_factor)
        yield plain.change_halves(way, change)
    yield plain._replace(way="with its mask", masked=True)
    yield plain.change_halves("inverted contrast", np.negative)._replace(sign=-1)
    for way, changes in (
        ("box 1.5 times as wide", {"box": 2 * round(0.75 * side)}),
        ("box 2 times as wide", {"box": 2 * side}),
        ("voxels 0.6 times as wide", {"voxel_size": 0.6 * settings.voxel_size, "box": 2 * round(side / 1.2)}),
        ("voxels 0.8 times as wide", {"voxel_size": 0.8 * settings.voxel_size, "box": 2 * round(side / 1.6)}),
        ("voxels 1.25 times as wide", {"voxel_size": 1.25 * settings.voxel_size, "box": 2 * round(side / 2.5)}),
    ):
        changed = replace(settings, **changes)
        other = simulate_half_maps(atoms, changed)
        yield Variant(way, (other.half_map_1, other.half_map_2), other.truth, other.mask, changed.voxel_size)


def scores(specimen: str, variant: Variant, weights: dict[str, Weights], finest: float) -> list[dict]:
    """Return rows of the full map and of the weights' outputs.

    Args:
        specimen: its name.
        variant: of it.
        weights: loaded, by the name for the table.
        finest: Å, up to which shells are compared.
    """
    pair = tuple(Map.from_array(half, variant.voxel_size) for half in variant.halves)
    mask = Map.from_array(variant.mask, variant.voxel_size) if variant.masked else None
    maps = {FULL: (sum(half.astype(np.float64) for half in variant.halves).astype(np.float32) / 2, ())}
    for name, each in weights.items():
        denoised = denoise_maps(DenoiseRequest(pair, each, mask))
        maps[name] = denoised.full.array, denoised.notes
    rows = []
    for name, (array, notes) in maps.items():
        masked = _masked(variant, variant.sign * array, denoised=name in weights)
        curve = fsc_curve(masked, variant.truth * variant.mask, variant.voxel_size)
        within = (curve.frequency > 0) & (curve.frequency <= 1 / finest)
        row = {"specimen": specimen, "way": variant.way, "weights": name, "mean_fsc": float(curve.fsc[within].mean())}
        rows.append(row | {"box": len(array), "notes": list(notes)})
    return [row | {"gain": row["mean_fsc"] - rows[0]["mean_fsc"]} for row in rows]


def _masked(variant, array, *, denoised):
    """Return a map with the solvent at 0, masked once: a map that was denoised with its mask is masked already."""
    if variant.masked and denoised:
        return array
    return (array - np.float32(solvent_level(array, variant.mask))) * variant.mask


def denoise_noise(halves: Sequence[np.ndarray], truth: np.ndarray, voxel_size: float, weights: Weights) -> dict:
    """Denoise noise alone, as strong as in a specimen's half-maps.

    Args:
        halves: the two half-maps of a specimen, cubic `(z, y, x)`.
        truth: the same.
        voxel_size: Å.
        weights: loaded.

    Returns:
        Curves by shell, within a soft sphere, because outputs share their padding at the border of the box: `fsc` of
        the outputs for two boxes, mean over all pairs of eight; `scatter`, the standard deviation of that mean if the
        outputs have nothing in common, by the scatter of the pairs around 0; `passed`, the power of the output for
        noise over that of the output for the specimen's full map. And `remaining_std_ratio`, the standard deviation of
        a calibrated pair of noise over that of its full map, and `warned`, whether it was reported as noise.
    """
    std = float(np.std([half - truth.astype(np.float64) for half in halves]))
    random = np.random.default_rng(7)
    full = full_map(*halves)
    noises = [random.standard_normal(full.shape, np.float32) * np.float32(std / np.sqrt(2)) for _ in range(_BOXES)]
    request = DenoiseRequest(tuple(Map.from_array(half, voxel_size) for half in halves), weights)
    plan = plan_denoise(request)
    outputs = [_own_output(array, full, request, plan) for array in (*noises, full)]
    inside = soft_sphere(len(full))
    levels = [float(np.average(output, weights=inside)) for output in outputs]
    covariances = shell_covariances(outputs, inside, levels=levels)
    # Beyond what the network's grid can hold there is nothing.
    tiny = np.finfo(np.float64).tiny
    power = [np.maximum(covariances.of(i, i), tiny) for i in range(_BOXES)]
    pairs = [covariances.of(i, j) / np.sqrt(power[i] * power[j]) for i, j in itertools.combinations(range(_BOXES), 2)]
    passed = np.mean(power, axis=0) / np.maximum(covariances.of(_BOXES, _BOXES), tiny)
    pair = tuple(Map.from_array(noise * np.float32(np.sqrt(2)), voxel_size) for noise in noises[:2])
    denoised = denoise_maps(DenoiseRequest(pair, weights))
    mean = full_map(pair[0].array, pair[1].array)
    return {
        "fsc": np.mean(pairs, axis=0).tolist(),
        # What a network leaves of noise is uneven: it scatters more than as many voxels of white noise would. Pairs of
        # independent boxes are uncorrelated, also those that share one.
        "scatter": (np.sqrt(np.mean(np.square(pairs), axis=0) / len(pairs))).tolist(),
        "passed": passed.tolist(),
        "remaining_std_ratio": float(denoised.full.array.std() / mean.std()),
        "warned": bool(has_no_signal(denoised.half_map_fsc.fsc)),
    }


def soft_sphere(side: int) -> np.ndarray:
    """Return a sphere of 0.4 of a cubic box in radius, with an edge as wide as 0.1 of it, float64."""
    place = (np.arange(side) - (side - 1) / 2) / side
    radius = np.sqrt(place[:, None, None] ** 2 + place[:, None] ** 2 + place**2)
    return raised_cosine((radius - 0.35) / 0.1)


def _own_output(array, full, request, plan):
    """Return the network's output for a box in the units of a full map: on its grid, standardized by its moments."""
    # Noise standardized by its own moments would be stronger than it is beside a signal, and at another level.
    grid, weights = plan.grid, request.weights
    if weights.grid:
        region = request.region.array
        level, std = level_and_rms(grid.resample(full), None if region is None else grid.resample_mask(region))
    else:
        level, std = full.mean(), full.std()
    scaled = ((grid.resample(array) - level) / std).astype(np.float32)
    out = run_network(weights.parameters, scaled, weights.config, slab=plan.slab, device=plan.device)
    return grid.restore(out, array.shape)


def _add_arguments(parser):
    parser.add_argument("models", metavar="MODELS", type=Path, help="folder with cryoem/ and docking/")
    add_weights(parser)


def _run(arguments, output):
    start = time.monotonic()
    check_models(arguments.models, SPECIMENS)
    weights = load_named(arguments.weights)
    rows, noises = [], {}
    for model, settings in SPECIMENS.items():
        atoms, specimen = read_atoms(arguments.models / model), entry_name(model)
        finest = 2 * _LARGEST_VOXEL * settings.voxel_size
        for variant in variants(atoms, settings):
            new_rows = scores(specimen, variant, weights, finest)
            rows += new_rows
            if not noises:
                parts = variant.halves, variant.truth, variant.voxel_size
                noises = {name: denoise_noise(*parts, each) for name, each in weights.items()}
            numbers = ", ".join(f"{row['weights']} {row['mean_fsc']:.4f}" for row in new_rows)
            print(f"{specimen}, {variant.way}: {numbers}", flush=True)
    fields = ("voxel_size", "resolution", "b_factor", "seed")
    report = {
        "weights": {name: each.card["sha256"] for name, each in weights.items()},
        "specimens": {model: {field: getattr(each, field) for field in fields} for model, each in SPECIMENS.items()},
        "shift_in_voxels": _SHIFT,
        "sharpened_by_angstrom2": _SHARPENED,
        "rows": rows,
        "noise": noises,
    }
    text = _markdown(rows, noises)
    output.write_csv(["specimen", "way", "box", "weights", "mean_fsc", "gain", "notes"], map(_cells, rows))
    output.write("md", text)
    output.write_json(report, seconds=time.monotonic() - start)
    output.write_figure(_figure(noises))
    print(text)


def _cells(row):
    numbers = [f"{row['mean_fsc']:.5f}", f"{row['gain']:+.5f}"]
    return [row["specimen"], row["way"], row["box"], row["weights"], *numbers, "; ".join(row["notes"])]


def _markdown(rows, noises):
    names = list(dict.fromkeys(row["weights"] for row in rows))
    lines = ["| specimen | presented | box | " + " | ".join(names) + " |", "|---" * (3 + len(names)) + "|"]
    for (specimen, way), group in itertools.groupby(rows, key=lambda row: (row["specimen"], row["way"])):
        full, *denoised = group
        cells = [f"{full['mean_fsc']:.3f}", *(f"{row['mean_fsc']:.3f} ({row['gain']:+.3f})" for row in denoised)]
        lines.append(f"| {specimen} | {way} | {full['box']} | " + " | ".join(cells) + " |")
    lines += ["", "| noise alone | " + " | ".join(noises) + " |", "|---" * (1 + len(noises)) + "|"]
    columns = [_noise_cells(noise) for noise in noises.values()]
    for label, *cells in zip(_NOISE_LABELS, *columns, strict=True):
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _noise_cells(noise):
    fsc, scatter, passed = (np.array(noise[key])[1:-1] for key in ("fsc", "scatter", "passed"))
    beyond = np.flatnonzero(np.abs(fsc) > 3 * scatter)
    return [
        f"{fsc.mean():.4f}",
        f"{len(beyond)} of {len(fsc)}",
        str(beyond[-1] + 1) if len(beyond) else "none",
        f"{np.median(passed):.4f}",
        f"{passed.max():.4f}",
        f"{noise['remaining_std_ratio']:.4f}",
        "yes" if noise["warned"] else "no",
    ]


def _figure(noises):
    figure = Figure(figsize=(11, 4), layout="constrained")
    first, second = figure.subplots(1, 2)
    for (name, noise), color in zip(noises.items(), _COLORS * len(noises), strict=False):
        shells = np.arange(1, len(noise["passed"]) - 1)
        first.semilogy(shells, np.array(noise["passed"])[1:-1], color=color, label=name)
        second.plot(shells, (np.array(noise["fsc"]) / noise["scatter"])[1:-1], color=color, label=name)
    second.axhspan(-3, 3, color=GRAY, alpha=0.3, label="3 times its scatter")
    first.set(xlabel="shell", ylabel="noise's power that passes,\nover that of the map's own output")
    second.set(xlabel="shell", ylabel="mean FSC of any two outputs\nfor eight boxes of noise, over its scatter")
    for axes in (first, second):
        axes.legend(loc="upper right", fontsize=8, frameon=False)
    return figure


STUDY = Study(__name__, _run, _add_arguments)
