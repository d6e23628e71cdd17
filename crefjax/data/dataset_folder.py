"""The folder of a dataset that is being written: created, continued, or replaced, and locked against others.

Different processes, on one or many machines, may prepare parts of a dataset, which are joined later. Part K of N takes
every N-th entry and writes its patches to their place in the whole dataset. Its other findings, the checksums and
traces of the files and why entries cannot be used, are kept in `DATASET/parts/K-of-N/` until the dataset is complete,
so that nothing is read twice. They stay valid as long as the files of an entry have the same size and modification
time.
"""

import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crefjax import __version__
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
from crefjax.data.prepare_entry import EntryFiles, EntryFolder, Trace
from crefjax.errors import UserError, path_error
from crefjax.utils.atomic import atomic_write, write_json
from crefjax.utils.signals import exclusive_lock

_FOUND, _TRACES = "found.json", "traces.npz"


@dataclass(frozen=True)
class Part:
    """Part K of N of the entries.

    Attributes:
        number: K, from 1 to N.
        count: N.
    """

    number: int
    count: int

    def __post_init__(self):
        if not 1 <= self.number <= self.count:
            raise UserError(f"`part`: expected K/N with K from 1 to N, found {self.number}/{self.count}; correct it")

    def __str__(self) -> str:
        return f"{self.number} of {self.count}"

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Return the part that a text such as `3/8` names.

        Raises:
            UserError: another text.
        """
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
        if not match:
            raise UserError(f"`part`: expected K/N such as 3/8, found {text!r}; correct it")
        return cls(int(match[1]), int(match[2]))

    def folder(self, output: Path) -> Path:
        """Return the folder of this part within a dataset."""
        return output / PARTS_FOLDER / f"{self.number}-of-{self.count}"

    def share(self, sources: Sequence[EntryFolder]) -> list[EntryFolder]:
        """Return the entries of this part: every N-th one, so that consecutive large ones go to different parts."""
        return list(sources[self.number - 1 :: self.count])


@dataclass(frozen=True)
class Known:
    """What is known of an entry without reading its files again.

    Attributes:
        files: its files with their checksums, or one line that says why they cannot be read.
        refused: one line that says why it cannot be cut, None if it can; decided with or without `truth`.
        truth: whether a truth was stored when that was decided.
    """

    files: EntryFiles | str
    refused: str | None
    truth: bool


def signature(folder: Path) -> list[list]:
    """Return the name, size, and modification time of every file in an entry's folder."""
    try:
        with os.scandir(folder) as found:
            stats = [
                (entry.name, entry.stat()) for entry in found if entry.is_file() and not entry.name.startswith(".")
            ]
    except OSError:
        return []
    return sorted([name, stat.st_size, stat.st_mtime_ns] for name, stat in stats)


def write_part(
    folder: Path,
    inspected: Iterable[tuple[EntryFolder, list[list], EntryFiles | str]],
    refused: dict[str, str],
    *,
    truth: bool,
) -> None:
    """Write the findings of a part.

    Args:
        folder: of the part.
        inspected: entries, their `signature` before they were read, and their files or the reason to skip them.
        refused: reasons why entries cannot be cut, by name.
        truth: whether a truth is stored.
    """
    found, arrays = {}, {}
    for source, stats, files in inspected:
        record = {"folder": str(source.folder), "signature": stats, "refused": refused.get(source.name)}
        if isinstance(files, str):
            record["unreadable"] = files
        else:
            record |= {"paths": files.paths, "sha256": files.sha256}
            for number, trace in enumerate(files.traces):
                arrays[f"{source.key}/{number}/sample"], arrays[f"{source.key}/{number}/marks"] = (
                    trace.sample,
                    trace.marks,
                )
        found[source.key] = record
    with atomic_write(folder / _TRACES, needed=len(arrays) * 2**14, overwrite=True, compress=False) as stream:
        np.savez(stream, **arrays)
    write_json(folder / _FOUND, {"truth": truth, "entries": found})  # last: a part with it is complete


def read_parts(output: Path, sources: Sequence[EntryFolder]) -> dict[str, Known]:
    """Return the findings of finished parts about entries whose files have not changed, by key."""
    by_key, known = {source.key: source for source in sources}, {}
    for folder in sorted((output / PARTS_FOLDER).glob("*-of-*")):
        try:
            content = json.loads((folder / _FOUND).read_text(encoding="utf-8"))
            with np.load(folder / _TRACES) as arrays:
                for key, record in content["entries"].items():
                    source = by_key.get(key)
                    if source is None or record["folder"] != str(source.folder):
                        continue
                    if record["signature"] == signature(source.folder):
                        known[key] = _known(source, record, arrays, content["truth"])
        except (OSError, ValueError, KeyError):
            continue  # unfinished, or damaged: its entries are read again
    return known


def _known(source, record, arrays, truth):
    if "unreadable" in record:
        return Known(record["unreadable"], None, truth)
    traces = tuple(
        Trace(arrays[f"{source.key}/{number}/sample"], arrays[f"{source.key}/{number}/marks"]) for number in (0, 1)
    )
    return Known(EntryFiles(source, record["paths"], record["sha256"], traces), record["refused"], truth)


def unfinished_parts(output: Path) -> list[str]:
    """Return the parts that were started or that their number implies, and that did not finish, such as `3 of 8`."""
    folders = [path.name for path in (output / PARTS_FOLDER).glob("*-of-*")]
    counts = {int(name.split("-of-")[1]) for name in folders if re.fullmatch(r"\d+-of-\d+", name)}
    missing = []
    for count in sorted(counts):
        parts = [Part(number, count) for number in range(1, count + 1)]
        missing += [str(part) for part in parts if not (part.folder(output) / _FOUND).is_file()]
    return missing


@contextmanager
def locked_dataset(
    output: Path, settings: dict, sources: Sequence[EntryFolder], *, overwrite: bool, part: Part | None = None
) -> Iterator[Path]:
    """Create or continue a dataset with these settings and entries, locked against other processes.

    Several parts of a dataset may be written at once. Yields the folder for temporary files. If the body of the
    `with` raises before any entry was finished, the new dataset is removed, unless it is a part.

    Args:
        output: the folder.
        settings: those that must be the same for a dataset to be continued.
        sources: its entries.
        overwrite: whether an existing dataset is removed first.
        part: the part of it that is written; None for all.

    Raises:
        UserError: the folder is not a dataset, or one with other settings or entries, or another process uses it; it
            contains an entry; the file system refused.
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
    """Remove the findings of the parts of a dataset."""
    shutil.rmtree(output / PARTS_FOLDER, ignore_errors=True)


def _remove_if_empty(output, is_new):
    """Remove a dataset without entries, so that it does not refuse a corrected command with other settings."""
    with suppress(OSError):
        if not any((output / ENTRIES_FOLDER).iterdir()):
            _remove(output)
            if is_new:
                output.rmdir()
