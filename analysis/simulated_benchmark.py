"""Simulates nineteen entries, lets filters and given weights denoise them, and compares all: docs/benchmark.md.

    python -m analysis.simulated_benchmark MODELS -o DIR --weights W [W ...]

MODELS is a folder with `cryoem/`, `docking/` and `em/`, of PDB entries. Seven entries have additive noise of several
colours; six more are made by both methods, some with preferred views or errors of pose; and six are large complexes in
fine and coarse voxels, as many depositions are, for which only the Wiener filter is made beside the weights. Neither
`truth` nor `cref` saw any of their models. Entries are kept in DIR/entries with the outputs of all methods;
DIR/comparison, of the thirteen, and DIR/comparison_large are what `benchmark` writes. Outputs of weights are put on the
signal's scale, and as NAME_own on the input's, as the network gives them; those of crefdenoiser are called
crefdenoiser_calibrated and crefdenoiser.
Killed and started again, it goes on where it was. The thirteen alone
take about 25 minutes on two cores with three weights.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from analysis import baselines, benchmark
from analysis.files import entry_name, load_named, run_study, simulated_entry
from crefjax.errors import UserError
from crefjax.simulate.atoms import read_atoms
from crefjax.simulate.half_maps import SimulationConfig, simulate_half_maps, write_entry
from crefjax.simulate.noise import NoiseSpectrum, b_factor_spectrum, power_law_spectrum, white_spectrum
from crefjax.weights.store import Weights

NAME = "simulated_benchmark"
PUBLISHED = "crefdenoiser"  # whose name alone is for its output as it was published
FILTERS = ("wiener", "lowpass", "gaussian", "nonlocal_means", "lafter_like")


class Planned(NamedTuple):
    """An entry to simulate: a model, its voxels in Å, its FSC-0.143 in voxels, a blur in Å², its noise, a seed."""

    model: str
    voxel_size: float
    resolution: float
    b_factor: float
    noise: NoiseSpectrum
    seed: int


ENTRIES = (
    Planned("cryoem/8tze.cif.gz", 1.4, 2.6, 40, white_spectrum(), 1000),
    Planned("cryoem/7yc8.cif.gz", 1.6, 3.1, 60, b_factor_spectrum(30.0), 1001),
    Planned("cryoem/9jmb.cif.gz", 1.3, 3.5, 80, white_spectrum(), 1003),
    Planned("cryoem/8tsq.cif.gz", 1.0, 2.2, 20, b_factor_spectrum(10.0), 1004),
    Planned("cryoem/6bqn.cif.gz", 1.2, 3.0, 60, b_factor_spectrum(-15.0), 1005),
    Planned("docking/1GP2_target.pdb.gz", 0.9, 2.4, 20, power_law_spectrum(0.4, level_below=0.025), 1006),
    Planned("docking/2VDB_target.pdb.gz", 1.5, 4.0, 100, white_spectrum(), 1007),
)
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
# The same of large complexes, the first three finely sampled: 3.6 to 4.5 voxels to the resolution.
LARGE = {
    "em/6m15.pdb.gz": "--voxel-size 0.83 --resolution 3.3 --b-factor 60 --seed 4201",
    "em/9c0g.cif.gz": "--voxel-size 0.8 --resolution 2.9 --b-factor 40 --seed 4202 --noise-b-factor 20",
    "em/8d3m.cif.gz": "--voxel-size 0.85 --resolution 3.8 --b-factor 60 --seed 4203 --unevenness 0.2",
    "em/6gyn.pdb.gz": "--voxel-size 1.1 --resolution 3.4 --b-factor 40 --seed 4204 --belt 0.5",
    "em/7kmx.cif.gz": "--voxel-size 1.2 --resolution 3.2 --b-factor 60 --seed 4205",
    "em/5gjv.pdb.gz": "--voxel-size 1.05 --resolution 3.6 --b-factor 60 --seed 4206 --noise-power 0.5",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run it all; returns 0, or 2 after a mistake of the user's, told in one line."""
    parser = argparse.ArgumentParser(prog=f"python -m analysis.{NAME}", description=__doc__.splitlines()[0])
    parser.add_argument("models", metavar="MODELS", help="folder with cryoem/, docking/ and em/")
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="folder to write")
    parser.add_argument("--weights", nargs="+", required=True, metavar="W", help="names or folders of weights")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="entries at a time; default: 1")
    return run_study(NAME, parser, _run, argv)


def _run(arguments):
    models, folder = Path(arguments.models), Path(arguments.output)
    for one in (*(planned.model for planned in ENTRIES), *FURTHER, *LARGE):
        if not (models / one).is_file():
            raise UserError(f"{models / one}: expected a model, found none; give the folder that has {one}")
    weights = load_named(arguments.weights)
    (folder / "entries").mkdir(parents=True, exist_ok=True)
    entries = [str(simulated(one, models, folder / "entries")) for one in ENTRIES]
    entries += [str(simulated_entry(models / one, settings, folder / "entries")) for one, settings in FURTHER.items()]
    large = [str(simulated_entry(models / one, settings, folder / "entries")) for one, settings in LARGE.items()]
    jobs = ["--jobs", str(arguments.jobs)]
    for some, filters, name in ((entries, FILTERS, "comparison"), (large, ("wiener",), "comparison_large")):
        if baselines.main([*some, "--method", *filters, *jobs]) != 0 or denoised(some, weights, jobs) != 0:
            return 2
        if benchmark.main([*some, "-o", str(folder / name), "--overwrite", *jobs]) != 0:
            return 2
    return 0


def denoised(entries: Sequence[str], weights: dict[str, Weights], jobs: Sequence[str]) -> int:
    """Outputs of weights in entries, on either scale; those of other weights of the same name are made again.

    Args:
        entries: their folders.
        weights: by the name of the output.
        jobs: arguments of `baselines`.

    Returns:
        0, or 2 if nothing could be made.
    """
    for name, one in weights.items():
        own, calibrated = (name, f"{name}_calibrated") if name == PUBLISHED else (f"{name}_own", name)
        for label, scale in ((own, "input"), (calibrated, "signal")):
            for entry in entries:
                _drop_stale(Path(entry) / "outputs" / label, one.card["sha256"])
            call = ["--method", "crefjax", "--weights", str(one.path), "--scale", scale, "--name", label]
            if baselines.main([*entries, *call, *jobs]) != 0:
                return 2
    return 0


def _drop_stale(folder, sha256):
    """Take away an output of `baselines` that was made with other weights; what is not of it stays."""
    try:
        about = json.loads((folder / baselines.ABOUT).read_bytes())
        stale = about["method"] == "crefjax" and about["settings"]["sha256"] != sha256
    except (OSError, ValueError, KeyError, TypeError):
        return
    if stale:
        shutil.rmtree(folder)


def simulated(planned: Planned, models: Path, folder: Path) -> Path:
    """The folder of an entry, simulated if it is not there yet."""
    path = folder / entry_name(planned.model)
    if not path.is_dir():
        settings = SimulationConfig(
            voxel_size=planned.voxel_size,
            resolution=planned.resolution * planned.voxel_size,
            b_factor=planned.b_factor,
            noise=planned.noise,
            seed=planned.seed,
            unevenness=0.2,
        )
        write_entry(path, simulate_half_maps(read_atoms(models / planned.model), settings))
    return path


if __name__ == "__main__":
    sys.exit(main())
