"""Rates, optimizers and averages, each against what it is by hand or in NumPy."""

import math

import numpy as np
import optax
import pytest
from helpers.toy_task import config

from crefjax.errors import UserError
from crefjax.training.optimizer import make_optimizer, make_schedule
from crefjax.training.step import update_ema


def rates(c, steps, *, epoch_steps=7, at):
    schedule = make_schedule(c, epoch_steps=epoch_steps, steps=steps)
    return [float(schedule(step)) for step in at]


def test_the_papers_rate_falls_to_0_7_in_ten_epochs_without_steps():
    c = config(schedule__name="exponential", schedule__rate=3e-4)
    epoch = 9196  # 55,176 patches by 6
    found = rates(c, 195 * epoch, epoch_steps=epoch, at=[0, 1, 5 * epoch, 10 * epoch, 20 * epoch, 195 * epoch])
    expected = [3e-4 * 0.7 ** (epochs / 10) for epochs in (0, 1 / epoch, 5, 10, 20, 195)]
    np.testing.assert_allclose(found, expected, rtol=2e-5)


def test_cosine_falls_to_its_share_at_the_last_step():
    c = config(schedule__name="cosine", schedule__rate=2.0, schedule__final=0.1)
    found = rates(c, 40, at=[0, 10, 20, 30, 40])
    expected = [2 * (0.1 + 0.9 * (1 + math.cos(math.pi * t / 40)) / 2) for t in (0, 10, 20, 30, 40)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_warmup_rises_from_0_and_the_schedule_starts_after_it():
    c = config(schedule__name="cosine", schedule__rate=2.0, schedule__warmup=10)
    found = rates(c, 50, at=[0, 5, 10, 30, 50])
    np.testing.assert_allclose(found, [0, 1, 2, 1, 0], atol=1e-6)
    c = config(schedule__name="exponential", schedule__rate=2.0, schedule__warmup=4, schedule__decay_epochs=1.0)
    np.testing.assert_allclose(rates(c, 50, at=[2, 4, 11, 18]), [1, 2, 1.4, 0.98], rtol=1e-5)
    assert rates(config(schedule__rate=0.5), 50, at=[0, 49]) == [0.5, 0.5]


def test_cycles_restart_with_a_lower_rate():
    settings = {"schedule__name": "cycles", "schedule__rate": 2.0, "schedule__decay": 0.5, "schedule__warmup": 4}
    c = config(**settings, schedule__cycle_steps=24, schedule__final=0.1)
    cycle = [0, 1, 2, 2 * (0.1 + 0.9 * 0.5), 2 * (0.1 + 0.9 * (1 + math.cos(math.pi * 19 / 20)) / 2)]
    found = rates(c, 24, at=[0, 2, 4, 14, 23, 24, 26, 28, 38, 47, 52])
    np.testing.assert_allclose(found, [*cycle, *(0.5 * np.array(cycle)), 0.5], rtol=1e-5, atol=1e-7)
    for length in (0, 4):
        with pytest.raises(
            UserError, match=r"schedule\.cycle_steps: expected more than schedule\.warmup, 4 steps, found"
        ):
            rates(config(**settings, schedule__cycle_steps=length), 24, at=[0])


RANDOM = np.random.default_rng(5)
GRADIENTS = RANDOM.standard_normal((12, 4))
START = RANDOM.standard_normal(4)


def run(c):
    """Parameters after each gradient."""
    optimizer = make_optimizer(c, make_schedule(c, epoch_steps=3, steps=12))
    parameters = {"a": np.float32(START)}
    state, found = optimizer.init(parameters), []
    for gradient in GRADIENTS:
        updates, state = optimizer.update({"a": np.float32(gradient)}, state, parameters)
        parameters = optax.apply_updates(parameters, updates)
        found.append(np.asarray(parameters["a"]))
    return np.array(found)


def slow_adam(rate, *, b1=0.9, b2=0.999, eps=1e-8, decay=0.0, gradients=GRADIENTS):
    p, m, v, found = START.copy(), 0.0, 0.0, []
    for t, g in enumerate(gradients, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        step = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        p = p - rate(t - 1) * (step + decay * p)
        found.append(p)
    return np.array(found)


def test_adam_with_a_falling_rate_agrees_with_numpy():
    c = config(schedule__name="exponential", schedule__rate=0.1, schedule__decay_epochs=2.0)
    np.testing.assert_allclose(run(c), slow_adam(lambda t: 0.1 * 0.7 ** (t / 6)), rtol=2e-5, atol=1e-5)


def test_adam_uses_the_constants_of_the_config():
    c = config(schedule__rate=0.1, optimizer__b1=0.5, optimizer__b2=0.8, optimizer__eps=0.3)
    np.testing.assert_allclose(run(c), slow_adam(lambda t: 0.1, b1=0.5, b2=0.8, eps=0.3), rtol=2e-5, atol=1e-5)


def test_adamw_decays_the_parameters_themselves():
    c = config(schedule__rate=0.1, optimizer__name="adamw", optimizer__weight_decay=0.2)
    np.testing.assert_allclose(run(c), slow_adam(lambda t: 0.1, decay=0.2), rtol=2e-5, atol=1e-5)


def test_accumulated_gradients_change_the_parameters_by_their_mean_at_the_rate_of_the_step():
    falling = {"schedule__name": "exponential", "schedule__rate": 0.1, "schedule__decay_epochs": 2.0}
    found = run(config(**falling, optimizer__accumulate=3))
    means = GRADIENTS.reshape(4, 3, 4).mean(1)
    expected = slow_adam(lambda update: 0.1 * 0.7 ** (3 * update / 6), gradients=means)
    np.testing.assert_allclose(found[2::3], expected, rtol=2e-5, atol=1e-5)
    np.testing.assert_array_equal(found[:2], np.float32([START, START]))
    np.testing.assert_array_equal(found[3:5], found[[2, 2]])


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_sgd_with_momentum_agrees_with_numpy(momentum):
    c = config(schedule__rate=0.1, optimizer__name="sgd", optimizer__b1=momentum)
    p, trace, expected = START.copy(), 0.0, []
    for g in GRADIENTS:
        trace = g + momentum * trace
        p = p - 0.1 * trace
        expected.append(p)
    np.testing.assert_allclose(run(c), expected, rtol=2e-5, atol=1e-5)


def test_muon_steps_are_equal_along_the_directions_of_a_kernel():
    """Jordan 2024: the singular vectors of the kernel's momentum stay, its singular values become about 1."""
    c = config(schedule__rate=0.1, optimizer__name="muon")
    optimizer = make_optimizer(c, make_schedule(c, epoch_steps=3, steps=12))
    random = np.random.default_rng(7)
    shapes = {"kernel": (3, 3, 3, 2, 8), "output": (3, 3, 3, 2, 1), "bias": (8,)}
    gradients = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    gradients["kernel"] *= np.float32([1, 1, 1, 1, 1, 1, 1, 20])  # one output's gradient is far larger
    start = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    updates, _ = optimizer.update(gradients, optimizer.init(start), start)
    step = -np.asarray(updates["kernel"], float).reshape(54, 8)
    left, _, right = np.linalg.svd(gradients["kernel"].reshape(54, 8), full_matrices=False)
    along = left.T @ step @ right.T / (0.1 * 0.2 * np.sqrt(54))
    np.testing.assert_allclose(along, np.eye(8), atol=0.35)  # its five iterations leave them between 0.7 and 1.3
    # The first step of Adam with Nesterov's momentum (Dozat 2016): b1 m2 / (1 - b1²) + g, m2 = (1 - b1) g, over |g|.
    for name in ("output", "bias"):
        size = 0.1 * (0.9 * 0.1 / (1 - 0.9**2) + 1)
        np.testing.assert_allclose(updates[name], -size * np.sign(gradients[name]), rtol=1e-3)


def test_only_gradients_longer_than_the_clip_are_shortened():
    norms = np.linalg.norm(GRADIENTS, axis=1, keepdims=True)
    limit = float(np.median(norms))
    shortened = GRADIENTS * np.minimum(1, limit / norms)
    assert (norms > limit).sum() == 6
    c = config(schedule__rate=0.1, optimizer__clip=limit)
    np.testing.assert_allclose(run(c), slow_adam(lambda t: 0.1, gradients=shortened), rtol=2e-5, atol=1e-5)


def test_the_average_of_parameters_forgets_the_initial_ones():
    values = RANDOM.standard_normal((30, 2))
    found, expected = {"a": np.float32(values[0])}, values[0]
    for step, value in enumerate(values[1:], 1):
        found = update_ema(found, {"a": np.float32(value)}, np.int32(step), 0.6)
        decay = min(0.6, (1 + step) / (10 + step))  # at step 13 the two are about the same
        expected = decay * expected + (1 - decay) * value
        np.testing.assert_allclose(found["a"], expected, rtol=1e-4, atol=1e-5)
