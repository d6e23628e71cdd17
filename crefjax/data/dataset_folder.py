"""The folder of a dataset that is being written: created, continued, or replaced, and locked against others."""

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from crefjax import __version__
from crefjax.data.dataset_parts import Part
from crefjax.data.manifest import (
    DATASET_VERSION,
    ENTRIES_FOLDER,
    FORMAT,
    MANIFEST_FILE,
    PARTS_FOLDER,
    SETTINGS_FILE,
    check_version,
    read_json,
)
from crefjax.data.prepare_entry import EntryFolder
from crefjax.errors import path_error
from crefjax.utils.atomic import write_json
from crefjax.utils.signals import exclusive_lock


@contextmanager
def locked_dataset(
    output: Path, settings: dict, sources: Sequence[EntryFolder], *, overwrite: bool, part: Part | None = None
) -> Iterator[Path]:
    """Create or continue a dataset with these settings and entries, locked against other processes.

    Several parts of a dataset may be written at once. It gives the folder for temporary files. If the body of the
    `with` raises before any entry was finished, the new dataset is removed, unless it is a part.

    Args:
        output: the folder.
        settings: those that must be the same for a dataset to be continued.
        sources: its entries.
        overwrite: whether an existing dataset is removed first.
        part: the part of it that is written; None for all.

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
        busy = "another crefjax prepare is writing this dataset; wait until it ends"
        with exclusive_lock(output, busy, shared=part is not None):
            if part is not None:
                _start(output, content)
                with _part_folder(output, part) as folder:
                    yield folder
                return
            try:
                if overwrite:
                    _remove(output)
                _remove_leftovers(output)
                _start(output, content)
                yield output
            except BaseException:
                _remove_if_empty(output, is_new)
                raise
    except OSError as error:
        raise path_error(
            output, f"the dataset cannot be written ({error.strerror or error}); check the disk"
        ) from error


@contextmanager
def _part_folder(output, part):
    """Lock the folder of a part; what a killed run left in it is removed."""
    folder = part.folder(output)
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(folder, f"another crefjax prepare is writing part {part}; wait until it ends"):
        _remove_leftovers(folder)
        yield folder


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


def _start(output, content):
    if not (output / SETTINGS_FILE).exists():
        write_json(output / SETTINGS_FILE, content)
    (output / ENTRIES_FOLDER).mkdir(exist_ok=True)


def _remove_leftovers(folder):
    """Remove the temporary files and folders of a run that was killed."""
    for leftover in folder.glob(".crefjax-*.tmp"):
        for _ in range(10):  # workers of that run may be about to end
            shutil.rmtree(leftover, ignore_errors=True) if leftover.is_dir() else leftover.unlink()
            if not leftover.exists():
                break
            time.sleep(0.1)


def _remove(output):
    """Remove the files of a dataset and nothing else; the one by which it is recognized is the last."""
    (output / MANIFEST_FILE).unlink(missing_ok=True)
    shutil.rmtree(output / ENTRIES_FOLDER, ignore_errors=True)
    remove_parts(output)
    (output / SETTINGS_FILE).unlink(missing_ok=True)


def remove_parts(output: Path) -> None:
    """Remove what the parts of a dataset left for the whole."""
    shutil.rmtree(output / PARTS_FOLDER, ignore_errors=True)


def _remove_if_empty(output, is_new):
    """Remove a dataset without entries, so that it does not refuse a corrected command with other settings."""
    with suppress(OSError):
        if not any((output / ENTRIES_FOLDER).iterdir()):
            _remove(output)
            if is_new:
                output.rmdir()
