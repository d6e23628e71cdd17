"""Metrics of a training run: fetched from the device a few steps late, averaged, and written.

`metrics.jsonl` and TensorBoard events on disk, and a line or a bar on the terminal.
"""

import json
import math
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from crefjax.errors import UserError
from crefjax.io.files import read_json_lines
from crefjax.training.step import joined
from crefjax.utils.progress import progress_bar

METRICS = "metrics.jsonl"


class MetricsWriter:
    """Writes every line of metrics to `metrics.jsonl` and to TensorBoard.

    Args:
        folder: of the run.
        step: from which it goes on; what was told of later steps, before it was killed, is dropped.
        evaluated: whether this step was evaluated when it was saved; else the evaluation will be told of again.
    """

    def __init__(self, folder: Path, step: int, *, evaluated: bool = True):
        from tensorboardX import SummaryWriter

        self.path = folder / METRICS
        rows = [row for row in read_json_lines(self.path) if row.get("step", math.inf) <= step]
        if not evaluated:
            rows = [row for row in rows if (row["kind"], row["step"]) != ("evaluation", step)]
        hidden = self.path.with_suffix(".tmp")
        with open(hidden, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        hidden.replace(self.path)
        self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 - closed by `close`
        self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, kind: str, step: int, numbers: dict) -> None:
        """Write one line; numbers that are not plain or not finite, such as those of every entry, go to the file alone.

        Args:
            kind: `training` or `evaluation`.
            step: steps done.
            numbers: by name.
        """
        self._file.write(json.dumps({"kind": kind, "step": step, **numbers}) + "\n")
        self._file.flush()
        for name, value in numbers.items():
            if isinstance(value, (int, float)) and math.isfinite(value):
                self._events.add_scalar(f"{kind}/{name}", value, step)
        self._events.flush()

    def close(self) -> None:
        """Close both files."""
        with suppress(OSError):
            self._file.close()
        self._events.close()


class Throughput:
    """Patches a second, over the time since it was last asked."""

    def __init__(self):
        self.restart()

    def restart(self) -> None:
        """Forget what was counted, as after an evaluation."""
        self._since, self._samples = time.monotonic(), 0

    def add(self, samples: int) -> None:
        """Count samples."""
        self._samples += samples

    def take(self) -> float:
        """The rate, and count anew."""
        rate = self._samples / max(time.monotonic() - self._since, 1e-9)
        self.restart()
        return rate


def training_progress(initial: float):
    """A bar with loss, patches a second and time left, from a share that is done already; see `progress_bar`."""
    return progress_bar("training", sys.stderr, initial=initial)


# Steps that may be under way at once: the host prepares the next while the device computes.
_AHEAD = 2


class StepMetrics(NamedTuple):
    """What the devices tell of a step, perhaps still to be computed."""

    step: int
    entries: tuple[str, ...]
    numbers: dict


class MetricsBuffer:
    """Hears what the steps of a run tell.

    Attributes:
        since: numbers of the steps since the last line of metrics.
        loss: of the last step that was heard and had one, the mean over its samples; NaN before.
        rate: patches a second up to the last line; 0 before.
        speed: from which that is.
    """

    def __init__(
        self, failures: Callable[[StepMetrics, dict], int], write: Callable[[int, dict, float], None], *, every: int
    ):
        """Hear nothing yet.

        Args:
            failures: is given what a step told and its numbers as host arrays; tells how many samples were not trained
                on, and raises if there are too many.
            write: is given a step, the means of all numbers since the last line (of `left_out`, the samples that were
                not trained on, the sum), and patches a second.
            every: steps between two lines.
        """
        self._failures, self._write, self._every = failures, write, every
        self._pending: deque[StepMetrics] = deque()
        self.since: list[dict] = []
        self.loss, self.rate, self.speed = math.nan, 0.0, Throughput()

    def add(self, told: StepMetrics) -> None:
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


WINDOW = 20  # steps over which failures are counted
MOST = 0.1  # share of the samples of so many steps; with more a run ends: three steps in a row are enough


class Failures:
    """The samples that the last steps did not train on.

    Attributes:
        shares: of the samples of each of the last `WINDOW` steps, the oldest first.
    """

    def __init__(self, workdir: Path, saved: Callable[[], list[int]], say: Callable[[str], None]):
        """None so far.

        Args:
            workdir: of the run, for the message.
            saved: gives the steps that there are checkpoints of.
            say: takes a line for the user.
        """
        self._workdir, self._saved, self._say = workdir, saved, say
        self.shares: deque[float] = deque(maxlen=WINDOW)

    def count(self, told: StepMetrics, numbers: dict) -> int:
        """How many samples of a step were not trained on, with a warning that names them.

        Args:
            told: which step, and the entries of its samples.
            numbers: as `step.make_train_step` gives them, as host arrays.

        Raises:
            UserError: there are more than `MOST` of the last steps; it names step, entries and the newest checkpoint.
        """
        finite, updated = np.asarray(numbers["finite"], bool), bool(np.isfinite(numbers["gradient_norm"]))
        left_out = ~finite if updated else np.ones_like(finite)
        self.shares.append(float(left_out.mean()))
        if not left_out.any():
            return 0
        what = _describe(told, numbers["losses"], finite, updated)
        if sum(self.shares) > MOST * WINDOW:
            raise UserError(
                f"{self._workdir}: {what}, and more than {MOST:.0%} of the samples of the last {WINDOW} steps could "
                f"not be trained on; {self._left()}; check these data, or go on in another --workdir with a lower "
                "schedule.rate or with optimizer.clip"
            )
        self._say(f"warning: {what}; " + ("these samples are left out" if updated else "this step changes nothing"))
        return int(left_out.sum())

    def _left(self):
        steps = self._saved()
        return f"the checkpoint of step {steps[-1]} is whole" if steps else "there is no checkpoint yet"


def _describe(told, losses, finite, updated):
    """What is not finite, of which step and entries."""
    if updated or not finite.any():
        what, bad = "the input", ~finite
    elif (bad := ~np.isfinite(losses)).any():
        what = "the loss"
    else:
        what, bad = "the gradient", finite
    names = sorted({name for name, is_bad in zip(told.entries, bad, strict=True) if is_bad})
    return f"{what} of step {told.step} is not finite, with data of {', '.join(names)}"
