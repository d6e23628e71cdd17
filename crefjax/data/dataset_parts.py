"""Parts of a dataset that are prepared by different processes, on one or many machines, and joined later.

Part K of N takes every N-th entry and writes its patches where the whole dataset has them. What else it found out, the
checksums and traces of the files and why entries cannot be used, is kept in `DATASET/parts/K-of-N/` until the dataset
is complete, so that nothing is read twice. What is known of an entry counts as long as its files have the same size and
time of last change.
"""

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crefjax.data.manifest import PARTS_FOLDER
from crefjax.data.prepare_entry import EntryFiles, EntryFolder
from crefjax.data.traces import Trace
from crefjax.errors import UserError
from crefjax.utils.atomic import atomic_write, write_json

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
        """Return the entries of this part: every N-th one, so that large ones that follow each other are spread."""
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
    """Return name, size, and time of last change of every file in an entry's folder."""
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
    """Write what a part found out.

    Args:
        folder: of the part.
        inspected: entries, their `signature` before they were read, and what was found.
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
    """Return what finished parts found out about entries whose files are as they were, by key."""
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
