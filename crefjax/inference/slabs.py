"""Run the network over a whole map in bounded memory, exactly, and average it over rotations of the cube.

Nearly all the memory of a U-Net is taken at full resolution, where its convolutions look only two or three voxels far.
So each level is computed slab by slab along z: a slab is read with a halo of that many planes, planes outside the box
are kept at zero as in the whole network, and the result is put in its place in the level's own array. No tile borders
arise, and the result is the network's output, not an approximation.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from crefjax.data.patches import ROTATIONS, rotate
from crefjax.models.unet3d import (
    Parameters,
    Planes,
    UNet3DConfig,
    bottom_level,
    down_halo,
    down_level,
    up_halo,
    up_level,
)
from crefjax.weights.store import Weights

Progress = Callable[[float], None]
# Slabs computed by one call into XLA. Every call allocates its temporary memory, and on a CPU the page faults of that
# cost as much as the arithmetic; with too many slabs in a call the progress bar would stand still.
_SLABS_PER_CALL = 4


def padded_shape(shape: tuple[int, int, int], config: UNet3DConfig) -> tuple[int, int, int]:
    """Return the box `(z, y, x)` that the network works on: every side a multiple of `config.multiple`."""
    return tuple(n + -n % config.multiple for n in shape)


def slab_sizes(depth: int) -> list[int]:
    """Return the possible numbers of planes of a slab, ascending: the even divisors of the box's `depth`."""
    return [n for n in range(2, depth + 1, 2) if depth % n == 0]


def level_slab(depth: int, level: int, slab: int) -> int:
    """Return the planes of a slab at a level: more than at full resolution, since a plane has fewer voxels there.

    Args:
        depth: planes of the padded box at full resolution.
        level: 0 for the full resolution.
        slab: planes of a slab at full resolution.
    """
    return max(n for n in slab_sizes(depth >> level) if n <= max(2, slab * 2**level))


