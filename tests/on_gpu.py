"""What tests need that compare a GPU with the CPU; without a GPU they are skipped."""

import jax
import numpy as np
import pytest


def cpu_and_gpu():
    """The two devices, or a skipped test."""
    gpus = [device for device in jax.devices() if device.platform == "gpu"]
    if not gpus:
        pytest.skip("needs a GPU")
    return jax.devices("cpu")[0], gpus[0]


def result_on(device, function, *arrays):
    """What a compiled function of arrays gives on a device, as host arrays."""
    with jax.default_device(device):
        found = jax.jit(function)(*jax.device_put(arrays, device))
        assert {leaf.device for leaf in jax.tree.leaves(found)} == {device}
        return jax.tree.map(np.asarray, found)


def error(found, expected):
    """Relative L2 distance of one array, or of the worst of several."""
    return max(
        float(np.linalg.norm(np.asarray(first, np.float64) - second) / np.linalg.norm(second))
        for first, second in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    )
