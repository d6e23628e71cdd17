"""Ends a command at any of the calls by which it changes the disk, in the process of the test.

After the end nothing more is changed, as though the process had been killed: whatever would still clean up is refused.
"""

import errno
import os
import signal
import sys
from contextlib import contextmanager
from unittest import mock

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate")
ENDINGS = ("killed", "terminated", "full")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class EndedError(BaseException):
    """The process is no more; its argument is its exit status, if it was not killed."""


class Disk:
    """An audit hook that counts the changes below a folder and ends the process at one of them."""

    def __init__(self):
        self.folder = None
        self.begin(None, None, None)

    def begin(self, folder, at, ending):
        """Count anew below a folder."""
        self.folder, self.at, self.ending = folder, at, ending
        self.count, self.ended, self.status = 0, False, ()

    def __call__(self, event, arguments):
        if self.folder is None or not (event in CHANGES or event == "open"):
            return
        if event == "open" and (not isinstance(arguments[2], int) or not arguments[2] & _WRITES):
            return
        if isinstance(arguments[0], (str, bytes, os.PathLike)) and self._is_below(arguments):
            self.change(removes=event in ("os.remove", "os.rmdir"))

    def _is_below(self, arguments):
        path = os.fsdecode(arguments[0])
        if os.path.isabs(path) or not any(isinstance(argument, int) and argument >= 0 for argument in arguments[1:2]):
            return os.path.abspath(path).startswith(self.folder)
        return True  # relative to an open folder, as shutil.rmtree goes through one

    def change(self, *, removes=False):
        """What is about to change the disk."""
        if self.ended:
            raise EndedError(*self.status)
        self.count += 1
        if self.at is None or self.count < self.at:
            return
        if self.ending == "killed":
            self.ended = True
            raise EndedError
        if self.ending == "terminated" and self.count == self.at:
            os.kill(os.getpid(), signal.SIGTERM)
        if self.ending == "full" and not removes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def exit(self, status):
        """In place of `os._exit`."""
        self.ended, self.status = True, (status,)
        raise EndedError(status)


_disk = Disk()
sys.addaudithook(_disk)  # stays as long as the process, at rest but for the time of a `with`


@contextmanager
def interrupted(folder, at=None, ending=None):
    """Ends what is done in the `with` at change number `at` below the folder; gives what counts the changes."""
    sync = os.fsync

    def fsync(descriptor):
        _disk.change()
        sync(descriptor)

    _disk.begin(f"{folder}{os.sep}", at, ending)
    # What a signal ends stays ended in the library, but not for the next test in this process.
    with (
        mock.patch("os.fsync", fsync),
        mock.patch("os._exit", _disk.exit),
        mock.patch("crefjax.utils.atomic._ended", False),
    ):
        try:
            yield _disk
        finally:
            _disk.folder = None
