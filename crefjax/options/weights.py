"""Arguments of `weights`."""

from crefjax.options import add_overwrite, command


def add_weights(commands):
    """Add `crefjax weights`."""
    parent = commands.add_parser("weights", help="list, show and import weights", description="Weights of the network.")
    actions = parent.add_subparsers(title="actions", required=True, metavar="ACTION")
    command(actions, "list", _weights_list, "list the weights that are found by name")
    show = command(actions, "show", _weights_show, "show what is known of weights")
    show.add_argument("name", metavar="NAME", help="name or folder")
    load = command(
        actions,
        "import",
        _weights_import,
        "import weights from a TensorFlow checkpoint or an .npz of its arrays",
    )
    load.add_argument("checkpoint", metavar="CHECKPOINT", help="prefix (saved-model-epoch-192) or .npz file")
    load.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        required=True,
        help="weights folder to write; one in the user's data folder (see `crefjax weights list`) is found by name",
    )
    add_overwrite(load)


def _weights_list(_):
    from crefjax.commands import weights

    weights.list_all()


def _weights_show(arguments):
    from crefjax.commands import weights

    weights.show(arguments.name)


def _weights_import(arguments):
    from crefjax.commands import weights

    weights.import_one(arguments.checkpoint, arguments.output, overwrite=arguments.overwrite)
