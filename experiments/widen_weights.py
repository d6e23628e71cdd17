"""Widen the network of trained weights, without changing its output.

    python -m experiments.widen_weights WEIGHTS FOLDER --down 24 --up 48 --last 24,12
    python -m experiments.widen_weights WEIGHTS FOLDER --down 16 --up 32 --last 16,8 --growth 2

New channels start with random kernels, and the layers that read them with zeros, so the output is the same and the
first training step already separates the channels. (Net2Net, Chen et al. 2016, widens by copies of channels, which
start alike.) `crefjax train --config.weights=FOLDER` trains the network, with the widths given as
`--config.network.down_width`, `up_width`, `last_widths`, and `growth`.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence

import numpy as np

from analysis.framework.command import run_command
from crefjax.errors import UserError
from crefjax.models.unet3d import Parameters, UNet3DConfig
from crefjax.weights.store import CARD_FIELDS, INHERITED_FIELDS, find_weights, load_weights, read_card, save_weights

_OF_CLASSIFIERS = ("task", "output", "structure_weight")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 2 after a mistake by the user."""
    parser = argparse.ArgumentParser(prog="python -m experiments.widen_weights", description=__doc__.splitlines()[0])
    parser.add_argument("weights", metavar="WEIGHTS", help="name or folder of the weights")
    parser.add_argument("folder", metavar="FOLDER", help="weights folder to write")
    parser.add_argument("--down", metavar="N", type=int, required=True, help="number of channels on the way down")
    parser.add_argument("--up", metavar="N", type=int, required=True, help="number of channels on the way up")
    parser.add_argument("--last", metavar="N,N", required=True, help="numbers of channels of the last level")
    parser.add_argument("--growth", metavar="N", type=int, help="factor by level (default: that of WEIGHTS)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the new kernels (default: 0)")
    return run_command("widen_weights", parser, _run, argv)


def _run(arguments):
    if arguments.seed < 0:
        raise UserError(f"--seed: expected at least 0, found {arguments.seed}")
    card, network = read_card(find_weights(arguments.weights).absolute())
    if network.network != "unet3d":
        raise UserError(
            f"{arguments.weights}: expected weights of unet3d, found some of {network.network}; choose others"
        )
    weights = load_weights(arguments.weights, card.get("task", "denoising"))
    config = _wider(weights.config, arguments)
    parameters = widen(weights.parameters, weights.config, config, np.random.default_rng(arguments.seed))
    about = {field: card[field] for field in (*CARD_FIELDS, *INHERITED_FIELDS, *_OF_CLASSIFIERS) if field in card}
    about["widened_from"] = weights.name
    save_weights(arguments.folder, parameters, config, about)
    print(f"wrote {arguments.folder}")


def widen(parameters: Parameters, old: UNet3DConfig, new: UNet3DConfig, rng: np.random.Generator) -> Parameters:
    """Return the parameters of a wider network that computes the same output.

    Args:
        parameters: Parameters of the narrower network.
        old: Its configuration.
        new: Configuration of the wider network: of the same depth, and nowhere narrower.
        rng: Generator of the new kernels, which are He-normal (He et al. 2015).

    Returns:
        `kernel` and `bias` of every layer, by name, float32.
    """
    wider = {}
    for layer in new.layers():
        kernel, bias = (np.asarray(parameters[layer.name][name]) for name in ("kernel", "bias"))
        std = np.sqrt(2 / (27 * layer.channels_in))
        grown = rng.normal(0, std, (3, 3, 3, layer.channels_in, layer.channels_out)).astype(np.float32)
        outs = slice(0, kernel.shape[-1])
        grown[..., outs] = 0
        at = 0
        for new_at, count in _sources(layer.name, old, new):
            grown[..., new_at : new_at + count, outs] = kernel[..., at : at + count, :]
            at += count
        wider[layer.name] = {"kernel": grown, "bias": np.pad(bias, (0, layer.channels_out - bias.size))}
    return wider


def _sources(name, old, new):
    """Return first new channel and count of every group of old channels that a layer reads, in the old order."""
    channels = {layer.name: layer.channels_in for layer in old.layers()}[name]
    for level in range(old.depth):
        if name == old.up_names(level)[0]:  # the skip, then the level below
            skip, new_skip = (1, 1) if level == 0 else (old.down_channels(level - 1), new.down_channels(level - 1))
            return [(0, skip), (new_skip, channels - skip)]
    return [(0, channels)]


def _wider(config, arguments):
    try:
        last = tuple(int(width) for width in arguments.last.split(","))
        growth = config.growth if arguments.growth is None else arguments.growth
        widths = {"down_width": arguments.down, "up_width": arguments.up, "growth": growth, "last_widths": last}
        new = dataclasses.replace(config, **widths)
    except ValueError as error:
        raise UserError(f"widths: expected whole numbers, as --down 24 --up 48 --last 24,12 ({error})") from error
    before, after = ((sizes.down_width, sizes.up_width, *sizes.last_widths) for sizes in (config, new))
    if len(before) != len(after) or any(a < b for a, b in zip(after, before, strict=True)):
        raise UserError(f"widths: expected {len(before)} of at least {before}, found {after}; increase them")
    if growth < config.growth:
        raise UserError(f"--growth: expected at least {config.growth}, as in the weights, found {growth}")
    return new


if __name__ == "__main__":
    sys.exit(main())
