"""Run the 3D U-Net over a whole map in bounded memory, exactly.

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

from crefjax.models import Parameters, SlabRunner
from crefjax.models.unet3d import SlabPosition, UNet3DConfig, bottom_level, down_halo, down_level, up_halo, up_level
from crefjax.models.unet3d_config import count_flops, flops_of, level_slab, pad_to_shape, padded_shape, slab_sizes

# Slabs computed by one call into XLA. Every call allocates its temporary memory, and on a CPU the page faults of that
# cost as much as the arithmetic; with too many slabs in a call the progress bar would stand still.
_SLABS_PER_CALL = 4
# On a CPU larger slabs than this bring nothing: their halos are a small part of the work already.
_LARGEST_CPU_SLAB = 16


def planned_sizes(shape: tuple[int, int, int], config: UNet3DConfig, *, on_cpu: bool) -> list[int]:
    """Return the numbers of planes of a slab to choose from for a map, ascending.

    Args:
        shape: `(z, y, x)` of the map.
        config: of the network.
        on_cpu: whether a CPU computes; on a GPU, indices within one convolution must fit 32 bits.
    """
    depth, height, width = padded_shape(shape, config)
    sizes = slab_sizes(depth)
    if on_cpu:
        return [n for n in sizes if n <= _LARGEST_CPU_SLAB]
    return [n for n in sizes if (n + 6) * height * width * (1 + config.up_width) < 2**31 or n == sizes[0]]


def run_slabs(
    parameters: Parameters,
    array: np.ndarray,
    config: UNet3DConfig,
    *,
    slab: int,
    device: jax.Device | None = None,
    progress: Callable[[float], None] | None = None,
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


def count_bytes(shape: tuple[int, int, int], config: UNet3DConfig, slab: int, *, on_cpu: bool) -> float:
    """Return the bytes of the arrays and temporaries of `run_slabs` at its peak.

    The arrays are counted; the temporaries of a slab follow XLA's own analysis of the compiled functions
    (`memory_analysis`), which for the default network is proportional to the slab's voxels within a few percent.
    """
    z, y, x = padded_shape(shape, config)
    voxels = float(z * y * x)
    box, down, up = 4 * voxels, 4 * config.down_width * voxels / 8, 4 * config.up_width * voxels / 8
    output = 4 * voxels
    peak_below = box + down + up + up * config.growth / 8 if config.depth > 1 else box + down
    arrays = max(peak_below, box + up + output, box + 2 * output)
    temporaries = 0.0
    for level in range(min(2, config.depth)):
        floats = (
            max(4.5 * config.last_widths[0], 3.8 * config.down_width) if level == 0 else 6 * config.up_channels(level)
        )
        planes = level_slab(z, level, slab) + 6
        temporaries = max(temporaries, 4 * floats * planes * y * x / 4**level)
    return arrays + temporaries * (1 if on_cpu else 2)  # workspace of cuDNN


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
        below = (planes // 2 + 2 * halo, height // 2, width // 2, config.down_channels(level))
        below = self._slabs(_down_slabs, (skip,), below, config.down_names(level), level)
        up = self.level(below, level + 1)
        del below
        same = (planes + 2 * halo, height, width, config.up_channels(level)) if level else (planes, height, width, 1)
        return self._slabs(_up_slabs, (skip, up), same, config.up_names(level), level)

    def _slabs(self, compute, inputs, shape, names, level):
        out = jnp.zeros(shape, jnp.float32)
        planes, height, width = self.depth >> level, *inputs[0].shape[1:3]
        size = level_slab(self.depth, level, self.slab)
        flops = sum(flops_of(self.config, name) for name in names) * size * height * width
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
        """Put the result of a slab, read with its halo, in its place."""
        start = index * size
        slab = lax.dynamic_slice_in_dim(skip, start + halo - need, size + 2 * need)
        result = down_level(parameters, slab[None], config, level, SlabPosition(start - need, planes))[0]
        return lax.dynamic_update_slice_in_dim(out, result, start // 2 + halo, 0)

    return lax.fori_loop(first, first + count, add_slab, out)


@functools.partial(jax.jit, static_argnames=("where", "config", "level"), donate_argnames="out")
def _up_slabs(parameters, skip, up, out, first, where, config, level):
    planes, size, count = where
    halo, (need, need_up) = _halo(config), up_halo(config, level)
    margin = (out.shape[0] - planes) // 2

    def add_slab(index, out):
        """Put the result of a slab, read with its halo, in its place."""
        start = index * size
        slab = lax.dynamic_slice_in_dim(skip, start + halo - need, size + 2 * need)
        slab_up = lax.dynamic_slice_in_dim(up, start // 2 + halo - need_up, size // 2 + 2 * need_up)
        result = up_level(parameters, slab[None], slab_up[None], config, level, SlabPosition(start - need, planes))
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


def _padded(array, shape, config):
    """Return the network's input: far ends padded symmetrically, planes of zeros around z, one channel."""
    halo = _halo(config)
    out = np.zeros((shape[0] + 2 * halo, *shape[1:], 1), np.float32)
    out[halo:-halo, ..., 0] = pad_to_shape(array, shape)
    return out


SLABS = SlabRunner(
    name="JAX", efficiency=0.3, sizes=planned_sizes, run=run_slabs, count_bytes=count_bytes, count_flops=count_flops
)
