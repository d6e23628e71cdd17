"""Plan a run over a whole map: device, working grid, rotations, and slabs, with the memory and time that it takes."""

import functools
import math
import os
import time
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from crefjax.data.grid import VOXELS, WorkingGrid, find_grid
from crefjax.errors import UserError
from crefjax.inference import ROTATION_COUNTS
from crefjax.inference.network import measure_at_once
from crefjax.inference.request import DenoiseRequest
from crefjax.masking import bounding_box
from crefjax.models import NetworkConfig, load_model
from crefjax.utils.memory import GIB, PROGRAM_BYTES, find_device, free_memory

# Share of the free memory that a run takes by default.
_SHARE_OF_FREE = 0.8
_EFFICIENCY = 0.3  # as `SlabRunner.efficiency`, of a network that is run at once
_START_SECONDS = 3.0  # compilation
# Peaks as measured, in float32 maps: of five maps the spectra, and one of them as float64 on its way there; and of the
# check of a pair, before the network runs.
_MAPS_OF_CALIBRATION, _MAPS_OF_REPORT, _MAPS_OF_CHECK = 21, 24, 11
_MAPS_OF_SYMMETRY = 6  # the averages of three maps and their outputs, beside these
# Voxels around the mask, beyond which a map changes next to nothing within it; and voxels that must be saved to pay for
# another compilation.
_MARGIN, _WORTH_COMPILING = 12, 4e6
_AFFORDED = 0.9  # share of the time that the network takes on the map's own grid


@dataclass(frozen=True, eq=False)
class InferencePlan:
    """How the network is run over a whole map, and what that takes.

    Attributes:
        device: device to compute on.
        slab: planes of a slab at full resolution; 0 for the whole box at once.
        host_bytes: peak resident memory of the program.
        device_bytes: peak memory on the device; on a CPU it is part of `host_bytes`.
        seconds: expected time of all runs together.
        engine: library that computes the network.
        grid: grid on which the network works.
        rotations: number of rotations of the cube over which the output is averaged.
        part: part of the working grid, around the particle, to which half-maps that are only measured are cropped; None
            for all of it.
    """

    device: jax.Device
    slab: int
    host_bytes: float
    device_bytes: float
    seconds: float
    engine: str = "JAX"
    grid: WorkingGrid | None = None
    rotations: int = 1
    part: tuple[slice, slice, slice] | None = None

    def describe(self) -> str:
        """Return one line on device, slabs, memory, and time."""
        cores = f" ({_cores()} cores, {self.engine})" if self.device.platform == "cpu" else ""
        name = self.device.device_kind if self.device.platform != "cpu" else "CPU"
        memory = f"peak memory about {self.host_bytes / GIB:.1f} GiB"
        if self.device.platform != "cpu":
            memory += f" and {self.device_bytes / GIB:.1f} GiB on the device"
        work = f"slabs of {self.slab} planes" if self.slab else "the whole box at once"
        return f"{name}{cores}, {work}, {memory}, about {self.seconds:.0f} s"

    def describe_grid(self, shape: tuple[int, int, int]) -> str | None:
        """Return one line on resolution, working grid, and rotations; None if no resolution is known.

        Args:
            shape: `(z, y, x)` of the map.
        """
        if self.grid is None or self.grid.resolution is None:
            return None
        line = f"resolution {self.grid.resolution:.2f} Å"
        if self.grid.shape != shape:
            z, y, x = self.grid.shape
            line += f", so the network works on {x}x{y}x{z} voxels of {self.grid.voxel_size:.3g} Å"
        return line + (f", averaged over {self.rotations} rotations" if self.rotations > 1 else "")


def plan_denoise(request: DenoiseRequest) -> InferencePlan:
    """Plan a request. If the network runs on the working grid, the half-maps are measured for it.

    Raises:
        UserError: there is no such device, or not enough memory.
    """
    device, weights = find_device(request.device), request.weights
    grid = _working_grid(request)
    shape, working = request.pair[0].array.shape, grid.shape
    share = math.prod(working) / math.prod(shape)
    rotations = request.rotations or affordable_rotations(working, shape)
    part, runs = None, 3 if request.denoises_half_maps else 1
    signal = request.scale == "signal"
    if signal and not request.half_maps and weights.grid and request.region.array is not None:
        part = part_around(request.region.array, working, weights.config.multiple)
        saved = 1 - math.prod(piece.stop - piece.start for piece in part) / math.prod(working)
        if 2 * saved * rotations * math.prod(working) > _WORTH_COMPILING:
            runs -= 2 * saved
        else:
            part = None
    # The maps themselves, the mask, and three for the standardized map, the output and what becomes of it.
    host_maps = len(request.pair) + (request.mask is not None) + 3 + 2 * request.denoises_half_maps
    later_maps = _MAPS_OF_CHECK / share if len(request.pair) == 2 else 0
    if signal:
        later_maps = _MAPS_OF_CALIBRATION + 4 / share
    if request.group is not None:
        later_maps += _MAPS_OF_SYMMETRY
    if request.report:
        later_maps = _MAPS_OF_REPORT / share
    plan = plan_network(
        working,
        weights.config,
        device,
        host_maps=host_maps / share + (0 if share == 1 else 3 * (1 + 2 * request.denoises_half_maps)),
        later_maps=later_maps,
        runs=runs * rotations,
        max_memory=request.max_memory,
    )
    return replace(plan, grid=grid, rotations=rotations, part=part)


