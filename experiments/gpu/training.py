"""Train from a checkpoint until a given time.

    python -m experiments.gpu.training SETTINGS

A signal ends it like `crefjax train`, with a checkpoint and weights.
"""

import dataclasses
import json
import math
import sys
import time
from pathlib import Path

import jax
import numpy as np

from crefjax.errors import UserError
from crefjax.plotting import write_convergence_figure
from crefjax.training.checkpoints import Checkpoints
from crefjax.training.loop import make_plan, train
from crefjax.training.optimizer import make_optimizer, make_schedule
from crefjax.training.step import evaluate, find_devices, init_state, make_evaluation_step, replicate
from crefjax.training.task import make_task
from crefjax.utils.atomic import write_bytes
from experiments.gpu.checkpoints import BEFORE, copy_checkpoint, start_from
from experiments.gpu.settings import (
    EVALUATIONS,
    Settings,
    averaging,
    cycle_steps,
    last_step,
    make_config,
    possible_steps,
)

_SAVING = 8.0  # seconds for the last checkpoint and the weights


def main(file: str) -> int:
    """Train; return 0, 2 after a mistake by the user, or 128 plus the number of the signal that stopped the run."""
    try:
        return _train(Settings.read(file))
    except UserError as error:
        print(f"UserError: {error}", file=sys.stderr)
        return 2


def _train(settings):
    run = Path(settings.output)
    copied = copy_checkpoint(settings, run / "checkpoints")
    config = copied.config or _new_config(settings, copied)
    task, source = make_task(config)
    batches = source.training()
    source = dataclasses.replace(source, training=lambda: batches)
    if copied.config is None:
        config.schedule.cycle_steps = cycle_steps(settings, config.batch, _left(settings), config)
        config.epoch_steps = math.ceil(config.schedule.cycle_steps / EVALUATIONS)
        config.steps = config.schedule.cycle_steps
        config.average = averaging(config.average, config.schedule.cycle_steps)
        start_from(copied, config, task, make_plan(config, source, say=_say), batches)
    before = first_evaluation(run, config, task, source)
    write_bytes(run / BEFORE, json.dumps(before).encode())
    _say(f"before: {before}")
    if "failed" in before:
        config.evaluation.every_epochs = 0
    seconds, step = (copied.saved.run["seconds"], copied.step) if copied.config else (0.0, 0)
    left = _left(settings)
    if left < 1:
        raise UserError("no time is left for training; increase --minutes")
    config.minutes = (seconds + left) / 60
    config.steps = last_step(step, config.schedule.cycle_steps, possible_steps(settings, config.batch, left))
    _say(f"from step {step} until step {config.steps} or {left:.0f} s from now, rate {config.schedule.rate:g}")
    result = train(config, run, task, source, after_evaluation=write_convergence_figure, say=_say)
    return 0 if result.stopped is None else 128 + result.stopped


def first_evaluation(run: Path, config, task, source) -> dict:
    """Return the held-out metrics of the parameters that a run starts from, or `failed` with the reason.

    An evaluation that does not fit into memory must not end the run later.

    Args:
        run: Folder with a checkpoint.
        config: Configuration of the run.
        task: Task of the run.
        source: Data source of the run.
    """
    if source.held_out is None:
        return {}
    devices, optimizer = find_devices(config.devices, config.platform, config.batch), _optimizer(config)
    checkpoints = Checkpoints(run / "checkpoints", keep=1)
    like = init_state(task.init(jax.random.key(0)), optimizer, average=config.average > 0)
    parameters = checkpoints.restore(checkpoints.steps()[-1], jax.tree.map(np.asarray, like)).evaluated_parameters
    checkpoints.close()
    try:
        step = make_evaluation_step(task, devices)
        metrics = evaluate(step, replicate(parameters, devices), source, batch=config.batch, devices=devices)
    except Exception as error:  # several types mean out of memory
        return {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
    return {name: value for name, value in metrics.items() if isinstance(value, float)}


def _optimizer(config):
    return make_optimizer(config, make_schedule(config, epoch_steps=config.epoch_steps, steps=config.steps))


def _left(settings):
    """Return the seconds that are left for training."""
    return settings.until - _SAVING - time.time()


def _new_config(settings, copied):
    """Return the configuration of a new run, with other samples than the checkpoint; the cycle is set later."""
    (batch,) = settings.batches
    return make_config(settings, batch, seed=(copied.saved.config["seed"] + 1) % 2**31)


def _say(line):
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
