"""Map files by name and content, checks of output paths, and files of JSON lines."""

import bz2
import gzip
import json
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from crefjax.errors import path_error
from crefjax.utils.atomic import check_free

MAP_SUFFIXES = (".mrc", ".map", ".ccp4")
COMPRESSED_SUFFIXES = (".gz", ".bz2")

_MAP_ID = slice(208, 211)  # "MAP" stands here in every MRC2014 and CCP4 header


def map_stem(name: str) -> str | None:
    """A map's file name without its suffix (`a.map.gz` -> `a`), or None for a name that no map has."""
    base = _without_compression(name)
    stem, suffix = os.path.splitext(base)
    return stem if suffix.lower() in MAP_SUFFIXES else None


def _without_compression(name: str) -> str:
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in COMPRESSED_SUFFIXES else name


def is_stack_name(name: str) -> bool:
    """Whether a file name says that images, not a map, are inside (`.mrcs`, `.st`)."""
    return os.path.splitext(_without_compression(name))[1].lower() in (".mrcs", ".st")


@contextmanager
def open_map_file(path: Path) -> Iterator[tuple[BinaryIO, int | None]]:
    """Opens a plain, gzip or bzip2 file, told apart by content; gives the stream and a plain file's size.

    The size in bytes is None for a compressed file, whose length is known only at its end.

    Raises:
      UserError: the file is missing, no plain file, empty, not readable, or compressed and damaged; also
        where that shows only while the body of the `with` reads.
    """
    try:
        _check_readable_kind(path)
        with open(path, "rb") as file:
            head = file.read(212)
            file.seek(0)
            compression = _compression(head)
            if compression is None:
                yield file, os.fstat(file.fileno()).st_size
            else:
                with compression(file, "rb") as stream:
                    yield stream, None
    except (EOFError, zlib.error) as error:
        raise path_error(path, f"the compressed file is cut short or damaged ({error}); get it again") from error
    except OSError as error:
        if error.errno is None:  # gzip and bz2 report damage so
            text = f"the compressed file is damaged ({error}); get it again"
        else:
            text = f"cannot be read ({error.strerror}); check its permissions and the disk"
        raise path_error(path, text) from error


def _check_readable_kind(path: Path) -> None:
    try:
        info = os.stat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise path_error(path, "there is no such file; check the path") from error
    if stat.S_ISDIR(info.st_mode):
        raise path_error(path, "expected an MRC/CCP4 map, found a folder; name the file inside it")
    if not stat.S_ISREG(info.st_mode):  # a pipe would wait for ever
        raise path_error(path, "expected an MRC/CCP4 map, found a pipe or a device; give a file")
    if info.st_size == 0:
        raise path_error(path, "expected an MRC/CCP4 map, found an empty file; get it again")


def _compression(head: bytes):
    # The first word of a plain map is its width, which can be any two bytes: the map's own mark goes first.
    if head[_MAP_ID] == b"MAP":
        return None
    if head[:2] == b"\x1f\x8b":
        return gzip.open
    if head[:3] == b"BZh":
        return bz2.open
    return None


def check_output(path, *, overwrite: bool = False, inputs=()) -> None:
    """Checks, before long work, that a map can be written at `path`; writes nothing.

    Args:
      path: where the map shall go; `.mrc`, `.map` or `.ccp4`, plain or with `.gz` or `.bz2`.
      overwrite: whether a file that is there may be replaced.
      inputs: paths of files that are read; the output must be none of them, overwrite or not.

    Raises:
      UserError: another suffix, a folder, an existing file, an input, or a parent folder that is missing or
        not writable.
    """
    path = Path(path)
    if map_stem(path.name) is None:
        known = ", ".join(MAP_SUFFIXES)
        raise path_error(path, f"a map's name must end in one of {known}, plain or with .gz or .bz2; rename it")
    if os.path.isdir(path):
        raise path_error(path, "expected a file name for the map, found a folder; add a file name")
    for source in inputs:
        if source is not None and is_same_file(path, source):
            raise path_error(path, f"the output would replace the input {source}; choose another name")
    check_free(path, overwrite)
    _check_folder(path)


def is_same_file(a, b) -> bool:
    """Whether two paths lead to one file, links followed; False where one of them leads nowhere."""
    try:
        return os.path.samefile(a, b)
    except OSError:
        return False


def _check_folder(path: Path) -> None:
    folder = path.parent
    if not os.path.isdir(folder):
        raise path_error(path, f"the folder {folder} does not exist; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise path_error(path, f"the folder {folder} is not writable; choose another one")


def read_json_lines(path: Path) -> list[dict]:
    """The whole lines of a file of JSON lines; what was cut off at its end is left out, and no file has no lines."""
    rows = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
    return rows
