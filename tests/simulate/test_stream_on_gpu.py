"""The stream of a seed gives the same samples on a GPU as on the CPU, to rounding."""

import jax
import numpy as np
from on_gpu import cpu_and_gpu, error

from crefjax.simulate.stream.batches import stream_half_maps


def batch_on(device):
    with jax.default_device(device):
        batch = next(stream_half_maps(phantoms=2, patch=32, batch=4, seed=3))
        return {name: np.asarray(getattr(batch, name)) for name in ("half_map_1", "half_map_2", "truth", "mask")}


def test_samples_are_those_of_the_cpu():
    cpu, gpu = cpu_and_gpu()
    expected, found = batch_on(cpu), batch_on(gpu)
    for name in ("half_map_1", "half_map_2", "truth"):
        assert error(found[name], expected[name]) < 1e-3, name
    # A voxel at the body's very border may be on its other side, which moves the mask's edge there.
    assert np.abs(found["mask"] - expected["mask"]).mean() < 1e-3
