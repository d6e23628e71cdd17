"""Progress of long work: a bar with the remaining time on a terminal, plain lines when piped."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

_SECONDS_BETWEEN_LINES = 10.0
_silent = False


class ProgressCallback(Protocol):
    """Function that displays progress."""

    def __call__(self, share: float, note: str = "") -> None:
        """Display the completed share of the work, 0 to 1, and a short note."""


@contextmanager
def without_progress() -> Iterator[None]:
    """Display no progress within the `with`."""
    global _silent
    before, _silent = _silent, True
    try:
        yield
    finally:
        _silent = before


@contextmanager
def progress_bar(label: str, stream=None, initial: float = 0.0) -> Iterator[ProgressCallback]:
    """Open a progress display and yield the function that updates it.

    Args:
        label: name of the work.
        stream: stream to display on; standard error if None.
        initial: share that was completed before; the elapsed time does not count for it.
    """
    stream = stream or sys.stderr
    if _silent:
        yield lambda share, note="": None
    elif stream.isatty():
        from tqdm import tqdm

        layout = "{desc} {percentage:3.0f}%|{bar}| {elapsed} so far, {remaining} left{postfix}"
        with tqdm(total=1.0, initial=initial, desc=label, bar_format=layout, file=stream) as bar:

            def show(share: float, note: str = "") -> None:
                if note:
                    bar.set_postfix_str(note, refresh=False)
                bar.update(share - bar.n)

            yield show
    else:
        yield _Lines(label, stream, initial)


class _Lines:
    """Progress as at most one line every ten seconds, so that a log stays short."""

    def __init__(self, label, stream, initial):
        self.label, self.stream, self.initial = label, stream, initial
        self.start = self.last = time.monotonic()

    def __call__(self, share, note=""):
        now = time.monotonic()
        if now - self.last < _SECONDS_BETWEEN_LINES or share <= self.initial:
            return
        self.last = now
        left = (now - self.start) * (1 - share) / (share - self.initial)
        suffix = f", {note}" if note else ""
        print(f"{self.label}: {share:.0%} done, about {left:.0f} s left{suffix}", file=self.stream, flush=True)
