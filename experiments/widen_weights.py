"""Makes a wider network of trained weights, which computes the same and can learn more.

    python -m experiments.widen_weights WEIGHTS FOLDER --down 24 --up 48 --last 24,12

Channels that are new begin with random kernels, and what reads them with zeros there: the output is the same (Chen et
al. 2016, Net2Net, widens by copies of channels, which start alike), and the first step of a training already
tells them apart. `crefjax train --config.weights=FOLDER` trains them, with the widths as `--config.network.down_width`,
`up_width` and `last_widths`.
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
    """Widen one; returns 0, or 2 after a mistake of the user's, told in one line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.widen_weights", description=__doc__.splitlines()[0])
    parser.add_argument("weights", metavar="WEIGHTS", help="a name or a folder")
    parser.add_argument("folder", metavar="FOLDER", help="to be made")
    parser.add_argument("--down", metavar="N", type=int, required=True, help="channels on the way down")
    parser.add_argument("--up", metavar="N", type=int, required=True, help="channels on the way up")
    parser.add_argument("--last", metavar="N,N", required=True, help="channels of the last level")
    parser.add_argument("--seed", type=int, default=0, help="of the new kernels (default: 0)")
    arguments = parser.parse_args(argv)
    try:
        if arguments.seed < 0:
            raise UserError(f"--seed: expected at least 0, found {arguments.seed}")
        weights = load_weights(arguments.weights)
        config = _wider(weights.config, arguments)
        parameters = widen(weights.parameters, weights.config, config, np.random.default_rng(arguments.seed))
        about = {field: weights.card[field] for field in CARD_FIELDS} | {"widened_from": weights.name}
        save_weights(arguments.folder, parameters, config, about)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"wrote {arguments.folder}")
    return 0


def widen(parameters: Parameters, old: UNet3DConfig, new: UNet3DConfig, rng: np.random.Generator) -> Parameters:
    """Parameters of a wider network that computes the same.

    Args:
        parameters: of the network.
        old: what it is.
        new: what it shall be: of the same depth, nowhere narrower.
        rng: for the new kernels, He-normal (He et al. 2015).

    Returns:
        Layer name to `kernel` and `bias`, float32.
    """
    wider = {}
    for layer in new.layers():
        kernel, bias = (np.asarray(parameters[layer.name][name]) for name in ("kernel", "bias"))
        deviation = np.sqrt(2 / (27 * layer.channels_in))
        grown = rng.normal(0, deviation, (3, 3, 3, layer.channels_in, layer.channels_out)).astype(np.float32)
        outs = slice(0, kernel.shape[-1])
        grown[..., outs] = 0
        at = 0
        for new_at, count in _sources(layer.name, old, new):
            grown[..., new_at : new_at + count, outs] = kernel[..., at : at + count, :]
            at += count
        wider[layer.name] = {"kernel": grown, "bias": np.pad(bias, (0, layer.channels_out - bias.size))}
    return wider


def _sources(name, old, new):
    """Where the old channels that a layer reads lie among the new ones: first channel and count, in the old order."""
    channels = {layer.name: layer.channels_in for layer in old.layers()}[name]
    for level in range(old.depth):
        if name == old.up_names(level)[0]:  # the skip, then the level below
            skip, new_skip = (1, 1) if level == 0 else (old.down_width, new.down_width)
            return [(0, skip), (new_skip, channels - skip)]
    return [(0, channels)]


def _wider(config, arguments):
    try:
        last = tuple(int(one) for one in arguments.last.split(","))
        new = dataclasses.replace(config, down_width=arguments.down, up_width=arguments.up, last_widths=last)
    except ValueError as error:
        raise UserError(f"widths: expected whole numbers, as --down 24 --up 48 --last 24,12 ({error})") from error
    before, after = ((one.down_width, one.up_width, *one.last_widths) for one in (config, new))
    if len(before) != len(after) or any(a < b for a, b in zip(after, before, strict=True)):
        raise UserError(f"widths: expected {len(before)} of at least {before}, found {after}; give wider ones")
    return new


if __name__ == "__main__":
    sys.exit(main())
