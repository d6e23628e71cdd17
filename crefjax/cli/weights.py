"""`crefjax weights`."""

import sys
from pathlib import Path

from crefjax.cli.common import add_actions, add_shared
from crefjax.errors import UserError

COMPILES = False


def add_arguments(parser):
    """Add the actions of `crefjax weights` and their arguments."""
    _, show, load = add_actions(
        parser,
        ("list", _list, "list the weights that are found by name"),
        ("show", _show, "show the card of weights"),
        ("import", _import, "import weights from a TensorFlow checkpoint or an .npz of its arrays"),
    )
    show.add_argument("name", metavar="NAME", help="name or folder of the weights")
    load.add_argument("checkpoint", metavar="CHECKPOINT", help="prefix (saved-model-epoch-192) or .npz file")
    load.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        required=True,
        help="weights folder to write; one in the user's data folder (see `crefjax weights list`) is found by name",
    )
    add_shared(load, "overwrite")


def run(arguments) -> None:
    """List, show, or import weights."""
    arguments.act(arguments)


def _list(arguments):
    from crefjax.weights.store import DEFAULTS, list_weights, read_card, user_folder

    by_name = list_weights()
    for name, path in by_name.items():
        try:
            card, _ = read_card(path)
            task = card.get("task", "denoising")
            default = "  (default)" if path == by_name.get(DEFAULTS.get(task)) else ""
            print(f"{name:24} {task:16} {card['parameters']:>9,} parameters  {path}{default}")
        except UserError as error:
            print(f"{name:24} cannot be used: {error}")
    print(f"weights folders in {user_folder()} are found by name", file=sys.stderr)


def _show(arguments):
    from crefjax.weights.store import find_weights, read_card

    path = find_weights(arguments.name)
    card, config = read_card(path)
    print(f"{path.name}: {path}")
    for field, value in card.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {entry}" for key, entry in value.items())
        print(f"  {field.replace('_', ' ')}: {value}")
    print(f"  box sides are padded to a multiple of {config.multiple} voxels")


def _import(arguments):
    from crefjax.weights.crefdenoiser import import_checkpoint
    from crefjax.weights.store import check_weights_folder, save_weights

    check_weights_folder(Path(arguments.output), overwrite=arguments.overwrite)
    parameters, config, about = import_checkpoint(arguments.checkpoint)
    save_weights(arguments.output, parameters, config, about, overwrite=arguments.overwrite)
    count = sum(array.size for layer in parameters.values() for array in layer.values())
    print(f"wrote {arguments.output}: {len(parameters)} layers, {count:,} parameters")
    print(f"license: {about['license']}")
