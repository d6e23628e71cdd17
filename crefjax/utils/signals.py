"""Signal handlers that are restored afterwards, and a lock that keeps two runs from using one folder."""

import fcntl
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from crefjax.errors import path_error
from crefjax.utils.atomic import end_writing

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, the end of a job, a lost terminal


@contextmanager
def handle_signals(
    handler: Callable[[int], None], signals: Sequence[int] = SIGNALS, *, once: bool = False
) -> Iterator[None]:
    """Call a function on signals within the `with`; afterwards the previous handlers are restored.

    Signals that are ignored, as under nohup, stay ignored. Outside the main thread, where Python cannot set handlers,
    there is no effect.

    Args:
        handler: called with the signal's number.
        signals: numbers of the signals.
        once: whether the previous handlers are restored at the first signal, before `handler` is called.
    """
    previous = {}

    def restore():
        for number, handler_before in previous.items():
            signal.signal(number, handler_before)

    def handle(number, _):
        if once:
            restore()
        handler(number)

    with suppress(ValueError):  # not in the main thread
        for number in signals:
            if signal.getsignal(number) is not signal.SIG_IGN:
                previous[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        restore()


def exit_on_signals(note: str = "no unfinished file was left"):
    """Return a `with` in which signals end the program, with its temporary files removed and one line printed.

    Not by an exception: one that is raised during garbage collection, which JAX hooks into, is lost. A signal that
    arrives during a call into XLA takes effect after it.

    Args:
        note: end of that line.
    """

    def leave(number):
        end_writing()
        _print_line(f"interrupted ({signal.Signals(number).name}); {note}")
        os._exit(128 + number)

    return handle_signals(leave)


class StopRequest:
    """Request from outside that a run stop; true once there has been one.

    Attributes:
        signal: number of the signal that asked for it; None before.
    """

    signal: int | None = None

    def __bool__(self):
        return self.signal is not None


@contextmanager
def stop_on_signals(*, announce: bool = True) -> Iterator[StopRequest]:
    """Turn the first signal into a request to stop; a second one ends the run as it would without this.

    Args:
        announce: whether to print a line at the first signal.
    """
    stop = StopRequest()

    def ask(number):
        stop.signal = number
        if announce:
            _print_line(f"{signal.Signals(number).name}: finishing this step and saving; send again to stop at once")

    with handle_signals(ask, once=True):
        yield stop


def _print_line(text):
    with suppress(OSError, ValueError, RuntimeError):  # the stream may be closed, or being written to
        print(f"crefjax: {text}", file=sys.stderr, flush=True)


@contextmanager
def exclusive_lock(path: Path, text: str, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock against other processes; it ends with the process, however that ends.

    Args:
        path: a folder, or a file, which is created; on a network file system only files can be locked.
        text: for the message, if another process holds the lock.
        shared: whether other processes may hold a shared lock at the same time.

    Raises:
        UserError: another process holds it.
    """
    is_folder = path.is_dir()
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise path_error(path if is_folder else path.parent, text) from error
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        with suppress(OSError):  # for a child process that was forked meanwhile, and has a copy of the descriptor
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)
