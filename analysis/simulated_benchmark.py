"""Simulates fourteen entries, lets every filter and given weights denoise them, and compares all: docs/benchmark.md.

    python -m analysis.simulated_benchmark MODELS -o DIR --weights W [W ...]

MODELS is a folder with `cryoem/` and `docking/`, of PDB entries. Eight entries are those of `simulated_denoised`, with
additive noise of several colours; six more are made by both methods, some with preferred views or errors of pose. They
are kept in DIR/entries with the outputs of all methods, DIR/comparison is what `benchmark` writes. Weights are put on
the signal's scale; those named crefdenoiser come on the input's scale too, as published. Killed and started again, it
goes on where it was. About 25 minutes on two cores with three weights.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis import baselines, benchmark
from analysis.files import load_named, run_study
from analysis.simulated_denoised import ENTRIES, simulated
from crefjax.cli import main as crefjax
from crefjax.errors import UserError

NAME = "simulated_benchmark"
FILTERS = ("wiener", "lowpass", "gaussian", "nonlocal_means", "lafter_like")
# Model, and the arguments of `crefjax simulate`.
FURTHER = {
    "cryoem/7a4m.cif.gz": "--voxel-size 0.8 --resolution 1.76 --b-factor 15 --seed 4101",
    "docking/4GAM_target.pdb.gz": (
        "--voxel-size 1.5 --resolution 4.5 --seed 4102 --noise-b-factor 40 --unevenness 0.2"
    ),
    "cryoem/7l2j.cif.gz": "--voxel-size 2.0 --resolution 10 --b-factor 150 --seed 4103 --noise-power 0.5",
    "docking/1H1V_target.pdb.gz": "--voxel-size 1.3 --resolution 3.64 --method reconstruction --seed 4104",
    "cryoem/6rn2.cif.gz": (
        "--voxel-size 1.9 --resolution 7.6 --b-factor 100 --method reconstruction --seed 4105 --preferred-views 2"
    ),
    "docking/1EXB_target.pdb.gz": (
        "--voxel-size 1.6 --resolution 3.68 --b-factor 30 --method reconstruction --seed 4106 "
        "--pose-error 1 --shift-error 0.5"
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run it all; returns 0, or 2 after a mistake of the user's, told in one line."""
    parser = argparse.ArgumentParser(prog=f"python -m analysis.{NAME}", description=__doc__.splitlines()[0])
    parser.add_argument("models", metavar="MODELS", help="folder with cryoem/ and docking/")
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="folder to write")
    parser.add_argument("--weights", nargs="+", required=True, metavar="W", help="names or folders of weights")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="entries at a time; default: 1")
    return run_study(NAME, parser, _run, argv)


def _run(arguments):
    models, folder = Path(arguments.models), Path(arguments.output)
    for one in (*(planned.model for planned in ENTRIES), *FURTHER):
        if not (models / one).is_file():
            raise UserError(f"{models / one}: expected a model, found none; give the folder that has {one}")
    weights = {name: str(one.path) for name, one in load_named(arguments.weights).items()}
    (folder / "entries").mkdir(parents=True, exist_ok=True)
    entries = [str(simulated(one, models, folder / "entries", seed=number)) for number, one in enumerate(ENTRIES)]
    entries += [_simulated(models / model, settings, folder / "entries") for model, settings in FURTHER.items()]
    jobs = ["--jobs", str(arguments.jobs)]
    calls = [["--method", *FILTERS]]
    for name, path in weights.items():
        if name == "crefdenoiser":
            calls.append(["--method", "crefjax", "--weights", path, "--scale", "input", "--name", name])
            name = "crefdenoiser_calibrated"
        calls.append(["--method", "crefjax", "--weights", path, "--name", name])
    for call in calls:
        if baselines.main([*entries, *call, *jobs]) != 0:
            return 2
    return benchmark.main([*entries, "-o", str(folder / "comparison"), "--overwrite", *jobs])


def _simulated(model, settings, folder):
    path = folder / model.name.split(".")[0].removesuffix("_target").lower()
    if not path.is_dir() and crefjax(["simulate", str(model), "-o", str(path), *settings.split()]) != 0:
        raise UserError(f"{path}: the entry could not be simulated, see above")
    return str(path)


if __name__ == "__main__":
    sys.exit(main())
