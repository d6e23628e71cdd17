"""How near to the truth weights bring maps of models that they never saw.

    python -m analysis.simulated_denoised MODELS -o DIR --weights W [W ...]

MODELS is a folder with `cryoem/` and `docking/` models. From the eight of `ENTRIES`, which the configs of
`experiments/configs` never train on, entries are simulated (kept in DIR/entries), denoised as `crefjax denoise` does,
without a mask, and compared with the truth under the entry's mask. It writes

    simulated_denoised.csv          a row for each entry and map: the full map and the output of every weights folder
    simulated_denoised.json         settings, versions, means
    simulated_denoised.png, .svg    FSC curves to the truth, a panel for each entry
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
from crefjax.inference.denoise import denoise_maps, plan_denoise
from crefjax.io.entries import find_entry, load_mask, load_pair
from crefjax.io.maps import read_map
from crefjax.report.plots import BLUE, GREEN, GREY, ORANGE, figure_bytes, resolution_axis
from crefjax.simulate.atoms import read_atoms
from crefjax.simulate.entry import write_entry
from crefjax.simulate.halfmaps import Settings, simulate_half_maps
from crefjax.simulate.noise import Colour, power_law, white, with_b_factor
from crefjax.spectral.fsc import FscCurve, fsc_curve
from crefjax.version import __version__

NAME = "simulated_denoised"
_COLOURS = (ORANGE, BLUE, GREEN, GREY)


class Planned(NamedTuple):
    """An entry to simulate: a model, its voxels in Å, its FSC-0.143 in voxels, a blur in Å², the noise's colour."""

    model: str
    voxel_size: float
    resolution: float
    b_factor: float
    noise: Colour


ENTRIES = (
    Planned("cryoem/8tze.cif.gz", 1.4, 2.6, 40, white()),
    Planned("cryoem/7yc8.cif.gz", 1.6, 3.1, 60, with_b_factor(30.0)),
    Planned("cryoem/9be6.cif.gz", 1.1, 2.7, 30, power_law(0.8, level_below=0.025)),
    Planned("cryoem/9jmb.cif.gz", 1.3, 3.5, 80, white()),
    Planned("cryoem/8tsq.cif.gz", 1.0, 2.2, 20, with_b_factor(10.0)),
    Planned("cryoem/6bqn.cif.gz", 1.2, 3.0, 60, with_b_factor(-15.0)),
    Planned("docking/1GP2_target.pdb.gz", 0.9, 2.4, 20, power_law(0.4, level_below=0.025)),
    Planned("docking/2VDB_target.pdb.gz", 1.5, 4.0, 100, white()),
)


class Scored(NamedTuple):
    """One map of one entry beside the truth."""

    entry: str
    method: str
    curve: FscCurve

    @property
    def mean(self) -> float:
        """Mean FSC to the truth, shells 1 to N/2 - 1."""
        return float(self.curve.fsc[1:-1].mean())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study; returns 0, or 2 after a mistake of the user's, told in one line."""
    return run_study(NAME, _parser(), _run, argv)


def _parser():
    parser = argparse.ArgumentParser(prog=f"python -m analysis.{NAME}", description=__doc__.splitlines()[0])
    parser.add_argument("models", metavar="MODELS", help="folder with the models")
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="folder to write")
    parser.add_argument("--weights", nargs="+", required=True, metavar="W", help="names or folders of weights")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run; its entries are used again")
    return parser


def _run(arguments):
    folder = Path(arguments.output)
    check_output(folder, f"{NAME}.csv", overwrite=arguments.overwrite)
    weights = load_named(arguments.weights)
    (folder / "entries").mkdir(parents=True, exist_ok=True)
    start, scores, resolutions = time.monotonic(), [], {}
    for number, planned in enumerate(ENTRIES):
        entry = find_entry(simulated(planned, Path(arguments.models), folder / "entries", seed=number))
        resolutions[entry.name], found = score(entry, weights)
        scores += found
        print(f"{entry.name}: " + ", ".join(f"{one.method} {one.mean:.4f}" for one in found), flush=True)
    seconds = time.monotonic() - start
    summary = _summary(scores, resolutions, weights, seconds)
    put(folder / f"{NAME}.csv", _csv(scores, resolutions))
    put(folder / f"{NAME}.json", (json.dumps(summary, indent=2) + "\n").encode())
    for kind in ("png", "svg"):
        put(folder / f"{NAME}.{kind}", _figure(scores, kind))
    print("mean: " + ", ".join(f"{name} {value:.4f}" for name, value in summary["mean_fsc_truth"].items()))
    return 0


