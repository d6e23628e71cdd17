"""Opening maps for reading and putting finished ones in place; a failure of the disk is one clear line."""

import bz2
import errno
import gzip
import json
import os
import shutil
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from crefjax.errors import UserError
from crefjax.unfinished import temporary_sibling

MAP_SUFFIXES = (".mrc", ".map", ".ccp4")
COMPRESSED_SUFFIXES = (".gz", ".bz2")
GIB = 2**30

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # errors of a disk, a quota, and the largest file
_MAP_ID = slice(208, 211)  # "MAP" stands here in every MRC2014 and CCP4 header


def path_error(path, text: str) -> UserError:
    """The UserError `path: text`, on one line whatever characters the path holds."""
    return UserError(" ".join(f"{path}: {text}".splitlines()))


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
    _check_free(path, overwrite)
    _check_folder(path)


def is_same_file(a, b) -> bool:
    """Whether two paths lead to one file, links followed; False where one of them leads nowhere."""
    try:
        return os.path.samefile(a, b)
    except OSError:
        return False


def _check_free(path: Path, overwrite: bool) -> None:
    if _is_taken(path) and not overwrite:
        raise path_error(path, "the file exists and is not replaced; choose another name or give --overwrite")


def _is_taken(path: Path) -> bool:
    try:
        os.lstat(path)  # a link that leads nowhere is something too
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise path_error(path, f"cannot be written ({error.strerror}); choose another name") from error
    return True


def _check_folder(path: Path) -> None:
    folder = path.parent
    if not os.path.isdir(folder):
        raise path_error(path, f"the folder {folder} does not exist; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise path_error(path, f"the folder {folder} is not writable; choose another one")


@contextmanager
def atomic_write(path: Path, *, needed: int, overwrite: bool, compress: bool = True) -> Iterator[BinaryIO]:
    """A stream to a hidden file beside `path`, renamed to `path` once the body of the `with` is through.

    Arguments and errors are those of `atomic_write_all` and of what it gives.
    """
    with atomic_write_all(overwrite=overwrite, compress=compress) as stage, stage(path, needed) as stream:
        yield stream


@contextmanager
def atomic_write_all(
    *, overwrite: bool, compress: bool = True
) -> Iterator[Callable[[Path, int], AbstractContextManager[BinaryIO]]]:
    """Files that appear together, once the body of the `with` is through, or not at all.

    It gives a function of a final place and of the bytes that will be written there (before compression, for the
    message when the disk is full), whose `with` gives a stream to a hidden file beside that place. What is written is
    compressed as the suffix says. After any failure the hidden files are removed and whatever was at the final places
    is as it was. New files have the permissions that the umask gives.

    Args:
      overwrite: whether files at the final places are replaced.
      compress: whether what is written is compressed as the suffix says, or is so already.

    Raises:
      UserError: the file system refused, or a file appeared at a final place meanwhile.
    """
    with ExitStack() as stack:
        staged: list[tuple[Path, Path, int]] = []

        @contextmanager
        def stage(path: Path, needed: int) -> Iterator[BinaryIO]:
            hidden = stack.enter_context(temporary_sibling(path))
            try:
                with _new_file(hidden) as file, _compressing(file, path.suffix.lower() if compress else "") as stream:
                    yield stream
            except OSError as error:
                raise _write_failure(path, needed, error) from error
            staged.append((hidden, path, needed))

        yield stage
        for _, path, _ in staged:
            _check_free(path, overwrite)
        for hidden, path, needed in staged:
            try:
                os.replace(hidden, path)
            except OSError as error:
                raise _write_failure(path, needed, error) from error
            _sync_folder(path.parent)


@contextmanager
def _new_file(hidden: Path) -> Iterator[BinaryIO]:
    """A new file, safely on the disk at the end of the `with`."""
    # Not tempfile: its 0600 would outlive the renaming.
    descriptor = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    with open(descriptor, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _compressing(file: BinaryIO, suffix: str) -> Iterator[BinaryIO]:
    if suffix == ".gz":
        # No name and no time inside: the same map gives the same bytes.
        with gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=6, mtime=0) as stream:
            yield stream
    elif suffix == ".bz2":
        with bz2.BZ2File(file, "wb") as stream:
            yield stream
    else:
        yield file


def _write_failure(path: Path, needed: int, error: OSError) -> UserError:
    if error.errno not in DISK_FULL:
        return path_error(
            path, f"cannot be written ({error.strerror or error}), nothing was left behind; check the disk"
        )
    free = "unknown"
    with suppress(OSError):
        free = _size(shutil.disk_usage(path.parent).free)
    return path_error(
        path,
        f"no space left ({error.strerror}): up to {_size(needed)} needed, {free} free in "
        f"{path.parent}; make room or choose another folder",
    )


def _size(count: int) -> str:
    return f"{count / GIB:.3g} GiB" if count >= 0.1 * GIB else f"{count / 2**20:.3g} MiB"


def _sync_folder(folder: Path) -> None:
    # So that the new name outlives a power cut. Some network file systems cannot; the map is whole anyway.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


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
