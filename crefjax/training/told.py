"""What steps tell: waited for a few steps later, checked to be finite, and averaged between lines of metrics."""

import math
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from crefjax.errors import UserError
from crefjax.training.records import Speed
from crefjax.training.step import joined

# Steps that may be under way at once: the host prepares the next while the device computes.
_AHEAD = 2


class Told(NamedTuple):
    """What the devices tell of a step, perhaps still to be computed."""

    step: int
    entries: tuple[str, ...]
    numbers: dict


def check_finite(
    told: Told, losses: np.ndarray, gradient_norm: float, workdir: Path, saved: Callable[[], list[int]]
) -> None:
    """Stop a run at the first loss or gradient that is not finite.

    Args:
        told: which step, and the entries of its samples.
        losses: of every sample.
        gradient_norm: of the whole gradient.
        workdir: of the run, for the message.
        saved: gives the steps that there are checkpoints of.

    Raises:
        UserError: naming step, entries and the newest checkpoint.
    """
    if np.isfinite(losses).all() and np.isfinite(gradient_norm):
        return
    bad = [name for name, loss in zip(told.entries, losses, strict=True) if not np.isfinite(loss)]
    what = "the loss" if bad else "the gradient"
    names = ", ".join(sorted(set(bad or told.entries)))
    steps = saved()
    left = f"the checkpoint of step {steps[-1]} is whole" if steps else "there is no checkpoint yet"
    raise UserError(
        f"{workdir}: {what} of step {told.step} is not finite, with data of {names}; {left}; check these data, or go "
        "on in another --workdir with a lower schedule.rate or with optimizer.clip"
    )


class Hearing:
    """Hears what the steps of a run tell.

    Attributes:
        since: numbers of the steps since the last line of metrics.
        loss: of the last step that was heard, the mean over its samples; NaN before.
        rate: patches a second up to the last line; 0 before.
        speed: from which that is.
    """

    def __init__(self, check: Callable[[Told, dict], None], write: Callable[[int, dict, float], None], *, every: int):
        """Hear nothing yet.

        Args:
            check: is given what a step told and its numbers as host arrays, and raises if they are not finite.
            write: is given a step, the means of all numbers since the last line, and patches a second.
            every: steps between two lines.
        """
        self._check, self._write, self._every = check, write, every
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
        self._check(told, numbers)
        self.since.append(numbers)
        losses = numbers["losses"]
        self.loss = float(losses.mean())
        self.speed.add(len(losses))
        if told.step % self._every == 0:
            self.rate = self.speed.take()
            self._write(
                told.step, {name: float(np.mean([one[name] for one in self.since])) for name in numbers}, self.rate
            )
            self.since.clear()
