"""Entries of half-maps cut into patches for training, as ArrayRecord shards with a manifest: `crefjax prepare`."""

import fcntl
import functools
import hashlib
import itertools
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from crefjax import __version__
from crefjax.data import manifest as layout
from crefjax.data.manifest import EntryRecord, Manifest
from crefjax.data.patches import check_patch
from crefjax.data.prepare_entry import EntryFiles, EntryTask, Source, cut_entry, finished_entry, inspect
from crefjax.data.shards import DTYPES
from crefjax.data.traces import alike
from crefjax.errors import UserError, path_error
from crefjax.utils.atomic import temporary_sibling
from crefjax.utils.workers import WorkerKilledError, run_tasks


@contextmanager
def begun(output: Path, settings: dict, sources: Sequence[Source], *, overwrite: bool) -> Iterator[None]:
    """The dataset's folder, begun with these settings and entries, and no other process at it.

    If the body of the `with` raises before any entry was finished, what was begun is taken away.

    Args:
        output: the folder.
        settings: that a dataset can be gone on with only if they are the same.
        sources: its entries.
        overwrite: whether a dataset that is there is taken away first.

    Raises:
        UserError: the folder is no dataset, or one begun with other settings or entries, or another process is at it;
            an entry lies in it; the disk refuses.
    """
    if not output.absolute().parent.is_dir():
        raise path_error(output, f"the folder {output.absolute().parent} does not exist; make it first")
    wanted = {
        "format": layout.FORMAT,
        "dataset_version": layout.DATASET_VERSION,
        "crefjax": __version__,
        **settings,
        "entries": [str(source.folder) for source in sources],
    }
    _check_folder(output, wanted, sources, overwrite)
    created = not output.exists()
    try:
        output.mkdir(exist_ok=True)
        with _locked(output):
            try:
                _begin(output, wanted, overwrite)
                yield
            except BaseException:
                _remove_if_empty(output, created)
                raise
    except OSError as error:
        raise path_error(
            output, f"the dataset cannot be written ({error.strerror or error}); check the disk"
        ) from error


def _check_folder(output, wanted, sources, overwrite):
    for source in sources:
        if output.absolute() in (source.folder, *source.folder.parents):
            raise path_error(output, f"the entry {source.folder} lies in the folder to be written; choose another one")
    if not os.path.lexists(output):
        return
    if not output.is_dir() or (overwrite and output.is_symlink()):
        raise path_error(output, "expected a folder to write the dataset to, found something else; choose another name")
    if not (output / layout.BEGUN).is_file():
        if any(not name.startswith(".crefjax-") for name in os.listdir(output)):
            text = f"the folder has files and no {layout.BEGUN}, so it is no dataset; choose another name"
            raise path_error(output, text)
        return
    found = layout.read_json(output / layout.BEGUN)
    if overwrite:
        if found.get("format") != layout.FORMAT:
            raise path_error(output, "expected a dataset to replace, found another folder; choose another name")
        return
    layout.check_version(output / layout.BEGUN, found)
    found.setdefault("grid", 0.0)  # datasets of earlier versions have no such setting
    for name, value in wanted.items():
        if found.get(name) != value:
            raise path_error(output, f"{_difference(name, found.get(name), value)}, or choose another folder")


def _difference(name, there, asked):
    if name == "entries":
        there, asked = set(there or ()), set(asked)
        found = [f"{path} is new" for path in sorted(asked - there)]
        found += [f"{path} is missing" for path in sorted(there - asked)]
        more = f", and {len(found) - 2} more" if len(found) > 2 else ""
        found = ", ".join(found[:2]) + more
        return f"the dataset was begun with other entries ({found}); give the same ones, give --overwrite"
    if name == "grid":  # as the command line names it
        there, asked = ("data" if voxels else "input" for voxels in (there, asked))
    what = "crefjax" if name == "crefjax" else f"--{name}"
    return f"the dataset was begun with {what} {there}, not {asked}; ask for the same, give --overwrite"


@contextmanager
def _locked(folder):
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise path_error(folder, "another crefjax prepare is writing this dataset; wait for its end") from error
        except OSError:  # some network file systems know no locks
            pass
        yield
    finally:
        os.close(descriptor)


