"""`crefjax finetune`."""

import math
from pathlib import Path

from crefjax.cli.common import add_shared, add_verbosity, positive
from crefjax.cli.messages import detail, log, result, timed, warn
from crefjax.errors import UserError
from crefjax.utils.atomic import temporary_sibling

_PATCH = 64  # voxels
EPILOG = (
    "Part of the particle is held out to judge whether the new weights are better by more than the scatter; if they "
    "are not, the old ones are written."
)


def add_arguments(parser):
    """Add the arguments of `crefjax finetune`."""
    parser.add_argument("half_map_1", metavar="HALF1", help="half-map")
    parser.add_argument("half_map_2", metavar="HALF2", help="the other half-map of the same reconstruction")
    parser.add_argument(
        "--mask", metavar="MASK", help="mask of the particle, 0 to 1 (default: one made from the half-maps)"
    )
    parser.add_argument(
        "--weights", metavar="WEIGHTS", help="name or folder of the weights to start from (default: truth)"
    )
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="weights folder to write")
    parser.add_argument("--minutes", type=positive, default=10.0, help="maximum training time, minutes")
    parser.add_argument(
        "--patch", type=int, help="side of the patches, voxels, even (default: 64, less for small boxes)"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed of the patches")
    add_shared(parser, "voxel_size", "insist", "overwrite")
    add_verbosity(parser)


def run(arguments) -> int:
    """Fine-tune as the command line says; return 128 plus the signal's number if a signal stopped the training."""
    from crefjax.training.config import finetune_config
    from crefjax.weights.store import INHERITED_FIELDS, check_weights_folder, load_weights, save_weights

    output = Path(arguments.output)
    check_weights_folder(output, overwrite=arguments.overwrite)
    weights = load_weights(arguments.weights)
    detail(f"weights: {weights.name}, {weights.path}")
    from crefjax.data.specimen_batches import load_specimen

    specimen = load_specimen(
        arguments.half_map_1,
        arguments.half_map_2,
        arguments.mask,
        voxels=weights.grid,
        voxel_size=arguments.voxel_size,
        insist=arguments.insist,
    )
    for note in specimen.notes:
        warn(note)
    for note in specimen.mask_info.notes if specimen.mask_info else ():
        log(f"mask: {note}")
    for note in specimen.grid.notes if specimen.grid else ():
        log(note)
    config = finetune_config()
    config.minutes = float(arguments.minutes)
    config.data.patch = _patch(specimen.mask.shape) if arguments.patch is None else arguments.patch
    config.seed = arguments.seed
    _check(config)
    from crefjax.training.finetune import finetune

    log(f"fine-tuning {weights.name}, patches of {config.data.patch} voxels a side, {config.minutes:g} minutes at most")
    output.absolute().parent.mkdir(parents=True, exist_ok=True)
    with timed("fine-tuning"), temporary_sibling(output) as workdir:
        parameters, improvement, stopped = finetune(specimen, weights, config, workdir, say=log)
    result(improvement.describe())
    about = {
        "source": f"fine-tuned with crefjax from {weights.name}",
        "license": weights.card["license"],
        "expected_input": weights.card["expected_input"],
        "training": f"{improvement.step} steps on one specimen; before: {weights.card['training']}",
        "fine_tuning": improvement.describe(),
    }
    about |= {field: weights.card[field] for field in INHERITED_FIELDS if field in weights.card}
    if not improvement.significant:
        parameters = weights.parameters
        about["training"] = weights.card["training"]
        result(f"the old weights are kept: {output} holds those of {weights.name}")
    save_weights(output, parameters, weights.config, about, overwrite=arguments.overwrite)
    result(f"wrote {output}")
    return 0 if stopped is None else 128 + stopped


def _patch(box):
    """Return a side that fits several times into the longest side of the box."""
    return min(_PATCH, 16 * math.ceil(max(box) / 32))


def _check(config):
    if config.data.patch < 16 or config.data.patch % 2:
        raise UserError(f"--patch: expected an even number of at least 16 voxels, found {config.data.patch}; change it")
    if not 0 <= config.seed < 2**31:
        raise UserError(f"--seed: expected a number from 0 to 2147483647, found {config.seed}; change it")
