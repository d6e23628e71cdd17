"""The training loop: steps, evaluations, and checkpoints, until the last step or a request to stop."""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from crefjax.errors import UserError
from crefjax.training.checkpoints import CheckpointMetadata, Checkpoints
from crefjax.training.config import check_resumable, to_json
from crefjax.training.metrics import MetricsBuffer, MetricsWriter, SkippedSamples, StepMetrics, training_progress
from crefjax.training.optimizer import make_optimizer, make_schedule
from crefjax.training.processes import ShareOfBatches, current, gather
from crefjax.training.step import (
    Agreement,
    compile_step,
    evaluate,
    find_devices,
    init_state,
    make_evaluation_step,
    make_train_step,
    replicate,
    shard,
    unreplicate,
)
from crefjax.training.task import DataSource, NamedBatch, Task, close
from crefjax.utils import atomic
from crefjax.utils.atomic import is_disk_full, write_json
from crefjax.utils.signals import StopRequest, exclusive_lock, stop_on_signals

BEST, LAST = "best", "last"


class Result(NamedTuple):
    """Outcome of a run.

    Attributes:
        step: Number of steps done.
        steps: Number of steps requested.
        stopped: Signal that stopped it early; None if none did.
        best_loss: Lowest held-out loss; None without evaluations.
        best_step: Step of that loss.
        weights: Folder of weights to use: the best, or the last if none were evaluated.
    """

    step: int
    steps: int
    stopped: int | None
    best_loss: float | None
    best_step: int | None
    weights: Path


class TrainPlan(NamedTuple):
    """Devices, length, and optimizer of a run.

    Attributes:
        devices: Devices that compute, all of one platform.
        epoch_steps: Steps of an epoch.
        steps: Steps of the whole run.
        schedule: Learning rate of a step.
        optimizer: Optimizer of the parameters.
    """

    devices: list[jax.Device]
    epoch_steps: int
    steps: int
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation


class _Agreed(NamedTuple):
    """The decision of all processes after a step.

    Attributes:
        signal: Signal that asks to stop; 0 if none did.
        out_of_time: Whether only the time for an evaluation as long as the last one remains.
        save: Whether the next checkpoint is due.
    """

    signal: int = 0
    out_of_time: bool = False
    save: bool = False


def make_plan(
    config: ConfigDict, source: DataSource, *, say: Callable[[str], None], task: Task | None = None
) -> TrainPlan:
    """Return the plan of a run; nothing is written.

    Args:
        config: Config of the run.
        source: Source of the batches.
        say: Receives a line for the user about devices without work.
        task: Task, which may have an optimizer of its own; None for the optimizer of the config.

    Raises:
        UserError: The devices, the batch, or the schedule are invalid, or there is nothing to do.
    """
    devices = find_devices(config.devices, config.platform, config.batch)
    if idle := len(jax.devices(config.platform or None)) - len(devices):
        total = len(devices) + idle
        say(
            f"{len(devices)} of {total} devices share a batch of {config.batch}; one of "
            f"{-(-config.batch // total) * total} would have work for all"
        )
    epoch_steps, steps = count_steps(config, source.size)
    schedule = make_schedule(config, epoch_steps=epoch_steps, steps=steps)
    optimizer = getattr(task, "optimizer", make_optimizer)(config, schedule)
    return TrainPlan(devices, epoch_steps, steps, schedule, optimizer)


