"""What steps tell: waited for a few steps later, looked at for failures, and averaged between lines of metrics."""

import math
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from crefjax.training.records import Speed
from crefjax.training.step import joined

# Steps that may be under way at once: the host prepares the next while the device computes.
_AHEAD = 2


class Told(NamedTuple):
    """What the devices tell of a step, perhaps still to be computed."""

    step: int
    entries: tuple[str, ...]
    numbers: dict


class Hearing:
    """Hears what the steps of a run tell.

    Attributes:
        since: numbers of the steps since the last line of metrics.
        loss: of the last step that was heard and had one, the mean over its samples; NaN before.
        rate: patches a second up to the last line; 0 before.
        speed: from which that is.
    """

    def __init__(self, failures: Callable[[Told, dict], int], write: Callable[[int, dict, float], None], *, every: int):
        """Hear nothing yet.

        Args:
            failures: is given what a step told and its numbers as host arrays; tells how many samples were not trained
                on, and raises if there are too many.
            write: is given a step, the means of all numbers since the last line (of `left_out`, the samples that were
                not trained on, the sum), and patches a second.
            every: steps between two lines.
        """
        self._failures, self._write, self._every = failures, write, every
        self._pending: deque[Told] = deque()
        self.since: list[dict] = []
        self.loss, self.rate, self.speed = math.nan, 0.0, Speed()

    def add(self, told: Told) -> None:
        """Take what a step tells, and wait for a step before it."""
        self._pending.append(told)
        while len(self._pending) > _AHEAD:
            self._heed(self._pending.popleft())

    def all(self) -> None:
        """Wait for every step."""
        while self._pending:
            self._heed(self._pending.popleft())

    def _heed(self, told):
        numbers = joined(told.numbers)
        numbers["left_out"] = np.int64(self._failures(told, numbers))
        del numbers["finite"]
        self.since.append(numbers)
        losses = numbers["losses"]
        if np.isfinite(losses).any():
            self.loss = _mean([losses])
        self.speed.add(len(losses))
        if told.step % self._every == 0:
            self.rate = self.speed.take()
            means = {name: _mean([step[name] for step in self.since]) for name in numbers if name != "left_out"}
            # Checkpoints of earlier versions tell of none.
            means["left_out"] = int(sum(step.get("left_out", 0) for step in self.since))
            self._write(told.step, means, self.rate)
            self.since.clear()


def _mean(parts):
    """The mean of all that is finite; NaN where nothing is."""
    values = np.concatenate([np.ravel(part) for part in parts])
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else math.nan
