"""Preparation of a dataset: entries of half-maps are cut into patches, in ArrayRecord shards with a manifest.

A run that was stopped or killed continues where it stopped, and produces the same bytes as an uninterrupted one, with
any number of jobs and any order of the entries. Several processes, also on several machines that share a file system,
may each prepare a part at the same time; a last call without `part` joins them and does what is missing. The dataset is
again the same, byte for byte.

Entries that cannot be used are reported and skipped, as are those that share a half-map with an earlier one (by name)
that is used: it would be on both sides of the split. Entries that seem to be made from one map, rotated, cropped, or
masked, are reported.
"""

import hashlib
import math
import os
import re
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from crefjax import __version__
from crefjax.data.dataset_folder import (
    Known,
    Part,
    locked_dataset,
    read_parts,
    remove_parts,
    signature,
    unfinished_parts,
    write_part,
)
from crefjax.data.manifest import (
    DATASET_VERSION,
    ENTRIES_FOLDER,
    MANIFEST_FILE,
    SPLITS,
    EntryRecord,
    Manifest,
    manifest_content,
    read_json,
)
from crefjax.data.patches import check_patch
from crefjax.data.prepare_entry import (
    CutSettings,
    EntryFiles,
    EntryFolder,
    EntryTask,
    cut_entry,
    finished_entry,
    inspect_entry,
    similar_entries,
)
from crefjax.data.shards import DTYPES
from crefjax.errors import UserError, path_error
from crefjax.io.entries import find_entry
from crefjax.utils.atomic import temporary_sibling, write_json
from crefjax.utils.workers import WorkerKilledError, run_tasks

_SHARE_OF_INSPECTION = 0.1  # of the work


class PartSummary(NamedTuple):
    """Result of preparing a part.

    Attributes:
        part: the part.
        entries: number of those that were prepared.
        patches: number of their patches.
        left_out: reason for each entry that was skipped, by its name.
    """

    part: Part
    entries: int
    patches: int
    left_out: dict[str, str]


def prepare(
    entries: Sequence[str | Path],
    output: str | Path,
    *,
    patch: int = 96,
    stride: int | None = None,
    dtype: str = "float16",
    validation: float = 0.1,
    jobs: int = 1,
    seed: int = 0,
    grid: float = 0.0,
    voxel_size: float | None = None,
    insist: bool = False,
    overwrite: bool = False,
    report: Callable[[str], None] = print,
    progress: Callable[[float], None] = lambda share: None,
    part: Part | None = None,
) -> Manifest | PartSummary:
    """Cut checked half-map pairs into standardized, masked patches, or continue to do so.

    Args:
        entries: entry folders; a folder that is given twice is used once.
        output: folder of the dataset; its parent must exist.
        patch: side of the patches, voxels; even, at least 16.
        stride: distance from patch to patch, voxels; at most `patch`, which is the default.
        dtype: type of the stored densities, `float16` or `float32`.
        validation: share of the entries kept for validation, chosen by a hash of seed and checksums.
        jobs: number of worker processes; memory grows with it, not with the number of entries.
        seed: random seed of the split.
        grid: voxels per resolution on the grid to which entries are resampled (`grid.find_grid`), as `denoise` does for
            weights that were trained so; 0 keeps the maps' own grid.
        voxel_size: Å, instead of that of all headers; None for theirs.
        insist: whether half-maps that are not a pair are accepted, see `crefjax.data.pair_check`.
        overwrite: whether an existing dataset, complete or not, is replaced.
        report: called with a line for each skipped entry, and for everything else that the user should know.
        progress: called with the completed share of the work, 0 to 1.
        part: the part of the entries to prepare; None to prepare all, or to join what the parts prepared.

    Returns:
        The manifest of the dataset; of a part, what became of its entries.

    Raises:
        UserError: a setting is out of range; the folder is not a dataset, or one with other settings or entries; no
            entry can be used; a worker was killed, or the file system refused: then the same call continues later.
    """
    cutting = CutSettings(patch, patch if stride is None else stride, dtype, float(grid), voxel_size, insist)
    _check(cutting, validation, jobs)
    if part is not None and overwrite:
        raise UserError("`overwrite`: a part would remove the others; remove the dataset before its parts are prepared")
    output, sources, settings = Path(output), find_sources(entries), _settings(cutting, validation, seed)
    with (
        _explained(output),
        locked_dataset(output, settings, sources, overwrite=overwrite, part=part) as folder,
        temporary_sibling(folder / "work") as work,
    ):
        work.mkdir()
        run = Preparation(output, sources, cutting, work, jobs=jobs, report=report, progress=progress)
        return run.whole(settings) if part is None else run.part(part)


