"""What `crefjax prepare` does with one entry; runs in worker processes."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from crefjax.data import manifest as layout
from crefjax.data import shards
from crefjax.data.manifest import EntryRecord, Shard
from crefjax.data.patches import MIN_MASK, SMALLEST_PATCH, Specimen, cut, grid_positions, load_specimen, mask_fraction
from crefjax.data.traces import Trace, trace_of
from crefjax.errors import UserError, path_error
from crefjax.io.entries import find_entry
from crefjax.io.maps import read_map
from crefjax.utils.atomic import DISK_FULL

MAX_SHARD = 2**30  # bytes before compression


class CannotWriteError(UserError):
    """The disk is full, or refuses: no entry can be written, not just this one."""


@dataclass(frozen=True)
class Source:
    """An entry folder that was given."""

    folder: Path
    """Absolute."""
    name: str
    """Unique among those given."""
    key: str
    """The same as a safe name of a folder."""


@dataclass(frozen=True)
class EntryFiles:
    """The files of an entry, read for nothing but their checksums and what tells the half-maps from others."""

    source: Source
    paths: dict[str, str | None]
    """Absolute, of `half_map_1`, `half_map_2`, `mask` and `truth`; None where there is none."""
    sha256: dict[str, str]
    """Of those that there are."""
    traces: tuple[Trace, ...] = ()
    """Of each half-map."""

    def without_truth(self) -> "EntryFiles":
        """The same, for a dataset that stores no truth."""
        checksums = {part: value for part, value in self.sha256.items() if part != "truth"}
        return replace(self, paths={**self.paths, "truth": None}, sha256=checksums)


@dataclass(frozen=True)
class EntryTask:
    """An entry to be cut into patches."""

    inspected: EntryFiles
    output: Path
    """The dataset."""
    work: Path
    """A folder in it for what is unfinished."""
    patch: int
    stride: int
    dtype: str
    grid: float = 0.0
    """Voxels that the resolution takes on the working grid; 0 for the grid of the files."""
    voxel_size: float | None = None
    """Å, in place of the headers'."""
    insist: bool = False
    """Whether half-maps that are no pair are taken too."""


def inspect(source: Source, voxel_size: float | None = None) -> EntryFiles | str:
    """The files of an entry with their checksums, or in one line why there are none."""
    try:
        entry = find_entry(source.folder)
        found = {part: getattr(entry, part) for part in ("half_map_1", "half_map_2", "mask", "truth")}
        paths = {part: None if path is None else os.path.abspath(path) for part, path in found.items()}
        checksums = {part: _sha256(path) for part, path in paths.items() if path is not None}
        halves = (paths["half_map_1"], paths["half_map_2"])
        traces = tuple(trace_of(read_map(path, voxel_size=voxel_size).array) for path in halves)
        return EntryFiles(source, paths, checksums, traces)
    except UserError as error:
        return str(error)
    except Exception as error:  # the other entries are sound
        return _unforeseen(source, error)


def _unforeseen(source, error):
    text = " ".join(str(error).split())
    return f"{source.folder}: the entry cannot be read ({type(error).__name__}: {text}); check its files"


def _sha256(path):
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise path_error(path, f"cannot be read ({error.strerror}); check its permissions and the disk") from error


def finished_entry(task: EntryTask) -> EntryRecord | None:
    """What an earlier run made of an entry, if its files are the same now and its shards are there."""
    path = task.output / layout.ENTRIES / task.inspected.source.key / layout.ENTRY
    if not path.is_file():
        return None
    try:
        entry = layout.entry_from(layout.read_json(path))
    except (UserError, TypeError, KeyError, AttributeError):
        return None
    paths, same_name = task.inspected.paths, entry.name == task.inspected.source.name
    same_paths = all(getattr(entry, part) == path for part, path in paths.items())
    if not (same_name and same_paths and entry.sha256 == task.inspected.sha256):
        return None
    return None if layout.damaged_or_missing(task.output, entry) else entry


def cut_entry(task: EntryTask) -> EntryRecord | str:
    """Cut one entry into patches, on the disk under `entries/` in one step; or in one line why it cannot be used.

    Raises:
        CannotWriteError: the disk is full, or refuses.
    """
    try:
        return _cut_entry(task)
    except CannotWriteError:
        raise
    except Exception as error:  # the other entries are sound
        return _unforeseen(task.inspected.source, error)


