"""Training on a GPU does what it does on the CPU, with the losses and the optimizer of the package's own weights."""

import jax
import numpy as np
import pytest
from on_gpu import cpu_and_gpu

from crefjax.models.unet3d import UNet3DConfig
from crefjax.training import step as steps
from crefjax.training.config import default
from crefjax.training.denoising import DenoisingTask
from crefjax.training.optimizer import make_optimizer, make_schedule
from crefjax.training.step import init_state

FACTORS = {"truth_fsc": 1.0, "truth_l2": 0.3, "cref_l1_masked": 0.5}


def batches(count):
    """Two patches each of smooth signals with noise, and a mask of all but a rim."""
    random = np.random.default_rng(0)
    mask = np.pad(np.ones((2, 26, 26, 26), np.float32), [(0, 0), *[(3, 3)] * 3])
    for _ in range(count):
        truth = random.standard_normal((2, 32, 32, 32))
        truth = sum(np.roll(truth, (i, j), (1, 2)) for i in range(3) for j in range(3)) / 3
        halves = [truth + random.standard_normal(truth.shape) for _ in range(2)]
        maps = dict(zip(("half_map_1", "half_map_2", "truth"), [*halves, truth * mask], strict=True))
        yield {name: array.astype(np.float32) for name, array in maps.items()} | {"mask": mask}


def trained(device, dtype):
    """Losses of three steps, gradients' norms, and the averaged parameters."""
    config = default()
    config.optimizer.name, config.optimizer.clip, config.schedule.name = "muon", 1.0, "constant"
    optimizer = make_optimizer(config, make_schedule(config, epoch_steps=3, steps=3))
    task = DenoisingTask(UNet3DConfig(compute_dtype=dtype), FACTORS)
    step = steps.make_train_step(task, optimizer, decay=0.9, seed=0, devices=[device])
    with jax.default_device(device):
        first = init_state(task.init(jax.random.key(0)), optimizer, average=True)
        state, metrics = steps.replicate(first, [device]), []
        for batch in batches(3):
            state, numbers = step(state, steps.shard(batch, [device]))
            metrics.append(steps.unshard(numbers))
    return (
        np.array([numbers["losses"] for numbers in metrics]),
        np.array([numbers["gradient_norm"] for numbers in metrics]),
        jax.tree.leaves(steps.unreplicate(state.evaluated_parameters)),
    )


@pytest.fixture(scope="module")
def expected():
    cpu, _ = cpu_and_gpu()
    return trained(cpu, "float32")


@pytest.mark.parametrize(("dtype", "most"), [("float32", 2e-3), ("bfloat16", 0.05)])
def test_training_on_a_gpu_agrees_with_training_on_the_cpu(expected, dtype, most):
    """Rounding, and TF32 in Muon's products, grow from step to step."""
    _, gpu = cpu_and_gpu()
    losses, norms, parameters = expected
    found = trained(gpu, dtype)
    np.testing.assert_allclose(found[0], losses, rtol=most)
    np.testing.assert_allclose(found[1], norms, rtol=20 * most)
    for array, expected_array in zip(found[2], parameters, strict=True):
        assert np.abs(array - expected_array).max() < most
