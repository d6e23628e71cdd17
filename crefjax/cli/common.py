"""Helpers shared by the subcommands: argument types, options, and the device to compute on."""

import os
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from crefjax.cli.messages import NORMAL, QUIET, VERBOSE, warn

if TYPE_CHECKING:
    from crefjax.io.maps import Map
    from crefjax.io.models import AtomicModel


def number(text):
    """Parse a finite number; argparse reports the ValueError of anything else."""
    value = float(text)
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError
    return value


number.__name__ = "number"


def number_or_auto(text):
    """Parse a finite number, or the word auto."""
    return "auto" if text == "auto" else number(text)


number_or_auto.__name__ = "number (or auto)"


def positive(text):
    """Parse a finite number above 0."""
    value = number(text)
    if value <= 0:
        raise ValueError
    return value


positive.__name__ = "positive number"


def add_half_maps(command, second="the other half-map", *, optional=False):
    """Add HALF1 and HALF2.

    Args:
        command: parser.
        second: help text of HALF2.
        optional: whether the command itself checks which of them it needs.
    """
    more = {"nargs": "?"} if optional else {}
    command.add_argument("half_map_1", metavar="HALF1", help="half-map (.mrc, .map, .ccp4, also .gz or .bz2)", **more)
    command.add_argument("half_map_2", metavar="HALF2", help=second, **more)


_SHARED = {
    "overwrite": {"action": "store_true", "help": "replace existing outputs"},
    "device": {"choices": ("cpu", "gpu"), "help": "device to compute on (default: the best)"},
    "voxel_size": {
        "metavar": "A",
        "type": positive,
        "help": "voxel size of all maps, Å, if their headers have none or a wrong one (default: that of the headers)",
    },
    "insist": {
        "action": "store_true",
        "help": "continue with half-maps that are not a pair (one is shifted, mirrored, or has the noise of the other; "
        "see `crefjax check`)",
    },
}


def add_shared(command, *names):
    """Add options that several commands have: `overwrite`, `device`, `voxel_size`, or `insist`."""
    for name in names:
        command.add_argument(f"--{name.replace('_', '-')}", **_SHARED[name])


def add_actions(parser, *rows):
    """Add the actions of a command by rows of name, function, and help; return their parsers."""
    actions, parsers = parser.add_subparsers(title="actions", required=True, metavar="ACTION"), []
    for name, act, text in rows:
        description, formatter = f"{text[0].upper()}{text[1:]}.", parser.formatter_class
        parsers.append(actions.add_parser(name, help=text, description=description, formatter_class=formatter))
        parsers[-1].set_defaults(act=act)
    return parsers


def add_config(command):
    """Add `--config`, whose fields are changed by arguments that `extra` collects."""
    text = "a Python file with get_config(), such as experiments/configs/paper.py"
    command.add_argument("--config", metavar="FILE", required=True, help=text)
    command.set_defaults(takes_extra=True)


def add_verbosity(command):
    """Add `--quiet` and `--verbose`."""
    group = command.add_mutually_exclusive_group()
    more = {"dest": "verbosity", "action": "store_const", "default": NORMAL}
    group.add_argument("-q", "--quiet", const=QUIET, help="print errors and warnings only", **more)
    group.add_argument("-v", "--verbose", const=VERBOSE, help="also print choices, times, and peak memory", **more)


def add_json(command, text):
    """Add `--json`; the text says what is written."""
    command.add_argument(
        "--json", metavar="F", help=f"also write {text} as JSON; - for standard output, with nothing else on it"
    )


def choose_platform(arguments):
    """Keep JAX off a GPU that `--device cpu` leaves unused, as it would take its memory; before JAX is loaded."""
    if arguments.device == "cpu" and "jax" not in sys.modules:
        os.environ["JAX_PLATFORMS"] = "cpu"


def on_device(kind: str | None) -> AbstractContextManager:
    """Return a context in which JAX computes on a device.

    Args:
        kind: `cpu`, `gpu`, or None for the best.

    Raises:
        UserError: at once, if JAX has no such device.
    """
    if kind is None:
        return nullcontext()
    import jax

    from crefjax.utils.memory import find_device

    return jax.default_device(find_device(kind))


def add_model(command, more: str = "") -> None:
    """Add `--model`, whose help ends with `more`."""
    text = f"atomic model to show with the maps, PDB or mmCIF, also .gz{more}"
    command.add_argument("--model", metavar="MODEL", help=text)


def read_optional_model(path: str | Path | None) -> "AtomicModel | None":
    """Return the model of a file, or None for None.

    Raises:
        UserError: the file is missing or not a model.
    """
    if path is None:
        return None
    from crefjax.io.models import read_model

    return read_model(path)


def check_model_place(model: "AtomicModel | None", map_: "Map") -> None:
    """Warn if most atoms of a model lie outside the box of a map."""
    if model is None:
        return
    sides = tuple(side * map_.voxel_size for side in map_.array.shape[::-1])
    share = model.inside(map_.origin, sides)
    if share < 0.5:
        warn(
            f"{model.name}: {share:.0%} of its atoms lie in the box of the map; check that it is the model of this "
            "map, and that the header has the right origin"
        )


def out_of_memory(error: MemoryError | RuntimeError) -> str:
    """Return the message for an out-of-memory error; raise any other RuntimeError again."""
    if isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):  # of JAX
        raise error
    return "out of memory; close other programs, or use smaller maps or larger voxels"
