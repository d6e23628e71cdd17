"""One step of training and one of evaluation, on all devices: the only module that uses `jax.pmap`.

A state is replicated on every device, stacked along a first axis; a batch is sharded into equal parts along it.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from crefjax.errors import UserError
from crefjax.training.task import Batch, DataSource, Parameters, Task, close
from crefjax.utils.memory import GIB, free_memory

_AXIS = "devices"

TrainStep = Callable[["State", Batch], tuple["State", dict[str, Any]]]


class State(NamedTuple):
    """State of a run; with its source's position, everything on which the next step depends.

    Attributes:
        step: Number of steps done, int32.
        parameters: Parameters of the task.
        optimizer: State of the optimizer.
        average: Exponential moving average of the parameters; None if there is none.
    """

    step: jax.Array
    parameters: Parameters
    optimizer: Any
    average: Parameters | None

    @property
    def best_parameters(self) -> Parameters:
        """The parameters to evaluate and to export."""
        return self.parameters if self.average is None else self.average


def init_state(parameters: Parameters, optimizer: optax.GradientTransformation, *, average: bool) -> State:
    """Return the state before the first step."""
    return State(
        jnp.zeros((), jnp.int32),
        parameters,
        optimizer.init(parameters),
        jax.tree.map(jnp.copy, parameters) if average else None,  # a copy: the state's buffers are donated
    )


def update_ema(average: Parameters, parameters: Parameters, step: jax.Array, decay: float) -> Parameters:
    """Return the exponential moving average updated by new parameters.

    Early on the decay is `(1 + step) / (10 + step)`, so that the random initial parameters are soon forgotten.
    """
    decay = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda old, new: old + (1 - decay) * (new - old), average, parameters)


def find_devices(count: int, platform: str, batch: int) -> list[jax.Device]:
    """Return devices of this process among which a batch divides.

    Args:
        count: Number of devices; 0 for as many as are available and divide the batch.
        platform: `cpu`, `gpu`, or empty for JAX's choice.
        batch: Samples in a step.

    Raises:
        UserError: There are fewer devices, or the batch does not divide.
    """
    try:
        available = jax.local_devices(backend=platform or None)
    except RuntimeError as error:
        raise UserError(f"config: platform: JAX finds no {platform}; choose another, or leave it empty") from error
    if count > len(available):
        kind = available[0].platform
        advice = (
            f"set XLA_FLAGS=--xla_force_host_platform_device_count={count}, or ask for fewer"
            if kind == "cpu"
            else "ask for fewer"
        )
        raise UserError(f"config: devices: expected {count}, found {len(available)} of platform {kind}; {advice}")
    if jax.process_count() > 1:
        raise UserError(
            f"crefjax train: expected one process with all its devices, found {jax.process_count()}; start one"
        )
    parts = count or max(n for n in range(1, len(available) + 1) if batch % n == 0)
    devices = available[:parts]
    if batch % parts:
        below = batch - batch % parts
        near = f"{below} or {below + parts}" if below else f"{parts}"
        raise UserError(
            f"config: batch: expected a multiple of the number of devices, found {batch} samples for {parts} devices; "
            f"take {near}, or other devices"
        )
    return devices


def make_train_step(
    task: Task, optimizer: optax.GradientTransformation, *, decay: float, seed: int, devices: Sequence[jax.Device]
) -> TrainStep:
    """Return `(state, batch) -> (state, numbers)`, which donates the state's buffers.

    The numbers are `losses` of every sample, the task's own numbers of every sample, whether every sample is `finite`,
    and `gradient_norm`. Gradients are averaged over devices.

    A sample whose input is not finite is skipped: its numbers are NaN, and the mean loss of the others is minimized. If
    the loss or the gradient is not finite even so, or no sample remains, the step changes nothing but `State.step`, and
    `gradient_norm` is NaN. The optimizer does not count such a step, so that its rate lags by a step from there on.

    Args:
        task: Task to train.
        optimizer: Optimizer of the parameters.
        decay: Decay of the parameters' average, if the state has one.
        seed: Seed of random choices within a step.
        devices: Devices that compute.
    """

    def step(state, batch):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), state.step), lax.axis_index(_AXIS))
        finite = _finite_samples(batch)
        share = lax.pmean(finite.mean(), _AXIS)
        filled = _fill(batch, finite)

        def mean_loss(parameters):
            losses, numbers = task.loss(parameters, filled, key)
            return jnp.where(finite, losses / share, 0).mean(), (losses, numbers)

        (loss, aux), gradients = jax.value_and_grad(mean_loss, has_aux=True)(state.parameters)
        gradients = jax.tree.map(lambda leaf: jnp.where(finite.any(), leaf, 0), gradients)
        loss, gradients = lax.pmean((loss, gradients), _AXIS)
        norm = optax.tree.norm(gradients)
        good = (share > 0) & jnp.isfinite(loss) & jnp.isfinite(norm)
        new = _update(state, gradients, optimizer, decay)
        new = jax.tree.map(lambda after, before: jnp.where(good, after, before), new, state)
        losses, numbers = jax.tree.map(lambda values: jnp.where(finite, values, jnp.nan), aux)
        numbers = {**numbers, "losses": losses, "finite": finite, "gradient_norm": jnp.where(good, norm, jnp.nan)}
        return new._replace(step=state.step + 1), numbers

    return jax.pmap(step, axis_name=_AXIS, devices=devices, donate_argnums=(0,))


def _finite_samples(batch):
    """Return whether all of a sample is finite, `(samples,)`."""
    by_array = [jnp.isfinite(leaf).reshape(len(leaf), -1).all(1) for leaf in jax.tree.leaves(batch)]
    return jnp.stack(by_array).all(0)


def _fill(batch, finite):
    """Replace the samples of a batch that are not finite by its first finite one.

    A weight of 0 would not be enough: in a gradient, 0 times a value that is not finite is not finite.
    """
    first = jnp.argmax(finite)

    def fill(leaf):
        return jnp.where(finite.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, leaf[first][None])

    return jax.tree.map(fill, batch)


def _update(state, gradients, optimizer, decay):
    """Return the state after a step whose gradients are finite."""
    updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.parameters)
    parameters = optax.apply_updates(state.parameters, updates)
    step = state.step + 1
    average = None if state.average is None else update_ema(state.average, parameters, step, decay)
    return State(step, parameters, optimizer_state, average)


def compile_step(step: Callable, state: State, batch: Batch, devices: Sequence[jax.Device], name: str) -> TrainStep:
    """Compile a step for the shapes of a batch, and check its memory before anything runs.

    Args:
        step: From `make_train_step`.
        state: Replicated state.
        batch: Sharded batch.
        devices: Devices that compute.
        name: What it is, for the message, such as "a step of 6 patches".

    Raises:
        UserError: Its temporaries need more memory than is free.
    """
    compiled = step.lower(state, batch).compile()
    if (analysis := compiled.memory_analysis()) is not None:
        needed = analysis.temp_size_in_bytes * (len(devices) if devices[0].platform == "cpu" else 1)
        if needed > (free := free_memory(devices[0])):
            raise UserError(
                f"config: batch: {name} needs {needed / GIB:.1f} GiB, found {free / GIB:.1f} GiB free; take fewer or "
                "smaller patches"
            )
    return compiled


def make_evaluation_step(task: Task, devices: Sequence[jax.Device]) -> Callable:
    """Return `(parameters, batch) -> metrics` of every sample."""
    return jax.pmap(task.metrics, axis_name=_AXIS, devices=devices)


def replicate(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """Copy a tree of arrays to every device."""
    count = len(devices)
    return jax.tree.map(lambda leaf: jnp.broadcast_to(jnp.asarray(leaf)[None], (count, *np.shape(leaf))), tree)


def unreplicate(tree: Any) -> Any:
    """Return the first device's copy as host arrays."""
    return jax.tree.map(lambda leaf: np.asarray(leaf.addressable_shards[0].data)[0], tree)


