"""The same specimen put in other ways, and pure noise: what weights make of each.

    python -m analysis.robustness MODELS -o DIR --weights W [W ...]

MODELS has the `cryoem/` and `docking/` of `SPECIMENS`. Half-maps of each are simulated, and again in another box and
with other voxels; or turned by 90°, shifted, scaled, sharpened, masked or inverted. All are denoised as `crefjax
denoise` does. The score is the mean FSC to the truth from shell 1 up to the last frequency that all ways of putting it
have, under the mask; what counts is what denoising gains over the full map.

Then noise alone, of the deviation that it has in the first specimen's half-maps, in the same units: eight independent
boxes, each a full map. Reported are the mean FSC of any two outputs, beside its scatter if they have nothing in
common, and how much of the noise's power passes, relative to the output for the specimen itself, in every shell; and
what is left of a pair of half-maps that are noise alone on the scale of the signal. It writes

    robustness.csv          a row for each specimen, way of putting it and weights
    robustness.md           the same as a table to read, and the noise
    robustness.json         settings, versions, every number
    robustness.png, .svg    the noise that passes, by shell
"""

import argparse
import csv
import functools
import io
import json
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure

from analysis.files import check_output, load_named, put, run_study
from analysis.noise_alone import noise_alone
from crefjax import __version__
from crefjax.errors import UserError
from crefjax.inference.denoise import denoise_maps
from crefjax.inference.request import DenoiseRequest
from crefjax.io.maps import Map
from crefjax.plotting import BLUE, GREEN, GREY, ORANGE, figure_bytes
from crefjax.simulate.atoms import read_atoms
from crefjax.simulate.half_maps import SimulationConfig, simulate_half_maps
from crefjax.spectral.curves import solvent_level
from crefjax.spectral.fsc import fsc_curve

NAME = "robustness"
SPECIMENS = {
    "cryoem/8tze.cif.gz": SimulationConfig(voxel_size=1.4, resolution=3.64, seed=6001, b_factor=40.0),
    "docking/2VDB_target.pdb.gz": SimulationConfig(voxel_size=1.3, resolution=3.9, seed=6002, b_factor=60.0),
}
_SHARPENED = (60.0, 250.0, -250.0)  # Å²; below 0: blurred
_SHIFT = 5, -3, 6  # voxels, less than the margin around a particle
_COLOURS = (ORANGE, BLUE, GREEN, GREY)


class Put(NamedTuple):
    """A specimen put in one way; arrays `(z, y, x)`.

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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study; returns 0, or 2 after a mistake of the user's, told in one line."""
    parser = argparse.ArgumentParser(prog=f"python -m analysis.{NAME}", description=__doc__.splitlines()[0])
    parser.add_argument("models", metavar="MODELS", type=Path, help="folder with cryoem/ and docking/")
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="folder to write")
    parser.add_argument("--weights", nargs="+", required=True, metavar="W", help="names or folders of weights")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run")
    return run_study(NAME, parser, _run, argv)


def _run(arguments):
    folder, start = Path(arguments.output), time.monotonic()
    check_output(folder, f"{NAME}.csv", overwrite=arguments.overwrite)
    for one in SPECIMENS:
        if not (arguments.models / one).is_file():
            raise UserError(f"{arguments.models / one}: expected a model, found none; give the folder that has {one}")
    weights = load_named(arguments.weights)
    folder.mkdir(exist_ok=True)
    rows, noises = [], {}
    for name, settings in SPECIMENS.items():
        atoms, specimen = read_atoms(arguments.models / name), Path(name).name.split(".")[0].removesuffix("_target")
        finest = 2 * 1.25 * settings.voxel_size
        for one in ways(atoms, settings):
            rows += scores(specimen.lower(), one, weights, finest)
            if not noises:
                noises = {
                    label: noise_alone(one.halves, one.truth, one.voxel_size, each) for label, each in weights.items()
                }
            told = ", ".join(f"{row['weights']} {row['mean_fsc']:.4f}" for row in rows[-1 - len(weights) :])
            print(f"{specimen.lower()}, {one.way}: {told}", flush=True)
    report = {
        "crefjax": __version__, "jax": jax.__version__, "python": platform.python_version(),
        "seconds": round(time.monotonic() - start, 1),
        "weights": {label: one.card["sha256"] for label, one in weights.items()},
        "specimens": {
            name: {key: getattr(one, key) for key in ("voxel_size", "resolution", "b_factor", "seed")}
            for name, one in SPECIMENS.items()
        },
        "shift_in_voxels": _SHIFT, "sharpened_by_angstrom2": _SHARPENED, "rows": rows, "noise": noises,
    }  # fmt: skip
    put(folder / f"{NAME}.csv", _csv(rows))
    put(folder / f"{NAME}.md", _markdown(rows, noises).encode())
    put(folder / f"{NAME}.json", (json.dumps(report, indent=2) + "\n").encode())
    for kind in ("png", "svg"):
        put(folder / f"{NAME}.{kind}", _figure(noises, kind))
    print(_markdown(rows, noises))
    return 0


