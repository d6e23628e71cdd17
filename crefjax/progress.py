"""How far long work has come: a bar with the time left on a terminal, plain lines when piped."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def progress_bar(what: str, stream=None) -> Iterator[Callable[[float], None]]:
    """A function that takes the share of the work that is done, 0 to 1, and shows it.

    Args:
        what: is done, for the bar's label.
        stream: to show it on; standard error if None.
    """
    stream = stream or sys.stderr
    if stream.isatty():
        from tqdm import tqdm

        layout = "{desc} {percentage:3.0f}%|{bar}| {elapsed} so far, {remaining} left"
        with tqdm(total=1.0, desc=what, bar_format=layout, file=stream) as bar:
            yield lambda share: bar.update(share - bar.n)
    else:
        yield _Lines(what, stream)


class _Lines:
    """A line at most every ten seconds, so that a log stays short."""

    def __init__(self, what, stream):
        self.what, self.stream = what, stream
        self.start = self.last = time.monotonic()

    def __call__(self, share):
        now = time.monotonic()
        if now - self.last < _SECONDS_BETWEEN_LINES or share <= 0:
            return
        self.last = now
        left = (now - self.start) * (1 - share) / share
        print(f"{self.what}: {share:.0%} done, about {left:.0f} s left", file=self.stream, flush=True)