def _begin(output, wanted, overwrite):
    if overwrite:
        _remove(output)
    for left in output.glob(".crefjax-*.tmp"):  # of a run that was killed
        for _ in range(10):  # workers of that run may be about to end
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink()
            if not left.exists():
                break
            time.sleep(0.1)
    if not (output / layout.BEGUN).exists():
        layout.write_json(output / layout.BEGUN, wanted)
    (output / layout.ENTRIES).mkdir(exist_ok=True)


def _remove(output):
    """Take away what a dataset is made of and nothing else; what makes it one goes last."""
    (output / layout.MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(output / layout.ENTRIES, ignore_errors=True)
    (output / layout.BEGUN).unlink(missing_ok=True)


def _remove_if_empty(output, created):
    """Take away what was begun and came to nothing, so that a mended command is not refused for another one's sake."""
    with suppress(OSError):
        if not any((output / layout.ENTRIES).iterdir()):
            _remove(output)
            if created:
                output.rmdir()


_SHARE_OF_INSPECTION = 0.1  # of the work


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
    progress: Callable[[float], None] | None = None,
) -> Manifest:
    """Cut checked half-map pairs into standardized, masked patches.

    A run that was ended by whatever goes on where it was, and ends with the bytes of one that was not, with any number
    of jobs and the entries in any order. Entries that cannot be used are reported and left out, as are those that
    share a half-map with an earlier one (by name) that is used: it would be on both sides of the split. Entries that
    seem to be made of one map, turned, cropped or masked, are told of.

    Args:
        entries: entry folders; a folder that is given twice is used once.
        output: folder of the dataset; its parent must be there.
        patch: side of the patches, voxels; even, at least 16.
        stride: from patch to patch, voxels; at most `patch`, and as much if None.
        dtype: of the stored densities, `float16` or `float32`.
        validation: share of the entries kept for validation, chosen by a hash of seed and checksums.
        jobs: entries worked on at once, each by a process; memory grows with it, not with the number of entries.
        seed: of the split.
        grid: voxels that the resolution takes on the grid to which entries are brought (`grid.find_grid`), as `denoise`
            brings maps for weights that were trained so; 0 leaves them on their own.
        voxel_size: Å, in place of that of all headers; None for theirs.
        insist: whether entries are used whose half-maps are no pair, see `crefjax.data.pair_check`.
        overwrite: whether a dataset that is there, finished or not, is replaced.
        report: called with a line for each entry that is left out, and for whatever else the user should know.
        progress: called with the share of the work that is done, 0 to 1.

    Returns:
        What is in the dataset.

    Raises:
        UserError: a setting is out of range; the folder is no dataset, or one begun with other settings or entries; no
            entry can be used; a worker was killed; the disk is full or refuses, and then the same call goes on later.
    """
    output = Path(output)
    stride = patch if stride is None else stride
    _check(patch, stride, dtype, validation, jobs, grid)
    sources = find_sources(entries)
    settings = {"patch": patch, "stride": stride, "dtype": dtype, "validation": float(validation), "seed": seed}
    settings["grid"] = float(grid)
    if voxel_size:
        settings["voxel_size"] = float(voxel_size)
    if insist:
        settings["insist"] = True
    progress = progress or (lambda share: None)
    try:
        with begun(output, settings, sources, overwrite=overwrite), temporary_sibling(output / "work") as work:
            inspected, left_out = _inspect_all(sources, jobs, voxel_size, report, progress)
            inspected, truth = _agree_on_truth(inspected, report)
            _tell_of_alike(inspected, report)
            work.mkdir()
            make = functools.partial(_task, output, work, patch, stride, dtype, float(grid), voxel_size, insist)
            done = _cut_all(output, inspected, make, jobs, left_out, report, progress)
            return _finish(output, settings, truth, done, left_out, report)
    except WorkerKilledError as error:
        text = (
            "a worker process was killed, most often because memory ran out; run the same command again with "
            "fewer --jobs: it continues where it stopped"
        )
        raise path_error(output, text) from error


