"""Metrics of a training run: fetched from the device a few steps late, checked to be finite, averaged, and written.

They are written to `metrics.jsonl` and TensorBoard events, and shown as a line or a progress bar on the terminal.
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
from crefjax.training.step import unshard
from crefjax.utils.atomic import write_bytes
from crefjax.utils.progress import progress_bar

METRICS = "metrics.jsonl"
# Steps that may run on the device at once: the host prepares the next while the device computes.
_AHEAD = 2
WINDOW = 20  # steps over which skipped samples are counted
MOST_SKIPPED = 0.1  # share of the samples of these steps; a run with more ends: three whole steps are enough


class MetricsWriter:
    """Writes every line of metrics to `metrics.jsonl` and to TensorBoard.

    Args:
        folder: Folder of the run.
        step: Step from which the run continues; lines of later steps, from before it was killed, are dropped.
        evaluated: Whether this step was evaluated when it was saved; if not, it will be evaluated again.
    """

    def __init__(self, folder: Path, step: int, *, evaluated: bool = True):
        from tensorboardX import SummaryWriter

        self.path = folder / METRICS
        rows = [row for row in read_json_lines(self.path) if row.get("step", math.inf) <= step]
        if not evaluated:
            rows = [row for row in rows if (row["kind"], row["step"]) != ("evaluation", step)]
        write_bytes(self.path, "".join(json.dumps(row) + "\n" for row in rows).encode())
        self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 - closed by `close`
        self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, kind: str, step: int, numbers: dict) -> None:
        """Write one line; values that are not finite numbers, such as those of every entry, go to the file alone.

        Args:
            kind: `training` or `evaluation`.
            step: Number of steps done.
            numbers: Values by name.
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
    """Samples per second since the last call of `take` or `restart`."""

    def __init__(self):
        self.restart()

    def restart(self) -> None:
        """Forget the count, as after an evaluation."""
        self._since, self._samples = time.monotonic(), 0

    def add(self, samples: int) -> None:
        """Count samples."""
        self._samples += samples

    def take(self) -> float:
        """Return the samples per second, and restart."""
        rate = self._samples / max(time.monotonic() - self._since, 1e-9)
        self.restart()
        return rate


def training_progress(initial: float):
    """Return a progress bar that starts at a share already done; see `progress_bar`."""
    return progress_bar("training", sys.stderr, initial=initial)


class StepMetrics(NamedTuple):
    """Numbers of a step, perhaps still to be computed, and the entries of its samples."""

    step: int
    entries: tuple[str, ...]
    numbers: dict


class MetricsBuffer:
    """Collects the metrics of steps, and writes a line of their means every few steps.

    Attributes:
        since: Numbers of the steps since the last line of metrics.
        loss: Mean loss over the samples of the last collected step that had a finite one; NaN before.
        samples_per_second: Throughput up to the last line; 0 before.
        throughput: Counter from which that is taken.
    """

    def __init__(
        self,
        count_skipped: Callable[[StepMetrics], int],
        write: Callable[[int, dict, float], None],
        *,
        every: int,
    ):
        """Create an empty buffer.

        Args:
            count_skipped: Receives the metrics of a step as host arrays; returns the number of samples that were
                skipped, and raises if there are too many.
            write: Receives a step, the means of all numbers since the last line (of `left_out`, the skipped samples,
                the sum), and samples per second.
            every: Steps between two lines.
        """
        self._count_skipped, self._write, self._every = count_skipped, write, every
        self._pending: deque[StepMetrics] = deque()
        self.since: list[dict] = []
        self.loss, self.samples_per_second, self.throughput = math.nan, 0.0, Throughput()

    def add(self, metrics: StepMetrics) -> None:
        """Take the metrics of a step, and wait for an earlier step."""
        self._pending.append(metrics)
        while len(self._pending) > _AHEAD:
            self._collect(self._pending.popleft())

    def flush(self) -> None:
        """Wait for every step."""
        while self._pending:
            self._collect(self._pending.popleft())

    def _collect(self, metrics):
        numbers = unshard(metrics.numbers)
        numbers["left_out"] = np.int64(self._count_skipped(metrics._replace(numbers=numbers)))
        del numbers["finite"]
        self.since.append(numbers)
        losses = numbers["losses"]
        if np.isfinite(losses).any():
            self.loss = _mean([losses])
        self.throughput.add(len(losses))
        if metrics.step % self._every == 0:
            self.samples_per_second = self.throughput.take()
            means = {name: _mean([step[name] for step in self.since]) for name in numbers if name != "left_out"}
            # Checkpoints of earlier versions lack it.
            means["left_out"] = int(sum(step.get("left_out", 0) for step in self.since))
            self._write(metrics.step, means, self.samples_per_second)
            self.since.clear()


