"""Measures a few steps, held-out batches, and checkpoints of a run, as the training loop takes them, for a plan."""

import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from crefjax.training.checkpoints import CheckpointMetadata, Checkpoints
from crefjax.training.config import to_json
from crefjax.training.loop import TrainPlan
from crefjax.training.metrics import MetricsBuffer, MetricsWriter, StepMetrics
from crefjax.training.step import State, compile_step, evaluate, make_evaluation_step, make_train_step, shard
from crefjax.training.task import DataSource, Parameters, Task, close

LEAST_STEPS = 8


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
        seconds: Of one step.
        count: Number of steps over which that was measured.
        first_seconds: Reading the first batch, and tracing.
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
        compiling: What counts the time of compiling.
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
    analysis = compiled.memory_analysis()
    needed = 0
    if analysis is not None:
        needed = analysis.temp_size_in_bytes + analysis.argument_size_in_bytes + analysis.output_size_in_bytes
        needed -= analysis.alias_size_in_bytes
    return MeasuredSteps(each, count, max(0.0, first_seconds - each), needed, state.best_parameters)


class MeasuredEvaluation(NamedTuple):
    """Evaluations of a run.

    Attributes:
        seconds: Of one.
        first_seconds: What the first one takes longer, without compiling.
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
        compiling: What counts the time of compiling.
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
        seconds: Of one.
        export_seconds: Of weights and figure.
        first_seconds: What the first of them take longer.
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
        after_evaluation: Called with the folder, as after an evaluation.
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
            task.export(folder / "best", state.best_parameters, {"training": "a measurement", "step": step})
            after_evaluation(folder)
            saves.append(saved - begin)
            exports.append(time.monotonic() - saved)
        checkpoints.close()
        writer.close()
        size = sum(path.stat().st_size for path in (folder / "checkpoints" / "2").rglob("*") if path.is_file())
    first = max(0.0, saves[0] - saves[1]) + max(0.0, exports[0] - exports[1])
    return MeasuredSave(saves[1], exports[1], first, size)
