"""Preparation of a dataset: entries of half-maps are cut into patches, in ArrayRecord shards with a manifest."""

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
from crefjax.data.manifest import (
    DATASET_VERSION,
    ENTRIES_FOLDER,
    FORMAT,
    MANIFEST_FILE,
    SETTINGS_FILE,
    SPLITS,
    EntryRecord,
    Manifest,
    check_version,
    manifest_content,
    read_json,
)
from crefjax.data.patches import check_patch
from crefjax.data.prepare_entry import EntryFiles, EntryFolder, EntryTask, cut_entry, finished_entry, inspect_entry
from crefjax.data.shards import DTYPES
from crefjax.data.traces import similar_entries
from crefjax.errors import UserError, path_error
from crefjax.utils.atomic import temporary_sibling, write_json
from crefjax.utils.signals import exclusive_lock
from crefjax.utils.workers import WorkerKilledError, run_tasks

_SHARE_OF_INSPECTION = 0.1  # of the work


@contextmanager
def locked_dataset(output: Path, settings: dict, sources: Sequence[EntryFolder], *, overwrite: bool) -> Iterator[None]:
    """Create or continue a dataset with these settings and entries, locked against other processes.

    If the body of the `with` raises before any entry was finished, the new dataset is removed.

    Args:
        output: the folder.
        settings: those that must be the same for a dataset to be continued.
        sources: its entries.
        overwrite: whether an existing dataset is removed first.

    Raises:
        UserError: the folder is not a dataset, or one with other settings or entries, or another process uses it; an
            entry lies in it; the file system refused.
    """
    if not output.absolute().parent.is_dir():
        raise path_error(output, f"the folder {output.absolute().parent} does not exist; make it first")
    content = {
        "format": FORMAT,
        "dataset_version": DATASET_VERSION,
        "crefjax": __version__,
        **settings,
        "entries": [str(source.folder) for source in sources],
    }
    _check_folder(output, content, sources, overwrite)
    is_new = not output.exists()
    try:
        output.mkdir(exist_ok=True)
        with exclusive_lock(output, "another crefjax prepare is writing this dataset; wait until it ends"):
            try:
                _start(output, content, overwrite)
                yield
            except BaseException:
                _remove_if_empty(output, is_new)
                raise
    except OSError as error:
        raise path_error(
            output, f"the dataset cannot be written ({error.strerror or error}); check the disk"
        ) from error


def _check_folder(output, content, sources, overwrite):
    for source in sources:
        if output.absolute() in (source.folder, *source.folder.parents):
            raise path_error(output, f"the entry {source.folder} lies inside this folder; choose another folder")
    if not os.path.lexists(output):
        return
    if not output.is_dir() or (overwrite and output.is_symlink()):
        raise path_error(output, "expected a folder to write the dataset to, found something else; choose another name")
    if not (output / SETTINGS_FILE).is_file():
        if any(not name.startswith(".crefjax-") for name in os.listdir(output)):
            text = f"the folder has files and no {SETTINGS_FILE}, so it is not a dataset; choose another name"
            raise path_error(output, text)
        return
    existing = read_json(output / SETTINGS_FILE)
    if overwrite:
        if existing.get("format") != FORMAT:
            raise path_error(output, "expected a dataset to replace, found something else; choose another name")
        return
    check_version(output / SETTINGS_FILE, existing)
    existing.setdefault("grid", 0.0)  # not in datasets of earlier versions
    for name, value in content.items():
        if existing.get(name) != value:
            raise path_error(output, f"{_difference(name, existing.get(name), value)}, or choose another folder")


def _difference(name, existing, requested):
    if name == "entries":
        existing, requested = set(existing or ()), set(requested)
        changes = [f"{path} is new" for path in sorted(requested - existing)]
        changes += [f"{path} is missing" for path in sorted(existing - requested)]
        listed = ", ".join(changes[:2]) + (f", and {len(changes) - 2} more" if len(changes) > 2 else "")
        return f"the dataset was started with other entries ({listed}); use the same ones, give `overwrite`"
    if name == "grid":  # as the command line names it
        existing, requested = ("data" if voxels else "input" for voxels in (existing, requested))
    setting = "crefjax" if name == "crefjax" else f"`{name}`"
    return f"the dataset was started with {setting} {existing}, not {requested}; use the same, give `overwrite`"


