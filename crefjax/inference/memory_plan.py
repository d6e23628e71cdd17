"""What a run over a whole map will take: the device, the slab, the peak memory and the time."""

import os
import time
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from crefjax.data.grid import WorkingGrid
from crefjax.errors import UserError
from crefjax.inference.slabs import level_slab, network_cost, padded_shape, slab_sizes
from crefjax.models.unet3d import UNet3DConfig
from crefjax.utils.memory import GIB, free_memory

# Resident memory of the program before any map is read: Python, JAX and its compiled code.
_PROGRAM_BYTES = 0.45 * GIB
# Of the memory that is free, how much a run takes when it is not told.
_SHARE_OF_FREE = 0.8
# On a CPU larger slabs than this bring nothing: their halos are a small part of the work already.
_LARGEST_CPU_SLAB = 16
# The network's share of the rate of a matrix product, with arithmetic counted as that of plain convolutions.
_EFFICIENCY = {"cpu": 0.3, "gpu": 0.3}
_START_SECONDS = 3.0  # compilation


@dataclass(frozen=True, eq=False)
class InferencePlan:
    """How a whole map will be run.

    Attributes:
        device: that computes.
        slab: planes of a slab at full resolution.
        host_bytes: peak resident memory of the program.
        device_bytes: peak memory on the device; on a CPU it is part of `host_bytes`.
        seconds: about how long all runs take together.
        grid: on which the network works; None for that of the map.
        region: the mask within which was measured, on the map's grid (None for the whole box), and notes on it; None
            where nothing was.
        rotations: of the cube, over which the output is averaged.
        part: of the working grid, around the particle, in which half-maps are denoised that are only measured; None for
            all of it.
    """

    device: jax.Device
    slab: int
    host_bytes: float
    device_bytes: float
    seconds: float
    grid: WorkingGrid | None = None
    region: tuple[np.ndarray | None, tuple[str, ...]] | None = None
    rotations: int = 1
    part: tuple[slice, slice, slice] | None = None

    def describe(self) -> str:
        """One line for the user."""
        cores = f" ({_cores()} cores)" if self.device.platform == "cpu" else ""
        name = self.device.device_kind if self.device.platform != "cpu" else "CPU"
        memory = f"peak memory about {self.host_bytes / GIB:.1f} GiB"
        if self.device.platform != "cpu":
            memory += f" and {self.device_bytes / GIB:.1f} GiB on the device"
        return f"{name}{cores}, slabs of {self.slab} planes, {memory}, about {self.seconds:.0f} s"


def plan_run(
    shape: tuple[int, int, int],
    config: UNet3DConfig,
    device: jax.Device,
    *,
    host_maps: float,
    later_maps: float = 0,
    runs: float = 1,
    max_memory: float | None = None,
) -> InferencePlan:
    """Choose the slab for a map and say what the run will take.

    Args:
        shape: `(z, y, x)` of the map.
        config: of the network.
        device: to compute on.
        host_maps: float32 arrays of the map's size that are in memory besides the network's own.
        later_maps: the same, and temporaries, in what follows when the network's own are gone.
        runs: how often the network is run, in whole boxes.
        max_memory: GiB that the program (on a CPU) or the device's share (on a GPU) may take; what is free if None.

    Raises:
        UserError: even the thinnest slab takes more.
    """
    on_cpu = device.platform == "cpu"
    limit = max_memory * GIB if max_memory is not None else _SHARE_OF_FREE * free_memory(device)
    depth = padded_shape(shape, config)[0]
    voxels = float(shape[0] * shape[1] * shape[2])
    host, later = (_PROGRAM_BYTES + 4 * voxels * maps for maps in (host_maps, later_maps))
    sizes = [n for n in slab_sizes(depth) if n <= _LARGEST_CPU_SLAB or not on_cpu]
    if not on_cpu:  # 32-bit indices within one convolution
        _, y, x = padded_shape(shape, config)
        sizes = [n for n in sizes if (n + 6) * y * x * (1 + config.up_width) < 2**31 or n == sizes[0]]
    network = {n: network_bytes(shape, config, n, on_cpu=on_cpu) for n in sizes}
    taken = {n: (max(host + network[n], later) if on_cpu else network[n]) for n in sizes}
    if not (fitting := [n for n in sizes if taken[n] <= limit]):
        where = "--max-memory" if max_memory is not None else "free memory"
        raise UserError(
            f"a box of {'x'.join(map(str, shape))} voxels needs at least {taken[sizes[0]] / GIB:.1f} GiB on "
            f"{device.platform}, found {limit / GIB:.1f} GiB of {where}; give more, or crop or bin the half-maps"
        )
    slab = max(fitting)
    seconds = _START_SECONDS + runs * network_cost(padded_shape(shape, config), config) / _rate(device)
    host = max(host + (network[slab] if on_cpu else 12 * voxels), later)
    return InferencePlan(device, slab, host, network[slab], seconds)


def network_bytes(shape: tuple[int, int, int], config: UNet3DConfig, slab: int, *, on_cpu: bool) -> float:
    """Bytes of the arrays and temporaries of `run_network` at its peak.

    The arrays are counted; the temporaries of a slab were read off XLA's own account of the compiled functions
    (`memory_analysis`), which for the default network is proportional to the slab's voxels within a few percent.
    """
    z, y, x = padded_shape(shape, config)
    voxels = float(z * y * x)
    box, down, up = 4 * voxels, 4 * config.down_width * voxels / 8, 4 * config.up_width * voxels / 8
    output = 4 * voxels
    peak_below = box + down + up + up / 8 if config.depth > 1 else box + down
    arrays = max(peak_below, box + up + output, box + 2 * output)
    temporaries = 0.0
    for level in range(min(2, config.depth)):
        floats = max(4.5 * config.last_widths[0], 3.8 * config.down_width) if level == 0 else 6 * config.up_width
        planes = level_slab(z, level, slab) + 6
        temporaries = max(temporaries, 4 * floats * planes * y * x / 4**level)
    return arrays + temporaries * (1 if on_cpu else 2)  # cuDNN wants room to work in


def _cores():
    if hasattr(os, "sched_getaffinity"):  # not everywhere
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _rate(device):
    """Floating point operations a second that the network reaches, from a matrix product timed on the device."""
    side = 1024 if device.platform == "cpu" else 4096
    matrix = jax.device_put(jnp.ones((side, side), jnp.float32), device)
    multiply = jax.jit(lambda a: jnp.matmul(a, a, precision="highest"))
    multiply(matrix).block_until_ready()
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        multiply(matrix).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return _EFFICIENCY.get(device.platform, 0.3) * 2.0 * side**3 / min(seconds)
