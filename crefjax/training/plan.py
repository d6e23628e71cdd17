"""What a run will take, before it is started: its length, memory, disk space, and time, from a short measured run."""

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from crefjax.errors import UserError
from crefjax.training.checkpoints import CheckpointMetadata, Checkpoints
from crefjax.training.config import to_json
from crefjax.training.loop import TrainPlan, make_plan
from crefjax.training.metrics import MetricsWriter
from crefjax.training.step import (
    compile_step,
    evaluate,
    init_state,
    make_evaluation_step,
    make_train_step,
    replicate,
    shard,
)
from crefjax.training.task import DataSource, Task, close

_LEAST_STEPS = 4
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
        start_seconds: reading the data, and compiling.
        step_seconds: of one step.
        measured_steps: steps over which that was measured.
        evaluation_seconds: of one evaluation.
        save_seconds: of a checkpoint, weights, and a figure after an evaluation.
        limit_seconds: time after which the run ends in any case; 0 if there is no limit.
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
    step_seconds: float
    measured_steps: int
    evaluation_seconds: float
    save_seconds: float
    limit_seconds: float

    @property
    def seconds(self) -> float:
        """Time of the whole run, seconds."""
        return self._total(self.steps * self.step_seconds, self.evaluation_seconds)

    def _total(self, stepping, evaluation_seconds):
        saves = max(self.evaluations, math.ceil(self.steps / self.epoch_steps))
        working = stepping + self.evaluations * evaluation_seconds + saves * self.save_seconds
        return self.start_seconds + (min(working, self.limit_seconds) if self.limit_seconds else working)

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
        seconds = self._total(steps * step, self.evaluation_seconds * self.devices / count)
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

    Nothing is written outside a temporary folder, which is removed.

    Args:
        config: config of the run.
        make_task: gives its task and source.
        seconds: for how long to measure steps, at least four of them.
        after_evaluation: what is called after every evaluation, as `loop.train` does.
        say: receives a line for the user.
        started: time by `time.monotonic` at which the start of the program began; None for now.

    Raises:
        UserError: as `make_task` and `loop.make_plan`; a step needs more memory than there is.
    """
    started = time.monotonic() if started is None else started
    task, source = make_task(config)
    plan = make_plan(config, source, say=say, task=task)
    parameters = task.init(jax.random.key(config.seed))
    state = init_state(parameters, plan.optimizer, average=config.average > 0)
    host_state = jax.tree.map(np.asarray, state)
    measured = _measure_steps(config, plan, task, source, state, started, seconds)
    evaluation_seconds, compiling = _measure_evaluation(config, plan, task, source, measured.parameters, seconds)
    save_seconds, size = _measure_save(config, task, host_state, after_evaluation)
    return RunPlan(
        samples=source.size,
        held_out=source.held_out_size if source.held_out is not None else 0,
        batch=config.batch,
        epoch_steps=plan.epoch_steps,
        steps=plan.steps,
        evaluations=count_evaluations(config, plan.epoch_steps, plan.steps) if source.held_out is not None else 0,
        devices=len(plan.devices),
        device_kind=plan.devices[0].device_kind,
        device_bytes=measured.device_bytes,
        checkpoint_bytes=size,
        checkpoints=config.checkpoint.keep + 1,
        parameter_bytes=sum(leaf.nbytes for leaf in jax.tree.leaves(host_state.parameters)),
        start_seconds=measured.start_seconds + compiling,
        step_seconds=measured.step_seconds,
        measured_steps=measured.steps,
        evaluation_seconds=evaluation_seconds,
        save_seconds=save_seconds,
        limit_seconds=60 * config.minutes,
    )


def count_evaluations(config: ConfigDict, epoch_steps: int, steps: int) -> int:
    """Return the number of evaluations of a run: every few epochs, at the end, and of the weights to start from."""
    if not config.evaluation.every_epochs:
        return 0
    return math.ceil(steps / (config.evaluation.every_epochs * epoch_steps)) + bool(config.weights)


class _Measured(NamedTuple):
    step_seconds: float
    steps: int
    start_seconds: float
    device_bytes: int
    parameters: object


def _measure_steps(config, plan: TrainPlan, task, source, state, started, seconds):
    step = make_train_step(task, plan.optimizer, decay=config.average, seed=config.seed, devices=plan.devices)
    batches = source.training()
    try:
        state = replicate(state, plan.devices)
        batch = shard(next(batches).batch, plan.devices)
        compiled = compile_step(step, state, batch, plan.devices, f"a step of {config.batch} samples")
        state, numbers = compiled(state, batch)
        jax.block_until_ready(numbers)
        begin = time.monotonic()
        count = 0
        while count < _LEAST_STEPS or time.monotonic() - begin < seconds:
            state, numbers = compiled(state, shard(next(batches).batch, plan.devices))
            jax.block_until_ready(numbers)
            count += 1
        each = (time.monotonic() - begin) / count
    finally:
        close(batches)
    analysis = compiled.memory_analysis()
    needed = 0
    if analysis is not None:
        needed = analysis.temp_size_in_bytes + analysis.argument_size_in_bytes + analysis.output_size_in_bytes
        needed -= analysis.alias_size_in_bytes
    return _Measured(each, count, begin - started, needed, state.best_parameters)


def _measure_evaluation(config, plan, task, source, parameters, seconds):
    """Return the time of an evaluation, from some of its batches, and the time of compiling it.

    If the number of held-out samples is not known, the whole evaluation is measured.
    """
    if source.held_out is None:
        return 0.0, 0.0
    step = make_evaluation_step(task, plan.devices)

    def measure(enough):
        """Evaluate batches until `enough(batches, seconds)`; return their number and the seconds."""
        asked, begin = 0, time.monotonic()

        def stopped():
            nonlocal asked
            asked += 1
            return enough(asked - 1, time.monotonic() - begin)

        settings = {"batch": config.batch, "devices": plan.devices}
        finished = evaluate(step, parameters, source, stopped=stopped, **settings) is not None
        return asked if finished else asked - 1, time.monotonic() - begin

    _, first = measure(lambda batches, elapsed: batches == 1)
    size = source.held_out_size
    batches, elapsed = measure(lambda batches, elapsed: size is not None and batches >= 2 and elapsed > seconds / 2)
    each = elapsed / batches
    whole = elapsed if size is None else each * math.ceil(size / config.batch)
    return whole, max(0.0, first - each)


def _measure_save(config, task, state, after_evaluation):
    """Return the time of a checkpoint with weights and figure, and the size of the checkpoint, bytes."""
    with tempfile.TemporaryDirectory(prefix="crefjax-plan-") as name:
        folder = Path(name)
        writer = MetricsWriter(folder, 0)
        for step in (1, 2):
            writer.write("training", step, {"epoch": step / 2, "loss": 1.0, "rate": 1e-3, "seconds": 1.0})
            writer.write("evaluation", step, {"epoch": step / 2, "loss": 1.0, "samples": 1})
        checkpoints = Checkpoints(folder / "checkpoints", 1)
        times = []
        for step in (1, 2):  # the first one loads libraries
            begin = time.monotonic()
            checkpoints.save(step, state, CheckpointMetadata({}, {}, to_json(config)), 1.0)
            task.export(folder / "best", state.best_parameters, {"training": "a measurement", "step": step})
            after_evaluation(folder)
            times.append(time.monotonic() - begin)
        checkpoints.close()
        writer.close()
        size = sum(path.stat().st_size for path in (folder / "checkpoints" / "2").rglob("*") if path.is_file())
    return times[-1], size
