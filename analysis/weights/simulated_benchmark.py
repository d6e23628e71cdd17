"""Simulate entries, denoise them with filters and given weights, and compare all, for docs/benchmark.md.

    python -m analysis simulated_benchmark MODELS -o DIR --weights W [W ...]

MODELS is a folder with `cryoem/`, `docking/` and `em/`, of PDB entries. Of nineteen entries, seven have additive noise
of several spectra; six more are made by both methods, some with preferred views or errors of pose; and six are large
complexes in fine and coarse voxels, as many depositions are, for which only the Wiener filter is made beside the
weights. Six of them are also simulated in solvent, as real particles are: with less contrast at low frequencies.
Neither `truth` nor `cref` saw any of their models. Entries are kept in DIR/entries and DIR/entries_in_solvent with the
outputs of all methods; DIR/comparison, of the first thirteen, DIR/comparison_large, and DIR/comparison_in_solvent are
what `benchmark` writes. Outputs of weights are put on the signal's scale, and as NAME_own on the input's, as the
network gives them; those of crefdenoiser are called crefdenoiser_calibrated and crefdenoiser. If it is interrupted, the
same command resumes. The thirteen alone take about 25 minutes on two cores with three weights.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from analysis.baselines import baselines
from analysis.framework.simulation import check_models, simulate_entry
from analysis.framework.study import Study, add_jobs, add_weights, load_named
from analysis.metrics import benchmark
from crefjax.simulate.half_maps import SimulationConfig
from crefjax.simulate.noise import NoiseSpectrum, b_factor_spectrum, power_law_spectrum, white_spectrum
from crefjax.simulate.specimen import BulkSolvent
from crefjax.weights.store import Weights

PUBLISHED = "crefdenoiser"  # whose name alone is for its output as it was published
FILTERS = ("wiener", "lowpass", "gaussian", "nonlocal_means", "lafter_like")


def _settings(voxel_size: float, voxels: float, b_factor: float, noise: NoiseSpectrum, seed: int) -> SimulationConfig:
    """Return the settings of an entry whose FSC-0.143 is at so many voxels."""
    return SimulationConfig(voxel_size, voxels * voxel_size, seed, b_factor=b_factor, noise=noise, unevenness=0.2)


# Of each model: settings, or the arguments of `crefjax simulate`.
ENTRIES = {
    "cryoem/8tze.cif.gz": _settings(1.4, 2.6, 40, white_spectrum(), 1000),
    "cryoem/7yc8.cif.gz": _settings(1.6, 3.1, 60, b_factor_spectrum(30.0), 1001),
    "cryoem/9jmb.cif.gz": _settings(1.3, 3.5, 80, white_spectrum(), 1003),
    "cryoem/8tsq.cif.gz": _settings(1.0, 2.2, 20, b_factor_spectrum(10.0), 1004),
    "cryoem/6bqn.cif.gz": _settings(1.2, 3.0, 60, b_factor_spectrum(-15.0), 1005),
    "docking/1GP2_target.pdb.gz": _settings(0.9, 2.4, 20, power_law_spectrum(0.4, level_below=0.025), 1006),
    "docking/2VDB_target.pdb.gz": _settings(1.5, 4.0, 100, white_spectrum(), 1007),
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
# Large complexes, the first three finely sampled: 3.6 to 4.5 voxels to the resolution.
LARGE = {
    "em/6m15.pdb.gz": "--voxel-size 0.83 --resolution 3.3 --b-factor 60 --seed 4201",
    "em/9c0g.cif.gz": "--voxel-size 0.8 --resolution 2.9 --b-factor 40 --seed 4202 --noise-b-factor 20",
    "em/8d3m.cif.gz": "--voxel-size 0.85 --resolution 3.8 --b-factor 60 --seed 4203 --unevenness 0.2",
    "em/6gyn.pdb.gz": "--voxel-size 1.1 --resolution 3.4 --b-factor 40 --seed 4204 --belt 0.5",
    "em/7kmx.cif.gz": "--voxel-size 1.2 --resolution 3.2 --b-factor 60 --seed 4205",
    "em/5gjv.pdb.gz": "--voxel-size 1.05 --resolution 3.6 --b-factor 60 --seed 4206 --noise-power 0.5",
}
# The solvent lowers the contrast at low frequencies about as far as in real maps (docs/simulation.md).
SOLVENT = BulkSolvent(scale=0.75, b_factor=80.0)
IN_SOLVENT = ("8tze", "6bqn", "7a4m", "9c0g", "7kmx", "5gjv")


def in_solvent() -> dict[str, SimulationConfig | str]:
    """Return the entries `IN_SOLVENT`, with the same settings but in solvent."""
    options = f"--bulk-solvent {SOLVENT.scale:g} --bulk-solvent-b-factor {SOLVENT.b_factor:g}"
    return {
        model: f"{settings} {options}" if isinstance(settings, str) else replace(settings, bulk_solvent=SOLVENT)
        for model, settings in (ENTRIES | LARGE).items()
        if Path(model).name.partition(".")[0] in IN_SOLVENT
    }


def _add_arguments(parser):
    parser.add_argument("models", metavar="MODELS", type=Path, help="folder with cryoem/, docking/ and em/")
    add_weights(parser)
    add_jobs(parser)


def _run(arguments, output):
    check_models(arguments.models, (*ENTRIES, *LARGE))
    weights = load_named(arguments.weights)
    jobs = ["--jobs", str(arguments.jobs)]
    for models, filters, folder, name in (
        (ENTRIES, FILTERS, "entries", "comparison"),
        (LARGE, ("wiener",), "entries", "comparison_large"),
        (in_solvent(), ("wiener",), "entries_in_solvent", "comparison_in_solvent"),
    ):
        entries = [
            str(simulate_entry(arguments.models / model, settings, output.folder / folder))
            for model, settings in models.items()
        ]
        if baselines.STUDY.main([*entries, "--method", *filters, *jobs]) or denoise_entries(entries, weights, jobs):
            return 2
        if benchmark.STUDY.main([*entries, "-o", str(output.folder / name), "--overwrite", *jobs]):
            return 2
    return 0


def denoise_entries(entries: Sequence[str], weights: dict[str, Weights], jobs: Sequence[str]) -> int:
    """Write outputs of weights to entries, on either scale; replace those of other weights of the same name.

    Args:
        entries: their folders.
        weights: by the name of the output.
        jobs: arguments of `baselines`.

    Returns:
        0, or 2 if nothing could be made.
    """
    for name, each in weights.items():
        own, calibrated = (name, f"{name}_calibrated") if name == PUBLISHED else (f"{name}_own", name)
        for label, scale in ((own, "input"), (calibrated, "signal")):
            for entry in entries:
                _remove_stale(Path(entry) / "outputs" / label, each.card["sha256"])
            call = ["--method", "crefjax", "--weights", str(each.path), "--scale", scale, "--name", label]
            if baselines.STUDY.main([*entries, *call, *jobs]):
                return 2
    return 0


def _remove_stale(folder, sha256):
    """Remove an output that `baselines` made with other weights; keep whatever is not its own."""
    try:
        about = json.loads((folder / baselines.ABOUT).read_bytes())
        stale = about["method"] == "crefjax" and about["settings"]["sha256"] != sha256
    except (OSError, ValueError, KeyError, TypeError):
        return
    if stale:
        shutil.rmtree(folder)


STUDY = Study(__name__, _run, _add_arguments, output="resumed")
