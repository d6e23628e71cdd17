"""One entry of a dataset: its files, its patches, and the traces by which copies of it are recognized.

Runs in worker processes.
"""

import itertools
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from crefjax.data import shards
from crefjax.data.manifest import (
    ENTRIES_FOLDER,
    ENTRY_FILE,
    EntryRecord,
    Shard,
    check_shards,
    entry_content,
    entry_from,
    read_json,
)
from crefjax.data.patches import MIN_MASK, SMALLEST_PATCH, Specimen, cut, grid_positions, load_specimen, mask_fraction
from crefjax.errors import CannotWriteError, UserError
from crefjax.io.entries import find_entry
from crefjax.io.files import sha256
from crefjax.io.maps import read_map
from crefjax.utils.atomic import is_disk_full, write_json

MAX_SHARD = 2**30  # bytes before compression
_MOSTLY = 0.85  # of the voxels of a patch
# Of traces.
_SAMPLE = 4096  # voxels
_SAME_NOISE = 0.999  # correlation of two samples
_MARKS = 2048
_CANDIDATES = 8 * _MARKS  # voxels that are examined for them
_LEAST_VALUES = 1000  # different ones in a map with marks: bytes are equal by chance
_SHARED, _FEWEST = 0.1, 20  # share and number of marks that two maps do not have in common by chance
_NEIGHBORS = np.array([(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)])[..., None]
_MULTIPLIERS = (2654435761, 2246822519, 3266489917)  # odd, without a pattern


@dataclass(frozen=True)
class Trace:
    """Short description of a map by which copies of it are recognized.

    Attributes:
        sample: voxels at places that depend on the box alone, less their mean, of length 1: `(4096,)`, float32.
        marks: at most `(2048,)`, uint64, sorted; see `marks_of`.
    """

    sample: np.ndarray
    marks: np.ndarray

    def is_copy_of(self, other: "Trace") -> bool:
        """Return whether both are traces of the same map, in any file, with any header, level, scale, or sign.

        The noise identifies a map. Voxels that were stored as bytes still have a correlation of 0.9999.
        """
        return abs(float(self.sample @ other.sample)) > _SAME_NOISE


@dataclass(frozen=True)
class EntryFolder:
    """A given entry folder.

    Attributes:
        folder: absolute path.
        name: unique among the given ones.
        key: the name as a safe name of a folder.
    """

    folder: Path
    name: str
    key: str


@dataclass(frozen=True)
class EntryFiles:
    """The files of an entry, with their checksums and the traces of the half-maps.

    Attributes:
        source: the entry folder.
        paths: absolute, of `half_map_1`, `half_map_2`, `mask` and `truth`; None for missing ones.
        sha256: checksums of those that exist.
        traces: one for each half-map.
    """

    source: EntryFolder
    paths: dict[str, str | None]
    sha256: dict[str, str]
    traces: tuple[Trace, ...] = ()

    def without_truth(self) -> "EntryFiles":
        """Return the same files without the truth."""
        checksums = {part: value for part, value in self.sha256.items() if part != "truth"}
        return replace(self, paths={**self.paths, "truth": None}, sha256=checksums)


@dataclass(frozen=True)
class CutSettings:
    """How entries are cut into patches.

    Attributes:
        patch: side of the patches, voxels.
        stride: distance from patch to patch, voxels.
        dtype: type of the stored densities.
        grid: voxels per resolution on the working grid; 0 for the maps' own grid.
        voxel_size: Å, instead of the headers'; None for theirs.
        insist: whether half-maps that are not a pair are accepted.
    """

    patch: int
    stride: int
    dtype: str
    grid: float = 0.0
    voxel_size: float | None = None
    insist: bool = False


@dataclass(frozen=True)
class EntryTask:
    """An entry to be cut into patches.

    Attributes:
        files: the entry's files.
        output: the dataset.
        work: folder in it for temporary files.
        settings: how the entry is cut.
    """

    files: EntryFiles
    output: Path
    work: Path
    settings: CutSettings


def inspect_entry(source: EntryFolder, voxel_size: float | None = None) -> EntryFiles | str:
    """Return the files of an entry, or one line that says why they cannot be used."""
    try:
        entry = find_entry(source.folder)
        found = {part: getattr(entry, part) for part in ("half_map_1", "half_map_2", "mask", "truth")}
        paths = {part: None if path is None else os.path.abspath(path) for part, path in found.items()}
        checksums = {part: sha256(path) for part, path in paths.items() if path is not None}
        halves = (paths["half_map_1"], paths["half_map_2"])
        traces = tuple(trace_of(read_map(path, voxel_size=voxel_size).array) for path in halves)
        return EntryFiles(source, paths, checksums, traces)
    except UserError as error:
        return str(error)
    except Exception as error:  # the other entries are not affected
        return _unforeseen(source, error)


