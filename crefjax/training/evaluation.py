"""Evaluation on samples that are never trained on."""

from collections.abc import Callable

import jax
import numpy as np

from crefjax.training.samples import close
from crefjax.training.sources import Source
from crefjax.training.step import divided, joined


def evaluate(
    step: Callable, parameters, source: Source, *, batch: int, devices, stopped: Callable[[], bool] = lambda: False
) -> dict | None:
    """The means of all metrics over the held-out samples.

    Args:
        step: from `step.make_evaluation_step`.
        parameters: on every device.
        source: with held-out samples.
        batch: samples in a step; a last batch that is short is filled up and what fills it not counted.
        devices: that compute.
        stopped: whether to give up, asked before every batch.

    Returns:
        Every metric's mean, `samples`, their number, and `entries`, the mean loss of every entry; None if given up.
    """
    names: list[str] = []
    found: dict[str, list[np.ndarray]] = {}
    batches = source.held_out()
    try:
        for samples in batches:
            if stopped():
                return None
            count = len(samples.entries)
            filled = jax.tree.map(lambda one, missing=batch - count: _filled(one, missing), samples.batch)
            told = joined(step(parameters, divided(filled, devices)))
            names += samples.entries
            for name, values in told.items():
                found.setdefault(name, []).append(values[:count])
    finally:
        close(batches)
    values = {name: np.concatenate(parts) for name, parts in found.items()}
    loss = values["loss"]
    entries = {name: float(loss[np.array(names) == name].mean()) for name in sorted(set(names))}
    return {**{name: float(one.mean()) for name, one in values.items()}, "samples": len(names), "entries": entries}


def _filled(array, missing):
    if not missing:
        return array
    array = np.asarray(array)
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
