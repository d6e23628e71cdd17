"""One step on several devices is the step on one; what does not divide is said first."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.toy_task import Line, NumpyAdam, batch_of, config

from crefjax.errors import UserError
from crefjax.models.unet3d import UNet3DConfig
from crefjax.training import step as steps
from crefjax.training.denoising import DenoisingTask
from crefjax.training.optimizer import make_optimizer, make_schedule
from crefjax.training.step import init_state

TINY = {"depth": 1, "down_width": 2, "up_width": 2, "last_widths": (2,)}
DENOISING = DenoisingTask(UNet3DConfig(**TINY), {"cref_l1": 1.0})


def maps(number, side=8):
    """Eight half-map pairs of one signal each."""
    random = np.random.default_rng([3, number])
    signal = random.standard_normal((8, side, side, side)).astype(np.float32)
    noise = random.standard_normal((2, *signal.shape)).astype(np.float32)
    return {"half_map_1": signal + noise[0], "half_map_2": signal + noise[1]}


def run(task, batches, devices, **fields):
    """Per step the losses of every sample and the gradient's norm, and the last state."""
    devices = jax.devices("cpu")[:devices]
    c = config(**fields)
    optimizer = make_optimizer(c, make_schedule(c, epoch_steps=5, steps=50))
    step = steps.make_train_step(task, optimizer, decay=c.average, seed=0, devices=devices)
    state = init_state(task.init(jax.random.key(0)), optimizer, average=c.average > 0)
    state, found = steps.replicate(state, devices), []
    for batch in batches:
        state, metrics = step(state, steps.shard(batch, devices))
        found.append(steps.unshard(metrics))
    return found, state


def test_steps_agree_with_numpy_adam_on_any_number_of_devices():
    batches = [batch_of(range(8 * k, 8 * k + 8)).batch for k in range(6)]
    slow = NumpyAdam(0.05, clip=2.0)
    expected = [slow.step(batch) for batch in batches]
    for devices in (1, 2):
        found, state = run(Line(), batches, devices, optimizer__clip=2.0)
        for metrics, (losses, norm) in zip(found, expected, strict=True):
            np.testing.assert_allclose(metrics["losses"], losses, rtol=1e-4)
            np.testing.assert_allclose(metrics["absolute"] ** 2, losses, rtol=1e-4)
            np.testing.assert_allclose(metrics["gradient_norm"], norm, rtol=1e-4)
        parameters = steps.unreplicate(state.parameters)
        np.testing.assert_allclose([*parameters["w"], parameters["b"]], slow.p, rtol=1e-4, atol=1e-6)
        assert steps.unreplicate(state.step) == 6


def test_the_average_is_taken_over_the_parameters_after_each_step():
    batches = [batch_of(range(8 * k, 8 * k + 8)).batch for k in range(5)]
    slow, average = NumpyAdam(0.05), np.zeros(4)
    for number, batch in enumerate(batches, 1):
        slow.step(batch)
        decay = min(0.3, (1 + number) / (10 + number))
        average = decay * average + (1 - decay) * slow.p
    _, state = run(Line(), batches, 2, average=0.3)
    found = steps.unreplicate(state.evaluated_parameters)
    np.testing.assert_allclose([*found["w"], found["b"]], average, rtol=1e-4)


@pytest.fixture(scope="module")
def learning():
    """Losses `(step, sample)` of the network on one device, and its last state."""
    return denoising_losses(1)


def denoising_losses(devices):
    found, state = run(DENOISING, [maps(k) for k in range(5)], devices)
    return np.array([metrics["losses"] for metrics in found]), state


def test_the_network_learns_the_same_on_one_device_and_on_two(learning):
    losses, state = learning
    on_two_devices, _ = denoising_losses(2)
    assert losses.shape == (5, 8)
    np.testing.assert_allclose(on_two_devices, losses, atol=1e-5, rtol=0)
    before = DENOISING.init(jax.random.key(0))
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), before, steps.unreplicate(state.parameters))
    assert min(jax.tree.leaves(moved)) > 1e-3


def line_losses(devices):
    found, _ = run(Line(), [batch_of(range(8 * k, 8 * k + 8)).batch for k in range(6)], devices)
    return [metrics["losses"].tolist() for metrics in found]