def _unforeseen(source, error):
    text = " ".join(str(error).split())
    return f"{source.folder}: the entry cannot be read ({type(error).__name__}: {text}); check its files"


def finished_entry(task: EntryTask) -> EntryRecord | None:
    """Return the entry as an earlier run prepared it, if its files are the same and its shards are complete."""
    path = task.output / ENTRIES_FOLDER / task.files.source.key / ENTRY_FILE
    if not path.is_file():
        return None
    try:
        entry = entry_from(read_json(path))
        check_shards(task.output, entry)
    except (UserError, TypeError, KeyError, AttributeError):
        return None
    same_name = entry.name == task.files.source.name
    same_paths = all(getattr(entry, part) == path for part, path in task.files.paths.items())
    return entry if same_name and same_paths and entry.sha256 == task.files.sha256 else None


def cut_entry(task: EntryTask) -> EntryRecord | str:
    """Cut one entry into patches; they appear under `entries/` in one step.

    Returns:
        The entry, or one line that says why it cannot be used.

    Raises:
        CannotWriteError: the file system refused.
    """
    try:
        return _cut_entry(task)
    except CannotWriteError:
        raise
    except Exception as error:  # the other entries are not affected
        return _unforeseen(task.files.source, error)


def _cut_entry(task):
    source, paths = task.files.source, task.files.paths
    try:
        specimen = load_specimen(
            *(paths[part] for part in ("half_map_1", "half_map_2", "mask")),
            truth_path=paths["truth"],
            name=source.name,
            voxels=task.settings.grid,
            voxel_size=task.settings.voxel_size,
            insist=task.settings.insist,
        )
    except UserError as error:
        return str(error)
    try:
        positions, dropped = choose_positions(specimen, task.settings.patch, task.settings.stride)
    except UserError as error:
        return f"{source.folder}: {error}"
    hidden = task.work / source.key
    try:
        shutil.rmtree(hidden, ignore_errors=True)
        hidden.mkdir()  # without its parents: a worker that outlives its killed parent must not create them
        entry = _entry(task, specimen, dropped, tuple(_write_shards(task, specimen, positions, hidden)))
        write_json(hidden / ENTRY_FILE, entry_content(entry))
        os.replace(hidden, task.output / ENTRIES_FOLDER / source.key)
    except OSError as error:
        raise _cannot_write(task.output, error) from error
    except UserError as error:
        if isinstance(error.__cause__, OSError):  # from the JSON file
            raise _cannot_write(task.output, error.__cause__) from error
        shutil.rmtree(hidden, ignore_errors=True)
        return f"{source.folder}: {error}"
    return entry


def choose_positions(specimen: Specimen, patch: int, stride: int) -> tuple[list[tuple[int, int, int]], int]:
    """Return the first voxels of the patches that are kept, and the number of those that are dropped.

    A patch is dropped if the mask's mean over those of its voxels that lie in the box is below `MIN_MASK`, 1 %, or if a
    half-map is constant in it.

    Raises:
        UserError: all are dropped.
    """
    grid = grid_positions(specimen.mask.shape, patch, stride)
    kept = [position for position in grid if _is_useful(specimen, position, patch)]
    if not kept:
        sides = "x".join(map(str, specimen.mask.shape))
        advice = "check the mask" if patch <= SMALLEST_PATCH else "check the mask, or use smaller patches"
        raise UserError(
            f"expected a patch that has at least {MIN_MASK:.0%} of its voxels within the mask, found none among "
            f"{len(grid)} in a box of {sides} voxels; {advice}"
        )
    return kept, len(grid) - len(kept)


def _is_useful(specimen, position, patch):
    if mask_fraction(specimen.mask, position, patch) < MIN_MASK:
        return False
    patches = (cut(array, position, patch) for array in (specimen.half_map_1, specimen.half_map_2))
    return all(array.min() < array.max() for array in patches)


def _write_shards(task, specimen, positions, hidden) -> Iterator[Shard]:
    arrays = list(specimen.maps(truth=specimen.truth is not None).values())
    # Where nearly all is within the mask, and noise, compression saves nothing.
    compress = np.mean([cut(specimen.mask, position, task.settings.patch).mean() for position in positions]) < _MOSTLY
    each = max(1, MAX_SHARD // shards.record_bytes(task.settings.patch, task.settings.dtype, len(arrays)))
    for number, first in enumerate(range(0, len(positions), each)):
        path = hidden / f"{number:05d}.array_record"
        records = (
            shards.encode(
                index, position, [cut(array, position, task.settings.patch) for array in arrays], task.settings.dtype
            )
            for index, position in enumerate(positions[first : first + each])
        )
        count = shards.write_shard(path, records, compress=compress)
        file = f"{ENTRIES_FOLDER}/{task.files.source.key}/{path.name}"
        yield Shard(file, count, path.stat().st_size, sha256(path))


def _entry(task, specimen, dropped, shard_files):
    return EntryRecord(
        name=specimen.name,
        **task.files.paths,
        sha256=task.files.sha256,
        voxel_size=specimen.voxel_size,
        box=specimen.mask.shape,
        mean=specimen.mean,
        deviation=specimen.std,
        mask_info=None if specimen.mask_info is None else _plain_numbers(asdict(specimen.mask_info)),
        patches=sum(shard.records for shard in shard_files),
        patches_dropped=dropped,
        shards=shard_files,
        notes=specimen.notes,
    )


def _plain_numbers(info):
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in info.items()}