def _cut_entry(task):
    source, paths = task.inspected.source, task.inspected.paths
    try:
        specimen = load_specimen(
            *(paths[part] for part in ("half_map_1", "half_map_2", "mask")),
            truth_path=paths["truth"],
            name=source.name,
            voxels=task.grid,
            voxel_size=task.voxel_size,
            insist=task.insist,
        )
    except UserError as error:
        return str(error)
    try:
        kept, dropped = choose_positions(specimen, task.patch, task.stride)
    except UserError as error:
        return f"{source.folder}: {error}"
    hidden = task.work / source.key
    try:
        shutil.rmtree(hidden, ignore_errors=True)
        hidden.mkdir()  # not its parents: a worker that outlives its killed parent makes nothing anew
        entry = _entry(task, specimen, dropped, _write_shards(task, specimen, kept, hidden))
        layout.write_json(hidden / layout.ENTRY, layout.entry_content(entry))
        os.replace(hidden, task.output / layout.ENTRIES / source.key)
    except OSError as error:
        raise _cannot_write(task.output, error) from error
    except UserError as error:
        if isinstance(error.__cause__, OSError):  # of the JSON file
            raise _cannot_write(task.output, error.__cause__) from error
        shutil.rmtree(hidden, ignore_errors=True)
        return f"{source.folder}: {error}"
    return entry


def choose_positions(specimen: Specimen, patch: int, stride: int) -> tuple[list[tuple[int, int, int]], int]:
    """First voxels of the patches that are kept, and how many are not.

    A patch is dropped where the mask's mean over those of its voxels that lie in the box is below `MIN_MASK`, 1 %, or
    where a half-map has one value throughout.

    Raises:
        UserError: none is left.
    """
    grid = grid_positions(specimen.mask.shape, patch, stride)
    kept = [position for position in grid if _is_useful(specimen, position, patch)]
    if not kept:
        sides = "x".join(map(str, specimen.mask.shape))
        advice = "check the mask" if patch <= SMALLEST_PATCH else "check the mask, or take smaller patches"
        raise UserError(
            f"expected a patch with at least {MIN_MASK:.0%} of it within the mask, found none of "
            f"{len(grid)} in {sides} voxels; {advice}"
        )
    return kept, len(grid) - len(kept)


def _is_useful(specimen, position, patch):
    if mask_fraction(specimen.mask, position, patch) < MIN_MASK:
        return False
    halves = (cut(array, position, patch) for array in (specimen.half_map_1, specimen.half_map_2))
    return all(half.min() < half.max() for half in halves)


def _write_shards(task, specimen, positions, hidden) -> Iterator[Shard]:
    arrays = list(specimen.maps(truth=specimen.truth is not None).values())
    each = max(1, MAX_SHARD // shards.record_bytes(task.patch, task.dtype, len(arrays)))
    for number, first in enumerate(range(0, len(positions), each)):
        path = hidden / f"{number:05d}.array_record"
        made = (
            shards.encode(index, position, [cut(array, position, task.patch) for array in arrays], task.dtype)
            for index, position in enumerate(positions[first : first + each])
        )
        count = shards.write_shard(path, made)
        file = f"{layout.ENTRIES}/{task.inspected.source.key}/{path.name}"
        yield Shard(file, count, path.stat().st_size, _sha256(path))


def _entry(task, specimen, dropped, shards):
    shards = tuple(shards)
    return EntryRecord(
        name=specimen.name,
        **task.inspected.paths,
        sha256=task.inspected.sha256,
        voxel_size=specimen.voxel_size,
        box=specimen.mask.shape,
        mean=specimen.mean,
        deviation=specimen.deviation,
        mask_info=None if specimen.mask_info is None else _plain_numbers(asdict(specimen.mask_info)),
        patches=sum(shard.records for shard in shards),
        patches_dropped=dropped,
        shards=shards,
        notes=specimen.notes,
    )


def _plain_numbers(info):
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in info.items()}


def _cannot_write(output, error):
    reason = error.strerror or (error.args[0] if error.args else error)
    if error.errno in DISK_FULL:
        text = f"no space left ({reason}); make room and run the same command again: it goes on where it was"
    else:
        text = f"the dataset cannot be written ({reason}); check the disk and run the same command again"
    return CannotWriteError(str(path_error(output, text)))
