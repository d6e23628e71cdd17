"""Copy weights of the conditional diffusion with another number of steps, schedule, seed, or number of draws.

    python -m experiments.images.set_schedule runs/images_diffusion/best -o runs/diffusion_100 --steps 100

The parameters are the same; only the card differs.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from crefjax.errors import UserError
from crefjax.weights.store import load_weights, save_weights
from experiments.images.diffusion_network import DiffusionConfig
from experiments.images.noise_levels import SCHEDULES

_OF_PARAMETERS = ("card_version", "architecture", "parameters", "sha256")


def set_schedule(source: Path | str, output: Path | str, **changes) -> DiffusionConfig:
    """Copy weights with other `steps`, `schedule`, `seed`, or `draws`; return the network's new config.

    Raises:
        UserError: The weights are not of the diffusion, a value is invalid, or the folder exists or cannot be written.
    """
    weights = load_weights(source, "images")
    if not isinstance(weights.config, DiffusionConfig):
        raise UserError(
            f"{weights.path}: expected weights of {DiffusionConfig.network}, found some of {weights.config.network}"
        )
    try:
        config = replace(weights.config, **changes)
    except ValueError as error:
        raise UserError(f"{weights.path}: {error}; correct it") from error
    about = {name: value for name, value in weights.card.items() if name not in _OF_PARAMETERS}
    save_weights(output, weights.parameters, config, about)
    return config


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.images.set_schedule", description=__doc__.splitlines()[0]
    )
    parser.add_argument("weights", metavar="WEIGHTS", help="weights folder of the diffusion")
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="weights folder to write")
    parser.add_argument("--steps", type=int, help="steps of the refinement")
    parser.add_argument("--schedule", choices=SCHEDULES, help="schedule of its noise levels")
    parser.add_argument("--seed", type=int, help="seed of its noise")
    parser.add_argument("--draws", type=int, help="refinements whose mean is taken")
    arguments = vars(parser.parse_args(argv))
    source, output = arguments.pop("weights"), arguments.pop("output")
    try:
        config = set_schedule(source, output, **{name: value for name, value in arguments.items() if value is not None})
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{output}: {config.steps} steps, schedule {config.schedule}, seed {config.seed}, draws {config.draws}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
