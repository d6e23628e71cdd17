"""The training loop: steps, evaluations and checkpoints, until the last step or until it is told to stop."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from crefjax.errors import UserError
from crefjax.training.checkpoints import CheckpointMetadata, Checkpoints
from crefjax.training.config import as_json, check_resumable
from crefjax.training.metrics import Failures, MetricsBuffer, MetricsWriter, StepMetrics, training_progress
from crefjax.training.optimizer import make_optimizer, make_schedule
from crefjax.training.step import (
    compile_step,
    divided,
    evaluate,
    find_devices,
    from_devices,
    init_state,
    make_evaluation_step,
    make_train_step,
    on_devices,
)
from crefjax.training.task import NamedBatch, Source, Task, close
from crefjax.utils import atomic
from crefjax.utils.atomic import is_disk_full, write_json
from crefjax.utils.signals import StopRequest, exclusive_lock, stop_on_signals

BEST, LAST = "best", "last"


class Result(NamedTuple):
    """How a run ended.

    Attributes:
        step: steps done.
        steps: asked for.
        stopped: the signal by which it was stopped before; None if it was not.
        best_loss: the least held-out loss; None without evaluations.
        best_step: where that was.
        weights: the folder of weights to use: the best, or the last where none was evaluated.
    """

    step: int
    steps: int
    stopped: int | None
    best_loss: float | None
    best_step: int | None
    weights: Path


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


def train(
    config: ConfigDict,
    workdir: Path,
    task: Task,
    source: Source,
    *,
    after_evaluation: Callable[[Path], None] = lambda folder: None,
    say: Callable[[str], None] = print,
) -> Result:
    """Train, from the newest checkpoint of the folder if there is one.

    Stopped at any moment and called again with the same arguments, it ends with the same parameters, on a CPU to the
    last bit.

    Args:
        config: of the run.
        workdir: for `checkpoints`, `metrics.jsonl`, `tensorboard`, `config.json` and the weights `best` and `last`.
        task: what is trained.
        source: of the batches.
        after_evaluation: called with the folder after every evaluation, for a figure, say.
        say: takes a line for the user.

    Raises:
        UserError: what was asked does not divide, fit or go on; too much is not finite (`Failures`); the disk is full.
    """
    workdir = workdir.absolute()
    plan = make_plan(config, source, say=say)
    batches = source.training()  # with the plan, so that what is wrong with either leaves no folder behind
    try:
        _make(workdir)
        with _locked(workdir), stop_on_signals() as stop:
            return _trained(_Run(config, workdir, task, source, plan, batches, stop, after_evaluation, say))
    finally:
        close(batches)


def _make(workdir):
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{workdir}: the folder cannot be made ({error.strerror}); give another --workdir") from error


def _locked(workdir):
    return exclusive_lock(workdir / ".lock", "another run is at work there; wait for it, or give another --workdir")


def _trained(run: "_Run") -> Result:
    try:
        run.begin()
        return run.go()
    except OSError as error:  # of metrics, figure or data; checkpoints and weights tell of theirs
        full = is_disk_full(error)
        told, do = ("written", "make room") if full else ("read or written", "check the disk")
        raise UserError(
            f"{error.filename or run.workdir}: cannot be {told} ({error.strerror or error}); {do} "
            "and start again with the same command: earlier checkpoints are whole"
        ) from error
    finally:
        run.close()


class _Run:
    """A run: what stays the same over its steps, and what every step changes."""

    def __init__(
        self, config, workdir, task, source, plan: TrainPlan, batches, stop: StopRequest, after_evaluation, say
    ):
        self.config, self.workdir, self.task, self.source, self.stop = config, workdir, task, source, stop
        self.batches, self.after_evaluation, self.say = batches, after_evaluation, say
        self.devices, self.epoch_steps, self.steps, self.schedule, self.optimizer = plan
        more = {"decay": config.average, "seed": config.seed, "devices": self.devices}
        self.train_step = make_train_step(task, self.optimizer, **more)
        self.evaluation_step = make_evaluation_step(task, self.devices)
        self.failures = Failures(workdir, lambda: self.checkpoints.steps(), say)
        self.heard = MetricsBuffer(self.failures.count, self._write_line, every=config.log_every)
        self.evaluation_seconds, self.evaluated_before = 0.0, False
        self.before, self.checkpoints, self.records = getattr(task, "before", None), None, None

    def begin(self):
        """Take up the newest checkpoint, or write down what is begun."""
        self.checkpoints = Checkpoints(self.workdir / "checkpoints", self.config.checkpoint.keep)
        first = self.task.init(jax.random.key(self.config.seed))
        state = init_state(first, self.optimizer, average=self.config.average > 0)
        saved = self.checkpoints.steps()
        self.seconds, self.best, self.evaluated, self.worse = 0.0, (None, None), False, 0
        self.step = saved[-1] if saved else 0
        if saved:
            about = self.checkpoints.about(self.step)
            check_resumable(about.config, self.config, str(self.workdir))
            state = self.checkpoints.restore(self.step, jax.tree.map(np.asarray, state))
            self.batches.set_state(about.data)
            self.seconds, self.evaluated, self.worse = (about.run[name] for name in ("seconds", "evaluated", "worse"))
            self.best = tuple(about.run["best"])
            if not (self.workdir / BEST).exists():  # checkpoints alone were brought here
                self.best = (None, None)
            self.evaluation_seconds = about.run.get("evaluation_seconds", 0.0)  # earlier runs did not keep it
            self.before = about.run.get("before")  # what was begun from, not what has that name by now
            self.failures.shares.extend(about.run.get("left_out", []))
            self.heard.since += [{k: np.float32(value) for k, value in one.items()} for one in about.run["told"]]
            self.say(f"going on from step {self.step} of {self.steps} in {self.workdir}")
        for left in self.workdir.glob(".crefjax-*"):  # of a run that was killed while it wrote weights
            atomic.remove(left)
        write_json(self.workdir / "config.json", as_json(self.config), indent=2)
        self.records = MetricsWriter(self.workdir, self.step, evaluated=self.evaluated)
        self.state = on_devices(state, self.devices)
        self.began = self.saved_at = time.monotonic()

    def go(self) -> Result:
        """Train to the end, or until a signal or the time limit."""
        self.heard.speed.restart()
        if self._evaluation_due() and not self.evaluated:  # stopped just before
            self._end_of_epoch()
        with training_progress(self._share()) as show:
            while self.step < self.steps and not self.stop and not self._enough():
                self._one_step()
                if self.step % self.epoch_steps == 0 or self.step == self.steps:
                    self._end_of_epoch()
                elif self._checkpoint_due():
                    self._save()
                if not math.isnan(self.heard.loss):
                    show(self._share(), self._note())
        self.heard.all()
        if not self.stop and not self.evaluated:  # the time is over
            self._end_of_epoch()
        self._save()
        self._export(LAST)
        loss, step = self.best
        weights = self.workdir / (LAST if loss is None else BEST)
        return Result(self.step, self.steps, self.stop.signal, loss, step, weights)

    def close(self):
        """Close files and threads."""
        if self.records:
            self.records.close()
        if self.checkpoints:
            self.checkpoints.close()

    def _one_step(self):
        samples: NamedBatch = next(self.batches)
        batch = divided(samples.batch, self.devices)
        if not hasattr(self, "compiled"):
            what = f"a step of {self.config.batch} patches of {self.source.patch} voxels a side"
            self.compiled = compile_step(self.train_step, self.state, batch, self.devices, what)
            self.heard.speed.restart()
        self.state, numbers = self.compiled(self.state, batch)
        self.step += 1
        self.evaluated = False
        self.heard.add(StepMetrics(self.step, samples.entries, numbers))

    def _write_line(self, step: int, means: dict, patches_per_second: float):
        numbers = {
            "epoch": step / self.epoch_steps,
            "loss": means.pop("losses"),
            **means,
            "rate": float(self.schedule(step - 1)),
            "patches_per_second": patches_per_second,
            "seconds": self._seconds(),
        }
        self.records.write("training", step, numbers)

    def _evaluation_due(self):
        every = self.config.evaluation.every_epochs
        if not every or self.source.held_out is None:
            return False
        if self.step == 0:  # the initial weights are the baseline
            return bool(self.config.weights)
        return self.step % (every * self.epoch_steps) == 0 or self.step == self.steps or self._out_of_time()

    def _end_of_epoch(self):
        """Evaluate if it is time to, and save."""
        self.heard.all()
        loss = self._evaluate() if self._evaluation_due() else None
        self._save(loss)
        self.heard.speed.restart()

    def _evaluate(self) -> float | None:
        start = time.monotonic()
        found = evaluate(
            self.evaluation_step,
            self.state.best_parameters,
            self.source,
            batch=self.config.batch,
            devices=self.devices,
            stopped=lambda: bool(self.stop),
        )
        if found is None:
            return None
        if self.evaluated_before:  # the first of a process compiles
            self.evaluation_seconds = time.monotonic() - start
        self.evaluated = self.evaluated_before = True
        self.records.write("evaluation", self.step, {"epoch": self.step / self.epoch_steps, **found})
        loss = found["loss"]
        told = ", ".join(f"{name} {value:.4f}" for name, value in found.items() if isinstance(value, float))
        self.say(f"step {self.step}, held out: {told}")
        if math.isfinite(loss) and (self.best[0] is None or loss < self.best[0]):
            self.best, self.worse = (loss, self.step), 0
            self._export(BEST)
        else:
            self.worse += 1
        self.after_evaluation(self.workdir)
        return loss if math.isfinite(loss) else None

    def _checkpoint_due(self):
        chosen = self.config.checkpoint
        if chosen.every_steps and self.step % chosen.every_steps == 0:
            return True
        return bool(chosen.every_minutes) and time.monotonic() - self.saved_at > 60 * chosen.every_minutes

    def _save(self, loss: float | None = None):
        self.heard.all()  # a run that ends by what is not finite saves nothing more
        run = {"seconds": self._seconds(), "best": list(self.best), "evaluated": self.evaluated, "worse": self.worse}
        run |= {"evaluation_seconds": self.evaluation_seconds, "before": self.before}
        run |= {"left_out": list(self.failures.shares)}
        run["told"] = [{name: one.tolist() for name, one in told.items()} for told in self.heard.since]
        saved = CheckpointMetadata(self.batches.get_state(), run, as_json(self.config))
        self.checkpoints.save(self.step, from_devices(self.state), saved, loss)
        self.saved_at = time.monotonic()

    def _export(self, name):
        training = f"{self.step} steps of {self.config.batch} patches of {self.source.patch} voxels a side: "
        training += self.source.about + (f"; before: {self.before}" if self.before else "")
        about = {
            "training": training,
            "losses": {name: factor for name, factor in self.config.losses.items() if factor},
            "step": self.step,
            "held_out_loss": self.best[0] if name == BEST else None,
        }
        self.task.export(self.workdir / name, from_devices(self.state.best_parameters), about)

    def _seconds(self):
        return self.seconds + time.monotonic() - self.began

    def _enough(self):
        patience = self.config.evaluation.patience
        return self._out_of_time() or (patience > 0 and self.worse >= patience)

    def _out_of_time(self):
        """Whether there is no time left but for an evaluation that takes as long as the last one did."""
        return bool(self.config.minutes) and self._seconds() + self.evaluation_seconds >= 60 * self.config.minutes

    def _share(self):
        share = self.step / self.steps
        return min(1.0, max(share, self._seconds() / (60 * self.config.minutes))) if self.config.minutes else share

    def _note(self):
        rate = f", {self.heard.rate:.3g} patches/s" if self.heard.rate else ""
        return f"step {self.step}, loss {self.heard.loss:.4f}{rate}"