@contextmanager
def _explained(output):
    """Turn the death of a worker process into a message for the user."""
    try:
        yield
    except WorkerKilledError as error:
        text = (
            "a worker process was killed, most often because memory ran out; run the same command again with "
            "fewer `jobs`: it continues where it stopped"
        )
        raise path_error(output, text) from error


def _settings(cutting, validation, seed):
    """Return the settings by which a dataset is recognized; those that datasets of earlier versions lack come last."""
    settings = {"patch": cutting.patch, "stride": cutting.stride, "dtype": cutting.dtype}
    settings |= {"validation": float(validation), "seed": seed, "grid": cutting.grid}
    if cutting.voxel_size:
        settings["voxel_size"] = float(cutting.voxel_size)
    if cutting.insist:
        settings["insist"] = True
    return settings


def _check(cutting, validation, jobs):
    patch, grid = cutting.patch, cutting.grid
    check_patch(patch)
    if grid and not 2 < grid <= 10:
        raise UserError(f"`grid`: expected more than 2 and at most 10 voxels per resolution, found {grid:g}")
    if not 1 <= cutting.stride <= patch:
        raise UserError(f"`stride`: expected 1 to {patch} voxels, to cover the box, found {cutting.stride}; change it")
    if cutting.dtype not in DTYPES:
        raise UserError(f"`dtype`: expected one of {', '.join(DTYPES)}, found {cutting.dtype}; choose one")
    if not 0 <= validation < 1:
        raise UserError(f"`validation`: expected a share from 0 to below 1, found {validation:g}; change it")
    if jobs < 1:
        raise UserError(f"`jobs`: expected 1 or more, found {jobs}; change it")


def find_sources(entries: Sequence[str | Path]) -> list[EntryFolder]:
    """Return the given folders, once each, sorted by path, with unique names."""
    given = [entries] if isinstance(entries, str | Path) else entries
    folders = sorted({Path(os.path.abspath(folder)) for folder in given})
    names = unique_names([folder.resolve().name or "entry" for folder in folders])
    keys = unique_names([re.sub(r"[^A-Za-z0-9_-]", "_", name)[:100] for name in names])
    return [EntryFolder(*each) for each in zip(folders, names, keys, strict=True)]


def unique_names(names: Sequence[str]) -> list[str]:
    """Return names, with a number added to repeated ones; upper and lower case count as the same."""
    taken, seen, unique = {name.lower() for name in names}, set(), []
    for name in names:
        candidate, number = name, 2
        while candidate.lower() in seen or (candidate != name and candidate.lower() in taken):
            candidate, number = f"{name}-{number}", number + 1
        seen.add(candidate.lower())
        unique.append(candidate)
    return unique