def _check(patch, stride, dtype, validation, jobs, grid):
    check_patch(patch)
    if grid and not 2 < grid <= 10:
        raise UserError(f"grid: expected the resolution to take more than 2 and at most 10 voxels, found {grid:g}")
    if not 1 <= stride <= patch:
        raise UserError(f"stride: expected 1 to {patch} voxels, to cover the box, found {stride}; change it")
    if dtype not in DTYPES:
        raise UserError(f"dtype: expected one of {', '.join(DTYPES)}, found {dtype}; choose one")
    if not 0 <= validation < 1:
        raise UserError(f"validation: expected a share from 0 to below 1, found {validation:g}; change it")
    if jobs < 1:
        raise UserError(f"jobs: expected 1 or more, found {jobs}; change it")


def find_sources(entries: Sequence[str | Path]) -> list[Source]:
    """The folders that were given, once each, sorted by path, with names of their own."""
    given = [entries] if isinstance(entries, str | Path) else entries
    folders = sorted({Path(os.path.abspath(folder)) for folder in given})
    names = unique_names([folder.resolve().name or "entry" for folder in folders])
    keys = unique_names([re.sub(r"[^A-Za-z0-9_-]", "_", name)[:100] for name in names])
    return [Source(*each) for each in zip(folders, names, keys, strict=True)]


def unique_names(names):
    """The names, with a number where one was there before; upper and lower case count as the same."""
    taken, out = {name.lower() for name in names}, []
    seen = set()
    for name in names:
        unique, number = name, 2
        while unique.lower() in seen or (unique != name and unique.lower() in taken):
            unique, number = f"{name}-{number}", number + 1
        seen.add(unique.lower())
        out.append(unique)
    return out


def _task(output, work, patch, stride, dtype, grid, voxel_size, insist, inspected):
    slim = replace(inspected, traces=())
    return EntryTask(slim, output, work, patch, stride, dtype, grid, voxel_size, insist)


def _inspect_all(sources, jobs, voxel_size, report, progress) -> tuple[list[EntryFiles], dict[str, str]]:
    """The entries whose files can be read; why others are left out, by name."""
    found, left_out = [], {}
    with ThreadPoolExecutor(jobs) as threads:  # reading and hashing leave Python's lock alone
        for result in threads.map(inspect, sources, itertools.repeat(voxel_size)):
            found.append(result)
            progress(_SHARE_OF_INSPECTION * len(found) / len(sources))
    for source, result in zip(sources, found, strict=True):
        if isinstance(result, str):
            _leave_out(source.name, result, left_out, report)
    return [result for result in found if not isinstance(result, str)], left_out


def _first_copy(one: EntryFiles, others: Sequence[EntryFiles]) -> EntryFiles | None:
    """The first of the others that shares a half-map with an entry."""
    return next((other for other in others if any(a.is_copy_of(b) for a in one.traces for b in other.traces)), None)


def _tell_of_alike(inspected, report):
    for a, b in alike([one.traces for one in inspected]):
        first, second = inspected[a], inspected[b]
        if _first_copy(first, [second]) is None:
            report(
                f"note: {first.source.name} and {second.source.name} seem to be made of one map, turned, cropped or "
                "masked; take one of them out, or they may be on both sides of the split"
            )


def _leave_out(name, why, left_out, report):
    left_out[name] = why
    report(f"left out {name}: {why}")


def _agree_on_truth(inspected, report):
    """A dataset has the truth of all its entries or of none; decided before any is cut, so by the files' names."""
    have = sum(one.paths["truth"] is not None for one in inspected)
    if have == len(inspected):
        return inspected, bool(inspected)
    if have:
        report(f"{have} of {len(inspected)} entries have a truth map, not all: none is stored")
    return [one.without_truth() for one in inspected], False


