"""The folder of a dataset while it is written: begun with some settings, by one process at a time."""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from crefjax.data import manifest as layout
from crefjax.data.prepare_entry import Source
from crefjax.io.files import complaint
from crefjax.version import __version__


@contextmanager
def begun(output: Path, settings: dict, sources: Sequence[Source], *, overwrite: bool) -> Iterator[None]:
    """The dataset's folder, begun with these settings and entries, and no other process at it.

    If the body of the `with` raises before any entry was finished, what was begun is taken away.

    Args:
        output: the folder.
        settings: that a dataset can be gone on with only if they are the same.
        sources: its entries.
        overwrite: whether a dataset that is there is taken away first.

    Raises:
        UserError: the folder is no dataset, or one begun with other settings or entries, or another process is at it;
            an entry lies in it; the disk refuses.
    """
    if not output.absolute().parent.is_dir():
        raise complaint(output, f"the folder {output.absolute().parent} does not exist; make it first")
    wanted = {
        "format": layout.FORMAT,
        "dataset_version": layout.DATASET_VERSION,
        "crefjax": __version__,
        **settings,
        "entries": [str(source.folder) for source in sources],
    }
    _check_folder(output, wanted, sources, overwrite)
    created = not output.exists()
    try:
        output.mkdir(exist_ok=True)
        with _locked(output):
            try:
                _begin(output, wanted, overwrite)
                yield
            except BaseException:
                _remove_if_empty(output, created)
                raise
    except OSError as error:
        raise complaint(output, f"the dataset cannot be written ({error.strerror or error}); check the disk") from error


def _check_folder(output, wanted, sources, overwrite):
    for source in sources:
        if output.absolute() in (source.folder, *source.folder.parents):
            raise complaint(output, f"the entry {source.folder} lies in the folder to be written; choose another one")
    if not os.path.lexists(output):
        return
    if not output.is_dir() or (overwrite and output.is_symlink()):
        raise complaint(output, "expected a folder to write the dataset to, found something else; choose another name")
    if not (output / layout.BEGUN).is_file():
        if any(not name.startswith(".crefjax-") for name in os.listdir(output)):
            text = f"the folder has files and no {layout.BEGUN}, so it is no dataset; choose another name"
            raise complaint(output, text)
        return
    found = layout.read_json(output / layout.BEGUN)
    if overwrite:
        if found.get("format") != layout.FORMAT:
            raise complaint(output, "expected a dataset to replace, found another folder; choose another name")
        return
    layout.check_version(output / layout.BEGUN, found)
    found.setdefault("grid", 0.0)  # datasets of earlier versions have no such setting
    for name, value in wanted.items():
        if found.get(name) != value:
            raise complaint(output, f"{_difference(name, found.get(name), value)}, or choose another folder")


def _difference(name, there, asked):
    if name == "entries":
        there, asked = set(there or ()), set(asked)
        found = [f"{path} is new" for path in sorted(asked - there)]
        found += [f"{path} is missing" for path in sorted(there - asked)]
        more = f", and {len(found) - 2} more" if len(found) > 2 else ""
        found = ", ".join(found[:2]) + more
        return f"the dataset was begun with other entries ({found}); give the same ones, give --overwrite"
    if name == "grid":  # as the command line names it
        there, asked = ("data" if voxels else "input" for voxels in (there, asked))
    what = "crefjax" if name == "crefjax" else f"--{name}"
    return f"the dataset was begun with {what} {there}, not {asked}; ask for the same, give --overwrite"


@contextmanager
def _locked(folder):
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise complaint(folder, "another crefjax prepare is writing this dataset; wait for its end") from error
        except OSError:  # some network file systems know no locks
            pass
        yield
    finally:
        os.close(descriptor)


def _begin(output, wanted, overwrite):
    if overwrite:
        _remove(output)
    for left in output.glob(".crefjax-*.tmp"):  # of a run that was killed
        for _ in range(10):  # workers of that run may be about to end
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink()
            if not left.exists():
                break
            time.sleep(0.1)
    if not (output / layout.BEGUN).exists():
        layout.write_json(output / layout.BEGUN, wanted)
    (output / layout.ENTRIES).mkdir(exist_ok=True)


def _remove(output):
    """Take away what a dataset is made of and nothing else; what makes it one goes last."""
    (output / layout.MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(output / layout.ENTRIES, ignore_errors=True)
    (output / layout.BEGUN).unlink(missing_ok=True)


def _remove_if_empty(output, created):
    """Take away what was begun and came to nothing, so that a mended command is not refused for another one's sake."""
    with suppress(OSError):
        if not any((output / layout.ENTRIES).iterdir()):
            _remove(output)
            if created:
                output.rmdir()
