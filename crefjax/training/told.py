"""What a step tells, and whether it is finite."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from crefjax.errors import UserError


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
