"""What several subcommands share: types of arguments, options, and the device to compute on."""

import os
import sys
from contextlib import AbstractContextManager, nullcontext


def number(text):
    """A finite number; argparse turns the error into its own line."""
    value = float(text)
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError
    return value


number.__name__ = "number"


def number_or_auto(text):
    """A finite number, or the word auto."""
    return "auto" if text == "auto" else number(text)


number_or_auto.__name__ = "number (or auto)"


def positive(text):
    """A finite number above 0."""
    value = number(text)
    if value <= 0:
        raise ValueError
    return value


positive.__name__ = "positive number"


def add_overwrite(command):
    """Add `--overwrite`."""
    command.add_argument("--overwrite", action="store_true", help="replace existing outputs")


def add_device(command):
    """Add `--device`."""
    command.add_argument("--device", choices=("cpu", "gpu"), help="device to compute on (default: the best)")


def add_voxel_size(command):
    """Add `--voxel-size`."""
    command.add_argument(
        "--voxel-size",
        metavar="A",
        type=positive,
        help="voxel size of all maps, Å, if their headers have none or a wrong one (default: that of the headers)",
    )


def add_insist(command):
    """Add `--insist`."""
    command.add_argument(
        "--insist",
        action="store_true",
        help="continue with half-maps that are not a pair (one is shifted, mirrored, or has the noise of the "
        "other; see "
        "`crefjax check`)",
    )


def choose_platform(arguments):
    """Keep JAX, if it is not loaded yet, off a GPU that `--device cpu` leaves unused: it would take its memory."""
    if arguments.device == "cpu" and "jax" not in sys.modules:
        os.environ["JAX_PLATFORMS"] = "cpu"


def on_device(kind: str | None) -> AbstractContextManager:
    """A context in which JAX computes on a device.

    Args:
        kind: `cpu`, `gpu`, or None for whatever JAX finds best.

    Raises:
        UserError: at once, if JAX has no such device.
    """
    if kind is None:
        return nullcontext()
    import jax

    from crefjax.utils.memory import find_device

    return jax.default_device(find_device(kind))