def ways(atoms, settings: SimulationConfig) -> Iterator[Put]:
    """A specimen put in all ways, as it is first."""
    made = simulate_half_maps(atoms, settings)
    side = len(made.truth)
    plain = Put("as it is", (made.half_map_1, made.half_map_2), made.truth, made.mask, settings.voxel_size)
    yield plain
    yield _each(plain, "turned by 90° about z", lambda one: np.ascontiguousarray(np.rot90(one, axes=(1, 2))))
    yield _each(plain, "shifted by {} {} {} voxels".format(*_SHIFT), lambda one: np.roll(one, _SHIFT, (0, 1, 2)))
    yield _of_halves(plain, "times 1000", lambda one: one * np.float32(1000))
    for b_factor in _SHARPENED:
        way = f"{'sharpened' if b_factor > 0 else 'blurred'} by {abs(b_factor):g} Å²"
        change = functools.partial(sharpened, voxel_size=settings.voxel_size, b_factor=b_factor)
        yield _of_halves(plain, way, change)
    yield plain._replace(way="with its mask", masked=True)
    inverted = _of_halves(plain, "inverted contrast", np.negative)
    yield inverted._replace(sign=-1)
    for way, changes in (
        ("box 1.5 times as wide", {"box": 2 * round(0.75 * side)}),
        ("box 2 times as wide", {"box": 2 * side}),
        ("voxels 0.6 times as wide", {"voxel_size": 0.6 * settings.voxel_size, "box": 2 * round(side / 1.2)}),
        ("voxels 0.8 times as wide", {"voxel_size": 0.8 * settings.voxel_size, "box": 2 * round(side / 1.6)}),
        ("voxels 1.25 times as wide", {"voxel_size": 1.25 * settings.voxel_size, "box": 2 * round(side / 2.5)}),
    ):
        changed = replace(settings, **changes)
        other = simulate_half_maps(atoms, changed)
        yield Put(way, (other.half_map_1, other.half_map_2), other.truth, other.mask, changed.voxel_size)


def _each(plain, way, change):
    halves = tuple(change(one) for one in plain.halves)
    return plain._replace(way=way, halves=halves, truth=change(plain.truth), mask=change(plain.mask))


def _of_halves(plain, way, change):
    return plain._replace(way=way, halves=tuple(change(one) for one in plain.halves))


def sharpened(one: np.ndarray, voxel_size: float, b_factor: float) -> np.ndarray:
    """A cubic map whose amplitudes grow as `exp(B s² / 4)`, as far as Nyquist and level in the corners beyond it."""
    whole, half = np.fft.fftfreq(len(one)), np.fft.rfftfreq(len(one))
    square = whole[:, None, None] ** 2 + whole[:, None] ** 2 + half**2
    factor = np.exp(b_factor * np.minimum(square, 0.25) / voxel_size**2 / 4)
    return np.fft.irfftn(np.fft.rfftn(one) * factor, one.shape, axes=(0, 1, 2)).astype(np.float32)