def _cut_all(output, inspected, make, jobs, left_out, report, progress) -> list[EntryRecord]:
    """What became of the entries; of those that share a half-map the first that can be used."""
    waiting, used, done = list(inspected), [], []
    sizes = {one.source.name: _half_map_bytes(one) for one in inspected}
    while chosen := _without_copies(waiting, used):
        done += _cut(output, [make(one) for one in chosen], used, jobs, left_out, report, progress, sizes)
        used += [one for one in chosen if one.source.name not in left_out]
        waiting = [one for one in waiting if one not in chosen]
    for one in waiting:
        first = _first_copy(one, used).source.name
        why = f"expected half-maps of its own, found one of {first}, a duplicate; keep one of them"
        _leave_out(one.source.name, f"{one.source.folder}: {why}", left_out, report)
    return sorted(done, key=lambda entry: entry.name)


def _without_copies(waiting, used):
    chosen = []
    for one in waiting:
        if _first_copy(one, [*used, *chosen]) is None:
            chosen.append(one)
    return chosen


def _cut(output, tasks, used, jobs, left_out, report, progress, sizes):
    there = [finished_entry(task) for task in tasks]
    done = [entry for entry in there if entry is not None]
    missing = [task for task, entry in zip(tasks, there, strict=True) if entry is None]
    finished = {task.inspected.source.key for task in tasks} - {task.inspected.source.key for task in missing}
    _remove_stale(output, finished | {one.source.key for one in used})
    so_far, total = 0, sum(sizes[task.inspected.source.name] for task in missing) or 1
    for task, result in run_tasks(cut_entry, missing, jobs=jobs):
        name = task.inspected.source.name
        if isinstance(result, str):
            _leave_out(name, result, left_out, report)
        else:
            done.append(result)
            for note in result.notes:
                report(f"{name}: {note}")
        so_far += sizes[name]
        progress(_SHARE_OF_INSPECTION + (1 - _SHARE_OF_INSPECTION) * so_far / total)
    return done


def _half_map_bytes(inspected):
    return sum(os.path.getsize(inspected.paths[part]) for part in ("half_map_1", "half_map_2"))


def _remove_stale(output, finished):
    """Take away what was cut of files that have changed since, after the manifest that tells of it."""
    stale = [folder for folder in (output / layout.ENTRIES).iterdir() if folder.name not in finished]
    if stale:
        (output / layout.MANIFEST).unlink(missing_ok=True)
    for folder in stale:
        shutil.rmtree(folder)


def split_entries(entries: Sequence[EntryRecord], validation: float, seed: int) -> list[EntryRecord]:
    """The entries with their side of the split, the same whatever their order and names.

    Ordered by SHA-256 of the seed and the half-maps' checksums, the first ones are for validation: the rounded share
    of them, but at least one, and at least one is left for training. A single entry is for training.
    """
    count = math.floor(validation * len(entries) + 0.5)
    count = min(max(count, 1), len(entries) - 1) if validation > 0 and len(entries) > 1 else 0

    def rank(entry):
        checksums = sorted((entry.sha256["half_map_1"], entry.sha256["half_map_2"]))
        return hashlib.sha256(" ".join([str(seed), *checksums]).encode()).hexdigest()

    chosen = {entry.name for entry in sorted(entries, key=rank)[:count]}
    return [replace(entry, split=layout.SPLITS[entry.name in chosen]) for entry in entries]


def _finish(output, settings, truth, done, left_out, report):
    if not done:
        raise path_error(
            output,
            f"expected an entry that can be used, found none among {len(left_out)}; see the lines above",
        )
    if len(done) == 1 and settings["validation"] > 0:
        report("only one entry: there is no validation, for an entry is never on both sides")
    entries = split_entries(done, settings["validation"], settings["seed"])
    patches = {name: sum(entry.patches for entry in entries if entry.split == name) for name in layout.SPLITS}
    manifest = Manifest(
        dataset_version=layout.DATASET_VERSION,
        crefjax=__version__,
        **settings,
        truth=truth,
        patches=patches,
        entries=tuple(entries),
        left_out=dict(sorted(left_out.items())),
        folder=output,
    )
    content = layout.manifest_content(manifest)
    path = output / layout.MANIFEST
    if path.is_file() and layout.read_json(path) == content:
        report(f"{output} is complete: nothing was left to do")
    else:
        layout.write_json(path, content)
    return manifest
