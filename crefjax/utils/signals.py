"""Stopping a run from outside: by a signal, after which it saves, and never two runs in one folder."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from crefjax.errors import UserError

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequest:
    """Whether the run was asked to stop.

    Attributes:
        signal: by which; None if it was not.
    """

    signal: int | None = None

    def __bool__(self):
        return self.signal is not None


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Ctrl-C, SIGTERM and a lost terminal ask the run to stop; a second one ends it as it would have otherwise."""
    stop, before = StopRequest(), {}

    def ask(number, _):
        stop.signal = number
        for one, handler in before.items():
            signal.signal(one, handler)
        with suppress(OSError, ValueError, RuntimeError):
            name = signal.Signals(number).name
            print(
                f"crefjax: {name}: ending this step and saving; once more to stop at once", file=sys.stderr, flush=True
            )

    with suppress(ValueError):  # not in the main thread, where signals cannot be set
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                before[number] = signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Hold a folder against a second run in it; the lock ends with the process, however that ends.

    Raises:
        UserError: another run holds it.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    with open(folder / ".lock", "w", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{folder}: another run is at work there; wait for it, or give another --workdir"
            ) from error
        except OSError:  # a file system without locks
            pass
        yield
