"""A study over many entries: each read once, measured method by method, kept, and put together at the end.

A study says what it measures of one method in one entry and how to draw it; all else is here. Numbers of an entry are
kept in DIR/measured until it, its maps or the study change, so that a run goes on where another ended.
"""

import argparse
import functools
import hashlib
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

import crefjax
from analysis.files import check_output, put
from analysis.subjects import Subject, subjects
from crefjax import __version__
from crefjax.errors import UserError
from crefjax.io.entries import Entry, find_entry
from crefjax.utils.progress import progress_bar
from crefjax.utils.workers import WorkerKilledError, run_tasks


class Row(NamedTuple):
    """What a study has to say of one method in one entry: numbers for the table, lists for the figure."""

    numbers: dict[str, float | int | str | None]
    curves: dict[str, list]


class Headline(NamedTuple):
    """A number of a row that is summed up over entries.

    Attributes:
        key: in the row.
        label: with its unit.
        better: -1 or 1, which way is better.
        digits: after the point.
    """

    key: str
    label: str
    better: int
    digits: int = 3


@dataclass(frozen=True)
class Study:
    """A study of this folder.

    Attributes:
        name: of its module and files.
        about: one line.
        measure: what it has to say; None where a method says nothing (half-maps that are needed are not there).
        headlines: what is summed up.
        figure: of all rows, as `run` gives them.
        needs: why an entry is left out, or None.
    """

    name: str
    about: str
    measure: Callable[[Subject], Row | None]
    headlines: tuple[Headline, ...]
    figure: Callable[[list[dict]], Figure]
    needs: Callable[[Entry], str | None] = lambda entry: None


class Task(NamedTuple):
    """An entry and the names of the studies (modules of this folder) that are still to be made of it."""

    path: Path
    studies: tuple[str, ...]
    methods: tuple[str, ...] | None


class Run(NamedTuple):
    """What a run over entries found.

    Attributes:
        rows: by study, of every entry and method, in the order of the entries: `entry`, `method`, `how`, `mask`, the
            numbers, and `curves`.
        left_out: entry and study ('' for all), and why.
        seconds: it took.
    """

    rows: dict[str, list[dict]]
    left_out: list[tuple[str, str, str]]
    seconds: float


def entries_parser(name: str, about: str) -> argparse.ArgumentParser:
    """The arguments that every study over entries takes."""
    parser = argparse.ArgumentParser(prog=f"python -m analysis.{name}", description=about)
    parser.add_argument("entries", nargs="+", metavar="ENTRY", help="entry folders")
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="folder to write")
    parser.add_argument("--methods", metavar="A,B", help="methods of the entries' outputs to take; default: all")
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="entries at a time, a process each; default: 1"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the results of an earlier run")
    return parser


def run(studies: Sequence[Study], arguments: argparse.Namespace) -> Run:
    """Measure all entries, as many at a time as there are jobs; a bad one is told and left out.

    Args:
        studies: each named as its module.
        arguments: of `entries_parser`.

    Raises:
        UserError: nothing could be measured, or entries of one name.
    """
    start, folder = time.monotonic(), Path(arguments.output) / "measured"
    if arguments.jobs < 1:
        raise UserError(f"--jobs: expected 1 or more, found {arguments.jobs}")
    methods = None if arguments.methods is None else tuple(one.strip() for one in arguments.methods.split(","))
    left_out: list[tuple[str, str, str]] = []
    entries = _find_entries(arguments.entries, left_out)
    _check_methods(methods, entries.values())
    tasks = []
    for entry in entries.values():
        reasons = {study.name: study.needs(entry) for study in studies}
        left_out += [(entry.name, name, reason) for name, reason in reasons.items() if reason]
        todo = [name for name, why in reasons.items() if not why and _kept(folder, name, entry, methods) is None]
        if todo:
            tasks.append(Task(entry.path, tuple(todo), methods))
    folder.mkdir(parents=True, exist_ok=True)
    for name, why in _measure(tasks, folder, min(arguments.jobs, max(len(tasks), 1))):
        _tell(left_out, name, "", why)
        entries.pop(name)
    rows = {
        study.name: [row for one in entries.values() for row in _kept(folder, study.name, one, methods) or []]
        for study in studies
    }
    if not any(rows.values()):
        whys = dict.fromkeys(f"{name}: {why}" for name, _, why in left_out)
        raise UserError("nothing could be measured; " + ("; ".join(list(whys)[:3]) or "no method has what is needed"))
    return Run(rows, left_out, time.monotonic() - start)


