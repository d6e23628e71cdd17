"""Map files by name and content, checks of output paths before long work, checksums, and JSON."""

import bz2
import gzip
import hashlib
import json
import math
import os
import stat
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from crefjax.errors import path_error
from crefjax.utils.atomic import check_free

MAP_SUFFIXES = (".mrc", ".map", ".ccp4")
COMPRESSED_SUFFIXES = (".gz", ".bz2")
_MAP_ID = slice(208, 211)  # "MAP" stands here in every MRC2014 and CCP4 header


def map_stem(name: str) -> str | None:
    """Return a map's file name without its suffix (`a.map.gz` -> `a`), or None for the name of another file."""
    stem, suffix = os.path.splitext(_without_compression(name))
    return stem if suffix.lower() in MAP_SUFFIXES else None


def is_stack_name(name: str) -> bool:
    """Return whether a file name is that of an image stack (`.mrcs`, `.st`)."""
    return os.path.splitext(_without_compression(name))[1].lower() in (".mrcs", ".st")


def _without_compression(name):
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in COMPRESSED_SUFFIXES else name


@contextmanager
def open_map_file(path: Path) -> Iterator[tuple[BinaryIO, int | None]]:
    """Open a plain, gzip, or bzip2 file, as its content says; yield the stream and the size of a plain file.

    The size in bytes is None for a compressed file, whose length is known only at its end.

    Raises:
        UserError: the file is missing, empty, not a regular file, not readable, or compressed and damaged; also if the
            body of the `with` finds that while reading.
    """
    try:
        _check_readable(path)
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
        if error.errno is None:  # so gzip and bz2 report damage
            text = f"the compressed file is damaged ({error}); get it again"
        else:
            text = f"cannot be read ({error.strerror}); check its permissions and the disk"
        raise path_error(path, text) from error


def _check_readable(path):
    try:
        info = os.stat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise path_error(path, "there is no such file; check the path") from error
    if stat.S_ISDIR(info.st_mode):
        raise path_error(path, "expected an MRC/CCP4 map, found a folder; name the file inside it")
    if not stat.S_ISREG(info.st_mode):  # a pipe would wait forever
        raise path_error(path, "expected an MRC/CCP4 map, found a pipe or a device; give a file")
    if info.st_size == 0:
        raise path_error(path, "expected an MRC/CCP4 map, found an empty file; get it again")


def _compression(head):
    # The first word of a plain map is its width, which can be any two bytes: the map's own mark comes first.
    if head[_MAP_ID] == b"MAP":
        return None
    if head[:2] == b"\x1f\x8b":
        return gzip.open
    if head[:3] == b"BZh":
        return bz2.open
    return None


def check_output(path, *, overwrite: bool = False, inputs=()) -> None:
    """Check, before long work, that a map can be written; writes nothing.

    Args:
        path: where to write; `.mrc`, `.map` or `.ccp4`, plain or with `.gz` or `.bz2`.
        overwrite: whether an existing file may be replaced.
        inputs: files that are read, or None; never replaced.

    Raises:
        UserError: another suffix, a folder, an existing file, an input, or a parent folder that is missing or
            not writable.
    """
    path = Path(path)
    if map_stem(path.name) is None:
        known = ", ".join(MAP_SUFFIXES)
        raise path_error(path, f"a map's name must end in one of {known}, plain or with .gz or .bz2; rename it")
    _check_file(path, inputs)
    check_free(path, overwrite)
    _check_parent(path, path.parent)


