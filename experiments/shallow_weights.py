"""Makes a network of fewer levels of trained weights.

    python -m experiments.shallow_weights WEIGHTS FOLDER --depth 3

It computes what the deeper one does when the level at which it now ends reads nothing from those below: the last level
that is kept has a bottom of its own, with the kernel of the layer that stood there, which is read with zeros until a
training teaches otherwise. `crefjax train --config.weights=FOLDER --config.network.depth=3` trains it.

Weights that worked on the map's own grid begin a training on the grid of the data with `--grid 3.3`.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence

import numpy as np

from crefjax.errors import UserError
from crefjax.models.unet3d import Parameters, UNet3DConfig
from crefjax.weights.store import CARD_FIELDS, load_weights, save_weights


def main(argv: Sequence[str] | None = None) -> int:
    """Make one; returns 0, or 2 after a mistake of the user's, told in one line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.shallow_weights", description=__doc__.splitlines()[0])
    parser.add_argument("weights", metavar="WEIGHTS", help="a name or a folder")
    parser.add_argument("folder", metavar="FOLDER", help="to be made")
    parser.add_argument("--depth", metavar="N", type=int, required=True, help="levels of the new network")
    parser.add_argument(
        "--grid", metavar="VOXELS", type=float, help="voxels to a resolution that they will be trained for (as before)"
    )
    arguments = parser.parse_args(argv)
    try:
        weights = load_weights(arguments.weights)
        if not 1 <= arguments.depth < weights.config.depth:
            raise UserError(f"--depth: expected 1 to {weights.config.depth - 1}, found {arguments.depth}; give another")
        if arguments.grid is not None and not 2 < arguments.grid <= 10:
            raise UserError(f"--grid: expected more than 2 voxels and up to 10, found {arguments.grid:g}; give another")
        config = dataclasses.replace(weights.config, depth=arguments.depth)
        about = {field: weights.card[field] for field in (*CARD_FIELDS, "grid") if field in weights.card}
        if arguments.grid is not None:
            about["grid"] = arguments.grid
        about["made_of"] = f"{weights.name}, of depth {weights.config.depth}"
        save_weights(arguments.folder, shallow(weights.parameters, weights.config, config), config, about)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"wrote {arguments.folder}")
    return 0


def shallow(parameters: Parameters, old: UNet3DConfig, new: UNet3DConfig) -> Parameters:
    """Parameters of a network of fewer levels.

    Args:
        parameters: of the network.
        old: what it is.
        new: what it shall be: the same but for its depth.

    Returns:
        Layer name to `kernel` and `bias`, float32.
    """
    found = {"out": parameters["out"]}
    for level in range(new.depth):
        names = zip(
            (*new.down_names(level), *new.up_names(level)), (*old.down_names(level), *old.up_names(level)), strict=True
        )
        found |= {name: parameters[old_name] for name, old_name in names}
    # As many channels come from the new bottom as from the old one; the levels above had more.
    below = new.up_names(new.depth - 1)[0]
    layers = {layer.name: layer for layer in new.layers()}
    skip = 1 if new.depth == 1 else new.down_width
    kernel = np.zeros((3, 3, 3, layers[below].channels_in, layers[below].channels_out), np.float32)
    kernel[..., :skip, :] = np.asarray(found[below]["kernel"])[..., :skip, :]
    found[below] = {"kernel": kernel, "bias": found[below]["bias"]}
    found["bottom"] = parameters[old.down_names(new.depth)[0]]
    return {layer.name: found[layer.name] for layer in new.layers()}


if __name__ == "__main__":
    sys.exit(main())
