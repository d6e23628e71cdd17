"""The output of a command: messages on standard error, results on standard output, and its record as JSON.

`--quiet` keeps only errors and warnings; `--verbose` adds choices and times. Lines of the library that begin with
`warning: ` or `skipped ` are warnings. Where JSON goes to standard output, the results go to standard error.

A record lists what a command read, found, warned of, and wrote, for use in pipelines. Its keys are documented in
docs/command_line.md. Removing a key, or changing its meaning, requires a higher `FORMAT_VERSION`.
"""

import json
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from crefjax import __version__
from crefjax.io.files import check_output_file, finite_json
from crefjax.utils.atomic import write_bytes
from crefjax.utils.progress import without_progress

QUIET, NORMAL, VERBOSE = -1, 0, 1
# Parameters that messages of the library name, and that are options of the same name on the command line.
_PARAMETERS = (
    *("assembly", "coordinator", "device", "dtype", "grid", "insist", "jobs", "mask", "max_memory", "method"),
    *("overwrite", "part", "patch", "process_id", "processes", "pixel_size", "resolution", "rotations", "scale"),
    *("seed", "sharpen", "stride", "symmetry", "threshold", "validation", "voxel_size"),
)
_WARNINGS = ("warning: ", "skipped ")
FORMAT_VERSION = 1
_MARKER = b'"format_version"'


@dataclass
class Messages:
    """Messages of a command, or of a part of it, and how they are printed.

    Attributes:
        verbosity: `QUIET`, `NORMAL`, or `VERBOSE`.
        json_on_stdout: whether standard output is kept for JSON.
        prefix: prefix of every line on standard error.
        warnings: all warnings, without prefix.
        seconds: time of each step by its name, from `timed`.
        start: time at which it began, from `time.monotonic`.
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
        even_if_quiet: whether to print it with `--quiet` too.
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


def check_json(
    path: str | None, *, suffixes: tuple[str, ...] = (".json",), marker: bytes = _MARKER, inputs: Iterable = ()
) -> None:
    """Check, before long work, that the JSON can be written.

    Args:
        path: what the user gave: a file, `-` for standard output, or None for no JSON.
        suffixes: that the file's name may have; empty for any.
        marker: content by which an earlier file, which may be replaced, is recognized.
        inputs: files that are read.

    Raises:
        UserError: another suffix, a file that is not an earlier output, or a folder that is missing or not writable.
    """
    if path not in (None, "-"):
        check_output_file(path, suffixes=suffixes, marker=marker, inputs=inputs)


def output_json(path: str | None, content: Mapping) -> None:
    """Write JSON to a file, to standard output (`-`), or nowhere (None).

    Raises:
        UserError: the file system refused.
    """
    if path == "-":
        print(json_text(content))
    elif path is not None:
        write_bytes(Path(path), (json_text(content) + "\n").encode())


def json_text(content: Mapping) -> str:
    """Return JSON in ASCII, in which NaN and infinity are null; paths and other objects are texts."""
    return json.dumps(finite_json(content), indent=1, allow_nan=False, default=str)


def make_record(
    command: str, *, inputs: Mapping[str, Path], half_map, settings: dict, found: dict, outputs: Mapping[str, Path]
) -> dict:
    """Return the record of a finished command, with its warnings and times.

    Args:
        command: its name.
        inputs: files that were read, by their role.
        half_map: the first one, a `crefjax.io.maps.Map`.
        settings: that led to the result, every default filled in.
        found: what was measured, and what of it is notable.
        outputs: files that were written, by their role.
    """
    messages = current_messages()
    return {
        "format_version": FORMAT_VERSION,
        "crefjax": __version__,
        "command": command,
        "inputs": {name: str(path) for name, path in inputs.items()},
        "box": list(half_map.array.shape),
        "voxel_size": half_map.voxel_size,
        "settings": settings,
        "found": found,
        "warnings": list(messages.warnings),
        "outputs": {name: str(path) for name, path in outputs.items()},
        "seconds": {**messages.seconds, "total": messages.elapsed},
    }


def resolution_numbers(curve, prefix: str = "") -> dict:
    """Return where an `FscCurve` falls below 0.143 and 0.5, Å, and whether it does, by keys with a prefix."""
    numbers = {}
    for threshold in (0.143, 0.5):
        resolution = curve.resolution(threshold)
        numbers[f"{prefix}resolution_at_{threshold}"] = resolution.angstrom
        numbers[f"{prefix}falls_below_{threshold}"] = resolution.crossed
    return numbers


def pair_numbers(check, *, mask_given: bool) -> dict:
    """Return what a check of two half-maps found, for a record.

    Args:
        check: `crefjax.data.pair_check.PairCheck`; None for a single map, of which nothing is known.
        mask_given: whether the user gave the mask to measure within.
    """
    if check is None:
        names = ("resolution_at_0.143", "falls_below_0.143", "resolution_at_0.5", "falls_below_0.5")
        return {**dict.fromkeys(names), "measured_within": None, "pair": None, "findings": []}
    region = "mask" if mask_given else "whole box" if check.region.array is None else "automatic mask"
    findings = [
        {"kind": finding.kind, "serious": finding.serious, "text": finding.text, "numbers": finding.numbers}
        for finding in check.findings
    ]
    numbers = resolution_numbers(check.curve)
    return numbers | {"measured_within": region, "pair": not check.serious, "findings": findings}


def report_summary(numbers: Mapping) -> dict:
    """Return the numbers of a report that are not curves, for a record.

    Args:
        numbers: of `crefjax.report.measure.report_numbers`.
    """
    summary = {}
    for threshold in (0.143, 0.5):
        resolution = numbers["resolution"][f"fsc_{threshold}"]
        summary[f"resolution_at_{threshold}"] = resolution["angstrom"]
        summary[f"falls_below_{threshold}"] = resolution["crossed"]
    return summary | {name: numbers[name] for name in ("mask", "cref_rmse", "gain", "warnings", "notes", "use")}
