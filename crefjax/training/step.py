"""One step of training and one of evaluation, on all devices: the only module that uses `jax.pmap`.

A state is replicated on every device, stacked along a first axis; a batch is sharded into equal parts along it. If
several processes train together, the first axis of the inputs and outputs of each runs over its own devices.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from crefjax.errors import UserError
from crefjax.training.processes import Processes, gather
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
    def evaluated_parameters(self) -> Parameters:
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
    """Return devices among which a batch divides: those of this process, or all of all processes that are connected.

    Args:
        count: Number of devices; 0 for as many as are available and divide the batch; of several processes, all.
        platform: `cpu`, `gpu`, or empty for JAX's choice.
        batch: Samples in a step.

    Raises:
        UserError: There are fewer devices, or the batch does not divide.
    """
    try:
        available = jax.devices(platform or None)
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
        if count not in (0, len(available)):
            raise UserError(
                f"config: devices: expected all {len(available)} devices of the {jax.process_count()} processes, found "
                f"{count}; leave it at 0"
            )
        count = len(available)
    parts = count or max(n for n in range(1, len(available) + 1) if batch % n == 0)
    devices = available[:parts]
    if batch % parts:
        below = batch - batch % parts
        near = f"{below} or {below + parts}" if below else f"{parts}"
        raise UserError(
            f"config: batch: expected a multiple of the number of devices, found {batch} samples for {parts} devices; "
            f"use {near}, or other devices"
        )
    return devices


def make_train_step(
    task: Task, optimizer: optax.GradientTransformation, *, decay: float, seed: int, devices: Sequence[jax.Device]
) -> TrainStep:
    """Return `(state, batch) -> (state, numbers)`, which donates the state's buffers.

    The numbers are `losses` of every sample, the task's own numbers of every sample, whether every sample is `finite`,
    and `gradient_norm`. Gradients are averaged over devices. If there are several processes, each gets the numbers of
    all samples.

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
        """Update the state by the part of a batch that is on this device."""
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
        numbers = {**numbers, "losses": losses, "finite": finite}
        if jax.process_count() > 1:
            numbers = lax.all_gather(numbers, _AXIS)
        numbers["gradient_norm"] = jnp.where(good, norm, jnp.nan)
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
        name: Name of the step for the message, such as "a step of 6 patches".

    Raises:
        UserError: Its temporaries need more memory than is free.
    """
    if jax.process_count() > 1:  # `jax.pmap` compiles ahead of time only for a process on its own
        return step
    compiled = step.lower(state, batch).compile()
    if (analysis := compiled.memory_analysis()) is not None:
        needed = analysis.temp_size_in_bytes * (len(devices) if devices[0].platform == "cpu" else 1)
        if needed > (free := free_memory(devices[0])):
            raise UserError(
                f"config: batch: expected {needed / GIB:.1f} GiB of memory for {name}, found {free / GIB:.1f} GiB; "
                "use fewer or smaller patches"
            )
    return compiled


def make_evaluation_step(task: Task, devices: Sequence[jax.Device]) -> Callable:
    """Return `(parameters, batch) -> metrics` of every sample."""
    return jax.pmap(task.metrics, axis_name=_AXIS, devices=devices)


class Agreement:
    """Agreement of the processes that train together, step by step: the largest of their values.

    It is known a few steps later, so that no process waits for it, and at the same step in all of them. A process on
    its own agrees with itself at once.

    Args:
        devices: Devices that compute.
        delay: Steps after which it is known.
    """

    def __init__(self, devices: Sequence[jax.Device], delay: int = 2):
        self._own = len(_local(devices))
        self._delay = delay if jax.process_count() > 1 else 0
        self._largest = jax.pmap(lambda values: lax.pmax(values, _AXIS), axis_name=_AXIS, devices=devices)
        self._pending: deque = deque()

    def agree(self, values: Sequence[int]) -> tuple[int, ...]:
        """Return the largest values of all processes a few steps ago, at first zeros; all must call it."""
        if not self._delay:
            return tuple(int(value) for value in values)
        self._pending.append(self._largest(np.tile(np.asarray(values, np.int32), (self._own, 1))))
        if len(self._pending) <= self._delay:
            return (0,) * len(values)
        return tuple(int(value) for value in np.asarray(self._pending.popleft().addressable_shards[0].data)[0])


def _local(devices):
    """Return the devices of this process."""
    return [device for device in devices if device.process_index == jax.process_index()]


def replicate(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """Copy a tree of arrays to every device of this process."""
    count = len(_local(devices))
    return jax.tree.map(lambda leaf: jnp.broadcast_to(jnp.asarray(leaf)[None], (count, *np.shape(leaf))), tree)


def unreplicate(tree: Any) -> Any:
    """Return the first device's copy as host arrays."""
    return jax.tree.map(lambda leaf: np.asarray(leaf.addressable_shards[0].data)[0], tree)


def shard(batch: Batch, devices: Sequence[jax.Device]) -> Batch:
    """Cut the samples of this process into a part for each of its devices."""
    count = len(_local(devices))
    return jax.tree.map(lambda leaf: leaf.reshape(count, -1, *leaf.shape[1:]), batch)


def unshard(numbers: Any) -> Any:
    """Return the numbers of the devices' samples as host arrays, in the order of the batch.

    Those of all processes come as a copy for each device, `(devices, all devices, samples)`.
    """

    def join(leaf):
        host = np.asarray(leaf)
        if host.ndim > 2:
            host = host[0]
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
    place: Processes = Processes(),  # noqa: B008 - immutable
) -> dict | None:
    """Average all metrics over the held-out samples.

    If several processes train together, each evaluates its part of every batch.

    Args:
        step: From `make_evaluation_step`.
        parameters: Replicated parameters.
        source: Source with held-out samples, those of this process.
        batch: Samples of this process in a step; a short last batch is filled up with samples that are not counted.
        devices: Devices that compute.
        stopped: Whether to give up, asked before every batch.
        place: This process.

    Returns:
        Every metric's mean; `samples`, their number; `entries`, the mean loss of every entry. None if `stopped`
        returned true.
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
    names, metrics = _join_parts(names, parts, batch, place)
    loss = metrics["loss"]
    entries = {name: float(loss[np.array(names) == name].mean()) for name in sorted(set(names))}
    means = {name: float(values.mean()) for name, values in metrics.items()}
    return {**means, "samples": len(names), "entries": entries}


def _join_parts(names, parts, batch, place):
    """Return the entries and the metrics of all processes' samples, in the order that a single process has them."""
    values = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    if place.count == 1:
        return names, values
    values = {name: array.tolist() for name, array in values.items()}
    everything = gather({"entries": names, "metrics": values}, place)
    order = sorted(
        (number // batch, index, number)
        for index, part in enumerate(everything)
        for number in range(len(part["entries"]))
    )
    joined = [everything[index]["entries"][number] for _, index, number in order]
    metrics = {
        name: np.array([everything[index]["metrics"][name][number] for _, index, number in order], np.float32)
        for name in everything[0]["metrics"]
    }
    return joined, metrics


def _pad(array, missing):
    """Repeat the last sample of a batch."""
    if not missing:
        return array
    array = np.asarray(array)
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
