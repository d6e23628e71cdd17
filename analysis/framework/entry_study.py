"""Studies over many entries: each entry is read once, measured method by method, and its numbers are kept.

A study says what it measures of one method in one entry, and how to draw it. The numbers of an entry are kept in
DIR/measured until the entry, its maps, or the study's code change, so that a run resumes where another one ended.
"""

import argparse
import ast
import functools
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

import crefjax
from analysis.framework.discovery import ROOT, load_study
from analysis.framework.output import FULL, Headline, Output, summarize, summary_lines, table
from analysis.framework.resample import read_resampled
from analysis.framework.study import Study, add_jobs, run_jobs
from crefjax import __version__
from crefjax.errors import UserError
from crefjax.io.entries import Entry, find_entry, load_mask, load_pair
from crefjax.io.maps import Map, full_map
from crefjax.masking import make_mask
from crefjax.report.measure import Measurements, ReportInputs
from crefjax.report.measure import measure as measure_account
from crefjax.utils.atomic import write_bytes


@dataclass(frozen=True, eq=False)
class MethodOutput:
    """One method's maps of one entry, on the grid of its half-maps.

    Attributes:
        entry: its files.
        pair: the half-maps.
        mask: `(z, y, x)`, 0 to 1.
        mask_from: its file's name, or that it was made.
        method: of the entry's outputs, or `FULL`.
        full: the method's map.
        halves: its half-maps, or None.
        how: the maps were brought to the grid.
    """

    entry: Entry
    pair: tuple[Map, Map]
    mask: np.ndarray
    mask_from: str
    method: str
    full: Map
    halves: tuple[Map, Map] | None
    how: str

    @property
    def voxel_size(self) -> float:
        """Å."""
        return self.pair[0].voxel_size

    @functools.cached_property
    def mean(self) -> np.ndarray:
        """The full map, `(z, y, x)`: the mean of the half-maps."""
        return full_map(*(half_map.array for half_map in self.pair))

    @functools.cached_property
    def measured(self) -> Measurements:
        """Covariances, FSC, and variances of the maps, shared by the studies."""
        return measure_account(
            ReportInputs(*self.pair, self.full, *(self.halves or (None, None)), self.mask, self.mask_from, {})
        )


def method_outputs(entry: Entry, methods: Sequence[str] | None) -> Iterator[MethodOutput]:
    """Yield the full map and then each method's maps, so that few are in memory at a time.

    Args:
        entry: its files.
        methods: to read, or None for all.

    Raises:
        UserError: maps cannot be read or matched.
    """
    pair = load_pair(entry.half_map_1, entry.half_map_2)
    if entry.mask is not None:
        mask, mask_from = load_mask(entry.mask, pair[0]).array, entry.mask.name
    else:
        mask, mask_from = make_mask(pair[0].array, pair[1].array, pair[0].voxel_size)[0], "made from the half-maps"
    mean = pair[0].replace_array(full_map(pair[0].array, pair[1].array))
    yield MethodOutput(entry, pair, mask, mask_from, FULL, mean, pair, "mean of the half-maps")
    for method, output in entry.outputs.items():
        if output.full is None or (methods is not None and method not in methods):
            continue
        full, halves = read_resampled(output.full, pair[0], mask=mask), None
        if output.half_map_1 is not None and output.half_map_2 is not None:
            paths = output.half_map_1, output.half_map_2
            halves = tuple(read_resampled(path, pair[0], mask=mask).map for path in paths)
        yield MethodOutput(entry, pair, mask, mask_from, method, full.map, halves, full.how)


class Row(NamedTuple):
    """Measurements of one method in one entry: numbers for the table, lists for the figure."""

    numbers: dict[str, float | int | str | None]
    curves: dict[str, list]


class EntryStudy(Study):
    """A study over entries.

    Args:
        module: `__name__` of the module that defines it.
        measure: gives the row of a method's maps, or None if half-maps that are needed are missing.
        headlines: numbers that are summarized.
        figure: of all rows, as `measure_entries` gives them.
        skip_reason: says why an entry cannot be measured; None if it can.
        add_arguments: adds further arguments to those of `add_entry_arguments`.
        run: replaces `run_study`.
    """

    def __init__(
        self,
        module: str,
        measure: Callable[[MethodOutput], Row | None],
        headlines: tuple[Headline, ...],
        figure: Callable[[list[dict]], Figure],
        skip_reason: Callable[[Entry], str | None] = lambda entry: None,
        *,
        add_arguments: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
        run: Callable[[argparse.Namespace, Output], int | None] | None = None,
    ):
        def add_all(parser):
            add_entry_arguments(parser)
            add_arguments(parser)

        super().__init__(module, run or self._measure_and_write, add_all)
        self.measure, self.headlines, self.figure, self.skip_reason = measure, headlines, figure, skip_reason

    def _measure_and_write(self, arguments, output):
        settings = {"entries": arguments.entries, "methods": arguments.methods}
        self.report(measure_entries([self], arguments), output, settings)

    def report(self, results: "EntryResults", output: Output, settings: dict) -> None:
        """Write the study's files and print the summary."""
        print("\n".join(summary_lines(self.headlines, self.write(results, output, settings))))
        if results.skipped:
            print(f"{len(results.skipped)} left out, see {output.folder / output.name}.json")

    def write(self, results: "EntryResults", output: Output, settings: dict) -> dict:
        """Write NAME.csv, .json, .png, and .svg, and return the summary.

        Args:
            results: of this and perhaps of other studies.
            output: where to write.
            settings: for the record.
        """
        rows = results.rows[self.name]
        summary = summarize(self.headlines, rows)
        left_out = [{"entry": entry, "why": why} for entry, study, why in results.skipped if study in ("", self.name)]
        output.write("csv", table(rows))
        output.write_json({"settings": settings, "left_out": left_out, "summary": summary}, seconds=results.seconds)
        output.write_figure(self.figure(rows))
        return summary