def _start(output, content, overwrite):
    if overwrite:
        _remove(output)
    for leftover in output.glob(".crefjax-*.tmp"):  # of a run that was killed
        for _ in range(10):  # workers of that run may be about to end
            shutil.rmtree(leftover, ignore_errors=True) if leftover.is_dir() else leftover.unlink()
            if not leftover.exists():
                break
            time.sleep(0.1)
    if not (output / SETTINGS_FILE).exists():
        write_json(output / SETTINGS_FILE, content)
    (output / ENTRIES_FOLDER).mkdir(exist_ok=True)


def _remove(output):
    """Remove the files of a dataset and nothing else; the one by which it is recognized is the last."""
    (output / MANIFEST_FILE).unlink(missing_ok=True)
    shutil.rmtree(output / ENTRIES_FOLDER, ignore_errors=True)
    (output / SETTINGS_FILE).unlink(missing_ok=True)


def _remove_if_empty(output, is_new):
    """Remove a dataset without entries, so that it does not refuse a corrected command with other settings."""
    with suppress(OSError):
        if not any((output / ENTRIES_FOLDER).iterdir()):
            _remove(output)
            if is_new:
                output.rmdir()


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

    A run that was stopped or killed continues where it stopped, and ends with the bytes of an uninterrupted one, with
    any number of jobs and any order of the entries. Entries that cannot be used are reported and skipped, as are those
    that share a half-map with an earlier one (by name) that is used: it would be on both sides of the split. Entries
    that seem to be made from one map, rotated, cropped, or masked, are reported.

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
            weights that were trained so; 0 keeps the grid of the files.
        voxel_size: Å, instead of that of all headers; None for theirs.
        insist: whether half-maps that are not a pair are accepted, see `crefjax.data.pair_check`.
        overwrite: whether an existing dataset, complete or not, is replaced.
        report: called with a line for each skipped entry, and for everything else that the user should know.
        progress: called with the completed share of the work, 0 to 1.

    Returns:
        The manifest of the dataset.

    Raises:
        UserError: a setting is out of range; the folder is not a dataset, or one with other settings or entries; no
            entry can be used; a worker was killed, or the file system refused: then the same call continues later.
    """
    output = Path(output)
    stride = patch if stride is None else stride
    _check(patch, stride, dtype, validation, jobs, grid)
    sources = find_sources(entries)
    settings = _settings(patch, stride, dtype, validation, seed, grid, voxel_size, insist)
    progress = progress or (lambda share: None)
    try:
        with locked_dataset(output, settings, sources, overwrite=overwrite), temporary_sibling(output / "work") as work:
            files, skipped = _inspect_all(sources, jobs, voxel_size, report, progress)
            files, truth = _agree_on_truth(files, report)
            _report_similar(files, report)
            work.mkdir()
            task = functools.partial(_task, output, work, patch, stride, dtype, float(grid), voxel_size, insist)
            records = _cut_all(output, files, task, jobs, skipped, report, progress)
            return _finish(output, settings, truth, records, skipped, report)
    except WorkerKilledError as error:
        text = (
            "a worker process was killed, most often because memory ran out; run the same command again with "
            "fewer `jobs`: it continues where it stopped"
        )
        raise path_error(output, text) from error


def _settings(patch, stride, dtype, validation, seed, grid, voxel_size, insist):
    """Return the settings by which a dataset is recognized; those that datasets of earlier versions lack come last."""
    settings = {"patch": patch, "stride": stride, "dtype": dtype, "validation": float(validation), "seed": seed}
    settings["grid"] = float(grid)
    if voxel_size:
        settings["voxel_size"] = float(voxel_size)
    if insist:
        settings["insist"] = True
    return settings


def _check(patch, stride, dtype, validation, jobs, grid):
    check_patch(patch)
    if grid and not 2 < grid <= 10:
        raise UserError(f"grid: expected more than 2 and at most 10 voxels for the resolution, found {grid:g}")
    if not 1 <= stride <= patch:
        raise UserError(f"stride: expected 1 to {patch} voxels, to cover the box, found {stride}; change it")
    if dtype not in DTYPES:
        raise UserError(f"dtype: expected one of {', '.join(DTYPES)}, found {dtype}; choose one")
    if not 0 <= validation < 1:
        raise UserError(f"validation: expected a share from 0 to below 1, found {validation:g}; change it")
    if jobs < 1:
        raise UserError(f"jobs: expected 1 or more, found {jobs}; change it")


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


def _task(output, work, patch, stride, dtype, grid, voxel_size, insist, files):
    slim = replace(files, traces=())  # less to send to a worker
    return EntryTask(slim, output, work, patch, stride, dtype, grid, voxel_size, insist)


def _inspect_all(sources, jobs, voxel_size, report, progress) -> tuple[list[EntryFiles], dict[str, str]]:
    """Return the entries whose files can be read, and the reasons for skipping the others, by name."""
    results, skipped = [], {}
    with ThreadPoolExecutor(jobs) as threads:  # reading and hashing release Python's lock
        for result in threads.map(inspect_entry, sources, itertools.repeat(voxel_size)):
            results.append(result)
            progress(_SHARE_OF_INSPECTION * len(results) / len(sources))
    for source, result in zip(sources, results, strict=True):
        if isinstance(result, str):
            _skip(source.name, result, skipped, report)
    return [result for result in results if not isinstance(result, str)], skipped


def _first_copy(entry: EntryFiles, others: Sequence[EntryFiles]) -> EntryFiles | None:
    """Return the first of the others that shares a half-map with an entry."""
    return next((other for other in others if any(a.is_copy_of(b) for a in entry.traces for b in other.traces)), None)


def _report_similar(files, report):
    for a, b in similar_entries([entry.traces for entry in files]):
        first, second = files[a], files[b]
        if _first_copy(first, [second]) is None:
            report(
                f"note: {first.source.name} and {second.source.name} seem to be made from one map, rotated, cropped, "
                "or masked; remove one of them, or they may be on both sides of the split"
            )


def _skip(name, reason, skipped, report):
    skipped[name] = reason
    report(f"skipped {name}: {reason}")


def _agree_on_truth(files, report):
    """Keep the truth of all entries or of none; decided by the files' names, before any entry is cut."""
    count = sum(entry.paths["truth"] is not None for entry in files)
    if count == len(files):
        return files, bool(files)
    if count:
        report(f"{count} of {len(files)} entries have a truth map, not all: none is stored")
    return [entry.without_truth() for entry in files], False


