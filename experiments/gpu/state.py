"""A state to go on from: as it is, or as what a new run begins with."""

import shutil
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from crefjax.errors import UserError
from crefjax.training.checkpoints import CheckpointMetadata, Checkpoints
from crefjax.training.config import as_json, check_resumable
from crefjax.training.loop import TrainPlan
from crefjax.training.optimizer import make_optimizer, make_schedule
from crefjax.training.step import init_state
from crefjax.training.task import Position, Task
from experiments.gpu.packing import newest_checkpoint
from experiments.gpu.settings import CHOSEN, Settings, make_config


class Taken(NamedTuple):
    """A state that was copied.

    Attributes:
        folder: `checkpoints` with the newest one alone.
        step: of it.
        saved: what goes with it.
        config: of a run that goes on from it as it is; None if the state is of another config.
    """

    folder: Path
    step: int
    saved: CheckpointMetadata
    config: ConfigDict | None


def take(settings: Settings, folder: Path) -> Taken:
    """Copy the newest checkpoint, and see whether a run can go on from it as it is.

    Args:
        settings: with the state; the batch and other choices are the state's where it has the config otherwise.
        folder: to copy to, which must not be there.

    Raises:
        UserError: it cannot be read, or the config is wrong.
    """
    newest = newest_checkpoint(Path(settings.state))
    if newest is None:
        raise UserError(f"{settings.state}: expected checkpoints of a run, found none; check --state")
    shutil.copytree(newest, folder / newest.name)
    checkpoints = Checkpoints(folder, keep=1)
    saved = checkpoints.about(int(newest.name))
    checkpoints.close()
    if settings.anew:
        return Taken(folder, int(newest.name), saved, None)
    chosen = {name.replace(".", "__"): saved.config[name] for name in CHOSEN if name in saved.config}
    config = make_config(settings, **chosen)
    try:
        check_resumable(saved.config, config, settings.state)
    except UserError:
        config = None
    return Taken(folder, int(newest.name), saved, config)


def begin_from(taken: Taken, config: ConfigDict, task: Task, plan: TrainPlan, batches: Position) -> None:
    """Put a checkpoint of step 0 in the place of one that was taken: its averaged parameters, a new optimizer.

    Args:
        taken: whose network is that of the config.
        config: of the run that begins.
        task: of it.
        plan: of it.
        batches: of it, at their beginning.

    Raises:
        UserError: the state is of another network.
    """
    before = _with_optimizer_of(taken.saved, config)
    schedule = make_schedule(before, epoch_steps=plan.epoch_steps, steps=plan.steps)
    like = init_state(task.init(jax.random.key(0)), make_optimizer(before, schedule), average=before.average > 0)
    checkpoints = Checkpoints(taken.folder, keep=1)
    state = checkpoints.restore(taken.step, jax.tree.map(np.asarray, like))
    checkpoints.close()
    shutil.rmtree(taken.folder)
    first = init_state(state.best_parameters, plan.optimizer, average=config.average > 0)
    run = {"seconds": 0.0, "best": [None, None], "evaluated": False, "worse": 0, "told": []}
    saved = CheckpointMetadata(batches.get_state(), run | {"before": described(taken)}, as_json(config))
    checkpoints = Checkpoints(taken.folder, keep=1)
    checkpoints.save(0, jax.tree.map(np.asarray, first), saved)
    checkpoints.close()


def described(taken: Taken) -> str:
    """How the parameters of a state were trained, for the card of the weights."""
    before = taken.saved.run.get("before")
    fields = taken.saved.config
    told = f"{taken.step} steps of {fields['batch']} patches of {fields['data.patch']} voxels a side"
    return told + (f"; before: {before}" if before else "")


def _with_optimizer_of(saved, config):
    config = config.copy_and_resolve_references()
    config.average = saved.config["average"]
    for name in config.optimizer:
        config.optimizer[name] = saved.config.get(f"optimizer.{name}", config.optimizer[name])
    return config
