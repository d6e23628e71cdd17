"""One step of training and one of evaluation, on all devices: the only room that knows `jax.pmap`.

A state lies on every device, stacked along a first axis; a batch is cut into equal parts along it.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from crefjax.errors import UserError
from crefjax.training.task import Batch, Parameters, Source, Task, close
from crefjax.utils.memory import GIB, free_memory


class State(NamedTuple):
    """The state of a run; with its source's position all that the next step depends on.

    Attributes:
        step: steps done, int32.
        parameters: of the network.
        optimizer: the optimizer's own.
        average: of the parameters, exponential; None where none is kept.
    """

    step: jax.Array
    parameters: Parameters
    optimizer: Any
    average: Parameters | None

    @property
    def best_parameters(self) -> Parameters:
        """Those to evaluate and to ship."""
        return self.parameters if self.average is None else self.average


def init_state(parameters: Parameters, optimizer: optax.GradientTransformation, *, average: bool) -> State:
    """The state before the first step."""
    return State(
        jnp.zeros((), jnp.int32),
        parameters,
        optimizer.init(parameters),
        jax.tree.map(jnp.copy, parameters) if average else None,  # a copy: the state's buffers are donated
    )


def update_ema(average: Parameters, parameters: Parameters, step: jax.Array, decay: float) -> Parameters:
    """The exponential average with new parameters in it.

    Early on the decay is `(1 + step) / (10 + step)`, so that the random first parameters are soon forgotten.
    """
    now = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda old, new: old + (1 - now) * (new - old), average, parameters)


_AXIS = "devices"

TrainStep = Callable[[State, Batch], tuple[State, dict[str, Any]]]


def find_devices(count: int, platform: str, batch: int) -> list[jax.Device]:
    """The devices of this process that compute, and among which a batch divides.

    Args:
        count: how many; 0 for as many as there are and the batch divides among.
        platform: `cpu`, `gpu`, or empty for what JAX finds best.
        batch: samples of a step.

    Raises:
        UserError: there are not so many, or the batch does not divide.
    """
    try:
        found = jax.local_devices(backend=platform or None)
    except RuntimeError as error:
        raise UserError(f"config: platform: JAX finds no {platform}; choose another, or leave it empty") from error
    if count > len(found):
        kind = found[0].platform
        advice = (
            f"set XLA_FLAGS=--xla_force_host_platform_device_count={count}, or ask for fewer"
            if kind == "cpu"
            else "ask for fewer"
        )
        raise UserError(f"config: devices: expected {count}, found {len(found)} of platform {kind}; {advice}")
    if jax.process_count() > 1:
        raise UserError(
            f"crefjax train: runs in one process with all its devices, found {jax.process_count()}; start one"
        )
    parts = count or max(n for n in range(1, len(found) + 1) if batch % n == 0)
    devices = found[:parts]
    if batch % parts:
        below = batch - batch % parts
        near = f"{below} or {below + parts}" if below else f"{parts}"
        raise UserError(
            f"config: batch: expected a multiple of the number of devices, found {batch} patches for {parts} devices; "
            f"take {near}, or other devices"
        )
    return devices


def make_train_step(task: Task, optimizer: optax.GradientTransformation, *, decay: float, seed: int, devices) -> Any:
    """`(state, batch) -> (state, told)`, with the state's buffers donated.

    Returned are `losses` of every sample, the task's own numbers of every sample, whether every sample is `finite`, and
    `gradient_norm`. Gradients are averaged over devices.

    A sample whose input is not finite is left out: its numbers are NaN, and trained on is the mean loss of the others.
    Where loss or gradient are not finite even so, or no sample is left, the step changes nothing but `State.step`, and
    `gradient_norm` is NaN. The optimizer does not count such a step, so that its rate is a step behind from there on.

    Args:
        task: to train.
        optimizer: of the parameters.
        decay: of the parameters' average; used where the state has one.
        seed: of what is random within a step.
        devices: that compute.
    """

    def step(state, batch):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), state.step), lax.axis_index(_AXIS))
        finite = _finite_samples(batch)
        share = lax.pmean(finite.mean(), _AXIS)
        filled = _filled(batch, finite)

        def mean_loss(parameters):
            losses, more = task.loss(parameters, filled, key)
            return jnp.where(finite, losses / share, 0).mean(), (losses, more)

        (loss, told), gradients = jax.value_and_grad(mean_loss, has_aux=True)(state.parameters)
        gradients = jax.tree.map(lambda leaf: jnp.where(finite.any(), leaf, 0), gradients)
        loss, gradients = lax.pmean((loss, gradients), _AXIS)
        norm = optax.tree.norm(gradients)
        good = (share > 0) & jnp.isfinite(loss) & jnp.isfinite(norm)
        new = _updated(state, gradients, optimizer, decay)
        new = jax.tree.map(lambda after, before: jnp.where(good, after, before), new, state)
        losses, more = jax.tree.map(lambda values: jnp.where(finite, values, jnp.nan), told)
        told = {**more, "losses": losses, "finite": finite, "gradient_norm": jnp.where(good, norm, jnp.nan)}
        return new._replace(step=state.step + 1), told

    return jax.pmap(step, axis_name=_AXIS, devices=devices, donate_argnums=(0,))


def _finite_samples(batch):
    """Whether all of a sample is finite, `(samples,)`."""
    found = [jnp.isfinite(leaf).reshape(len(leaf), -1).all(1) for leaf in jax.tree.leaves(batch)]
    return jnp.stack(found).all(0)


def _filled(batch, finite):
    """A batch with its first finite sample in the place of those that are not.

    A weight of 0 would not be enough: in a gradient, 0 times what is not finite is not finite.
    """
    first = jnp.argmax(finite)

    def fill(leaf):
        return jnp.where(finite.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, leaf[first][None])

    return jax.tree.map(fill, batch)


def _updated(state, gradients, optimizer, decay):
    """The state after a step that went well."""
    updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.parameters)
    parameters = optax.apply_updates(state.parameters, updates)
    done = state.step + 1
    average = None if state.average is None else update_ema(state.average, parameters, done, decay)
    return State(done, parameters, optimizer_state, average)


def compile_step(step, state: State, batch: Batch, devices: Sequence[jax.Device], what: str) -> Any:
    """A step, compiled for these shapes; what does not fit is told before anything runs.

    Args:
        step: from `make_train_step`.
        state: on every device.
        batch: divided.
        devices: that compute.
        what: it is, for the message.

    Raises:
        UserError: its temporaries need more memory than is free.
    """
    compiled = step.lower(state, batch).compile()
    if (analysis := compiled.memory_analysis()) is not None:
        needed = analysis.temp_size_in_bytes * (len(devices) if devices[0].platform == "cpu" else 1)
        if needed > (free := free_memory(devices[0])):
            raise UserError(
                f"config: batch: {what} needs {needed / GIB:.1f} GiB, found {free / GIB:.1f} GiB free; take fewer, or "
                "smaller patches"
            )
    return compiled


def make_evaluation_step(task: Task, devices) -> Any:
    """`(parameters, batch) -> metrics` of every sample."""
    return jax.pmap(task.metrics, axis_name=_AXIS, devices=devices)


def on_devices(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """A tree of arrays, on every device."""
    return jax.tree.map(lambda one: jnp.broadcast_to(jnp.asarray(one)[None], (len(devices), *np.shape(one))), tree)


def from_devices(tree: Any) -> Any:
    """The first device's copy, as host arrays."""
    return jax.tree.map(lambda one: np.asarray(one.addressable_shards[0].data)[0], tree)


def divided(batch: Batch, devices: Sequence[jax.Device]) -> Batch:
    """A batch cut into a part for each device."""
    return jax.tree.map(lambda one: one.reshape(len(devices), -1, *one.shape[1:]), batch)


def joined(told: Any) -> Any:
    """What the devices tell of their samples, in the order of the batch, as host arrays."""

    def join(one):
        host = np.asarray(one)
        return host.reshape(-1) if host.ndim > 1 else host[0]

    return jax.tree.map(join, told)


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
            filled = jax.tree.map(lambda one, missing=batch - count: _padded(one, missing), samples.batch)
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


def _padded(array, missing):
    if not missing:
        return array
    array = np.asarray(array)
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
