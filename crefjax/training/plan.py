"""What a run will take, before it is started: its length, memory, disk space, and time, from a short measured run."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from crefjax.errors import UserError
from crefjax.training.loop import make_plan
from crefjax.training.measure import CompileClock, measure_evaluation, measure_save, measure_steps
from crefjax.training.step import init_state, replicate
from crefjax.training.task import DataSource, Task

NETWORK_BYTES_PER_SECOND = 1.25e9  # between nodes: 10 Gbit/s


@dataclass(frozen=True)
class RunPlan:
    """What a run will take on the devices at hand.

    Attributes:
        samples: samples of an epoch; None for an endless source.
        held_out: held-out samples; None if unknown.
        batch: samples in a step.
        epoch_steps: steps of an epoch.
        steps: steps of the whole run.
        evaluations: number of evaluations.
        devices: number of devices.
        device_kind: name of a device.
        device_bytes: memory that a step needs on each device.
        checkpoint_bytes: size of a checkpoint.
        checkpoints: number of checkpoints that are kept.
        parameter_bytes: size of the parameters, which the devices exchange in every step.
        start_seconds: until the first step is asked for.
        first_seconds: what the first batch, step, evaluation, and checkpoint take longer than the others.
        compile_seconds: of compiling programs that are now kept on disk, which a run here does not spend again.
        step_seconds: of one step, while the next batches are prepared.
        measured_steps: steps over which that was measured.
        evaluation_seconds: of one evaluation.
        export_seconds: of the weights and the figure after an evaluation.
        save_seconds: of a checkpoint.
        save_steps: steps after which there is a checkpoint within an epoch; 0 for none.
        save_minutes: time after which there is one; 0 for none.
        limit_seconds: time after which the steps end in any case; 0 if there is no limit.
    """

    samples: int | None
    held_out: int | None
    batch: int
    epoch_steps: int
    steps: int
    evaluations: int
    devices: int
    device_kind: str
    device_bytes: int
    checkpoint_bytes: int
    checkpoints: int
    parameter_bytes: int
    start_seconds: float
    first_seconds: float
    compile_seconds: float
    step_seconds: float
    measured_steps: int
    evaluation_seconds: float
    export_seconds: float
    save_seconds: float
    save_steps: int
    save_minutes: float
    limit_seconds: float

    @property
    def seconds(self) -> float:
        """Time of the whole run, seconds."""
        return self._total(self.steps, self.step_seconds, self.evaluation_seconds)

    @property
    def is_limited(self) -> bool:
        """Whether the run ends before its last step."""
        return self.limit_seconds > 0 and self.seconds >= self.start_seconds + self.limit_seconds

    def _total(self, steps, step_seconds, evaluation_seconds):
        working = self.first_seconds + steps * step_seconds
        working += self.evaluations * (evaluation_seconds + self.export_seconds) + self.export_seconds
        working += self._count_saves(steps, step_seconds) * self.save_seconds
        return self.start_seconds + (min(working, self.limit_seconds) if self.limit_seconds else working)

    def _count_saves(self, steps, step_seconds):
        """Return the number of checkpoints: after every epoch, and as often within it as the config asks for."""
        epochs = max(self.evaluations, math.ceil(self.steps / self.epoch_steps))
        within = steps // self.save_steps if self.save_steps else 0
        if self.save_minutes:
            within += epochs * int(steps * step_seconds / epochs / (60 * self.save_minutes))
        return epochs + within

    def on_nodes(self, nodes: int, devices: int) -> "NodesPlan":
        """Return what the run would take on other machines whose devices are as fast as these.

        The time of a step is that of the samples of one device, plus that of exchanging the gradients at 10 Gbit/s if
        there are several nodes.

        Args:
            nodes: number of nodes.
            devices: devices of each.

        Raises:
            UserError: a number is below 1.
        """
        if nodes < 1 or devices < 1:
            raise UserError(f"`nodes`: expected at least one node with one device, found {nodes} with {devices}")
        count = nodes * devices
        batch = math.ceil(self.batch / count) * count
        here, there = self.batch / self.devices, batch / count
        exchange = 2 * self.parameter_bytes / NETWORK_BYTES_PER_SECOND if nodes > 1 else 0.0
        step = self.step_seconds * there / here + exchange
        steps = math.ceil(self.steps * self.batch / batch)
        seconds = self._total(steps, step, self.evaluation_seconds * self.devices / count)
        return NodesPlan(nodes, devices, batch, steps, step, seconds)


class NodesPlan(NamedTuple):
    """What a run would take on several nodes.

    Attributes:
        nodes: number of nodes.
        devices: devices of each.
        batch: samples in a step, the least multiple of the number of devices that is not below the config's.
        steps: steps of the whole run, for as many samples.
        step_seconds: of one step.
        seconds: of the whole run, at most the limit of the config.
    """

    nodes: int
    devices: int
    batch: int
    steps: int
    step_seconds: float
    seconds: float


def plan_run(
    config: ConfigDict,
    make_task: Callable[[ConfigDict], tuple[Task, DataSource]],
    *,
    seconds: float = 20.0,
    after_evaluation: Callable[[Path], None] = lambda folder: None,
    say: Callable[[str], None] = print,
    started: float | None = None,
) -> RunPlan:
    """Measure a few steps of a run, a part of an evaluation, and a checkpoint, and say what the whole will take.

    Nothing is written outside a temporary folder, which is removed, but the programs that JAX keeps.

    Args:
        config: config of the run.
        make_task: gives its task and source.
        seconds: for how long to take steps, of which those of the second half are measured.
        after_evaluation: what is called after every evaluation, as `loop.train` does.
        say: receives a line for the user.
        started: time by `time.monotonic` at which the start of the program began; None for now.

    Raises:
        UserError: as `make_task` and `loop.make_plan`; a step needs more memory than there is.
    """
    started = time.monotonic() if started is None else started
    with CompileClock() as compiling:
        task, source = make_task(config)
        plan = make_plan(config, source, say=say, task=task)
        parameters = task.init(jax.random.key(config.seed))
        state = init_state(parameters, plan.optimizer, average=config.average > 0)
        host_state = jax.tree.map(np.asarray, state)
        state = replicate(state, plan.devices)
        start_seconds = time.monotonic() - started - compiling.seconds
        steps = measure_steps(config, plan, task, source, state, seconds, compiling)
        evaluation = measure_evaluation(config, plan, task, source, steps.parameters, seconds, compiling)
        save = measure_save(config, task, host_state, after_evaluation)
    return RunPlan(
        samples=source.size,
        held_out=source.held_out_size if source.held_out is not None else 0,
        batch=config.batch,
        epoch_steps=plan.epoch_steps,
        steps=plan.steps,
        evaluations=count_evaluations(config, plan.epoch_steps, plan.steps) if source.held_out is not None else 0,
        devices=len(plan.devices),
        device_kind=plan.devices[0].device_kind,
        device_bytes=steps.device_bytes,
        checkpoint_bytes=save.bytes,
        checkpoints=config.checkpoint.keep + 1,
        parameter_bytes=sum(leaf.nbytes for leaf in jax.tree.leaves(host_state.parameters)),
        start_seconds=start_seconds,
        first_seconds=steps.first_seconds + evaluation.first_seconds + save.first_seconds,
        compile_seconds=compiling.seconds,
        step_seconds=steps.seconds,
        measured_steps=steps.count,
        evaluation_seconds=evaluation.seconds,
        export_seconds=save.export_seconds,
        save_seconds=save.seconds,
        save_steps=config.checkpoint.every_steps,
        save_minutes=config.checkpoint.every_minutes,
        limit_seconds=60 * config.minutes,
    )


def count_evaluations(config: ConfigDict, epoch_steps: int, steps: int) -> int:
    """Return the number of evaluations of a run: every few epochs, at the end, and of the weights to start from."""
    if not config.evaluation.every_epochs:
        return 0
    return math.ceil(steps / (config.evaluation.every_epochs * epoch_steps)) + bool(config.weights)
