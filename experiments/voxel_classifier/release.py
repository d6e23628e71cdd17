"""Copy a trained classifier into the package, with its card.

    python -m experiments.voxel_classifier.release runs/classifier runs/labeled_maps

The first folder is a run of `experiments/configs/classifier.py`, the second holds its labeled maps. It replaces
`crefjax/weights/shipped/classifier`.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.framework.command import run_command
from crefjax.errors import UserError
from crefjax.weights.store import load_weights, save_weights
from experiments.configs.classifier import HELD_OUT
from experiments.voxel_classifier.simulate_maps import usable_maps

SHIPPED = Path(__file__).parents[2] / "crefjax" / "weights" / "shipped" / "classifier"
ABOUT = {
    "source": "trained with crefjax by experiments/configs/classifier.py",
    "license": "Apache-2.0, as crefjax",
    "good_for": "removing noise around and between particles for display; a baseline to compare denoisers with",
    "not_good_for": (
        "judging whether density is reliable; density that is not protein or nucleic acid may be removed with the noise"
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 2 after a mistake by the user."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.voxel_classifier.release", description=__doc__.splitlines()[0]
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of a run")
    parser.add_argument("maps", metavar="MAPS", type=Path, help="folder of the labeled maps")
    return run_command("release", parser, _run, argv)


def _run(arguments):
    weights = load_weights(arguments.run / "last", "classification")
    kept, threshold, dropped = usable_maps(arguments.maps)
    held_out = [folder for folder in kept if folder.name.split("_")[0] in HELD_OUT.split(",")]
    if not held_out:
        raise UserError(f"{arguments.maps}: expected maps of {HELD_OUT}, found none; simulate them")
    models = sorted({folder.name.split("_")[0].upper() for folder in kept if folder not in held_out})
    card = {name: weights.card[name] for name in ("training", "expected_input", "output", "task", "structure_weight")}
    card |= ABOUT | {
        "similarity": f"pairs below {threshold:.3f} were left out, {dropped} of {len(kept) + dropped}",
        "models": f"PDB entries (CC0) {', '.join(models)}",
        "models_for_choosing": f"PDB entries (CC0) {HELD_OUT.upper().replace(',', ', ')}",
    }
    network = dataclasses.replace(weights.config, compute_dtype="float32")
    save_weights(SHIPPED, weights.parameters, network, card, overwrite=True)
    print(f"wrote {SHIPPED}")


if __name__ == "__main__":
    sys.exit(main())