class EntryResults(NamedTuple):
    """Measurements of all entries.

    Attributes:
        rows: by study, of every entry and method, in the order of the entries: `entry`, `method`, `how`, `mask`, the
            numbers, and `curves`.
        skipped: entry, study ('' for all), and reason.
        seconds: that it took.
    """

    rows: dict[str, list[dict]]
    skipped: list[tuple[str, str, str]]
    seconds: float


class EntryTask(NamedTuple):
    """An entry, the modules of the studies that are still to be made of it, and the methods to read."""

    path: Path
    modules: tuple[str, ...]
    methods: tuple[str, ...] | None


def add_entry_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that every study over entries takes."""
    parser.add_argument("entries", nargs="+", metavar="ENTRY", help="entry folders")
    parser.add_argument("--methods", metavar="A,B", help="methods of the entries' outputs to take; default: all")
    add_jobs(parser)


def measure_entries(studies: Sequence[EntryStudy], arguments: argparse.Namespace) -> EntryResults:
    """Measure all entries, as many at a time as there are jobs; invalid entries are reported and skipped.

    Args:
        studies: to measure.
        arguments: of `add_entry_arguments`, and the output folder.

    Raises:
        UserError: nothing could be measured, or two entries have one name.
    """
    start, folder = time.monotonic(), arguments.output / "measured"
    methods = None
    if arguments.methods is not None:
        methods = tuple(method.strip() for method in arguments.methods.split(","))
    skipped: list[tuple[str, str, str]] = []
    entries = _find_entries(arguments.entries, skipped)
    _check_methods(methods, entries.values())
    tasks = []
    for entry in entries.values():
        reasons = {study: study.skip_reason(entry) for study in studies}
        skipped += [(entry.name, study.name, reason) for study, reason in reasons.items() if reason]
        missing = [
            study for study, reason in reasons.items() if not reason and _kept(folder, study, entry, methods) is None
        ]
        if missing:
            tasks.append(EntryTask(entry.path, tuple(study.module for study in missing), methods))
    folder.mkdir(parents=True, exist_ok=True)
    for task, measured in run_jobs(measure_entry, tasks, arguments.jobs, "measuring"):
        entry = find_entry(task.path)
        if isinstance(measured, str):
            _skip(skipped, entry.name, measured)
            entries.pop(entry.name)
            continue
        for study in studies:
            if study.module in measured:
                kept = {"key": _key(study, entry, methods), "rows": measured[study.module]}
                write_bytes(_file(folder, study, entry), json.dumps(kept).encode())
    rows = {
        study.name: [row for entry in entries.values() for row in _kept(folder, study, entry, methods) or []]
        for study in studies
    }
    if not any(rows.values()):
        reasons = dict.fromkeys(f"{name}: {reason}" for name, _, reason in skipped)
        reasons = "; ".join(list(reasons)[:3]) or "no method has what is needed"
        raise UserError(f"nothing could be measured; {reasons}")
    return EntryResults(rows, skipped, time.monotonic() - start)


def measure_entry(task: EntryTask) -> dict[str, list[dict]] | str:
    """Return all rows of an entry by the study's module, or its fault in one line; runs in a process of its own."""
    studies = [load_study(module) for module in task.modules]
    rows: dict[str, list[dict]] = {module: [] for module in task.modules}
    try:
        for maps in method_outputs(find_entry(task.path), task.methods):
            for study in studies:
                row = study.measure(maps)
                if row is not None:
                    about = {"entry": maps.entry.name, "method": maps.method, "how": maps.how, "mask": maps.mask_from}
                    rows[study.module].append(about | row.numbers | {"curves": row.curves})
    except UserError as error:
        return str(error)
    return rows


def _find_entries(paths, skipped):
    entries = {}
    for path in map(Path, paths):
        try:
            entry = find_entry(path)
        except UserError as error:
            _skip(skipped, path.name, str(error))
            continue
        if entry.name in entries:
            raise UserError(f"{path}: expected every entry once, found two of the name {entry.name}; rename one")
        entries[entry.name] = entry
    return entries


def _check_methods(methods, entries):
    existing = sorted({method for entry in entries for method in entry.outputs})
    for method in methods or ():
        if method not in existing:
            expected = ", ".join(existing) or "none, for there are no outputs"
            raise UserError(f"--methods: expected some of {expected}, found {method}")


def _skip(skipped, entry, reason):
    skipped.append((entry, "", reason))
    print(f"left out: {entry}: {reason}", file=sys.stderr, flush=True)


def _file(folder, study, entry):
    return folder / f"{entry.name}--{study.name}.json"


def _kept(folder, study, entry, methods):
    """Return the rows of an earlier run, or None if they are missing or something has changed since."""
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
    parts = [__version__, study.name, list(methods or []), code_checksum(study.module)]
    for path in filter(None, files):
        state = path.stat()
        parts.append([str(path.absolute()), state.st_size, state.st_mtime_ns])
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@functools.lru_cache
def code_checksum(module: str) -> str:
    """Return a checksum of a module and of all modules of `analysis` and `crefjax` that it imports, directly or not."""
    folders = {ROOT.name: ROOT, "crefjax": Path(crefjax.__file__).parent}
    pending, paths = [module], set()
    while pending:
        package, *parts = pending.pop().split(".")
        if package not in folders:
            continue
        stem = folders[package].joinpath(*parts)
        path = next((path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.is_file()), None)
        if path is None or path in paths:
            continue
        paths.add(path)
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                pending += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                pending += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(paths))).hexdigest()
