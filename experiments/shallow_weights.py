"""Reduce trained weights to a network of fewer levels.

    python -m experiments.shallow_weights WEIGHTS FOLDER --depth 3

The new network computes the output of the deeper one with everything below its last level silenced. Its bottom layer
has the kernel of the layer that was at that place; the layer above reads it with zeros, which training then changes.
`crefjax train --config.weights=FOLDER --config.network.depth=3` trains it.

`--grid 3.3` prepares weights that worked on the map's own grid for training on the working grid.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence

import numpy as np

from analysis.framework.command import run_command
from crefjax.errors import UserError
from crefjax.models.unet3d import Parameters, UNet3DConfig
from crefjax.weights.store import CARD_FIELDS, INHERITED_FIELDS, load_weights, save_weights


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 2 after a mistake by the user."""
    parser = argparse.ArgumentParser(prog="python -m experiments.shallow_weights", description=__doc__.splitlines()[0])
    parser.add_argument("weights", metavar="WEIGHTS", help="name or folder of the weights")
    parser.add_argument("folder", metavar="FOLDER", help="weights folder to write")
    parser.add_argument("--depth", metavar="N", type=int, required=True, help="number of levels of the new network")
    parser.add_argument(
        "--grid",
        metavar="VOXELS",
        type=float,
        help="voxels that the resolution spans on the working grid (default: as in WEIGHTS)",
    )
    return run_command("shallow_weights", parser, _run, argv)


def _run(arguments):
    weights = load_weights(arguments.weights)
    if not 1 <= arguments.depth < weights.config.depth:
        raise UserError(f"--depth: expected 1 to {weights.config.depth - 1}, found {arguments.depth}; give another")
    if arguments.grid is not None and not 2 < arguments.grid <= 10:
        raise UserError(f"--grid: expected more than 2 voxels and up to 10, found {arguments.grid:g}; give another")
    config = dataclasses.replace(weights.config, depth=arguments.depth)
    about = {field: weights.card[field] for field in (*CARD_FIELDS, *INHERITED_FIELDS) if field in weights.card}
    if arguments.grid is not None:
        about["grid"] = arguments.grid
    about["made_of"] = f"{weights.name}, of depth {weights.config.depth}"
    save_weights(arguments.folder, shallow(weights.parameters, weights.config, config), config, about)
    print(f"wrote {arguments.folder}")


def shallow(parameters: Parameters, old: UNet3DConfig, new: UNet3DConfig) -> Parameters:
    """Return the parameters of a network of fewer levels.

    Args:
        parameters: Parameters of the deeper network.
        old: Its configuration.
        new: Configuration of the new network, which differs only in depth.

    Returns:
        `kernel` and `bias` of every layer, by name, float32.
    """
    kept = {"out": parameters["out"]}
    for level in range(new.depth):
        names = zip(
            (*new.down_names(level), *new.up_names(level)), (*old.down_names(level), *old.up_names(level)), strict=True
        )
        kept |= {name: parameters[old_name] for name, old_name in names}
    # The new bottom has fewer channels than the level that this layer used to read.
    below = new.up_names(new.depth - 1)[0]
    layers = {layer.name: layer for layer in new.layers()}
    skip = 1 if new.depth == 1 else new.down_channels(new.depth - 2)
    kernel = np.zeros((3, 3, 3, layers[below].channels_in, layers[below].channels_out), np.float32)
    kernel[..., :skip, :] = np.asarray(kept[below]["kernel"])[..., :skip, :]
    kept[below] = {"kernel": kernel, "bias": kept[below]["bias"]}
    kept["bottom"] = parameters[old.down_names(new.depth)[0]]
    return {layer.name: kept[layer.name] for layer in new.layers()}


if __name__ == "__main__":
    sys.exit(main())