def simulated(planned: Planned, models: Path, folder: Path, *, seed: int) -> Path:
    """The folder of an entry, simulated if it is not there yet."""
    path = folder / Path(planned.model).name.split(".")[0].removesuffix("_target").lower()
    if not path.is_dir():
        settings = Settings(
            voxel_size=planned.voxel_size,
            resolution=planned.resolution * planned.voxel_size,
            b_factor=planned.b_factor,
            noise=planned.noise,
            seed=1000 + seed,
            unevenness=0.2,
        )
        write_entry(path, simulate_half_maps(read_atoms(models / planned.model), settings))
    return path


def score(entry, weights: dict) -> tuple[float, list[Scored]]:
    """FSC-0.143 of the half-maps in Å, and the full map and every denoised map beside the truth, under the mask."""
    pair = load_pair(entry.half_map_1, entry.half_map_2)
    mask, truth = load_mask(entry.mask, pair[0]).array, read_map(entry.truth).array
    voxel_size = pair[0].voxel_size
    maps = {"full map": (pair[0].array + pair[1].array) / 2}
    for name, one in weights.items():
        maps[name] = denoise_maps(pair, one, plan_denoise(pair, one, scale="input"), scale="input").full.array
    half = fsc_curve(pair[0].array, pair[1].array, voxel_size, mask).resolution(0.143)
    return half.angstrom, [
        Scored(entry.name, name, fsc_curve(array, truth, voxel_size, mask)) for name, array in maps.items()
    ]


def _csv(scores, resolutions):
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["entry", "box", "voxel_size", "fsc_half_0.143", "method", "mean_fsc_truth", "fsc_truth_0.5"])
    for one in scores:
        half = resolutions[one.entry]
        at_half = one.curve.resolution(0.5).angstrom
        row = [one.entry, one.curve.box[0], one.curve.voxel_size, f"{half:.3f}", one.method]
        writer.writerow([*row, f"{one.mean:.4f}", f"{at_half:.3f}"])
    return stream.getvalue().encode()


def _summary(scores, resolutions, weights, seconds):
    methods = list(dict.fromkeys(one.method for one in scores))
    mean = {name: float(np.mean([one.mean for one in scores if one.method == name])) for name in methods}
    return {
        "crefjax": __version__,
        "jax": jax.__version__,
        "python": platform.python_version(),
        "seconds": round(seconds, 1),
        "entries": {
            path: {"voxel_size": one.voxel_size, "resolution": one.resolution * one.voxel_size, "noise": one.noise.name}
            for path, one in ((planned.model, planned) for planned in ENTRIES)
        },
        "weights": [{"path": str(one.path), "sha256": one.card["sha256"]} for one in weights.values()],
        "fsc_half_0.143": resolutions,
        "mean_fsc_truth": mean,
        "gain": {name: value - mean["full map"] for name, value in mean.items() if name != "full map"},
    }


def _figure(scores, kind):
    names = list(dict.fromkeys(one.entry for one in scores))
    figure = Figure(figsize=(13, 6.6), layout="constrained")
    panels = figure.subplots(2, -(-len(names) // 2), sharey=True).ravel()
    for axes, name in zip(panels, names, strict=False):
        for number, one in enumerate(found for found in scores if found.entry == name):
            line = "--" if one.method == "full map" else "-"
            color = _COLOURS[number % len(_COLOURS)]
            axes.plot(one.curve.frequency[1:], one.curve.fsc[1:], line, color=color, label=one.method)
        resolution_axis(axes, one.curve.frequency[-1])
        axes.set(title=name, ylim=(-0.1, 1.05))
    for axes in panels[:: -(-len(names) // 2)]:
        axes.set_ylabel("FSC to the truth, masked")
    panels[0].legend()
    return figure_bytes(figure, kind)


if __name__ == "__main__":
    sys.exit(main())
