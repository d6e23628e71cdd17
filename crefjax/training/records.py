"""Logging of a run: `metrics.jsonl`, TensorBoard events, and a progress bar."""

import json
import math
import sys
import time
from contextlib import suppress
from pathlib import Path

from crefjax.io.json_lines import read_json_lines
from crefjax.progress import progress_bar

METRICS = "metrics.jsonl"


class Records:
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


class Speed:
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