class Preparation:
    """The preparation of a dataset, or of a part of it, in a folder that is locked.

    Attributes:
        skipped: reason for each entry that was skipped, by its name.
    """

    def __init__(
        self,
        output: Path,
        sources: Sequence[EntryFolder],
        cutting: CutSettings,
        work: Path,
        *,
        jobs: int,
        report: Callable[[str], None],
        progress: Callable[[float], None],
    ):
        """Prepare nothing yet.

        Args:
            output: the dataset.
            sources: all its entries.
            cutting: how the entries are cut.
            work: folder in it for temporary files.
            jobs: number of worker processes.
            report: called with a line for the user.
            progress: called with the completed share.
        """
        self.output, self.sources, self.cutting, self.work, self.jobs = output, sources, cutting, work, jobs
        self.report, self.progress = report, progress
        self.part_of: Part | None = None
        self.inspected: list[tuple[EntryFolder, list, EntryFiles | str]] = []
        self.skipped: dict[str, str] = {}
        self.refused: dict[str, str] = {}  # those of the skipped that could not be cut
        self.known: dict[str, Known] = {}

    def whole(self, settings: dict) -> Manifest:
        """Prepare all entries, of which parts may have prepared some, and write the manifest with the settings."""
        self.known = read_parts(self.output, self.sources)
        if missing := unfinished_parts(self.output):
            listed = ", ".join(missing[:3]) + (f", and {len(missing) - 3} more" if len(missing) > 3 else "")
            self.report(f"not finished: part {listed}; what is missing is prepared now")
        files, truth = self._agree_on_truth(self._inspect_all())
        self._report_similar(files)
        records = self._cut_all(files, truth)
        manifest = _finish(self.output, settings, truth, records, self.skipped, self.report)
        remove_parts(self.output)
        return manifest

    def part(self, part: Part) -> PartSummary:
        """Prepare the entries of a part, and keep the findings about them."""
        if (self.output / MANIFEST_FILE).is_file():
            self.report(f"{self.output} is complete: nothing was left to do")
            return PartSummary(part, 0, 0, {})
        # Whether all have a truth is a matter of all entries, not of this part's alone.
        has_truth = [_has_truth(source) for source in self.sources]
        truth = all(known for known in has_truth if known is not None)
        self.sources = part.share(self.sources)
        self.part_of = part
        files = self._inspect_all()
        truth = truth and all(entry.paths["truth"] is not None for entry in files)
        if not truth:
            files = [entry.without_truth() for entry in files]
        records = self._cut_all(files, truth)
        write_part(part.folder(self.output), self.inspected, self.refused, truth=truth)
        return PartSummary(part, len(records), sum(record.patches for record in records), self.skipped)

    def _inspect_all(self) -> list[EntryFiles]:
        """Return the entries whose files can be read; the reasons for skipping the others go to `skipped`."""
        with ThreadPoolExecutor(self.jobs) as threads:  # reading and hashing release Python's lock
            for result in threads.map(self._inspect, self.sources):
                self.inspected.append(result)
                self.progress(_SHARE_OF_INSPECTION * len(self.inspected) / len(self.sources))
        for source, _, files in self.inspected:
            if isinstance(files, str):
                self._skip(source.name, files)
        return [files for _, _, files in self.inspected if not isinstance(files, str)]

    def _inspect(self, source):
        if (known := self.known.get(source.key)) is not None:
            return source, [], known.files
        stats = signature(source.folder)
        return source, stats, inspect_entry(source, self.cutting.voxel_size)

    def _skip(self, name, reason):
        self.skipped[name] = reason
        self.report(f"skipped {name}: {reason}")

    def _agree_on_truth(self, files):
        """Keep the truth of all entries or of none; decided by the files' names, before any entry is cut."""
        count = sum(entry.paths["truth"] is not None for entry in files)
        if count == len(files):
            return files, bool(files)
        if count:
            self.report(f"{count} of {len(files)} entries have a truth map, not all: none is stored")
        return [entry.without_truth() for entry in files], False

    def _report_similar(self, files):
        for a, b in similar_entries([entry.traces for entry in files]):
            first, second = files[a], files[b]
            if _first_copy(first, [second]) is None:
                self.report(
                    f"note: {first.source.name} and {second.source.name} seem to be made from one map, rotated, "
                    "cropped, or masked; remove one of them, or they may be on both sides of the split"
                )

    def _cut_all(self, files, truth) -> list[EntryRecord]:
        """Cut the entries, sorted by name; of those that share a half-map, the first that can be used."""
        waiting, used, records = list(files), [], []
        self.sizes = {entry.source.name: _half_map_bytes(entry) for entry in files}
        while chosen := _without_copies(waiting, used):
            # Without the traces there is less to send to a worker.
            tasks = [EntryTask(replace(entry, traces=()), self.output, self.work, self.cutting) for entry in chosen]
            records += self._cut(tasks, used, truth)
            used += [entry for entry in chosen if entry.source.name not in self.skipped]
            waiting = [entry for entry in waiting if entry not in chosen]
        for entry in waiting:
            first = _first_copy(entry, used).source.name
            reason = f"expected half-maps of its own, found one of {first}, a duplicate; keep one of them"
            self._skip(entry.source.name, f"{entry.source.folder}: {reason}")
        return sorted(records, key=lambda record: record.name)

    def _cut(self, tasks, used, truth):
        finished = {task.files.source.key: record for task in tasks if (record := finished_entry(task)) is not None}
        missing = [task for task in tasks if task.files.source.key not in finished]
        self._remove_stale({*finished, *(entry.source.key for entry in used)})
        records = list(finished.values())
        done, total = 0, sum(self.sizes[task.files.source.name] for task in missing) or 1
        for task, result in self._results(missing, truth):
            name = task.files.source.name
            if isinstance(result, str):
                self.refused[name] = result
                self._skip(name, result)
            else:
                records.append(result)
                for note in result.notes:
                    self.report(f"{name}: {note}")
            done += self.sizes[name]
            self.progress(_SHARE_OF_INSPECTION + (1 - _SHARE_OF_INSPECTION) * done / total)
        return records

    def _results(self, tasks, truth):
        """Yield tasks and their results: the reason why an entry cannot be cut, if a part found it, or a new one."""
        new = []
        for task in tasks:
            known = self.known.get(task.files.source.key)
            if known is not None and known.refused is not None and known.truth == truth:
                yield task, known.refused
            else:
                new.append(task)
        yield from run_tasks(cut_entry, new, jobs=self.jobs)

    def _remove_stale(self, current):
        """Remove the manifest, and then the entries whose files have changed since."""
        stale = [folder for folder in (self.output / ENTRIES_FOLDER).iterdir() if folder.name not in current]
        if self.part_of is not None:  # those of the others are left alone
            own = {source.key for source in self.sources}
            stale = [folder for folder in stale if folder.name in own]
        if stale:
            (self.output / MANIFEST_FILE).unlink(missing_ok=True)
        for folder in stale:
            shutil.rmtree(folder)


