"""Slabs on a GPU give the output of the whole network on the CPU."""

import jax
import jax.numpy as jnp
import numpy as np
from on_gpu import cpu_and_gpu, error, result_on

from crefjax.models.unet3d import UNet3D, UNet3DConfig
from crefjax.models.unet3d_slabs import run_slabs


def test_slabs_on_a_gpu_give_the_output_of_the_whole_network():
    cpu, gpu = cpu_and_gpu()
    config = UNet3DConfig()
    with jax.default_device(cpu):
        parameters = jax.jit(UNet3D(config).init)(jax.random.key(0), jnp.zeros((1, 32, 32, 32, 1)))["params"]
    parameters = jax.tree.map(np.asarray, parameters)
    x = np.random.default_rng(0).standard_normal((64, 40, 33)).astype(np.float32)
    expected = result_on(cpu, lambda p, a: UNet3D(config).apply({"params": p}, a), parameters, x[None, ..., None])
    for slab in (16, 64):
        assert error(run_slabs(parameters, x, config, slab=slab, device=gpu), expected[0, ..., 0]) < 1e-5
