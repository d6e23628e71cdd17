"""Run the network over a whole map, slab by slab or in one pass, and average it over rotations of the cube."""

import functools
from collections.abc import Callable

import jax
import numpy as np

from crefjax.data.patches import CUBE_ROTATIONS, rotate
from crefjax.models import NetworkConfig, Parameters, load_model
from crefjax.weights.store import Weights

Progress = Callable[[float], None]


def run_network(
    parameters: Parameters,
    array: np.ndarray,
    config: NetworkConfig,
    *,
    slab: int,
    device: jax.Device | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Run the network over a standardized map; a network without slab-wise computation is run in one pass.

    Args:
        parameters: parameters of the network.
        array: `(z, y, x)`, float32, standardized; any sides.
        config: configuration of the network.
        slab: planes of a slab at full resolution; ignored by a network that is run in one pass.
        device: device to compute on; the default device if None.
        progress: called with the share of the work that is done, 0 to 1.

    Returns:
        `(z, y, x)`, float32.

    Raises:
        ValueError: `slab` is not a possible size.
    """
    device = device or jax.devices()[0]
    slabs = load_model(config.network).load_slabs(config, on_cpu=device.platform == "cpu")
    if slabs is not None:
        return slabs.run(parameters, array, config, slab=slab, device=device, progress=progress)
    parameters, x = jax.device_put((parameters, array[None, ..., None]), device)
    out = np.asarray(run_at_once(parameters, x, config))[0, ..., 0]
    if progress is not None:
        progress(1.0)
    return out


@functools.partial(jax.jit, static_argnames="config")
def run_at_once(parameters: Parameters, x: jax.Array, config: NetworkConfig) -> jax.Array:
    """Run the network over `(batch, z, y, x, 1)` in one pass; return the same shape, float32."""
    return load_model(config.network).apply(parameters, x, config)


def measure_at_once(shape: tuple[int, int, int], config: NetworkConfig, device: jax.Device) -> tuple[float, float]:
    """Return the peak memory in bytes and the floating point operations of a network that is run in one pass.

    Both come from XLA's analysis of the compiled network.

    Args:
        shape: `(z, y, x)` of the map.
        config: configuration of the network.
        device: device to compute on.
    """

    def like(array_shape):
        return jax.ShapeDtypeStruct(array_shape, np.float32)

    shapes = load_model(config.network).parameter_shapes(config)
    parameters = jax.tree.map(like, shapes, is_leaf=lambda leaf: isinstance(leaf, tuple))
    with jax.default_device(device):
        compiled = run_at_once.lower(parameters, like((1, *shape, 1)), config).compile()
    memory = compiled.memory_analysis()
    total = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return float(total), float(compiled.cost_analysis()["flops"])


def run_rotated(
    weights: Weights, array: np.ndarray, count: int, *, slab: int, device: jax.Device, progress: Progress | None = None
) -> np.ndarray:
    """Return the mean of the network's outputs for a standardized map, `(z, y, x)`, over rotations of the cube.

    Args:
        weights: weights of the network.
        array: `(z, y, x)`, float32, standardized.
        count: number of rotations, see `cube_rotations`.
        slab: planes of a slab; fewer if they do not divide the depth of a box that is rotated; 0 for the whole box.
        device: device to compute on.
        progress: called with the share of the work that is done, 0 to 1.
    """
    on_cpu, total = device.platform == "cpu", None
    slabs = weights.model.load_slabs(weights.config, on_cpu=on_cpu)
    for number, index in enumerate(cube_rotations(count)):
        x = np.ascontiguousarray(rotate(array, index))
        planes = 0 if slabs is None else _thickest(slabs.sizes(x.shape, weights.config, on_cpu=on_cpu), slab)
        part = part_of(progress, number, count)
        y = run_network(weights.parameters, x, weights.config, slab=planes, device=device, progress=part)
        y = rotate_back(y, index)
        total = y if total is None else total + y
    return total if count == 1 else total / np.float32(count)


def _thickest(sizes, slab):
    """Return the largest size that is not above a slab's, at least the smallest."""
    return max(n for n in sizes if n <= slab or n == sizes[0])


def cube_rotations(count: int) -> list[int]:
    """Return indices into `crefjax.data.patches.CUBE_ROTATIONS`.

    Args:
        count: 1 for the identity; 4 for it and the half turns about each axis, which keep the shape of every box; 24
            for all.
    """
    diagonal = [index for index, (axes, _) in enumerate(CUBE_ROTATIONS) if axes == (0, 1, 2)]
    return {1: [0], 4: diagonal, 24: list(range(len(CUBE_ROTATIONS)))}[count]


def rotate_back(array: np.ndarray, index: int) -> np.ndarray:
    """Undo `crefjax.data.patches.rotate`; a view."""
    axes, flips = CUBE_ROTATIONS[index]
    return array[tuple(slice(None, None, -1 if flip else None) for flip in flips)].transpose(np.argsort(axes))


def part_of(progress: Progress | None, number: int, count: int) -> Progress | None:
    """Return the progress of one of `count` equal parts of the work, the first being number 0."""
    return None if progress is None else lambda share: progress((number + share) / count)
