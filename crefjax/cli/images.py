"""`crefjax images`."""

import importlib

# Each action is a module of this package, with `add_arguments` and `run`.
ACTIONS = {
    "simulate": ("images_simulate", "simulate particle images or micrographs whose signal is known"),
    "denoise": ("images_denoise", "denoise stacks of particle images, or micrographs, to look at and pick from"),
    "extract-noise": ("images_extract_noise", "cut patches without particles out of micrographs"),
}


def add_arguments(parser):
    """Add the actions of `crefjax images` and their arguments."""
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    for name, (module, text) in ACTIONS.items():
        action = importlib.import_module(f"crefjax.cli.{module}")
        description = f"{text[0].upper()}{text[1:]}."
        subparser = actions.add_parser(
            name, help=text, description=description, formatter_class=parser.formatter_class, epilog=action.EPILOG
        )
        action.add_arguments(subparser)
        subparser.set_defaults(act=action.run)


def run(arguments):
    """Run an action; return its exit status."""
    return arguments.act(arguments)