def _has_truth(source):
    """Return whether an entry has a truth, None if its folder cannot be used."""
    try:
        return find_entry(source.folder).truth is not None
    except UserError:
        return None


def _first_copy(entry: EntryFiles, others: Sequence[EntryFiles]) -> EntryFiles | None:
    """Return the first of the others that shares a half-map with an entry."""
    return next((other for other in others if any(a.is_copy_of(b) for a in entry.traces for b in other.traces)), None)


def _without_copies(waiting, used):
    chosen = []
    for entry in waiting:
        if _first_copy(entry, [*used, *chosen]) is None:
            chosen.append(entry)
    return chosen


def _half_map_bytes(files):
    return sum(os.path.getsize(files.paths[part]) for part in ("half_map_1", "half_map_2"))


def split_entries(entries: Sequence[EntryRecord], validation: float, seed: int) -> list[EntryRecord]:
    """Return the entries with their side of the split, which depends neither on their order nor on their names.

    Ordered by SHA-256 of the seed and the half-maps' checksums, the first ones are for validation: the rounded share
    of them, but at least one, and at least one is left for training. A single entry is for training.
    """
    count = math.floor(validation * len(entries) + 0.5)
    count = min(max(count, 1), len(entries) - 1) if validation > 0 and len(entries) > 1 else 0

    def rank(entry):
        checksums = sorted((entry.sha256["half_map_1"], entry.sha256["half_map_2"]))
        return hashlib.sha256(" ".join([str(seed), *checksums]).encode()).hexdigest()

    chosen = {entry.name for entry in sorted(entries, key=rank)[:count]}
    return [replace(entry, split=SPLITS[entry.name in chosen]) for entry in entries]


def _finish(output, settings, truth, records, skipped, report):
    if not records:
        raise path_error(
            output,
            f"expected at least one usable entry, found none among {len(skipped)}; the lines above say why",
        )
    if len(records) == 1 and settings["validation"] > 0:
        report("only one entry: none is held out, because an entry is never on both sides of the split")
    entries = split_entries(records, settings["validation"], settings["seed"])
    patches = {name: sum(entry.patches for entry in entries if entry.split == name) for name in SPLITS}
    manifest = Manifest(
        dataset_version=DATASET_VERSION,
        crefjax=__version__,
        **settings,
        truth=truth,
        patches=patches,
        entries=tuple(entries),
        left_out=dict(sorted(skipped.items())),
        folder=output,
    )
    content = manifest_content(manifest)
    path = output / MANIFEST_FILE
    if path.is_file() and read_json(path) == content:
        report(f"{output} is complete: nothing was left to do")
    else:
        write_json(path, content)
    return manifest
