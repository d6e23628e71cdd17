"""Copy trained weights for images into the package, with a card that says what they are for and what not.

    python -m experiments.release_image_weights runs/images_noise2noise/best

They replace `crefjax/weights/shipped/images`, the default of `crefjax images denoise`.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.framework.command import run_command
from crefjax.errors import UserError
from crefjax.models.unet2d_config import UNet2DConfig
from crefjax.weights.store import load_weights, save_weights

SHIPPED = Path(__file__).parents[1] / "crefjax" / "weights" / "shipped" / "images"
_KEPT = ("training", "expected_input", "task", "pixel_sizes", "losses", "step", "good_for", "not_good_for")
_LOSSES = {"n2n_l2": 1.0}  # of the config that the card names


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 2 after a mistake by the user."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.release_image_weights", description=__doc__.splitlines()[0]
    )
    parser.add_argument("weights", metavar="WEIGHTS", help="folder of weights, such as the `best` of a run")
    parser.add_argument("--models", metavar="TEXT", default="", help="specimens of the training, for the card")
    return run_command("release_image_weights", parser, _run, argv)


def _run(arguments):
    weights = load_weights(arguments.weights, "images")
    _check(weights)
    card = {name: weights.card[name] for name in _KEPT if name in weights.card}
    card |= {"source": "trained with crefjax by experiments/configs/images_noise2noise.py"}
    card |= {"license": "Apache-2.0, as crefjax"}
    if arguments.models:
        card["models"] = arguments.models
    network = dataclasses.replace(weights.config, compute_dtype="float32")
    save_weights(SHIPPED, weights.parameters, network, card, overwrite=True)
    print(f"wrote {SHIPPED}")


def _check(weights):
    """Check that the weights are what their card will say."""
    if weights.config.network != UNet2DConfig.network:
        raise UserError(
            f"{weights.path}: expected a network of the package, {UNet2DConfig.network}, found {weights.config.network}"
        )
    if weights.card.get("losses") != _LOSSES:
        raise UserError(
            f"{weights.path}: expected weights with the losses {_LOSSES}, found {weights.card.get('losses')}"
        )


if __name__ == "__main__":
    sys.exit(main())