def shard(batch: Batch, devices: Sequence[jax.Device]) -> Batch:
    """Cut a batch into a part for each device."""
    return jax.tree.map(lambda leaf: leaf.reshape(len(devices), -1, *leaf.shape[1:]), batch)


def unshard(numbers: Any) -> Any:
    """Return the numbers of the devices' samples as host arrays, in the order of the batch."""

    def join(leaf):
        host = np.asarray(leaf)
        return host.reshape(-1) if host.ndim > 1 else host[0]

    return jax.tree.map(join, numbers)


def evaluate(
    step: Callable,
    parameters: Parameters,
    source: DataSource,
    *,
    batch: int,
    devices: Sequence[jax.Device],
    stopped: Callable[[], bool] = lambda: False,
) -> dict | None:
    """Average all metrics over the held-out samples.

    Args:
        step: From `make_evaluation_step`.
        parameters: Replicated parameters.
        source: Source with held-out samples.
        batch: Samples in a step; a short last batch is filled up with samples that are not counted.
        devices: Devices that compute.
        stopped: Whether to give up, asked before every batch.

    Returns:
        Every metric's mean; `samples`, their number; `entries`, the mean loss of every entry. None if given up.
    """
    names: list[str] = []
    parts: dict[str, list[np.ndarray]] = {}
    batches = source.held_out()
    try:
        for samples in batches:
            if stopped():
                return None
            count = len(samples.entries)
            filled = jax.tree.map(lambda leaf, missing=batch - count: _pad(leaf, missing), samples.batch)
            metrics = unshard(step(parameters, shard(filled, devices)))
            names += samples.entries
            for name, values in metrics.items():
                parts.setdefault(name, []).append(values[:count])
    finally:
        close(batches)
    metrics = {name: np.concatenate(values) for name, values in parts.items()}
    loss = metrics["loss"]
    entries = {name: float(loss[np.array(names) == name].mean()) for name in sorted(set(names))}
    means = {name: float(values.mean()) for name, values in metrics.items()}
    return {**means, "samples": len(names), "entries": entries}


def _pad(array, missing):
    """Repeat the last sample of a batch."""
    if not missing:
        return array
    array = np.asarray(array)
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
