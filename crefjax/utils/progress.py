"""How far long work has come: a bar with the time left on a terminal, plain lines when piped."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

_SECONDS_BETWEEN_LINES = 10.0


class Show(Protocol):
    """What shows how far the work has come."""

    def __call__(self, share: float, note: str = "") -> None:
        """Show the share of the work that is done, 0 to 1, and a few words with it."""


@contextmanager
def progress_bar(what: str, stream=None, initial: float = 0.0) -> Iterator[Show]:
    """A function that shows how far the work has come.

    Args:
        what: is done, for the bar's label.
        stream: to show it on; standard error if None.
        initial: share that was done before, to which the time so far does not belong.
    """
    stream = stream or sys.stderr
    if stream.isatty():
        from tqdm import tqdm

        layout = "{desc} {percentage:3.0f}%|{bar}| {elapsed} so far, {remaining} left{postfix}"
        with tqdm(total=1.0, initial=initial, desc=what, bar_format=layout, file=stream) as bar:

            def show(share: float, note: str = "") -> None:
                if note:
                    bar.set_postfix_str(note, refresh=False)
                bar.update(share - bar.n)

            yield show
    else:
        yield _Lines(what, stream, initial)


class _Lines:
    """A line at most every ten seconds, so that a log stays short."""

    def __init__(self, what, stream, initial):
        self.what, self.stream, self.initial = what, stream, initial
        self.start = self.last = time.monotonic()

    def __call__(self, share, note=""):
        now = time.monotonic()
        if now - self.last < _SECONDS_BETWEEN_LINES or share <= self.initial:
            return
        self.last = now
        left = (now - self.start) * (1 - share) / (share - self.initial)
        more = f", {note}" if note else ""
        print(f"{self.what}: {share:.0%} done, about {left:.0f} s left{more}", file=self.stream, flush=True)
