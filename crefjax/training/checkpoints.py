"""Checkpoints of a run: its state, its source's position and its config, as Orbax writes them.

A checkpoint appears whole or not at all: Orbax writes beside its place and renames. The newest few and the best stay.
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


class CheckpointMetadata(NamedTuple):
    """What a checkpoint holds besides its state.

    Attributes:
        data: the source's position.
        run: what the loop keeps besides, such as the best loss and the time taken.
        config: `as_json` of the run's config.
    """

    data: dict
    run: dict
    config: dict


class Checkpoints:
    """The checkpoints of a folder; only the newest few and the one of least loss are kept.

    Args:
        folder: made where it is not.
        keep: how many of the newest.
    """

    def __init__(self, folder: Path, keep: int):
        logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax tells every step of a save, with tracebacks
        self.folder = folder.absolute()
        policy = preservation_policy.AnyPreservationPolicy(
            [
                preservation_policy.LatestN(keep),
                preservation_policy.BestN(get_metric_fn=_goodness, n=1, keep_checkpoints_without_metrics=False),
            ]
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policy,
            best_fn=_goodness,  # else losses are not written, and the best is not known after a restart
            enable_async_checkpointing=False,
            cleanup_tmp_directories=True,
        )
        try:
            self._manager = ocp.CheckpointManager(self.folder, options=options)
        except (OSError, ValueError) as error:  # ValueError: the loss beside a checkpoint cannot be read
            raise UserError(f"{folder}: cannot be made or read ({_reason(error)}); give another --workdir") from error

    def steps(self) -> list[int]:
        """The steps that there is a checkpoint of, in order."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: State, saved: CheckpointMetadata, loss: float | None = None) -> None:
        """Write a checkpoint of host arrays; where there is one of this step already, only if it had no loss.

        Args:
            step: of the state.
            state: host arrays.
            saved: what goes with it.
            loss: of the evaluation at this step, if there was one.

        Raises:
            UserError: the disk refused; earlier checkpoints are as they were.
        """
        there = step in self._manager.all_steps()
        if there and loss is None:
            return
        about = {"version": VERSION, **saved._asdict()}
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(serialization.to_state_dict(state._asdict())), about=ocp.args.JsonSave(about)
        )
        try:
            with _silent_closed_loops():
                metrics = None if loss is None else {_LOSS: float(loss)}
                if there:  # saved by a signal that came before its evaluation was over
                    self._manager.delete(step)
                self._manager.save(step, args=items, metrics=metrics, force=True)
                self._manager.wait_until_finished()
        except Exception as error:  # OSError, or one of the kinds that TensorStore gives a full disk
            self._remove_unfinished()
            raise UserError(
                f"{self.folder}: the checkpoint of step {step} cannot be written ({_reason(error)}); make room and "
                "start again with the same command: earlier checkpoints are whole"
            ) from error

    def _remove_unfinished(self):
        """Remove what Orbax leaves of a save that failed; else it takes room on a full disk until the next start."""
        for folder in self.folder.glob("*.orbax-checkpoint-tmp*"):
            for _ in range(50):  # its other arrays may still be under way
                shutil.rmtree(folder, ignore_errors=True)
                if not folder.exists():
                    break
                time.sleep(0.1)

    def about(self, step: int) -> CheckpointMetadata:
        """What goes with the state of a step.

        Raises:
            UserError: it cannot be read, or is of another version.
        """
        try:
            about = self._read(step, about=ocp.args.JsonRestore())
            version = about.pop("version")
            saved = CheckpointMetadata(**about)
        except Exception as error:
            raise self._damaged(step, error) from error
        if version != VERSION:
            raise UserError(
                f"{self.folder}: expected checkpoints of version {VERSION}, found {version}; start a new run"
            )
        return saved

    def restore(self, step: int, like: State) -> State:
        """The state of a step, checked against one that was made from the config.

        Raises:
            UserError: it cannot be read, or is of another architecture or optimizer.
        """
        try:
            found = self._read(step, state=ocp.args.StandardRestore())
        except Exception as error:
            raise self._damaged(step, error) from error
        expected = serialization.to_state_dict(like._asdict())
        _check_shapes(expected, found, f"{self.folder / str(step)}")
        return State(**serialization.from_state_dict(like._asdict(), found))

    def close(self) -> None:
        """End Orbax's threads."""
        self._manager.close()

    def _read(self, step, **item):
        with _silent_closed_loops():
            (found,) = self._manager.restore(step, args=ocp.args.Composite(**item)).values()
        return found

    def _damaged(self, step, error):
        where = self.folder / str(step)
        return UserError(
            f"{where}: the checkpoint cannot be read ({_reason(error)}); remove it to go on from an earlier one"
        )


def _goodness(metrics):
    return -metrics[_LOSS]


def _check_shapes(expected: Any, found: Any, where: str) -> None:
    shapes = [
        {jax.tree_util.keystr(path): np.shape(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (expected, found)
    ]
    for name in sorted(shapes[0].keys() | shapes[1].keys()):
        if shapes[0].get(name) != shapes[1].get(name):
            told = [str(one.get(name, "none")) for one in shapes]
            raise UserError(
                f"{where}: expected the array {name} to be of shape {told[0]}, found {told[1]}: a checkpoint of "
                "another architecture or optimizer; take the config it was made with, or another --workdir"
            )


@contextmanager
def _silent_closed_loops():
    """Keeps what Orbax leaves of a failure from the user's terminal; what fails is raised, and told, all the same.

    At the first array that cannot be written or read, Orbax closes its event loop while the others are still under
    way. Each of them, when it is over, tells the closed loop from a thread of TensorStore, and Python prints the
    traceback of that: at once, so that the hook has to be there before, or much later, so that it stays after a
    failure.
    """
    before = sys.unraisablehook

    def hook(unraisable):
        if not (isinstance(unraisable.exc_value, RuntimeError) and str(unraisable.exc_value) == "Event loop is closed"):
            before(unraisable)

    sys.unraisablehook = hook
    yield
    sys.unraisablehook = before


def _reason(error):
    text = " ".join(str(error).split())
    for known in ("No space left on device", "File too large", "Disk quota exceeded", "Permission denied"):
        if known in text:
            return known
    return f"{type(error).__name__}: {text[:160]}"
