"""What every study does with its arguments and its output folder."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from crefjax.errors import UserError
from crefjax.utils.atomic import atomic_write
from crefjax.weights.store import Weights, load_weights


def run_study(
    name: str, parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int], argv: Sequence[str] | None
) -> int:
    """Run a study as a command line says; a mistake of the user's is told in one line.

    Args:
        name: of the study.
        parser: of its arguments.
        run: takes them and returns the exit status.
        argv: those of the process if None.

    Returns:
        The exit status: that of `run`, or 2 after a mistake.
    """
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as stop:  # argparse's own, after --help or a mistake
        return stop.code or 0
    try:
        return run(arguments)
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a folder that is a file, or may not be written
        print(f"{name}: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        return 2


def put(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    with atomic_write(path, needed=len(content), overwrite=True) as stream:
        stream.write(content)


def check_output(folder: Path, file: str, *, overwrite: bool) -> None:
    """Check, before long work, that a study can write into a folder.

    Args:
        folder: made if it is not there; its parent must be.
        file: a name that an earlier run would have left in it.
        overwrite: whether that run may be replaced.

    Raises:
        UserError: it cannot.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: expected a folder, found a file; choose another name")
    if not folder.absolute().parent.is_dir():
        raise UserError(f"{folder}: the folder {folder.absolute().parent} does not exist; make it first")
    if (folder / file).exists() and not overwrite:
        raise UserError(f"{folder / file}: exists and is not replaced; choose another folder or give --overwrite")


def simulated_entry(model: Path, arguments: str, folder: Path) -> Path:
    """The folder of an entry by the model's name, simulated if it is not there yet.

    Args:
        model: its file.
        arguments: of `crefjax simulate`, beside the model.
        folder: of all entries; made if it is not there.

    Raises:
        UserError: it cannot be simulated; why was told.
    """
    from crefjax.cli.main import main as crefjax

    path = folder / entry_name(model)
    folder.mkdir(parents=True, exist_ok=True)
    if not path.is_dir() and crefjax(["simulate", str(model), "-o", str(path), *arguments.split()]) != 0:
        raise UserError(f"{path}: the entry could not be simulated, see above")
    return path


def entry_name(model: str | Path) -> str:
    """What an entry of a model's file is called: `8tze` of `8tze.cif.gz`, `1gp2` of `1GP2_target.pdb.gz`."""
    return Path(model).name.split(".")[0].removesuffix("_target").lower()


def load_named(paths: Sequence[str]) -> dict[str, Weights]:
    """Weights by a name to tell: their own, or their run's where that is no more than best or last, each told apart.

    Args:
        paths: names or folders of weights.
    """
    found = {}
    for weights in (load_weights(one) for one in paths):
        name = weights.name if weights.name not in ("best", "last") else weights.path.parent.name
        unique, number = name, 2
        while unique in found:
            unique, number = f"{name} ({number})", number + 1
        found[unique] = weights
    return found