def check_output_file(path, *, suffixes: tuple[str, ...] = (), marker: bytes = b"", inputs=()) -> None:
    """Check, before long work, that a small file can be written; writes nothing.

    Args:
        path: where to write.
        suffixes: allowed suffixes, in lower case; empty for any.
        marker: content by which an earlier output is recognized, which may be replaced, as an empty file may; if it is
            empty, any existing file may.
        inputs: files that are read, or None; never replaced.

    Raises:
        UserError: another suffix, an existing file, an input, or a parent folder that is missing or not writable.
    """
    path = Path(path)
    _check_file(path, inputs)
    if suffixes and path.suffix.lower() not in suffixes:
        raise path_error(path, f"the file's name must end in {' or '.join(suffixes)}; rename it")
    _check_parent(path, path.parent)
    if path.exists() and not path.is_file():
        raise path_error(path, "expected a file name, found a device or a pipe; give a file name")
    if marker and path.exists() and path.stat().st_size and marker not in path.read_bytes():
        raise path_error(path, "the file exists and is not replaced; choose another name")


def _check_file(path, inputs):
    if os.path.isdir(path):
        raise path_error(path, "expected a file name, found a folder; add a file name")
    for source in inputs:
        if source is not None and is_same_file(path, source):
            raise path_error(path, f"the output would replace the input {source}; choose another name")


def check_output_folder(
    folder, what: str, marker: str, *, overwrite: bool = False, inputs=(), outputs=(), make_parents: bool = False
) -> None:
    """Check, before long work, that an output folder can be written; writes nothing.

    An empty folder may be replaced; one that holds an earlier output, only with `overwrite`; anything else, never.

    Args:
        folder: where to write.
        what: name of the output in messages, such as `a report`.
        marker: name of a file by which an earlier output is recognized.
        overwrite: whether an earlier output may be replaced.
        inputs: files that are read; none may lie in the folder.
        outputs: other files that are written; none may lie in the folder or be it.
        make_parents: whether missing parent folders will be made.

    Raises:
        UserError: the folder exists and may not be replaced, or its parent is missing or not writable.
    """
    folder = Path(folder)
    real, working = Path(os.path.realpath(folder)), Path.cwd()
    for kind, paths in (("input", inputs), ("output", outputs)):
        for path in paths:
            place = Path(os.path.realpath(path))
            if kind == "output" and real == place:
                raise path_error(folder, f"expected a folder for {what}, found the name of an output; choose another")
            if real in place.parents:
                raise path_error(folder, f"{what} would replace the folder of the {kind} {path}; choose another name")
    if real == working or real in working.parents:
        raise path_error(folder, f"{what} would replace the folder you work in; choose another name")
    if not make_parents:
        _check_parent(folder, Path(os.path.abspath(folder)).parent)
    if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
        return
    if not os.path.lexists(folder):
        return
    if not overwrite:
        raise path_error(folder, "exists and is not replaced; choose another name or give `overwrite`")
    if folder.is_symlink() or not (folder / marker).is_file():
        raise path_error(folder, f"expected {what} to replace, found something else; choose another name")


def _check_parent(path, folder):
    if not os.path.isdir(folder):
        raise path_error(path, f"the folder {folder} does not exist; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise path_error(path, f"the folder {folder} is not writable; choose another folder")


def is_same_file(a, b) -> bool:
    """Return whether two paths lead to one file, following links; False if one of them leads nowhere."""
    try:
        return os.path.samefile(a, b)
    except OSError:
        return False


def sha256(path) -> str:
    """Return the SHA-256 checksum of a file, in hexadecimal digits.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise path_error(path, f"cannot be read ({error.strerror}); check its permissions and the disk") from error


def file_state(path) -> list[int]:
    """Return the size and modification time of a file, which reveal a change without reading its content."""
    info = os.stat(path)
    return [info.st_size, info.st_mtime_ns]


def read_json_lines(path: Path) -> list[dict]:
    """Read a file of JSON lines up to the first incomplete one; a missing file has no lines."""
    rows = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
    return rows


def finite_json(value):
    """Return a value of dicts, lists, numbers, and texts as JSON can hold it, with NaN and infinity as None."""
    if isinstance(value, Mapping):
        return {key: finite_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite_json(item) for item in value]
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):  # a number of NumPy
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
