"""Files and folders that are written under a temporary, hidden name and renamed once they are complete.

However the work ends before that, the temporary ones are removed: after an exception by leaving the `with`, after a
signal by `end_writing`.
"""

import bz2
import errno
import gzip
import json
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from crefjax.errors import UserError, path_error
from crefjax.utils.memory import size_text

_temporary: set[Path] = set()
_creating = threading.RLock()  # held while a hidden file or folder is made
_ended = False  # whether `end_writing` was called
_LONGEST_WAIT = 10  # seconds that `end_writing` waits for a file system that hangs


def is_disk_full(error: OSError) -> bool:
    """Return whether an error means a full disk, an exhausted quota, or a file of the largest allowed size."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def temporary_sibling(path: Path) -> Iterator[Path]:
    """Yield a hidden, unused path in the folder of `path`; a file or folder at it is removed after the `with`."""
    hidden = path.absolute().with_name(f".crefjax-{secrets.token_hex(8)}.tmp")
    _temporary.add(hidden)
    try:
        yield hidden
    finally:
        remove(hidden)
        _temporary.discard(hidden)


@contextmanager
def atomic_directory(folder: Path) -> Iterator[Path]:
    """Yield a new hidden folder, which replaces `folder` once the body of the `with` has finished.

    A UserError about a file in the hidden folder names the final place instead.

    Raises:
        OSError: the file system refused; `folder` is as it was.
    """
    with temporary_sibling(folder) as hidden:
        with _new():
            hidden.mkdir()
        try:
            yield hidden
        except UserError as error:
            if error.path is None or not Path(error.path).is_relative_to(hidden):
                raise
            text = error.text.replace(str(hidden), str(folder))  # it may name the folder again
            raise path_error(folder / Path(error.path).relative_to(hidden), text) from error
        # Not among the temporary ones: if the program is killed now, the old folder is still there.
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


def remove_temporary() -> None:
    """Remove every temporary file and folder; for a program that is about to end."""
    for path in list(_temporary):
        remove(path)


def end_writing() -> None:
    """Remove every temporary file and folder, and let no thread make another; the program must end now."""
    global _ended
    is_held = _creating.acquire(timeout=_LONGEST_WAIT)
    _ended = True
    remove_temporary()
    if is_held:
        _creating.release()


@contextmanager
def _new() -> Iterator[None]:
    """Make a hidden file or folder in the `with`; after `end_writing` it would be left behind, so the thread ends."""
    with _creating:
        if _ended:
            raise SystemExit
        yield


def remove(path: Path) -> None:
    """Remove a file, or a folder with its contents, as far as possible."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            os.unlink(path)


def check_free(path: Path, overwrite: bool) -> None:
    """Raise UserError if something is at a path and may not be overwritten."""
    if _exists(path) and not overwrite:
        raise path_error(path, "the file exists and is not replaced; choose another name or give `overwrite`")


def _exists(path: Path) -> bool:
    try:
        os.lstat(path)  # a dangling link counts too
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise path_error(path, f"cannot be written ({error.strerror}); choose another name") from error
    return True


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, complete or not at all; an existing one is replaced.

    Raises:
        UserError: the file system refused.
    """
    with atomic_write(path, needed=len(content), overwrite=True, compress=False) as stream:
        stream.write(content)


def write_json(path: Path, content: dict, *, indent: int = 1) -> None:
    """Write a JSON file, complete or not at all; an existing one is replaced.

    Raises:
        UserError: the file system refused.
        ValueError: a number is NaN or infinite.
    """
    write_bytes(path, (json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False) + "\n").encode())


@contextmanager
def atomic_write(path: Path, *, needed: int, overwrite: bool, compress: bool = True) -> Iterator[BinaryIO]:
    """Yield a stream to a hidden file, which is renamed to `path` once the body of the `with` has finished.

    Arguments and errors are those of `atomic_write_all` and of the function that it yields.
    """
    with atomic_write_all(overwrite=overwrite, compress=compress) as stage, stage(path, needed) as stream:
        yield stream


@contextmanager
def atomic_write_all(
    *, overwrite: bool, compress: bool = True
) -> Iterator[Callable[[Path, int], AbstractContextManager[BinaryIO]]]:
    """Let several files appear together once the body of the `with` has finished, or not at all.

    Yields a function of a final path and of the number of bytes that will be written there (before compression, for
    the message about a full disk), which opens a stream to a hidden file beside that path. After a failure the
    hidden files are removed, and the final paths are as they were. New files have the permissions of the umask.

    Args:
        overwrite: whether existing files are replaced.
        compress: whether to compress as the suffix says; False if the content is compressed already.

    Raises:
        UserError: the file system refused, or a file appeared at a final path in the meantime.
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
    """Yield a new file, which is on the disk after the `with`."""
    # Not tempfile: its mode 0600 would survive the renaming.
    with _new():
        descriptor = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    with open(descriptor, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _compressing(file: BinaryIO, suffix: str) -> Iterator[BinaryIO]:
    if suffix == ".gz":
        # Without name and time, so that the same map gives the same bytes.
        with gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=6, mtime=0) as stream:
            yield stream
    elif suffix == ".bz2":
        with bz2.BZ2File(file, "wb") as stream:
            yield stream
    else:
        yield file


def _write_failure(path: Path, needed: int, error: OSError) -> UserError:
    if not is_disk_full(error):
        return path_error(
            path, f"cannot be written ({error.strerror or error}), nothing was left behind; check the disk"
        )
    free = "unknown"
    with suppress(OSError):
        free = size_text(shutil.disk_usage(path.parent).free)
    return path_error(
        path,
        f"no space left ({error.strerror}): up to {size_text(needed)} needed, {free} free in "
        f"{path.parent}; make room or choose another folder",
    )


def _sync_folder(folder: Path) -> None:
    # So that the new name survives a power cut. Some network file systems cannot; the file is complete anyway.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
