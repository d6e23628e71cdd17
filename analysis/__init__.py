"""Studies over many entries, simulations, or training runs; `python -m analysis` lists and runs them.

    framework/   what the studies share: command line, output, running over entries, resampling, simulation
    baselines/   other methods' maps, to compare with
    metrics/     single numbers over many entries, and the benchmark of all of them
    validation/  tests of crefjax's own estimates where the truth is known
    weights/     trained weights and training runs
    images/      denoisers of particle images and micrographs

`python -m analysis.NAME`, the form of earlier versions, still works in this release, with the names below.
"""

import sys
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec

# Old name of a study, and the name of its module today. Called by the old name, it writes files of the old name.
OLD_NAMES = {
    "against_truth": "truth_error",
    "bias_snr": "snr_and_bias",
    "fsc_half": "half_map_fsc",
    "known_denoisers": "variances",
    "local_trust": "local_maps",
    "map_model": "model_fsc",
    "reference_map": "reference_fsc",
    "simulated_cref": "cref",
    "simulated_spectra": "spectra",
} | {
    name: name
    for name in (
        *("baselines", "benchmark", "calibration", "convergence", "cref_rmse", "robustness"),
        *("simulated_benchmark", "weights_results", "voxel_classification", "kept"),
    )
}


class _OldCommand(MetaPathFinder, InspectLoader):
    """Finds `analysis.NAME` for `python -m`, as a script that runs the study."""

    def find_spec(self, fullname, path=None, target=None):
        return ModuleSpec(fullname, self) if _old_name(fullname) in OLD_NAMES else None

    def get_source(self, fullname):
        return (
            "import sys\n"
            "from analysis.__main__ import main\n"
            f"if __name__ == '__main__':\n    sys.exit(main([{_old_name(fullname)!r}, *sys.argv[1:]]))\n"
        )

    def exec_module(self, module):
        raise ImportError(f"{module.__name__} is a command; import a module of one of the folders")


def _old_name(module):
    return module.removeprefix("analysis.").removesuffix(".__main__")  # `baselines` is a folder, too


sys.meta_path.append(_OldCommand())