def run_network(
    parameters: Parameters,
    array: np.ndarray,
    config: UNet3DConfig,
    *,
    slab: int,
    device: jax.Device | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Run the network over a standardized map.

    Args:
        parameters: of the network.
        array: `(z, y, x)`, float32, standardized; any sides.
        config: of the network.
        slab: planes of a slab at full resolution, one of `slab_sizes(padded_shape(...)[0])`.
        device: to compute on; the default device if None.
        progress: called with the share of the work that is done, 0 to 1.

    Returns:
        `(z, y, x)`, float32.

    Raises:
        ValueError: `slab` is not a possible size.
    """
    shape = padded_shape(array.shape, config)
    if slab not in slab_sizes(shape[0]):
        raise ValueError(f"a slab has one of {slab_sizes(shape[0])} planes for {array.shape}, found {slab}")
    device = device or jax.devices()[0]
    run = _Run(jax.device_put(parameters, device), config, shape, slab, progress)
    with jax.default_device(device):
        out = run.level(jax.device_put(_padded(array, shape, config), device), 0)
        z, y, x = array.shape
        return np.asarray(out)[:z, :y, :x, 0]


def run_rotated(
    weights: Weights,
    array: np.ndarray,
    count: int,
    *,
    slab: int,
    device: jax.Device,
    progress: Progress | None = None,
) -> np.ndarray:
    """Return the mean of the network's outputs for a standardized map, `(z, y, x)`, over rotations of the cube.

    Args:
        weights: of the network.
        array: `(z, y, x)`, float32, standardized.
        count: of rotations, see `cube_rotations`.
        slab: planes of a slab; fewer if they do not divide the depth of a box that is rotated.
        device: to compute on.
        progress: called with the share of the work that is done, 0 to 1.
    """
    total = None
    for number, index in enumerate(cube_rotations(count)):
        x = np.ascontiguousarray(rotate(array, index))
        planes = max(n for n in slab_sizes(padded_shape(x.shape, weights.config)[0]) if n <= slab or n == 2)
        part = part_of(progress, number, count)
        y = run_network(weights.parameters, x, weights.config, slab=planes, device=device, progress=part)
        y = rotate_back(y, index)
        total = y if total is None else total + y
    return total if count == 1 else total / np.float32(count)


def cube_rotations(count: int) -> list[int]:
    """Return indices into `crefjax.data.patches.ROTATIONS`.

    Args:
        count: 1 for the identity; 4 for it and the half turns about each axis, which keep the shape of every box; 24
            for all.
    """
    diagonal = [index for index, (axes, _) in enumerate(ROTATIONS) if axes == (0, 1, 2)]
    return {1: [0], 4: diagonal, 24: list(range(len(ROTATIONS)))}[count]


def rotate_back(array: np.ndarray, index: int) -> np.ndarray:
    """Undo `crefjax.data.patches.rotate`; a view."""
    axes, flips = ROTATIONS[index]
    return array[tuple(slice(None, None, -1 if flip else None) for flip in flips)].transpose(np.argsort(axes))


def part_of(progress: Progress | None, number: int, count: int) -> Progress | None:
    """Return the progress of one of `count` equal parts of the work, the first being number 0."""
    return None if progress is None else lambda share: progress((number + share) / count)


def count_flops(shape: tuple[int, int, int], config: UNet3DConfig) -> float:
    """Return the floating point operations of the network over a padded box, as plain convolutions count them."""
    levels = range(config.depth)
    names = [(level, name) for level in levels for name in config.down_names(level) + config.up_names(level)]
    return sum(_flops(config, name) / 8**level for level, name in names) * float(np.prod(shape))


class _Run:
    """One pass of the network, with everything that is the same at all levels."""

    def __init__(self, parameters, config, shape, slab, progress):
        self.parameters, self.config, self.slab, self.progress = parameters, config, slab, progress
        self.depth = shape[0]
        self.done, self.total = 0.0, count_flops(shape, config)

    def level(self, skip, level):
        """Return the output of a level, with halo (none at level 0), given its input, with halo."""
        halo, config = _halo(self.config), self.config
        if level == config.depth:
            return _bottom(self.parameters, skip, config)
        planes, height, width = skip.shape[0] - 2 * halo, *skip.shape[1:3]
        below = (planes // 2 + 2 * halo, height // 2, width // 2, config.down_width)
        below = self._slabs(_down_slabs, (skip,), below, config.down_names(level), level)
        up = self.level(below, level + 1)
        del below
        same = (planes + 2 * halo, height, width, config.up_width) if level else (planes, height, width, 1)
        return self._slabs(_up_slabs, (skip, up), same, config.up_names(level), level)

    def _slabs(self, compute, inputs, shape, names, level):
        out = jnp.zeros(shape, jnp.float32)
        planes, height, width = self.depth >> level, *inputs[0].shape[1:3]
        size = level_slab(self.depth, level, self.slab)
        flops = sum(_flops(self.config, name) for name in names) * size * height * width
        for first in range(0, planes // size, _SLABS_PER_CALL):
            count = min(_SLABS_PER_CALL, planes // size - first)
            where = (planes, size, count)
            out = compute(self.parameters, *inputs, out, first, where, self.config, level)
            if self.progress is not None:
                jax.block_until_ready(out)
                self.done += flops * count
                self.progress(min(1.0, self.done / self.total))
        return out


@functools.partial(jax.jit, static_argnames=("where", "config", "level"), donate_argnames="out")
def _down_slabs(parameters, skip, out, first, where, config, level):
    planes, size, count = where
    halo, need = _halo(config), down_halo(config, level)

    def add_slab(index, out):
        start = index * size
        slab = lax.dynamic_slice_in_dim(skip, start + halo - need, size + 2 * need)
        result = down_level(parameters, slab[None], config, level, Planes(start - need, planes))[0]
        return lax.dynamic_update_slice_in_dim(out, result, start // 2 + halo, 0)

    return lax.fori_loop(first, first + count, add_slab, out)


@functools.partial(jax.jit, static_argnames=("where", "config", "level"), donate_argnames="out")
def _up_slabs(parameters, skip, up, out, first, where, config, level):
    planes, size, count = where
    halo, (need, need_up) = _halo(config), up_halo(config, level)
    margin = (out.shape[0] - planes) // 2

    def add_slab(index, out):
        start = index * size
        slab = lax.dynamic_slice_in_dim(skip, start + halo - need, size + 2 * need)
        slab_up = lax.dynamic_slice_in_dim(up, start // 2 + halo - need_up, size // 2 + 2 * need_up)
        result = up_level(parameters, slab[None], slab_up[None], config, level, Planes(start - need, planes))
        return lax.dynamic_update_slice_in_dim(out, result[0], start + margin, 0)

    return lax.fori_loop(first, first + count, add_slab, out)


@functools.partial(jax.jit, static_argnames="config")
def _bottom(parameters, x, config):
    halo = _halo(config)
    out = bottom_level(parameters, x[None, halo:-halo], config)[0]
    return jnp.pad(out, ((halo, halo), (0, 0), (0, 0), (0, 0)))


def _halo(config):
    """Return the planes of zeros around every level's array along z, where each slab finds its halo."""
    levels = range(config.depth)
    return max(max(down_halo(config, level), *up_halo(config, level)) for level in levels)


def _flops(config, name):
    """Return the floating point operations per voxel of one convolution."""
    return next(2.0 * 27 * n_in * n_out for layer, n_in, n_out in config.layers() if layer == name)


def _padded(array, shape, config):
    """Return the network's input: far ends padded symmetrically, planes of zeros around z, one channel."""
    halo = _halo(config)
    out = np.zeros((shape[0] + 2 * halo, *shape[1:], 1), np.float32)
    ends = [(0, n - m) for n, m in zip(shape, array.shape, strict=True)]
    padded = np.pad(array, ends, mode="symmetric") if any(after for _, after in ends) else array
    out[halo:-halo, ..., 0] = padded
    return out