def _mean(arrays):
    """Average all finite values; NaN if there are none."""
    values = np.concatenate([np.ravel(array) for array in arrays])
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else math.nan


class SkippedSamples:
    """Counts samples that were skipped because they were not finite, and ends a run that skips too many.

    Attributes:
        shares: Share of skipped samples in each of the last `WINDOW` steps, the oldest first.
    """

    def __init__(
        self,
        workdir: Path,
        checkpoint_steps: Callable[[], list[int]],
        say: Callable[[str], None],
        all_entries: Callable[[tuple[str, ...]], tuple[str, ...]] = lambda entries: entries,
    ):
        """Create an empty count.

        Args:
            workdir: Folder of the run, for the message.
            checkpoint_steps: Returns the steps that have a checkpoint.
            say: Receives a line for the user.
            all_entries: Returns the entries of a batch in all processes, given those in this one.
        """
        self._workdir, self._checkpoint_steps, self._say = workdir, checkpoint_steps, say
        self._all_entries = all_entries
        self.shares: deque[float] = deque(maxlen=WINDOW)

    def count(self, metrics: StepMetrics) -> int:
        """Return the number of skipped samples of a step, and warn with the names of their entries.

        Args:
            metrics: Metrics of a step as host arrays.

        Raises:
            UserError: They are more than `MOST_SKIPPED` of the last steps' samples; the message names the step, the
                entries, and the newest checkpoint.
        """
        finite = np.asarray(metrics.numbers["finite"], bool)
        updated = bool(np.isfinite(metrics.numbers["gradient_norm"]))
        skipped = ~finite if updated else np.ones_like(finite)
        self.shares.append(float(skipped.mean()))
        if not skipped.any():
            return 0
        metrics = metrics._replace(entries=self._all_entries(metrics.entries))
        failure = _describe_failure(metrics, finite, updated)
        if sum(self.shares) > MOST_SKIPPED * WINDOW:
            raise UserError(
                f"{self._workdir}: {failure}, and more than {MOST_SKIPPED:.0%} of the samples of the last {WINDOW} "
                f"steps could not be trained on; {self._newest_checkpoint()}; check these data, or start again in "
                "another folder with a lower schedule.rate or with optimizer.clip"
            )
        self._say(f"warning: {failure}; " + ("these samples are skipped" if updated else "this step changes nothing"))
        return int(skipped.sum())

    def _newest_checkpoint(self):
        steps = self._checkpoint_steps()
        return f"the checkpoint of step {steps[-1]} is whole" if steps else "there is no checkpoint yet"


def _describe_failure(metrics, finite, updated):
    """Name the metric that is not finite, its step, and its entries."""
    if updated or not finite.any():
        what, bad = "the input", ~finite
    elif (bad := ~np.isfinite(metrics.numbers["losses"])).any():
        what = "the loss"
    else:
        what, bad = "the gradient", finite
    names = sorted({name for name, is_bad in zip(metrics.entries, bad, strict=True) if is_bad})
    return f"{what} of step {metrics.step} is not finite, with data of {', '.join(names)}"