def _cannot_write(output, error):
    reason = error.strerror or (error.args[0] if error.args else error)
    if is_disk_full(error):
        text = f"no space left ({reason}); make room and run the same command again: it continues where it stopped"
    else:
        text = f"the dataset cannot be written ({reason}); check the disk and run the same command again"
    return CannotWriteError(text, path=output)


def trace_of(array: np.ndarray) -> Trace:
    """Return the trace of a map `(z, y, x)`, float32."""
    random = np.random.default_rng(array.shape)
    places = tuple(random.integers(0, side, _SAMPLE) for side in array.shape)
    values = array[places].astype(np.float64)
    values -= values.mean()
    return Trace((values / (np.linalg.norm(values) or 1.0)).astype(np.float32), marks_of(array))


def marks_of(array: np.ndarray) -> np.ndarray:
    """Return the smallest of the numbers that a map keeps when rotated by 90°, mirrored, cropped, or masked; sorted.

    There is one for each voxel, a hash of its value and of the largest and the smallest of its six neighbors, to the
    last bit: two maps share hardly any unless one was made from the other. They are ordered by the hash of the voxel's
    value, so the smallest numbers of a part of a map are among the smallest of that part in the whole map.
    """
    array = np.ascontiguousarray(array, np.float32)
    if len(np.unique(array.reshape(-1)[:: max(1, array.size // 2**16)])) < min(_LEAST_VALUES, array.size // 8):
        return np.zeros(0, np.uint64)
    inner = array[1:-1, 1:-1, 1:-1]
    hashes = _hash(inner, _MULTIPLIERS[0])
    bound = np.uint32(min(1.0, _CANDIDATES / max(1, inner.size)) * (2**32 - 1))
    places = np.array(np.nonzero((hashes <= bound) & (inner != 0)))
    around = np.stack([array[tuple(places + 1 + step)] for step in _NEIGHBORS])
    high, low = around.max(0), around.min(0)
    sound = (high != low) & (around != 0).all(0)  # neighbors in a constant region or beyond a mask are meaningless
    beside = _hash(high, _MULTIPLIERS[1]) ^ _hash(low, _MULTIPLIERS[2])
    numbers = (hashes[tuple(places)].astype(np.uint64) << np.uint64(32)) | beside
    return np.unique(numbers[sound])[:_MARKS]


def _hash(values, multiplier):
    bits = np.ascontiguousarray(values).view(np.uint32)
    return (bits ^ (bits >> np.uint32(15))) * np.uint32(multiplier)


def similar_entries(traces: Sequence[Sequence[Trace]]) -> list[tuple[int, int]]:
    """Return the pairs of entries that were probably made from one map, by their indices.

    Args:
        traces: those of the half-maps of every entry.
    """
    marks = [np.unique(np.concatenate([trace.marks for trace in each])) for each in traces]
    owners = np.repeat(np.arange(len(marks)), [len(each) for each in marks])
    joined = np.concatenate(marks) if marks else np.zeros(0, np.uint64)
    order = np.argsort(joined, kind="stable")
    joined, owners = joined[order], owners[order]
    # Nearly all marks belong to one entry: those of several are the runs of equal ones.
    starts = np.flatnonzero(np.diff(joined, prepend=joined[:1] ^ np.uint64(1)) != 0)
    lengths = np.diff(starts, append=len(joined))
    shared = Counter()
    for start, length in zip(starts[lengths > 1], lengths[lengths > 1], strict=True):
        shared.update(itertools.combinations(owners[start : start + length].tolist(), 2))
    return sorted(
        pair
        for pair, count in shared.items()
        if count >= _FEWEST
        and any(_shared_fraction(a.marks, b.marks) > _SHARED for a in traces[pair[0]] for b in traces[pair[1]])
    )


def _shared_fraction(first, second):
    """Return the number of marks in common, over those of the map with fewer, within the range of both."""
    if not len(first) or not len(second):
        return 0.0
    highest = min(first[-1], second[-1])
    first, second = first[first <= highest], second[second <= highest]
    return len(np.intersect1d(first, second, assume_unique=True)) / max(1, min(len(first), len(second)))
