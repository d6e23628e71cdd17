"""Checkpoints of a run: its state, its source's position, and its config, as Orbax writes them.

A checkpoint appears complete or not at all: Orbax writes it under a temporary name and renames it. The newest few and
the best one are kept.
"""

import logging
import shutil
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import serialization
from orbax.checkpoint.checkpoint_managers import preservation_policy

from crefjax.errors import UserError
from crefjax.training.step import State

VERSION = 1
_LOSS = "loss"
# Names of values of `CheckpointMetadata.run` in earlier versions, and today's.
_RENAMED = {"told": "pending_metrics", "before": "pretraining", "worse": "evaluations_without_improvement"}


class CheckpointMetadata(NamedTuple):
    """Content of a checkpoint besides its state.

    Attributes:
        data: Position of the source.
        run: Further values of the loop, such as the best loss and the time taken.
        config: `to_json` of the run's config.
    """

    data: dict
    run: dict
    config: dict


class Checkpoints:
    """The checkpoints of a folder; only the newest few and the one with the lowest loss are kept.

    Args:
        folder: Folder of the checkpoints; created if missing.
        keep: Number of the newest checkpoints to keep.
    """

    def __init__(self, folder: Path, keep: int):
        logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs every step of a save, with tracebacks
        self.folder = folder.absolute()
        policy = preservation_policy.AnyPreservationPolicy(
            [
                preservation_policy.LatestN(keep),
                preservation_policy.BestN(get_metric_fn=_goodness, n=1, keep_checkpoints_without_metrics=False),
            ]
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policy,
            best_fn=_goodness,  # without it losses are not written, and the best is unknown after a restart
            enable_async_checkpointing=False,
            cleanup_tmp_directories=True,
        )
        try:
            self._manager = ocp.CheckpointManager(self.folder, options=options)
        except (OSError, ValueError) as error:  # ValueError: the loss beside a checkpoint cannot be read
            raise UserError(f"{folder}: cannot be created or read ({_reason(error)}); choose another folder") from error

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint, in order."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: State, metadata: CheckpointMetadata, loss: float | None = None) -> None:
        """Write a checkpoint; one that exists for this step is replaced only if it had no loss.

        Args:
            step: Step of the state.
            state: Host arrays.
            metadata: Content besides the state.
            loss: Loss of the evaluation at this step, if there was one.

        Raises:
            UserError: The disk refused it; earlier checkpoints are unchanged.
        """
        exists = step in self._manager.all_steps()
        if exists and loss is None:
            return
        about = {"version": VERSION, **metadata._asdict()}
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(serialization.to_state_dict(state._asdict())), about=ocp.args.JsonSave(about)
        )
        try:
            with _silence_remains():
                metrics = None if loss is None else {_LOSS: float(loss)}
                if exists:  # saved by a signal that came before its evaluation was over
                    self._manager.delete(step)
                self._manager.save(step, args=items, metrics=metrics, force=True)
                self._manager.wait_until_finished()
        except Exception as error:  # OSError, or one of the kinds that TensorStore raises for a full disk
            self._remove_unfinished()
            raise UserError(
                f"{self.folder}: the checkpoint of step {step} cannot be written ({_reason(error)}); make room and "
                "start again with the same command: earlier checkpoints are whole"
            ) from error

    def _remove_unfinished(self):
        """Remove what Orbax leaves of a save that failed, which otherwise fills the disk until the next start."""
        for folder in self.folder.glob("*.orbax-checkpoint-tmp*"):
            for _ in range(50):  # its other arrays may still be being written
                shutil.rmtree(folder, ignore_errors=True)
                if not folder.exists():
                    break
                time.sleep(0.1)

    def metadata(self, step: int) -> CheckpointMetadata:
        """Read the content of a checkpoint besides its state.

        Raises:
            UserError: It cannot be read, or is of another version.
        """
        try:
            about = self._read(step, about=ocp.args.JsonRestore())
            version = about.pop("version")
            metadata = CheckpointMetadata(**about)
            metadata = metadata._replace(run={_RENAMED.get(name, name): value for name, value in metadata.run.items()})
        except Exception as error:
            raise self._damaged(step, error) from error
        if version != VERSION:
            raise UserError(
                f"{self.folder}: expected checkpoints of version {VERSION}, found {version}; start a new run"
            )
        return metadata

    def restore(self, step: int, like: State) -> State:
        """Read the state of a step, checked against one that was initialized from the config.

        Raises:
            UserError: It cannot be read, or is of another architecture or optimizer.
        """
        try:
            arrays = self._read(step, state=ocp.args.StandardRestore())
        except Exception as error:
            raise self._damaged(step, error) from error
        expected = serialization.to_state_dict(like._asdict())
        _check_shapes(expected, arrays, f"{self.folder / str(step)}")
        return State(**serialization.from_state_dict(like._asdict(), arrays))

    def close(self) -> None:
        """End Orbax's threads."""
        self._manager.close()

    def _read(self, step, **item):
        with _silence_remains():
            (content,) = self._manager.restore(step, args=ocp.args.Composite(**item)).values()
        return content

    def _damaged(self, step, error):
        path = self.folder / str(step)
        return UserError(
            f"{path}: the checkpoint cannot be read ({_reason(error)}); remove it to resume from an earlier one"
        )


def _goodness(metrics):
    return -metrics[_LOSS]


def _check_shapes(expected: Any, found: Any, path: str) -> None:
    trees = [
        {jax.tree_util.keystr(keys): np.shape(leaf) for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (expected, found)
    ]
    for name in sorted(trees[0].keys() | trees[1].keys()):
        if trees[0].get(name) != trees[1].get(name):
            shapes = [str(tree.get(name, "none")) for tree in trees]
            raise UserError(
                f"{path}: expected the array {name} to be of shape {shapes[0]}, found {shapes[1]}: the checkpoint "
                "has another architecture or optimizer; resume with its config, or choose another folder"
            )


@contextmanager
def _silence_remains():
    """Keep Orbax's remains of a failure from the user's terminal; the failure itself is raised and reported.

    At the first array that cannot be written or read, Orbax closes its event loop while the others are still in
    progress. Each of them, when it finishes, reports the closed loop from a thread of TensorStore, and Python prints
    the traceback of that; or it has failed like the first, and asyncio logs, when it is collected, that nobody asked
    for its error. Both happen at once, so that the hook must be installed before, or much later, so that it remains
    after a failure.
    """
    previous = sys.unraisablehook

    def hook(unraisable):
        if not (isinstance(unraisable.exc_value, RuntimeError) and str(unraisable.exc_value) == "Event loop is closed"):
            previous(unraisable)

    asyncio_log = logging.getLogger("asyncio")
    sys.unraisablehook = hook
    asyncio_log.addFilter(_asked_for)
    yield
    asyncio_log.removeFilter(_asked_for)
    sys.unraisablehook = previous


def _asked_for(record):
    text = record.getMessage()
    return "exception was never retrieved" not in text and "during asyncio.run() shutdown" not in text


def _reason(error):
    text = " ".join(str(error).split())
    for known in ("No space left on device", "File too large", "Disk quota exceeded", "Permission denied"):
        if known in text:
            return known
    return f"{type(error).__name__}: {text[:160]}"
