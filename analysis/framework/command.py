"""Messages, exit status, and output folder of the commands of studies and experiments."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from crefjax.cli.messages import log
from crefjax.errors import UserError


def run_command(
    name: str,
    parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], int | None],
    argv: Sequence[str] | None,
) -> int:
    """Run a command, and report a user's mistake in one line on standard error.

    Args:
        name: of the command, for messages.
        parser: of its arguments.
        run: takes them and returns the exit status, or None for 0.
        argv: arguments; those of the process if None.

    Returns:
        The exit status: that of `run`, or 2 after a mistake.
    """
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as stop:  # argparse's own, after --help or a mistake
        return stop.code or 0
    try:
        return run(arguments) or 0
    except UserError as error:
        log(f"{name}: {error}")
    except OSError as error:  # a folder that is a file, or may not be written
        print(f"{name}: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
    return 2


def check_output(folder: Path, files: str, *, overwrite: bool) -> None:
    """Check, before long work, that a folder can be written.

    Args:
        folder: need not exist, unlike its parent.
        files: pattern of what an earlier run would have left in it.
        overwrite: whether that run may be replaced.

    Raises:
        UserError: it cannot.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: expected a folder, found a file; choose another name")
    if not folder.absolute().parent.is_dir():
        raise UserError(f"{folder}: the folder {folder.absolute().parent} does not exist; make it first")
    earlier = None if overwrite else next(iter(sorted(folder.glob(files))), None)
    if earlier is not None:
        raise UserError(f"{earlier}: exists and is not replaced; choose another folder or give --overwrite")
