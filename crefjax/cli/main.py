"""The `crefjax` command: parse the arguments, run a subcommand, and return its exit status.

Exit status: 0 success; 1 `crefjax check` finds that two half-maps are not a pair, or `crefjax denoise --entries` or
`crefjax fetch` had to skip an entry; 2 an error that the user can correct, reported in one line on standard error; 129,
130 or 143 interrupted by a signal.
"""

import argparse
import importlib
import os
import resource
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from crefjax import __version__
from crefjax.cli.common import choose_platform, out_of_memory
from crefjax.cli.messages import NORMAL, detail, fail, speak
from crefjax.errors import UserError
from crefjax.utils.compilation_cache import keep_programs
from crefjax.utils.signals import exit_on_signals

# Each subcommand is a module of this package, with `add_arguments` and `run`; `COMPILES` is False in one without JAX.
COMMANDS = {
    "denoise": "denoise the full map of two half-maps",
    "report": "report what in a denoised map can be trusted, whichever program made it",
    "view": "write a page with every plane and the surfaces of one or two maps",
    "check": "check that two maps are a pair of half-maps, fit for denoising",
    "fsc": "print the Fourier shell correlation of two maps",
    "mask": "make a soft mask around the particle in two half-maps",
    "classify": "remove the voxels of a map that a network classifies as noise",
    "fetch": "download the half-maps and the masks of EMDB entries",
    "simulate": "simulate two half-maps, or images of particles, with known signal from an atomic model",
    "images": "simulate and denoise particle images and micrographs",
    "external-reconstruct": "reconstruct and denoise the half-maps of a refinement, when RELION calls it",
    "relion-job": "denoise and report as an External job of RELION",
    "prepare": "cut half-maps into patches for training",
    "plan": "estimate what a training takes: steps, memory, disk space, and time",
    "train": "train a network on half-map pairs, as configured",
    "finetune": "adapt weights to one specimen, using only its two half-maps",
    "demo": "simulate two half-maps, denoise them, and show the gain; needs no input",
    "weights": "list, show, and import weights",
    "cache": "show or clear the compiled programs that make later runs start faster",
    "completion": "print the script by which a shell completes commands and options",
}


class DefaultsFormatter(argparse.HelpFormatter):
    """Help that shows the default of every option that has one, except flags, which are off by default."""

    def _get_help_string(self, action):
        if action.nargs == 0 or action.default in (None, argparse.SUPPRESS):
            return action.help
        return f"{action.help} (default: {action.default})"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
        argv: the arguments after the program's name; those of the process if None.

    Returns:
        The exit status.
    """
    open_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal may not be able to show Å
            stream.reconfigure(errors="replace")
    try:
        arguments = _parse(argv)
    except SystemExit as stop:  # argparse's own, after --help or a mistake
        return stop.code or 0
    verbosity, json_on_stdout = getattr(arguments, "verbosity", NORMAL), getattr(arguments, "json", None) == "-"
    with speak(verbosity, json_on_stdout=json_on_stdout):
        return _run(arguments)


def _run(arguments):
    """Run the command; return its exit status, after a line on standard error for anything that went wrong."""
    start = time.monotonic()
    try:
        with exit_on_signals(*getattr(arguments, "interrupted", ())):
            if hasattr(arguments, "device"):
                choose_platform(arguments)
            if arguments.compiles:
                kept = keep_programs()
                detail(f"compiled programs: {kept.own or f'not kept, {kept.reason}'}")
            status = arguments.run(arguments) or 0
            sys.stdout.flush()  # so that a closed pipe or a full disk behind it is caught below
            detail(f"total: {time.monotonic() - start:.2f} s, peak memory {_peak_memory():.2f} GiB")
            return status
    except UserError as error:
        fail(str(error))
        return 2
    except (MemoryError, RuntimeError) as error:
        fail(out_of_memory(error))
        return 2
    except BrokenPipeError:  # `crefjax fsc ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # too long a name, a folder that is not readable, a full disk behind a pipe
        where = f"{error.filename}: " if error.filename else ""
        fail(f"{where}{error.strerror or error}; check the path and the disk")
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2


def _peak_memory():
    """Return the peak resident memory of the program, GiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, KiB elsewhere
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def open_standard_streams() -> None:
    """Open /dev/null in place of standard streams that are closed, as by `>&-` or by some schedulers.

    Printing would fail after the work, and the next file to be opened would take the number of a standard stream, so
    that the standard error of a library would be written into a map.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is not None:
            continue
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
        if name != "stdin":
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - stays open


def _parse(argv):
    """Return the arguments; those that a command leaves to another parser, the fields of a config, are `extra`."""
    words = sys.argv[1:] if argv is None else list(argv)
    parser = make_parser(next((word for word in words if not word.startswith("-")), None))
    arguments, extra = parser.parse_known_args(words)
    if extra and not getattr(arguments, "takes_extra", False):
        parser.error(f"unrecognized arguments: {' '.join(extra)}")
    arguments.extra = extra
    return arguments


def make_parser(command: str | None = None, *, all_commands: bool = False) -> argparse.ArgumentParser:
    """Return the parser of the command line.

    Args:
        command: subcommand whose arguments are added; None adds those of no subcommand.
        all_commands: whether those of all subcommands are added, which loads all their modules.
    """
    parser = argparse.ArgumentParser(
        prog="crefjax",
        description="Removes noise from cryo-EM density maps, given two half-maps.",
        epilog="`crefjax COMMAND --help` explains a command.",
    )
    parser.add_argument("--version", action="version", version=f"crefjax {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        description = f"{text[0].upper()}{text[1:]}."
        subparser = commands.add_parser(name, help=text, description=description, formatter_class=DefaultsFormatter)
        if all_commands or name == command:
            module = importlib.import_module(f"crefjax.cli.{name.replace('-', '_')}")
            module.add_arguments(subparser)
            subparser.epilog = getattr(module, "EPILOG", None)
            subparser.set_defaults(run=module.run, compiles=getattr(module, "COMPILES", True))
    return parser