def _cut_all(output, files, task, jobs, skipped, report, progress) -> list[EntryRecord]:
    """Cut the entries, sorted by name; of those that share a half-map, the first that can be used."""
    waiting, used, records = list(files), [], []
    sizes = {entry.source.name: _half_map_bytes(entry) for entry in files}
    while chosen := _without_copies(waiting, used):
        records += _cut(output, [task(entry) for entry in chosen], used, jobs, skipped, report, progress, sizes)
        used += [entry for entry in chosen if entry.source.name not in skipped]
        waiting = [entry for entry in waiting if entry not in chosen]
    for entry in waiting:
        first = _first_copy(entry, used).source.name
        reason = f"expected half-maps of its own, found one of {first}, a duplicate; keep one of them"
        _skip(entry.source.name, f"{entry.source.folder}: {reason}", skipped, report)
    return sorted(records, key=lambda record: record.name)


def _without_copies(waiting, used):
    chosen = []
    for entry in waiting:
        if _first_copy(entry, [*used, *chosen]) is None:
            chosen.append(entry)
    return chosen


def _cut(output, tasks, used, jobs, skipped, report, progress, sizes):
    finished = {task.files.source.key: record for task in tasks if (record := finished_entry(task)) is not None}
    missing = [task for task in tasks if task.files.source.key not in finished]
    _remove_stale(output, {*finished, *(entry.source.key for entry in used)})
    records = list(finished.values())
    done, total = 0, sum(sizes[task.files.source.name] for task in missing) or 1
    for task, result in run_tasks(cut_entry, missing, jobs=jobs):
        name = task.files.source.name
        if isinstance(result, str):
            _skip(name, result, skipped, report)
        else:
            records.append(result)
            for note in result.notes:
                report(f"{name}: {note}")
        done += sizes[name]
        progress(_SHARE_OF_INSPECTION + (1 - _SHARE_OF_INSPECTION) * done / total)
    return records


def _half_map_bytes(files):
    return sum(os.path.getsize(files.paths[part]) for part in ("half_map_1", "half_map_2"))


def _remove_stale(output, current):
    """Remove the manifest, and then the entries whose files have changed since."""
    stale = [folder for folder in (output / ENTRIES_FOLDER).iterdir() if folder.name not in current]
    if stale:
        (output / MANIFEST_FILE).unlink(missing_ok=True)
    for folder in stale:
        shutil.rmtree(folder)


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
        report("only one entry: there is no validation, for an entry is never on both sides")
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
