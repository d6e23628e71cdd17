"""Runs of a task that are broken off and resumed."""

import jax
import numpy as np
import pytest

from crefjax.training.loop import train
from crefjax.training.task import make_task
from crefjax.weights.store import load_weights


def run(config, folder):
    """Train; return the weights of the last step."""
    train(config, folder, *make_task(config), say=lambda line: None)
    return load_weights(folder / "last", "images")


class Ended(BaseException):
    """Stands for a kill."""


class _OneBatch:
    """Batches that end the run after the first."""

    def __init__(self, batches):
        self._batches, self._given = batches, False
        self.get_state, self.set_state, self.close = batches.get_state, batches.set_state, batches.close

    def __next__(self):
        if self._given:
            raise Ended
        self._given = True
        return next(self._batches)


def run_and_resume(config, folder):
    """Train in one go, and broken off after a step; check that both end with the same bits; return the weights."""
    whole = run(config, folder / "whole")
    task, source = make_task(config)
    batches = source.training
    object.__setattr__(source, "training", lambda: _OneBatch(batches()))
    with pytest.raises(Ended):
        train(config, folder / "ended", task, source, say=lambda line: None)
    resumed = run(config, folder / "ended")
    assert (folder / "ended/checkpoints/1").is_dir()
    assert same(whole.parameters, resumed.parameters)
    return whole


def same(first, second):
    """Return whether two trees have the same bits."""
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, first, second)))