def test_four_devices_and_one_give_the_same():
    program = "import json, test_step; print(json.dumps(test_step.line_losses(4)))"
    here = Path(__file__).parent
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "PYTHONPATH": os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")]),
    }
    ended = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    four = json.loads(ended.stdout.splitlines()[-1])
    np.testing.assert_allclose(four, line_losses(1), atol=1e-5, rtol=0)


def test_the_buffers_of_the_state_are_donated():
    """A warning that they were not usable would be an error here."""
    devices = jax.devices("cpu")[:2]
    c = config(average=0.9)
    optimizer = make_optimizer(c, make_schedule(c, epoch_steps=5, steps=50))
    step = steps.make_train_step(Line(), optimizer, decay=0.9, seed=0, devices=devices)
    state = steps.replicate(init_state(Line().init(None), optimizer, average=True), devices)
    batch = steps.shard(batch_of(range(4)).batch, devices)
    state, _ = step(state, batch)  # the first one has still to be laid on the devices
    after, _ = step(state, batch)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(after))


def test_the_key_differs_between_steps_and_devices_and_comes_from_the_seed():
    class Noisy(Line):
        def loss(self, parameters, batch, key):
            drawn = jax.random.uniform(key, batch["y"].shape)
            return drawn + 0 * parameters["b"], {}

    batches = [batch_of(range(2)).batch] * 2
    first, _ = run(Noisy(), batches, 2)
    again, _ = run(Noisy(), batches, 2)
    drawn = np.concatenate([metrics["losses"] for metrics in first])
    assert len(set(drawn.tolist())) == 4
    assert np.array_equal(drawn, np.concatenate([metrics["losses"] for metrics in again]))


def test_only_activations_are_bfloat16(learning):
    half = DenoisingTask(UNet3DConfig(**TINY, compute_dtype="bfloat16"), DENOISING.loss_weights)
    (metrics,), state = run(half, [maps(0)], 2, average=0.5)
    assert {metrics[name].dtype for name in ("losses", "cref_l1", "gradient_norm")} == {np.dtype("float32")}
    assert 0 < np.abs(metrics["losses"] - learning[0][0]).max() < 0.02
    kept = {leaf.dtype for leaf in jax.tree.leaves(state) if leaf.dtype != jnp.int32}
    assert kept == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("count", "batch", "message"),
    [
        (3, 6, "devices: expected 3, found 2 of platform cpu; set XLA_FLAGS=--xla_force_host_platform_device_count=3"),
        (2, 5, "batch: expected a multiple of the number of devices, found 5 samples for 2 devices; use 4 or 6"),
        (2, 1, "found 1 samples for 2 devices; use 2, "),
    ],
)
def test_a_batch_that_does_not_divide_is_refused_with_its_numbers(count, batch, message):
    with pytest.raises(UserError, match=message):
        steps.find_devices(count, "cpu", batch)


def test_a_platform_without_devices_is_refused():
    with pytest.raises(UserError, match="platform: JAX finds no gpu"):
        steps.find_devices(0, "gpu", 2)


def test_devices_are_all_that_divide_the_batch_or_the_number_asked_for():
    assert steps.find_devices(0, "", 4) == jax.local_devices()
    assert steps.find_devices(0, "", 3) == jax.local_devices()[:1]
    assert steps.find_devices(1, "cpu", 3) == jax.local_devices()[:1]


def test_the_default_number_of_devices_divides_the_batch():
    assert steps.find_devices(0, "", 3) == jax.local_devices()[:1]
    assert steps.find_devices(0, "", 1) == jax.local_devices()[:1]


def test_sharding_and_unsharding_keep_the_order_of_a_batch():
    devices = jax.devices("cpu")[:2]
    batch = {"x": np.arange(12.0).reshape(4, 3)}
    parts = steps.shard(batch, devices)["x"]
    assert parts.tolist() == [[[0, 1, 2], [3, 4, 5]], [[6, 7, 8], [9, 10, 11]]]
    metrics = steps.unshard({"losses": np.array([[1, 2], [3, 4]]), "norm": np.array([7, 7])})
    assert metrics["losses"].tolist() == [1, 2, 3, 4]
    assert metrics["norm"] == 7
