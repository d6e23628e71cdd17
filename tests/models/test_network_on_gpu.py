"""The paper's network and its gradients on a GPU are those on the CPU, which other tests compare with NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from on_gpu import cpu_and_gpu, error, result_on

from crefjax.models.conv import max_pool
from crefjax.models.unet3d import UNet3D, UNet3DConfig, apply_network

CONFIG = UNet3DConfig()
HALF = dataclasses.replace(CONFIG, compute_dtype="bfloat16")


@pytest.fixture(scope="module")
def arrays():
    """Parameters with biases, and a noisy box."""
    cpu, _ = cpu_and_gpu()
    with jax.default_device(cpu):
        parameters = jax.jit(UNet3D(CONFIG).init)(jax.random.key(0), jnp.zeros((1, 32, 32, 32, 1)))["params"]
        parameters = jax.tree.map(lambda a: np.asarray(a) + (0.1 if a.ndim == 1 else 0), parameters)
    return parameters, np.random.default_rng(0).standard_normal((1, 32, 64, 32, 1)).astype(np.float32)


def outputs(config):
    return lambda parameters, x: apply_network(parameters, x, config)


def gradients(config):
    return jax.grad(lambda parameters, x: jnp.mean(jnp.square(apply_network(parameters, x, config) - x)))


@pytest.fixture(scope="module", params=[outputs, gradients])
def expected(request, arrays):
    """What is computed, and what it is on the CPU in float32."""
    cpu, _ = cpu_and_gpu()
    return request.param, result_on(cpu, request.param(CONFIG), *arrays)


@pytest.mark.parametrize("config", [CONFIG, HALF])
def test_outputs_and_gradients_agree_with_those_on_the_cpu(arrays, expected, config):
    """TF32 would be 3e-4 off, bfloat16 is a hundredth, and its gradients, of many layers, more."""
    _, gpu = cpu_and_gpu()
    what, values = expected
    most = {(outputs, CONFIG): 1e-5, (gradients, CONFIG): 1e-4, (outputs, HALF): 0.03, (gradients, HALF): 0.2}
    assert error(result_on(gpu, what(config), *arrays), values) < most[what, config]


def test_the_first_of_equal_voxels_receives_the_gradient():
    _, gpu = cpu_and_gpu()
    x = np.zeros((1, 4, 2, 2, 1), np.float32)
    x[0, 2, 1, 0] = x[0, 3, 0, 1] = 1.0
    expected = np.zeros_like(x)
    expected[0, 0, 0, 0] = expected[0, 2, 1, 0] = 1.0
    found = result_on(gpu, jax.grad(lambda a: jnp.sum(max_pool(a))), x)
    np.testing.assert_array_equal(found, expected)
