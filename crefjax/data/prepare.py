"""Preparation of a dataset: entries of half-maps are cut into patches, in ArrayRecord shards with a manifest."""

import functools
import hashlib
import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from crefjax import __version__
from crefjax.data.dataset_folder import locked_dataset, remove_parts
from crefjax.data.dataset_parts import Part
from crefjax.data.manifest import (
    DATASET_VERSION,
    MANIFEST_FILE,
    SPLITS,
    EntryRecord,
    Manifest,
    manifest_content,
    read_json,
)
from crefjax.data.patches import check_patch
from crefjax.data.prepare_entry import EntryFolder, EntryTask
from crefjax.data.prepare_run import PartSummary, Preparation
from crefjax.data.shards import DTYPES
from crefjax.errors import UserError, path_error
from crefjax.utils.atomic import temporary_sibling, write_json
from crefjax.utils.workers import WorkerKilledError


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
    part: Part | None = None,
) -> Manifest | PartSummary:
    """Cut checked half-map pairs into standardized, masked patches.

    A run that was stopped or killed continues where it stopped, and ends with the bytes of an uninterrupted one, with
    any number of jobs and any order of the entries. Several processes, also on several machines that share a file
    system, may each prepare a part at the same time; a last call without `part` joins them and does what is missing,
    and the dataset has the same bytes again.

    Entries that cannot be used are reported and skipped, as are those that share a half-map with an earlier one (by
    name) that is used: it would be on both sides of the split. Entries that seem to be made from one map, rotated,
    cropped, or masked, are reported.

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
        part: the part of the entries to prepare; None to prepare all, or to join what the parts prepared.

    Returns:
        The manifest of the dataset; of a part, what became of its entries.

    Raises:
        UserError: a setting is out of range; the folder is not a dataset, or one with other settings or entries; no
            entry can be used; a worker was killed, or the file system refused: then the same call continues later.
    """
    output = Path(output)
    stride = patch if stride is None else stride
    _check(patch, stride, dtype, validation, jobs, grid)
    if part is not None and overwrite:
        raise UserError("`overwrite`: a part would remove the others; remove the dataset before its parts are prepared")
    sources = find_sources(entries)
    settings = _settings(patch, stride, dtype, validation, seed, grid, voxel_size, insist)
    progress = progress or (lambda share: None)
    try:
        with (
            locked_dataset(output, settings, sources, overwrite=overwrite, part=part) as folder,
            temporary_sibling(folder / "work") as work,
        ):
            work.mkdir()
            task = functools.partial(_task, output, work, patch, stride, dtype, float(grid), voxel_size, insist)
            run = Preparation(output, sources, task, jobs=jobs, voxel_size=voxel_size, report=report, progress=progress)
            if part is not None:
                return run.part(part)
            records, truth = run.whole()
            manifest = _finish(output, settings, truth, records, run.skipped, report)
            remove_parts(output)
            return manifest
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
