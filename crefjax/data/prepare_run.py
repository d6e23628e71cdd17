"""What `prepare` does with the entries of a dataset, or of a part of it: they are inspected, compared, and cut."""

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from crefjax.data.dataset_parts import Known, Part, read_parts, signature, unfinished_parts, write_part
from crefjax.data.manifest import ENTRIES_FOLDER, MANIFEST_FILE, EntryRecord
from crefjax.data.prepare_entry import EntryFiles, EntryFolder, EntryTask, cut_entry, finished_entry, inspect_entry
from crefjax.data.traces import similar_entries
from crefjax.errors import UserError
from crefjax.io.entries import find_entry
from crefjax.utils.workers import run_tasks

_SHARE_OF_INSPECTION = 0.1  # of the work


class PartSummary(NamedTuple):
    """What became of the entries of a part.

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


class Preparation:
    """The preparation of a dataset, or of a part of it, in a folder that is locked.

    Attributes:
        skipped: reason for each entry that was skipped, by its name.
    """

    def __init__(
        self,
        output: Path,
        sources: Sequence[EntryFolder],
        task: Callable[[EntryFiles], EntryTask],
        *,
        jobs: int,
        voxel_size: float | None,
        report: Callable[[str], None],
        progress: Callable[[float], None],
    ):
        """Prepare nothing yet.

        Args:
            output: the dataset.
            sources: all its entries.
            task: gives the task of cutting an entry.
            jobs: number of worker processes.
            voxel_size: Å, instead of the headers'; None for theirs.
            report: called with a line for the user.
            progress: called with the completed share.
        """
        self.output, self.sources, self.task, self.jobs, self.voxel_size = output, sources, task, jobs, voxel_size
        self.report, self.progress = report, progress
        self.part_of: Part | None = None
        self.inspected: list[tuple[EntryFolder, list, EntryFiles | str]] = []
        self.skipped: dict[str, str] = {}
        self.refused: dict[str, str] = {}  # those of the skipped that could not be cut
        self.known: dict[str, Known] = {}

    def whole(self) -> tuple[list[EntryRecord], bool]:
        """Prepare all entries, of which parts may have prepared some; return them, and whether they have a truth."""
        self.known = read_parts(self.output, self.sources)
        if missing := unfinished_parts(self.output):
            listed = ", ".join(missing[:3]) + (f", and {len(missing) - 3} more" if len(missing) > 3 else "")
            self.report(f"not finished: part {listed}; what is missing is prepared now")
        files, truth = self._agree_on_truth(self._inspect_all())
        self._report_similar(files)
        return self._cut_all(files, truth), truth

    def part(self, part: Part) -> PartSummary:
        """Prepare the entries of a part, and keep what was found out about them."""
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
        return source, stats, inspect_entry(source, self.voxel_size)

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
            records += self._cut([self.task(entry) for entry in chosen], used, truth)
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
        if self.part_of is not None:  # the others' are none of its business
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
