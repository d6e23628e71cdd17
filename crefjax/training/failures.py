"""Samples that were not trained on because something was not finite: named, counted, and the end of a run if many."""

from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np

from crefjax.errors import UserError
from crefjax.training.metrics import StepMetrics

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
