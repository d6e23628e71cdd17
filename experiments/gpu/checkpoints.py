"""Checkpoints of a run: copy one, continue it or start from its parameters, and pack what continues the run."""

import io
import shutil
import tarfile
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from crefjax.errors import UserError
from crefjax.training.checkpoints import CheckpointMetadata, Checkpoints
from crefjax.training.config import check_resumable, to_json
from crefjax.training.loop import TrainPlan
from crefjax.training.optimizer import make_optimizer, make_schedule
from crefjax.training.step import init_state
from crefjax.training.task import ResumableIterator, Task
from crefjax.utils.atomic import atomic_write, write_bytes
from experiments.gpu.settings import CHOSEN, Settings, make_config

LARGEST = 15 * 2**20  # bytes per file
MOST_PIECES = 4
ARCHIVE, METRICS = "run.tar.gz", "metrics.jsonl"
BEFORE = "before.json"  # held-out metrics of the parameters that a run starts from
_FILES = ("config.json", METRICS, BEFORE, "convergence.png", "best", "last")


class CopiedCheckpoint(NamedTuple):
    """A checkpoint that was copied.

    Attributes:
        folder: Folder `checkpoints` that contains only the newest checkpoint.
        step: Step of the checkpoint.
        saved: Metadata of the checkpoint.
        config: Configuration of a run that can continue it; None if the checkpoint is of another configuration.
    """

    folder: Path
    step: int
    saved: CheckpointMetadata
    config: ConfigDict | None


def copy_checkpoint(settings: Settings, folder: Path) -> CopiedCheckpoint:
    """Copy the newest checkpoint, and check whether a run can continue it.

    Args:
        settings: Settings with the folder of checkpoints; the fields `CHOSEN` are taken from the checkpoint.
        folder: Folder to write, which must not exist.

    Raises:
        UserError: The checkpoint cannot be read, or the configuration is wrong.
    """
    newest = newest_checkpoint(Path(settings.state))
    if newest is None:
        raise UserError(f"{settings.state}: expected checkpoints of a run, found none; check --state")
    shutil.copytree(newest, folder / newest.name)
    checkpoints = Checkpoints(folder, keep=1)
    saved = checkpoints.metadata(int(newest.name))
    checkpoints.close()
    if settings.new_run:
        return CopiedCheckpoint(folder, int(newest.name), saved, None)
    chosen = {name.replace(".", "__"): saved.config[name] for name in CHOSEN if name in saved.config}
    config = make_config(settings, **chosen)
    try:
        check_resumable(saved.config, config, settings.state)
    except UserError:
        config = None
    return CopiedCheckpoint(folder, int(newest.name), saved, config)


def start_from(
    copied: CopiedCheckpoint, config: ConfigDict, task: Task, plan: TrainPlan, batches: ResumableIterator
) -> None:
    """Replace a copied checkpoint by one of step 0, with its averaged parameters and a new optimizer.

    Args:
        copied: Checkpoint whose network is that of the configuration.
        config: Configuration of the new run.
        task: Task of the new run.
        plan: Plan of the new run.
        batches: Batches of the new run, at their start.

    Raises:
        UserError: The checkpoint is of another network.
    """
    before = _with_optimizer_of(copied.saved, config)
    schedule = make_schedule(before, epoch_steps=plan.epoch_steps, steps=plan.steps)
    like = init_state(task.init(jax.random.key(0)), make_optimizer(before, schedule), average=before.average > 0)
    checkpoints = Checkpoints(copied.folder, keep=1)
    state = checkpoints.restore(copied.step, jax.tree.map(np.asarray, like))
    checkpoints.close()
    shutil.rmtree(copied.folder)
    first = init_state(state.evaluated_parameters, plan.optimizer, average=config.average > 0)
    run = {"seconds": 0.0, "best": [None, None], "evaluated": False, "evaluations_without_improvement": 0}
    run |= {"pending_metrics": [], "pretraining": describe_training(copied)}
    saved = CheckpointMetadata(batches.get_state(), run, to_json(config))
    checkpoints = Checkpoints(copied.folder, keep=1)
    checkpoints.save(0, jax.tree.map(np.asarray, first), saved)
    checkpoints.close()