def count_steps(config: ConfigDict, size: int | None) -> tuple[int, int]:
    """Return the numbers of steps of an epoch and of the whole run.

    Args:
        config: Config of the run.
        size: Samples of an epoch; None for an endless source.

    Raises:
        UserError: An endless source lacks `epoch_steps`, or there is nothing to do.
    """
    epoch_steps = config.epoch_steps or (size // config.batch if size is not None else 0)
    if not epoch_steps:
        raise UserError("config: epoch_steps: this source is endless; set the number of steps in an epoch")
    steps = config.steps or config.epochs * epoch_steps
    if steps < 1:
        raise UserError("config: steps: expected at least one step, found neither steps nor epochs; set one of them")
    return epoch_steps, steps


def train(
    config: ConfigDict,
    workdir: Path,
    task: Task,
    source: DataSource,
    *,
    after_evaluation: Callable[[Path], None] = lambda folder: None,
    say: Callable[[str], None] = print,
) -> Result:
    """Train, from the newest checkpoint of the folder if there is one.

    A run that is stopped at any moment and called again with the same arguments ends with the same parameters, on a CPU
    to the last bit. If several processes are connected (`crefjax.training.processes`), all call it with the same
    arguments and a folder that they share; the first one writes and speaks, and the run may be resumed by any number of
    processes.

    Args:
        config: Config of the run.
        workdir: Folder for `checkpoints`, `metrics.jsonl`, `tensorboard`, `config.json`, and the weights `best` and
            `last`.
        task: Task to train.
        source: Source of the batches.
        after_evaluation: Called with the folder after every evaluation, to write a figure, for example.
        say: Receives a line for the user.

    Raises:
        UserError: The settings do not divide, fit, or resume the run; too many samples are not finite
            (`SkippedSamples`); or the disk is full.
    """
    workdir, place = workdir.absolute(), current()
    if not place.is_first:
        after_evaluation, say = lambda folder: None, lambda line: None
    plan = make_plan(config, source, say=say, task=task)
    if place.count > 1 and not source.divided:
        source = _divided(source, place, config.batch)
    batches = source.training()  # before the folder is made, so that a mistake leaves none behind
    try:
        _make_folder(workdir)
        lock = _lock(workdir) if place.is_first else nullcontext()
        with lock, stop_on_signals(announce=place.is_first) as stop:
            return _train(_Run(config, workdir, task, source, plan, batches, stop, after_evaluation, say, place))
    finally:
        close(batches)


def _divided(source, place, batch):
    """Return a source that gives the part of one process of the batches of another source."""
    place.local_batch(batch)
    held_out = source.held_out
    return replace(
        source,
        training=lambda: ShareOfBatches(source.training(), place, batch),
        held_out=held_out and (lambda: ShareOfBatches(held_out(), place, batch)),
        divided=True,
    )


def _make_folder(workdir):
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{workdir}: the folder cannot be created ({error.strerror}); choose another folder") from error


def _lock(workdir):
    return exclusive_lock(workdir / ".lock", "another run is training there; wait for it, or choose another folder")


def _train(run: "_Run") -> Result:
    try:
        run.start()
        return run.train()
    except OSError as error:  # of metrics, figure, or data; checkpoints and weights raise UserError themselves
        full = is_disk_full(error)
        action, advice = ("written", "make room") if full else ("read or written", "check the disk")
        raise UserError(
            f"{error.filename or run.workdir}: cannot be {action} ({error.strerror or error}); {advice} "
            "and start again with the same command: earlier checkpoints are whole"
        ) from error
    finally:
        run.close()


class _Run:
    """A run: its constants, and its state, which every step changes."""

    def __init__(
        self, config, workdir, task, source, plan: TrainPlan, batches, stop: StopRequest, after_evaluation, say, place
    ):
        self.config, self.workdir, self.task, self.source, self.stop = config, workdir, task, source, stop
        self.place, self.agreed = place, _Agreed()
        self.batches, self.after_evaluation, self.say = batches, after_evaluation, say
        self.devices, self.epoch_steps, self.steps, self.schedule, self.optimizer = plan
        self.description = task.describe(config)
        self.train_step = make_train_step(
            task, self.optimizer, decay=config.average, seed=config.seed, devices=self.devices
        )
        self.compiled_step = None
        self.evaluation_step = make_evaluation_step(task, self.devices)
        self.agreement = Agreement(self.devices)
        self.skipped = SkippedSamples(workdir, lambda: self.checkpoints.steps(), say, self._all_entries)
        self.metrics = MetricsBuffer(self.skipped.count, self._write_line, every=config.log_every)
        self.evaluation_seconds, self.evaluated_before = 0.0, False
        self.pretraining, self.checkpoints, self.writer = getattr(task, "pretraining", None), None, None

    def start(self):
        """Restore the newest checkpoint if there is one, and open the files of the run."""
        self.checkpoints = Checkpoints(self.workdir / "checkpoints", self.config.checkpoint.keep)
        parameters = self.task.init(jax.random.key(self.config.seed))
        state = init_state(parameters, self.optimizer, average=self.config.average > 0)
        steps = self.checkpoints.steps()
        self.step = steps[-1] if steps else 0
        self.seconds, self.best, self.evaluated, self.without_improvement = 0.0, (None, None), False, 0
        if steps:
            state = self._restore(state)
        if self.place.is_first:
            for path in self.workdir.glob(".crefjax-*"):  # of a run that was killed while it wrote weights
                atomic.remove(path)
            write_json(self.workdir / "config.json", to_json(self.config), indent=2)
            self.writer = MetricsWriter(self.workdir, self.step, evaluated=self.evaluated)
        self.state = replicate(state, self.devices)
        self.started_at = self.saved_at = time.monotonic()

    def _restore(self, state):
        metadata = self.checkpoints.metadata(self.step)
        check_resumable(metadata.config, self.config, str(self.workdir))
        state = self.checkpoints.restore(self.step, jax.tree.map(np.asarray, state))
        self.batches.set_state(metadata.data)
        run = metadata.run
        self.seconds, self.evaluated = run["seconds"], run["evaluated"]
        self.without_improvement = run["evaluations_without_improvement"]
        self.best = tuple(run["best"])
        if not (self.workdir / BEST).exists():  # the checkpoints were copied here without the weights
            self.best = (None, None)
        self.evaluation_seconds = run.get("evaluation_seconds", 0.0)  # runs of earlier versions lack it
        self.pretraining = run.get("pretraining")  # of the initial weights, not of those that have their name by now
        self.skipped.shares.extend(run.get("left_out", []))
        self.metrics.since += [
            {name: np.float32(value) for name, value in numbers.items()} for numbers in run["pending_metrics"]
        ]
        self.say(f"resuming from step {self.step} of {self.steps} in {self.workdir}")
        return state

    def train(self) -> Result:
        """Train until the last step, a signal, or the time limit."""
        self.metrics.throughput.restart()
        self._agree()
        if self._evaluation_due() and not self.evaluated:  # stopped just before it
            self._end_epoch()
        with training_progress(self._share()) as show:
            while self.step < self.steps and not self.agreed.signal and not self._is_over():
                self._take_step()
                self._agree()
                if self.step % self.epoch_steps == 0 or self.step == self.steps:
                    self._end_epoch()
                    if self.place.count == 1:  # a signal may have come during the evaluation
                        self._agree()
                elif self.agreed.save or self._steps_are_due():
                    self._save()
                if not math.isnan(self.metrics.loss):
                    show(self._share(), self._note())
        self.metrics.flush()
        if not self.agreed.signal and not self.evaluated:  # the time limit is reached
            self._end_epoch()
        self._save()
        self._export(LAST)
        loss, step = self.best
        weights = self.workdir / (LAST if loss is None else BEST)
        return Result(self.step, self.steps, self.agreed.signal or None, loss, step, weights)

    def close(self):
        """Close files and threads."""
        if self.writer:
            self.writer.close()
        if self.checkpoints:
            self.checkpoints.close()

    def _agree(self):
        minutes = self.config.checkpoint.every_minutes
        save = bool(minutes) and time.monotonic() - self.saved_at > 60 * minutes
        wanted = _Agreed(self.stop.signal or 0, self._out_of_time(), save)
        signal, out_of_time, save = self.agreement.agree(wanted)
        self.agreed = _Agreed(signal, bool(out_of_time), bool(save))

    def _all_entries(self, entries):
        """Return the entries of a batch in all processes, all of which call it."""
        return tuple(name for part in gather(list(entries), self.place) for name in part)

    def _take_step(self):
        samples: NamedBatch = next(self.batches)
        batch = shard(samples.batch, self.devices)
        if self.compiled_step is None:
            name = f"a step of {self.config.batch} {self.description.samples}"
            self.compiled_step = compile_step(self.train_step, self.state, batch, self.devices, name)
            self.metrics.throughput.restart()
        self.state, numbers = self.compiled_step(self.state, batch)
        self.step += 1
        self.evaluated = False
        self.metrics.add(StepMetrics(self.step, samples.entries, numbers))

    def _write_line(self, step: int, means: dict, samples_per_second: float):
        if self.writer is None:
            return
        numbers = {
            "epoch": step / self.epoch_steps,
            "loss": means.pop("losses"),
            **means,
            "rate": float(self.schedule(step - 1)),
            "patches_per_second": samples_per_second,  # the name in metrics.jsonl since its first version
            "seconds": self._seconds(),
        }
        self.writer.write("training", step, numbers)

    def _evaluation_due(self):
        every = self.config.evaluation.every_epochs
        if not every or self.source.held_out is None:
            return False
        if self.step == 0:  # the initial weights are the baseline
            return bool(self.config.weights)
        return self.step % (every * self.epoch_steps) == 0 or self.step == self.steps or self.agreed.out_of_time

    def _end_epoch(self):
        """Evaluate if it is due, and save."""
        self.metrics.flush()
        loss = self._evaluate() if self._evaluation_due() else None
        self._save(loss)
        self.metrics.throughput.restart()

    def _evaluate(self) -> float | None:
        start = time.monotonic()
        means = evaluate(
            self.evaluation_step,
            self.state.evaluated_parameters,
            self.source,
            batch=self.place.local_batch(self.config.batch),
            devices=self.devices,
            stopped=lambda: bool(self.stop) and self.place.count == 1,  # all or none
            place=self.place,
        )
        if means is None:
            return None
        if self.evaluated_before:  # the first of a process compiles
            self.evaluation_seconds = time.monotonic() - start
        self.evaluated = self.evaluated_before = True
        if self.writer is not None:
            self.writer.write("evaluation", self.step, {"epoch": self.step / self.epoch_steps, **means})
        loss = means["loss"]
        text = ", ".join(f"{name} {value:.4f}" for name, value in means.items() if isinstance(value, float))
        self.say(f"step {self.step}, held out: {text}")
        if math.isfinite(loss) and (self.best[0] is None or loss < self.best[0]):
            self.best, self.without_improvement = (loss, self.step), 0
            self._export(BEST)
        else:
            self.without_improvement += 1
        self.after_evaluation(self.workdir)
        return loss if math.isfinite(loss) else None

    def _steps_are_due(self):
        every = self.config.checkpoint.every_steps
        return bool(every) and self.step % every == 0

    def _save(self, loss: float | None = None):
        self.metrics.flush()  # a run that ends because of values that are not finite saves nothing more
        run = {
            "seconds": self._seconds(),
            "best": list(self.best),
            "evaluated": self.evaluated,
            "evaluations_without_improvement": self.without_improvement,
            "evaluation_seconds": self.evaluation_seconds,
            "pretraining": self.pretraining,
            "left_out": list(self.skipped.shares),
            "pending_metrics": [
                {name: value.tolist() for name, value in numbers.items()} for numbers in self.metrics.since
            ],
        }
        metadata = CheckpointMetadata(self.batches.get_state(), run, to_json(self.config))
        self.checkpoints.save(self.step, unreplicate(self.state), metadata, loss)
        self.saved_at = time.monotonic()

    def _export(self, name):
        if not self.place.is_first:
            return
        training = f"{self.step} steps of {self.config.batch} {self.description.samples}: {self.source.description}"
        about = {
            "training": training + (f"; before: {self.pretraining}" if self.pretraining else ""),
            **self.description.card,
            "step": self.step,
            "held_out_loss": self.best[0] if name == BEST else None,
        }
        self.task.export(self.workdir / name, unreplicate(self.state.evaluated_parameters), about)

    def _seconds(self):
        return self.seconds + time.monotonic() - self.started_at

    def _is_over(self):
        patience = self.config.evaluation.patience
        return self.agreed.out_of_time or (patience > 0 and self.without_improvement >= patience)

    def _out_of_time(self):
        """Return whether only the time for an evaluation as long as the last one remains."""
        return bool(self.config.minutes) and self._seconds() + self.evaluation_seconds >= 60 * self.config.minutes

    def _share(self):
        share = self.step / self.steps
        return min(1.0, max(share, self._seconds() / (60 * self.config.minutes))) if self.config.minutes else share

    def _note(self):
        rate = self.metrics.samples_per_second
        return f"step {self.step}, loss {self.metrics.loss:.4f}" + (f", {rate:.3g} samples/s" if rate else "")
