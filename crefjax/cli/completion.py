"""`crefjax completion`."""

import argparse
from collections.abc import Iterator

from crefjax.errors import UserError

SHELLS = ("bash", "zsh", "fish")
EPILOG = (
    "bash reads the script from ~/.local/share/bash-completion/completions/crefjax, zsh from a folder of its fpath, as "
    "_crefjax, and fish from ~/.config/fish/completions/crefjax.fish. Needs pip install 'crefjax[completion]'."
)
# Options completed with folders; values of all others, except numbers, names, and choices, are completed with files.
_FOLDERS = ("DIR", "FOLDER", "ENTRY", "DATASET")
_NAMES = (
    *("base_url", "pdb_url", "search_url", "query", "what", "assembly", "flexible_chains", "symmetry", "part"),
    "coordinator",
)
COMPILES = False


def add_arguments(parser):
    """Add the arguments of `crefjax completion`."""
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help="bash, zsh, or fish")


def run(arguments) -> None:
    """Print the script."""
    try:
        import shtab
    except ImportError as error:
        raise UserError(
            "completion: expected the library shtab, found none; install it: pip install 'crefjax[completion]'"
        ) from error
    from crefjax.cli.main import make_parser

    parser = make_parser(all_commands=True)
    for command, action in _actions(parser):
        action.help = _plain(action.help)
        if _takes_path(command, action):
            is_folder = action.metavar in _FOLDERS or action.dest == "weights"
            action.complete = shtab.DIRECTORY if is_folder else shtab.FILE
    print(shtab.complete(parser, arguments.shell))


def _actions(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.Action]]:
    """Yield every action of a parser and of its subcommands, with the name of the innermost command."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for subparser in dict.fromkeys(action.choices.values()):
                yield from _actions(subparser)
            for choice in action._choices_actions:
                choice.help = _plain(choice.help)
        else:
            yield parser.prog.split()[-1], action


def _plain(text):
    """Return a help text without the backquotes that a shell would take for a command."""
    return text.replace("`", "") if text and text != argparse.SUPPRESS else text


def _takes_path(command, action):
    """Return whether the value of an argument is a path, as all texts are except for a few."""
    return (
        action.nargs != 0
        and action.type in (None, str)
        and not action.choices
        and action.dest not in _NAMES
        and (command, action.dest) not in (("fetch", "entry"), ("show", "name"))
    )