def describe_training(copied: CopiedCheckpoint) -> str:
    """Return how the parameters of a checkpoint were trained, for the card of the weights."""
    before = copied.saved.run.get("pretraining")
    fields = copied.saved.config
    text = f"{copied.step} steps of {fields['batch']} patches of {fields['data.patch']} voxels a side"
    return text + (f"; before: {before}" if before else "")


def _with_optimizer_of(saved, config):
    config = config.copy_and_resolve_references()
    config.average = saved.config["average"]
    for name in config.optimizer:
        config.optimizer[name] = saved.config.get(f"optimizer.{name}", config.optimizer[name])
    return config


def newest_checkpoint(checkpoints: Path) -> Path | None:
    """Return the folder of the last complete checkpoint; None if there is none."""
    steps = [path for path in checkpoints.glob("*") if path.is_dir() and path.name.isdigit()]
    return max(steps, key=lambda path: int(path.name), default=None)


def pack(run: Path, folder: Path, *, largest: int = LARGEST) -> list[Path]:
    """Write the newest checkpoint, config, metrics, and weights of a run into an archive.

    Every file is complete or absent. `cat FOLDER/run.tar.gz* | tar xz -C RUN` makes a run that can be continued.

    Args:
        run: Folder of a run.
        folder: Folder to write to.
        largest: Largest size of a file, bytes; a larger archive is cut into pieces.

    Returns:
        The files of the archive; empty if the run has no checkpoint yet.

    Raises:
        UserError: The archive needs more than `MOST_PIECES` files, or cannot be written.
        OSError: A file disappeared while it was read, because the run is still writing.
    """
    checkpoint = newest_checkpoint(run / "checkpoints")
    if checkpoint is None:
        return []
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=1) as archive:
        for path in [checkpoint, *(run / name for name in _FILES)]:
            if path.exists():
                archive.add(path, str(path.relative_to(run)))
    content = stream.getvalue()
    pieces = [content[start : start + largest] for start in range(0, len(content), largest)]
    if len(pieces) > MOST_PIECES:
        raise UserError(f"{run}: expected at most {MOST_PIECES} files of {largest} bytes, found {len(content)} bytes")
    names = [f"{ARCHIVE}.{number:02d}" for number in range(len(pieces))] if len(pieces) > 1 else [ARCHIVE]
    for name, piece in zip(names, pieces, strict=True):
        with atomic_write(folder / name, needed=len(piece), overwrite=True, compress=False) as file:
            file.write(piece)
    for obsolete in {*folder.glob(f"{ARCHIVE}*")} - {folder / name for name in names}:
        obsolete.unlink()
    if (run / METRICS).exists():
        write_bytes(folder / METRICS, (run / METRICS).read_bytes()[-largest:])
    return [folder / name for name in names]


class Packer:
    """Pack a run at every new checkpoint.

    Args:
        run: Folder of the run.
        folder: Folder to write to.
    """

    def __init__(self, run: Path, folder: Path):
        self._run, self._folder, self._packed = run, folder, None

    def __call__(self) -> None:
        """Pack if there is a new checkpoint; try again at the next call if a file is just being replaced."""
        newest = newest_checkpoint(self._run / "checkpoints")
        if newest is None or newest.name == self._packed:
            return
        try:
            pack(self._run, self._folder)
        except OSError:  # the run was replacing a file
            return
        except UserError as error:  # training must continue
            print(f"packing: {error}", flush=True)
        self._packed = newest.name

    def last(self) -> None:
        """Pack the newest checkpoint at the end of the run."""
        self._packed = None
        self()
