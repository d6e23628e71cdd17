"""Files and folders that are written under a hidden name and renamed into place once they are complete.

Whatever ends the work before that, the hidden ones are removed: an exception by leaving the `with`, a signal by
`remove_all`.
"""

import bz2
import errno
import gzip
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from crefjax.errors import UserError, path_error
from crefjax.utils.memory import GIB

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # errors of a disk, a quota, and the largest file

_unfinished: set[Path] = set()


@contextmanager
def temporary_sibling(path: Path) -> Iterator[Path]:
    """A hidden, unused name in the folder of `path`; whatever is there at the end of the `with` is removed."""
    hidden = path.absolute().with_name(f".crefjax-{secrets.token_hex(8)}.tmp")
    _unfinished.add(hidden)
    try:
        yield hidden
    finally:
        remove(hidden)
        _unfinished.discard(hidden)


@contextmanager
def atomic_directory(folder: Path) -> Iterator[Path]:
    """A new hidden folder, renamed to `folder` once the body of the `with` is through; one that is there is replaced.

    Raises:
        OSError: the file system refused; then what was at `folder` is as it was.
    """
    with temporary_sibling(folder) as hidden:
        hidden.mkdir()
        yield hidden
        # Not among the unfinished: should the program be killed just now, the old folder is still there.
        old = hidden.with_suffix(".old")
        if folder.exists():
            os.replace(folder, old)
        try:
            os.replace(hidden, folder)
        except OSError:
            if old.exists():
                os.replace(old, folder)
            raise
        shutil.rmtree(old, ignore_errors=True)


def remove_all() -> None:
    """Remove every unfinished file and folder; for a program that is about to end."""
    for path in list(_unfinished):
        remove(path)


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it, as far as can be."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            os.unlink(path)


def check_free(path: Path, overwrite: bool) -> None:
    """Raise UserError if there is something at a path that is not to be replaced."""
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
            check_free(path, overwrite)
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
