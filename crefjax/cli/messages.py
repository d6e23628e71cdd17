"""Messages of a command: lines on standard error, results on standard output, and their verbosity.

`--quiet` leaves errors and warnings, `--verbose` adds choices and times. Lines of the library that begin with
`warning: ` or `skipped ` are warnings. Where JSON goes to standard output, the results go to standard error.
"""

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

from crefjax.utils.progress import without_progress

QUIET, NORMAL, VERBOSE = -1, 0, 1
# Parameters that messages of the library name, and that are options of the same name on the command line.
_PARAMETERS = (
    *("assembly", "coordinator", "device", "dtype", "grid", "insist", "jobs", "mask", "max_memory", "method"),
    *("overwrite", "part", "patch", "process_id", "processes", "pixel_size", "resolution", "rotations", "scale"),
    *("seed", "sharpen", "stride", "symmetry", "threshold", "validation", "voxel_size"),
)
_WARNINGS = ("warning: ", "skipped ")


@dataclass
class Messages:
    """Messages of a command, or of a part of it, and how they are printed.

    Attributes:
        verbosity: `QUIET`, `NORMAL`, or `VERBOSE`.
        json_on_stdout: whether standard output is kept for JSON.
        prefix: of every line on standard error.
        warnings: all warnings, without prefix.
        seconds: time of each step by its name, from `timed`.
        start: when it began, by `time.monotonic`.
    """

    verbosity: int = NORMAL
    json_on_stdout: bool = False
    prefix: str = ""
    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    start: float = field(default_factory=time.monotonic)

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.start


_current = Messages()


@contextmanager
def speak(verbosity: int = NORMAL, *, json_on_stdout: bool = False, prefix: str = "") -> Iterator[Messages]:
    """Set how messages are printed within the `with`, and yield those printed in it.

    Args:
        verbosity: `QUIET`, `NORMAL`, or `VERBOSE`.
        json_on_stdout: whether standard output is kept for JSON.
        prefix: of every line on standard error.
    """
    global _current
    before, _current = _current, Messages(verbosity, json_on_stdout, prefix)
    try:
        with without_progress() if verbosity == QUIET else nullcontext():
            yield _current
    finally:
        _current = before


@contextmanager
def part(name: str) -> Iterator[Messages]:
    """Begin every line within the `with` with the name of a part of the work; yield the messages printed in it."""
    with speak(_current.verbosity, json_on_stdout=_current.json_on_stdout, prefix=f"{name}: ") as messages:
        yield messages


def current_messages() -> Messages:
    """Return the messages of the command, or of its current part, so far."""
    return _current


def as_options(text: str) -> str:
    """Return a message with the parameters that it names in backquotes as options: `max_memory` is --max-memory."""
    return re.sub(f"`({'|'.join(_PARAMETERS)})`", lambda match: "--" + match[1].replace("_", "-"), text)


def log(line: str) -> None:
    """Print a line on standard error; with `--quiet` only if it is a warning."""
    line = as_options(line)
    if line.startswith(_WARNINGS):
        _current.warnings.append(line.removeprefix("warning: "))
    elif _current.verbosity == QUIET:
        return
    _print_error(line)


def warn(line: str) -> None:
    """Print a warning on standard error."""
    log(f"warning: {line}")


def detail(line: str) -> None:
    """Print a line on standard error with `--verbose`."""
    if _current.verbosity == VERBOSE:
        log(line)


def fail(line: str) -> None:
    """Print the line of an error on standard error."""
    _print_error(f"crefjax: {as_options(line)}", prefix="")


def result(line: str, *, even_if_quiet: bool = False) -> None:
    """Print a line of the result on standard output, or on standard error if JSON goes there; nothing with `--quiet`.

    Args:
        line: of the result.
        even_if_quiet: whether it is printed with `--quiet` too.
    """
    if even_if_quiet or _current.verbosity != QUIET:
        print(line, file=sys.stderr if _current.json_on_stdout else sys.stdout)


@contextmanager
def timed(step: str) -> Iterator[None]:
    """Measure the time of a step, which is printed with `--verbose` and kept for the record."""
    start = time.monotonic()
    yield
    seconds = time.monotonic() - start
    _current.seconds[step] = _current.seconds.get(step, 0.0) + seconds
    detail(f"{step}: {seconds:.2f} s")


def _print_error(line, prefix=None):
    print(f"{_current.prefix if prefix is None else prefix}{line}", file=sys.stderr, flush=True)