def scores(specimen: str, one: Put, weights: dict, finest: float) -> list[dict]:
    """Rows of the full map and of what weights make of it.

    Args:
        specimen: its name.
        one: how it is put.
        weights: loaded, by the name to tell.
        finest: Å, up to which shells are compared.
    """
    pair = tuple(Map.from_array(half, one.voxel_size) for half in one.halves)
    mask = Map.from_array(one.mask, one.voxel_size) if one.masked else None
    maps = {"full map": (sum(half.astype(np.float64) for half in one.halves).astype(np.float32) / 2, ())}
    for name, each in weights.items():
        done = denoise_maps(DenoiseRequest(pair, each, mask))
        maps[name] = done.full.array, done.notes
    rows = []
    for name, (array, notes) in maps.items():
        curve = fsc_curve(*_compared(one, one.sign * array, denoised=name in weights), one.voxel_size)
        within = (curve.frequency > 0) & (curve.frequency <= 1 / finest)
        row = {"specimen": specimen, "way": one.way, "weights": name, "mean_fsc": float(curve.fsc[within].mean())}
        rows.append(row | {"box": len(array), "notes": list(notes)})
    return [row | {"gain": row["mean_fsc"] - rows[0]["mean_fsc"]} for row in rows]


def _compared(one, array, *, denoised):
    """A map and the truth with the solvent at 0, masked once: what was denoised with its mask has it."""
    level = np.float32(solvent_level(array, one.mask))
    return array if one.masked and denoised else (array - level) * one.mask, one.truth * one.mask


def _csv(rows):
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["specimen", "way", "box", "weights", "mean_fsc", "gain", "notes"])
    for row in rows:
        numbers = [f"{row['mean_fsc']:.5f}", f"{row['gain']:+.5f}"]
        writer.writerow([row["specimen"], row["way"], row["box"], row["weights"], *numbers, "; ".join(row["notes"])])
    return stream.getvalue().encode()


def _markdown(rows, noises):
    names = list(dict.fromkeys(row["weights"] for row in rows))
    lines = ["| specimen | put | box | " + " | ".join(names) + " |", "|---" * (3 + len(names)) + "|"]
    for specimen, way in dict.fromkeys((row["specimen"], row["way"]) for row in rows):
        these = [row for row in rows if (row["specimen"], row["way"]) == (specimen, way)]
        told = [
            f"{row['mean_fsc']:.3f}" + ("" if number == 0 else f" ({row['gain']:+.3f})")
            for number, row in enumerate(these)
        ]
        lines.append(f"| {specimen} | {way} | {these[0]['box']} | " + " | ".join(told) + " |")
    lines += ["", "| noise alone | " + " | ".join(noises) + " |", "|---" * (1 + len(noises)) + "|"]
    cells = {label: [] for label in (
        "FSC of any two of the outputs for eight boxes, mean over shells",
        "shells in which it is beyond 3 times its scatter",
        "the last of them", "power that passes, over that of the map's own output, median over shells", "the most",
        "left on the scale of the signal, of 1", "told that the half-maps hardly correlate",
    )}  # fmt: skip
    for one in noises.values():
        fsc, scatter, passed = (np.array(one[key])[1:-1] for key in ("fsc", "scatter", "passed"))
        beyond = np.flatnonzero(np.abs(fsc) > 3 * scatter)
        numbers = [f"{fsc.mean():.4f}", f"{len(beyond)} of {len(fsc)}", str(beyond[-1] + 1) if len(beyond) else "none"]
        numbers += [
            f"{np.median(passed):.4f}",
            f"{passed.max():.4f}",
            f"{one['left']:.4f}",
            "yes" if one["told"] else "no",
        ]
        for label, number in zip(cells, numbers, strict=True):
            cells[label].append(number)
    lines += [f"| {label} | " + " | ".join(each) + " |" for label, each in cells.items()]
    return "\n".join(lines) + "\n"


def _figure(noises, kind):
    figure = Figure(figsize=(11, 4), layout="constrained")
    first, second = figure.subplots(1, 2)
    for (name, one), color in zip(noises.items(), _COLOURS * len(noises), strict=False):
        shells = np.arange(1, len(one["passed"]) - 1)
        first.semilogy(shells, np.array(one["passed"])[1:-1], color=color, label=name)
        second.plot(shells, (np.array(one["fsc"]) / one["scatter"])[1:-1], color=color, label=name)
    second.axhspan(-3, 3, color=GREY, alpha=0.3, label="3 times its scatter")
    first.set(xlabel="shell", ylabel="noise's power that passes,\nover that of the map's own output")
    second.set(xlabel="shell", ylabel="mean FSC of any two outputs\nfor eight boxes of noise, over its scatter")
    for axes in (first, second):
        axes.legend(fontsize=8, frameon=False)
    return figure_bytes(figure, kind)


if __name__ == "__main__":
    sys.exit(main())
