"""`crefjax images`."""

import importlib

from crefjax.cli.common import add_actions

# Each action is a module of this package, with `add_arguments` and `run`.
ACTIONS = {
    "simulate": ("images_simulate", "simulate particle images or micrographs whose signal is known"),
    "denoise": ("images_denoise", "denoise stacks of particle images, or micrographs, to look at and pick from"),
    "extract-noise": ("images_extract_noise", "cut patches without particles out of micrographs"),
}


def add_arguments(parser):
    """Add the actions of `crefjax images` and their arguments."""
    modules = [importlib.import_module(f"crefjax.cli.{module}") for module, _ in ACTIONS.values()]
    rows = [(name, module.run, text) for (name, (_, text)), module in zip(ACTIONS.items(), modules, strict=True)]
    for module, action in zip(modules, add_actions(parser, *rows), strict=True):
        action.epilog = module.EPILOG
        module.add_arguments(action)


def run(arguments):
    """Run an action; return its exit status."""
    return arguments.act(arguments)