def _find_entries(paths, left_out):
    entries = {}
    for path in (Path(one) for one in paths):
        try:
            entry = find_entry(path)
        except UserError as error:
            _tell(left_out, path.name, "", str(error))
            continue
        if entry.name in entries:
            raise UserError(f"{path}: expected every entry once, found two of the name {entry.name}; rename one")
        entries[entry.name] = entry
    return entries


def _measure(tasks, folder, jobs):
    """Measure entries and keep what was found; gives name and reason of those that are bad."""
    if jobs > 1:  # on a GPU the first process would take most of the memory
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    with progress_bar("measuring") as show:
        try:
            for number, (task, found) in enumerate(run_tasks(measure_entry, tasks, jobs=jobs)):
                entry = find_entry(task.path)
                if isinstance(found, str):
                    yield entry.name, found
                    continue
                for study, rows in found.items():
                    kept = {"key": _key(study, entry, task.methods), "rows": rows}
                    put(_file(folder, study, entry), json.dumps(kept).encode())
                show((number + 1) / len(tasks), entry.name)
        except WorkerKilledError as error:
            raise UserError("a worker process was killed, probably out of memory; use fewer --jobs") from error


def measure_entry(task: Task) -> dict[str, list[dict]] | str:
    """All rows of an entry by study, or what is wrong with it, in one line; runs in a process of its own."""
    studies = [importlib.import_module(f"analysis.{name}").STUDY for name in task.studies]
    found: dict[str, list[dict]] = {one.name: [] for one in studies}
    try:
        for subject in subjects(find_entry(task.path), task.methods):
            for study in studies:
                row = study.measure(subject)
                if row is not None:
                    about = {"entry": subject.entry.name, "method": subject.method, "how": subject.how}
                    about["mask"] = subject.mask_from
                    found[study.name].append(about | row.numbers | {"curves": row.curves})
    except UserError as error:
        return str(error)
    return found


def _check_methods(methods, entries):
    there = sorted({method for entry in entries for method in entry.outputs})
    for one in methods or ():
        if one not in there:
            raise UserError(
                f"--methods: expected some of {', '.join(there) or 'none, for there are no outputs'}, found {one}"
            )


def _tell(left_out, entry, study, why):
    left_out.append((entry, study, why))
    print(f"left out: {entry}: {why}", file=sys.stderr, flush=True)


def _file(folder, study, entry):
    return folder / f"{entry.name}--{study}.json"


def _kept(folder, study, entry, methods):
    """The rows of an earlier run, or None where they are not there or something has changed since."""
    try:
        kept = json.loads(_file(folder, study, entry).read_bytes())
        return kept["rows"] if kept["key"] == _key(study, entry, methods) else None
    except (OSError, ValueError, KeyError):
        return None


def _key(study, entry, methods):
    files = [entry.half_map_1, entry.half_map_2, entry.mask, entry.model, entry.reference, entry.truth]
    for name, output in entry.outputs.items():
        if methods is None or name in methods:
            files += [output.full, output.half_map_1, output.half_map_2]
    told = [__version__, study, list(methods or [])]
    for one in files:
        if one is not None:
            state = one.stat()
            told.append([str(one.absolute()), state.st_size, state.st_mtime_ns])
    told.append(_code())
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


@functools.lru_cache(maxsize=1)
def _code():
    """A checksum of all code that a number can depend on."""
    files = [path for folder in (Path(__file__).parent, Path(crefjax.__file__).parent) for path in folder.rglob("*.py")]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(files))).hexdigest()


def check_entries_output(study: str, arguments: argparse.Namespace) -> None:
    """As `check_output`, for a study over entries."""
    check_output(Path(arguments.output), f"{study}.csv", overwrite=arguments.overwrite)
