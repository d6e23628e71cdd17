"""What can be known of a run before anything is written: who computes, how long, and by what optimizer."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import optax
from ml_collections import ConfigDict

from crefjax.errors import UserError
from crefjax.training.optimizer import make_optimizer, make_schedule
from crefjax.training.sources import Source
from crefjax.training.step import find_devices


class TrainPlan(NamedTuple):
    """How a run computes.

    Attributes:
        devices: that compute, all of one platform.
        epoch_steps: steps of an epoch.
        steps: of the whole run.
        schedule: the learning rate of a step.
        optimizer: of the parameters.
    """

    devices: list[jax.Device]
    epoch_steps: int
    steps: int
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation


def make_plan(config: ConfigDict, source: Source, *, say: Callable[[str], None]) -> TrainPlan:
    """The plan of a run; nothing is written.

    Args:
        config: of the run.
        source: of the batches.
        say: takes a line for the user, on devices that have no work.

    Raises:
        UserError: there are not so many devices, the batch does not divide among them, or there is nothing to do.
    """
    devices = find_devices(config.devices, config.platform, config.batch)
    if idle := len(jax.local_devices(backend=config.platform or None)) - len(devices):
        many = len(devices) + idle
        say(
            f"{len(devices)} of {many} devices share a batch of {config.batch}; one of "
            f"{-(-config.batch // many) * many} would have work for all"
        )
    epoch_steps, steps = lengths(config, source.size)
    schedule = make_schedule(config, epoch_steps=epoch_steps, steps=steps)
    return TrainPlan(devices, epoch_steps, steps, schedule, make_optimizer(config, schedule))


def lengths(config: ConfigDict, size: int | None) -> tuple[int, int]:
    """Steps of an epoch and of the whole run.

    Args:
        config: of the run.
        size: samples of an epoch; None for an endless source.

    Raises:
        UserError: an endless source without `epoch_steps`, or nothing to do.
    """
    epoch_steps = config.epoch_steps or (size // config.batch if size is not None else 0)
    if not epoch_steps:
        raise UserError("config: epoch_steps: this source is endless; give the number of steps of an epoch")
    steps = config.steps or config.epochs * epoch_steps
    if steps < 1:
        raise UserError("config: steps: expected at least one step, found neither steps nor epochs; give some")
    return epoch_steps, steps