def _working_grid(request):
    pair, weights, keep = request.pair, request.weights, request.grid == "input"
    if keep and not weights.corrects_falloff:
        return WorkingGrid(pair[0].array.shape, pair[0].voxel_size)
    return find_grid(
        [map_.array for map_ in pair],
        pair[0].voxel_size,
        request.region.array,
        voxels=weights.grid or VOXELS,
        resolution=request.resolution,
        keep=keep,
        products=None if request.check is None else request.check.products,
    )


def affordable_rotations(working: tuple[int, int, int], shape: tuple[int, int, int]) -> int:
    """Return how many rotations take no longer on the working grid than one run does on the map's own.

    Args:
        working: `(z, y, x)` of the working grid.
        shape: `(z, y, x)` of the map.
    """
    share = math.prod(working) / math.prod(shape)
    return max(count for count in ROTATION_COUNTS if count == 1 or count * share <= _AFFORDED)


def part_around(region: np.ndarray, shape: tuple[int, int, int], multiple: int) -> tuple[slice, slice, slice]:
    """Return the part of a working grid around a mask, with a margin, in which the network pools the same voxels.

    Args:
        region: the mask, `(z, y, x)` on any grid of the box.
        shape: shape of the working grid.
        multiple: number of which the sides of the network's input must be multiples.
    """
    part = []
    for side, inside, length in zip(shape, bounding_box(region), region.shape, strict=True):
        ratio = side / length
        low, high = inside.start * ratio - _MARGIN, inside.stop * ratio + _MARGIN
        first = max(0, int(low // multiple) * multiple)
        part.append(slice(first, min(side, first + math.ceil((high - first) / multiple) * multiple)))
    return tuple(part)


def plan_network(
    shape: tuple[int, int, int],
    config: NetworkConfig,
    device: jax.Device,
    *,
    host_maps: float,
    later_maps: float = 0,
    runs: float = 1,
    max_memory: float | None = None,
) -> InferencePlan:
    """Choose the slab for a map, and estimate memory and time.

    Args:
        shape: `(z, y, x)` of the map.
        config: configuration of the network.
        device: device to compute on.
        host_maps: number of float32 arrays of the map's size that are in memory besides the network's own.
        later_maps: the same, with temporaries, after the network's own have been freed.
        runs: number of runs of the network, in whole boxes.
        max_memory: GiB that the program (on a CPU) or its arrays on the device (on a GPU) may use; None for what is
            free.

    Raises:
        UserError: even the thinnest slab, or the whole box of a network without slabs, takes more.
    """
    on_cpu = device.platform == "cpu"
    limit = max_memory * GIB if max_memory is not None else _SHARE_OF_FREE * free_memory(device)
    voxels = float(shape[0] * shape[1] * shape[2])
    host, later = (PROGRAM_BYTES + 4 * voxels * maps for maps in (host_maps, later_maps))
    slabs = load_model(config.network).load_slabs(config, on_cpu=on_cpu)
    if slabs is None:
        whole, flops = measure_at_once(shape, config, device)
        network = {0: whole}
    else:
        sizes = slabs.sizes(shape, config, on_cpu=on_cpu)
        network = {n: slabs.count_bytes(shape, config, n, on_cpu=on_cpu) for n in sizes}
        flops = slabs.count_flops(shape, config)
    taken = {n: (max(host + size, later) if on_cpu else size) for n, size in network.items()}
    if not (fitting := [n for n in network if taken[n] <= limit]):
        where = "`max_memory`" if max_memory is not None else "free memory"
        raise UserError(
            f"a box of {'x'.join(map(str, shape))} voxels needs at least {min(taken.values()) / GIB:.1f} GiB on "
            f"{device.platform}, found {limit / GIB:.1f} GiB of {where}; give more, or crop or bin the half-maps"
        )
    slab = max(fitting)
    seconds = _START_SECONDS + runs * flops / (_rate(device) * (slabs.efficiency if slabs else _EFFICIENCY))
    host = max(host + (network[slab] if on_cpu else 12 * voxels), later)
    return InferencePlan(device, slab, host, network[slab], seconds, engine=slabs.name if slabs else "JAX")


def _cores():
    if hasattr(os, "sched_getaffinity"):  # Linux only
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


@functools.lru_cache
def _rate(device):
    """Return the floating point operations per second of a matrix product, timed once on the device."""
    side = 1024 if device.platform == "cpu" else 4096
    matrix = jax.device_put(jnp.ones((side, side), jnp.float32), device)
    multiply = jax.jit(lambda a: jnp.matmul(a, a, precision="highest"))
    multiply(matrix).block_until_ready()
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        multiply(matrix).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2.0 * side**3 / min(seconds)
