"""Plan of a run before it is started: its length, memory, disk space, and time, from a short measured run."""

import math
import tempfile
import threading
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
from crefjax.training.metrics import MetricsBuffer, MetricsWriter, StepMetrics
from crefjax.training.step import (
    State,
    compile_step,
    evaluate,
    init_state,
    make_evaluation_step,
    make_train_step,
    replicate,
    shard,
)
from crefjax.training.task import DataSource, Parameters, Task, close

LEAST_STEPS = 8
NETWORK_BYTES_PER_SECOND = 1.25e9  # between nodes: 10 Gbit/s


class CompileClock:
    """Counts, within a `with`, the time of compiling the programs that JAX then keeps on disk.

    A later run reads them instead. What JAX does not keep, because its cache is off or has them already, is not
    counted.

    Attributes:
        seconds: The time so far.
    """

    def __init__(self):
        self.seconds, self._thread = 0.0, threading.local()

    def __enter__(self):
        jax.monitoring.register_event_listener(self._event)
        jax.monitoring.register_event_duration_secs_listener(self._duration)
        return self

    def __exit__(self, *error):
        jax.monitoring.unregister_event_listener(self._event)
        jax.monitoring.unregister_event_duration_listener(self._duration)

    def _event(self, name, **about):
        if name == "/jax/compilation_cache/cache_misses":  # sent when a program has been written
            self._thread.kept = True

    def _duration(self, name, seconds, **about):
        if name == "/jax/core/compile/backend_compile_duration":  # sent after that
            self.seconds += seconds if getattr(self._thread, "kept", False) else 0.0
            self._thread.kept = False


class MeasuredSteps(NamedTuple):
    """Steps of a run.

    Attributes:
        seconds: Time of one step.
        count: Number of steps over which that was measured.
        first_seconds: Time of reading the first batch, and of tracing.
        device_bytes: Memory that a step needs on each device.
        parameters: Replicated parameters to evaluate.
    """

    seconds: float
    count: int
    first_seconds: float
    device_bytes: int
    parameters: Parameters


def measure_steps(
    config: ConfigDict,
    plan: TrainPlan,
    task: Task,
    source: DataSource,
    state: State,
    seconds: float,
    compiling: CompileClock,
) -> MeasuredSteps:
    """Take steps as the loop does, which prepares the next batches while the device computes.

    The first half of the time is not counted: some batches were read while the step was compiled.

    Args:
        config: Config of the run.
        plan: Its plan.
        task: Its task.
        source: Its source.
        state: Replicated state; its buffers are donated.
        seconds: For how long, with at least `LEAST_STEPS` steps.
        compiling: Clock that counts the time of compiling.
    """
    step = make_train_step(task, plan.optimizer, decay=config.average, seed=config.seed, devices=plan.devices)
    begin, before = time.monotonic(), compiling.seconds
    batches = source.training()
    metrics = MetricsBuffer(lambda row: 0, lambda *line: None, every=config.log_every)
    try:
        compiled, taken = None, 0

        def take():
            """Take one step; the first is compiled before."""
            nonlocal compiled, state, taken
            samples = next(batches)
            batch = shard(samples.batch, plan.devices)
            if compiled is None:
                compiled = compile_step(step, state, batch, plan.devices, f"a step of {config.batch} samples")
            state, numbers = compiled(state, batch)
            taken += 1
            metrics.add(StepMetrics(taken, samples.entries, numbers))

        def take_for(limit):
            """Return the time and the number of steps."""
            start, first = time.monotonic(), taken
            while taken - first < LEAST_STEPS // 2 or time.monotonic() - start < limit:
                take()
            metrics.flush()
            return time.monotonic() - start, taken - first

        take()
        metrics.flush()
        first_seconds = time.monotonic() - begin - (compiling.seconds - before)
        take_for(seconds / 2)
        elapsed, count = take_for(seconds / 2)
    finally:
        close(batches)
    each = elapsed / count
    return MeasuredSteps(each, count, max(0.0, first_seconds - each), _step_bytes(compiled), state.evaluated_parameters)


