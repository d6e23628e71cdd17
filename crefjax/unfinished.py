"""Files and folders that are written under a hidden name and renamed into place once they are whole.

Whatever ends the work before that, the hidden ones are removed: an exception by leaving the `with`, a signal by
`remove_all`.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

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