def _step_bytes(compiled):
    """Return the memory that a compiled step needs on each device, 0 if it is unknown."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return 0
    needed = analysis.temp_size_in_bytes + analysis.argument_size_in_bytes + analysis.output_size_in_bytes
    return needed - analysis.alias_size_in_bytes


class MeasuredEvaluation(NamedTuple):
    """Evaluations of a run.

    Attributes:
        seconds: Time of one evaluation.
        first_seconds: Additional time of the first one, without compiling.
    """

    seconds: float = 0.0
    first_seconds: float = 0.0


def measure_evaluation(
    config: ConfigDict,
    plan: TrainPlan,
    task: Task,
    source: DataSource,
    parameters: Parameters,
    seconds: float,
    compiling: CompileClock,
) -> MeasuredEvaluation:
    """Measure an evaluation by some of its batches; by all if their number is not known.

    Args:
        config: Config of the run.
        plan: Its plan.
        task: Its task.
        source: Its source.
        parameters: Replicated parameters.
        seconds: For how long, about; two batches at least.
        compiling: Clock that counts the time of compiling.
    """
    if source.held_out is None:
        return MeasuredEvaluation()
    step, size = make_evaluation_step(task, plan.devices), source.held_out_size
    whole = None if size is None else -(-size // config.batch)

    def measure(enough):
        """Return the time until the first batch, that of each batch, and whether these are all."""
        begin, times = time.monotonic(), []

        def stopped():  # called with every batch, once it is read
            times.append(time.monotonic())
            return enough(len(times) - 1, times[-1] - begin)

        settings = {"batch": config.batch, "devices": plan.devices}
        finished = evaluate(step, parameters, source, stopped=stopped, **settings) is not None
        if finished:
            times.append(time.monotonic())
        return times[0] - begin, (times[-1] - times[0]) / max(1, len(times) - 1), len(times) - 1

    before = compiling.seconds
    first = measure(lambda batches, elapsed: batches == 1)
    first_each = first[1] - (compiling.seconds - before)
    start, each, count = measure(lambda batches, elapsed: whole is not None and batches >= 2 and elapsed > seconds / 2)
    return MeasuredEvaluation(start + each * (whole or count), max(0.0, first_each - each))


class MeasuredSave(NamedTuple):
    """Checkpoints of a run.

    Attributes:
        seconds: Time of one checkpoint.
        export_seconds: Time of writing weights and figure.
        first_seconds: Additional time of the first of them.
        bytes: Size of a checkpoint.
    """

    seconds: float
    export_seconds: float
    first_seconds: float
    bytes: int


def measure_save(
    config: ConfigDict, task: Task, state: State, after_evaluation: Callable[[Path], None]
) -> MeasuredSave:
    """Save checkpoints and weights in a temporary folder.

    Args:
        config: Config of the run.
        task: Its task.
        state: Host arrays.
        after_evaluation: Called with the folder, as `train` does after an evaluation.
    """
    with tempfile.TemporaryDirectory(prefix="crefjax-plan-") as name:
        folder = Path(name)
        writer = MetricsWriter(folder, 0)
        for step in (1, 2):
            writer.write("training", step, {"epoch": step / 2, "loss": 1.0, "rate": 1e-3, "seconds": 1.0})
            writer.write("evaluation", step, {"epoch": step / 2, "loss": 1.0, "samples": 1})
        checkpoints = Checkpoints(folder / "checkpoints", 1)
        saves, exports = [], []
        for step in (1, 2):  # the first one loads libraries
            begin = time.monotonic()
            checkpoints.save(step, state, CheckpointMetadata({}, {}, to_json(config)), 1.0)
            saved = time.monotonic()
            task.export(folder / "best", state.evaluated_parameters, {"training": "a measurement", "step": step})
            after_evaluation(folder)
            saves.append(saved - begin)
            exports.append(time.monotonic() - saved)
        checkpoints.close()
        writer.close()
        size = sum(path.stat().st_size for path in (folder / "checkpoints" / "2").rglob("*") if path.is_file())
    first = max(0.0, saves[0] - saves[1]) + max(0.0, exports[0] - exports[1])
    return MeasuredSave(saves[1], exports[1], first, size)


@dataclass(frozen=True)
class RunPlan:
    """Length, memory, disk space, and time of a run on the available devices.

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
        start_seconds: time until the first step is requested.
        first_seconds: additional time of the first batch, step, evaluation, and checkpoint.
        compile_seconds: time of compiling programs that are now kept on disk, which a run here does not spend again.
        step_seconds: time of one step, while the next batches are prepared.
        measured_steps: steps over which that was measured.
        evaluation_seconds: time of one evaluation.
        export_seconds: time of writing the weights and the figure after an evaluation.
        save_seconds: time of writing a checkpoint.
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
    """Length and time of a run on several nodes.

    Attributes:
        nodes: number of nodes.
        devices: number of devices of each.
        batch: samples in a step, the smallest multiple of the number of devices that is not below the config's.
        steps: steps of the whole run, for as many samples.
        step_seconds: time of one step.
        seconds: time of the whole run, at most the limit of the config.
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
        make_task: returns its task and source.
        seconds: for how long to take steps, of which those of the second half are measured.
        after_evaluation: called after every evaluation, as by `loop.train`.
        say: receives a line for the user.
        started: time by `time.monotonic` at which the start of the program began; None for now.

    Raises:
        UserError: as `make_task` and `loop.make_plan`; a step needs more memory than there is.
    """
    started = time.monotonic() if started is None else started
    with CompileClock() as compiling:
        task, source = make_task(config)
        plan = make_plan(config, source, say=say, task=task)
        state = init_state(task.init(jax.random.key(config.seed)), plan.optimizer, average=config.average > 0)
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
