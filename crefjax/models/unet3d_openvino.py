"""Run the 3D U-Net over a whole map on a CPU with OpenVINO, slab by slab and exactly, as `unet3d_slabs` does with JAX.

OpenVINO computes 3D convolutions with their bias and LeakyReLU in one pass, on both sides of a channel block in cache;
XLA does not. Each level is computed slab by slab along z. A slab within the box is read with a halo and not padded
along z; at the two ends of the box it has no halo and the zeros of the whole network's padding. So a level needs up to
three compiled graphs, one for each kind of slab. Each keeps memory for its temporaries, so that of large boxes only one
is held at a time; of small ones they are kept for the next map, as compiling takes as long as computing there.

The convolution of upsampled channels is a transposed convolution with a stride of 2: along each axis an output voxel
sees two voxels of the coarser level, so the three taps fold into four, at 8/27 of the arithmetic and without the
upsampled array.

This module does not import JAX. Arrays are `(channel, z, y, x)`, float32.
"""

import functools
import importlib.util
import itertools
import os
import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from crefjax.models import Parameters, SlabRunner
from crefjax.models.unet3d_config import UNet3DConfig, count_flops, flops_of, pad_to_shape, padded_shape

# Planes of a slab to choose from. Larger ones bring nothing: their halos are a small part of the work already.
_SLABS = (4, 8, 16)
_KEPT_BYTES = 128 * 2**20  # of temporaries of the graphs that are kept


class _Slab(NamedTuple):
    """Kind of a slab: its planes of output at the level's resolution, and whether it begins or ends the box."""

    planes: int
    first: bool
    last: bool


def run(
    parameters: Parameters,
    array: np.ndarray,
    config: UNet3DConfig,
    *,
    slab: int,
    device=None,
    progress: Callable[[float], None] | None = None,
) -> np.ndarray:
    """Run the network over a standardized map; arguments and errors as of `crefjax.models.unet3d_slabs.run_slabs`.

    Args:
        parameters: of the network.
        array: `(z, y, x)`, float32, standardized; any sides.
        config: of the network.
        slab: planes of a slab at full resolution, an even number; a slab is thicker where its halo asks for it.
        device: ignored; the CPU computes.
        progress: called with the share of the work that is done, 0 to 1.

    Returns:
        `(z, y, x)`, float32.

    Raises:
        ValueError: `slab` is not a possible size.
    """
    if slab < 2 or slab % 2:
        raise ValueError(f"a slab has an even number of planes, found {slab}")
    shape = padded_shape(array.shape, config)
    padded = pad_to_shape(array, shape)
    out = _Run(parameters, config, shape, slab, progress).level(np.ascontiguousarray(padded, np.float32)[None], 0)
    z, y, x = array.shape
    return out[0, :z, :y, :x]


def is_installed() -> bool:
    """Return whether OpenVINO is installed; it is not imported."""
    return importlib.util.find_spec("openvino") is not None


def sizes(shape: tuple[int, int, int], config: UNet3DConfig, *, on_cpu: bool) -> list[int]:
    """Return the numbers of planes of a slab to choose from for a map, ascending.

    Args:
        shape: `(z, y, x)` of the map.
        config: of the network.
        on_cpu: always true.
    """
    depth = padded_shape(shape, config)[0]
    return [n for n in _SLABS if n < depth] + [depth] * (depth <= _SLABS[-1])


def count_bytes(shape: tuple[int, int, int], config: UNet3DConfig, slab: int, *, on_cpu: bool) -> float:
    """Return the bytes of the arrays and temporaries of `run` at its peak.

    Arrays between levels are counted. OpenVINO's temporaries are those of the largest slab, its input and the outputs
    of two convolutions, by measurement, in blocks of 16 channels.
    """
    z, y, x = padded_shape(shape, config)
    voxels = float(z * y * x)
    arrays = 4 * voxels * (3 + (config.down_width + config.up_width) / 8)
    temporaries = max(_slab_bytes(config, level, slab * 2**level, shape) for level in range(min(2, config.depth)))
    return arrays + temporaries + min(_KEPT_BYTES, 4 * temporaries)


def _slab_bytes(config, level, planes, shape):
    """Return the bytes of a slab's input and of the outputs of two convolutions, in blocks of 16 channels."""
    z, y, x = padded_shape(shape, config)
    width = max(config.last_widths[0], config.down_width) if level == 0 else config.up_channels(level)
    inputs = 2 if level == 0 else config.down_channels(level - 1) + config.up_channels(level)
    floats = 2 * 16 * -(-width // 16) + inputs
    return 4.0 * floats * (min(z >> level, planes) + 6) * y * x / 4**level


class _Graphs:
    """The compiled graphs of one network that are kept for its next map."""

    def __init__(self):
        self.parameters, self.requests, self.room = None, {}, _KEPT_BYTES

    def get(self, parameters, key, size, compile_graph):
        """Return a graph's inference request, compiled if it is not kept.

        Args:
            parameters: of the network; those of another one replace it.
            key: identifies the graph among those of the network.
            size: bytes of its temporaries.
            compile_graph: function that compiles it.
        """
        if parameters is not self.parameters:
            self.__init__()
            self.parameters = parameters
        if (request := self.requests.get(key)) is None:
            request = compile_graph()
            if size <= self.room:
                self.room -= size
                self.requests[key] = request
        return request


_GRAPHS = _Graphs()


class _Run:
    """One pass of the network, with everything that is the same at all levels."""

    def __init__(self, parameters, config, shape, slab, progress):
        self.parameters, self.config, self.slab, self.progress = parameters, config, slab, progress
        self.shape, self.key, self.request = shape, None, None
        self.done, self.total = 0.0, count_flops(shape, config)

    def level(self, skip, level):
        """Return the output of a level given its input."""
        config = self.config
        if level == config.depth:
            whole = _Slab(skip.shape[1], True, True)
            return self._infer([skip[None]], self._bottom, ["bottom"], level, whole)[0].copy()
        names = config.down_names(level)
        halo = len(names)
        below = self._slabs(self._down, [(skip, 1, halo)], names, level, (config.down_channels(level), 2))
        up = self.level(below, level + 1)
        del below
        names = config.up_names(level)
        later = len(names) - 1
        inputs = [(skip, 1, later + 1), (up, 2, later // 2 + 1)]
        return self._slabs(self._up, inputs, names, level, (1 if level == 0 else config.up_channels(level), 1))

    def _slabs(self, build, inputs, names, level, output):
        """Return a graph's output over all slabs.

        Args:
            build: function of the graph's parameters, the names of its convolutions, and the kind of slab.
            inputs: of each input the array, how many times coarser it is than the level, and its halo in its planes.
            names: of the convolutions.
            level: 0 for the full resolution.
            output: channels of the output, and how many times coarser it is than the level.
        """
        planes, height, width = inputs[0][0].shape[1:]
        channels, coarser = output
        out = np.empty((channels, planes // coarser, height // coarser, width // coarser), np.float32)
        flops = sum(flops_of(self.config, name) for name in names) * height * width
        least = max(times * halo for _, times, halo in inputs)
        for start, end in slab_ends(planes, self.slab * 2**level, least + least % 2):
            slabs = []
            for array, times, halo in inputs:
                low, high = max(0, start // times - halo), min(array.shape[1], end // times + halo)
                slabs.append(array[None, :, low:high])
            kind = _Slab(end - start, start == 0, end == planes)
            out[:, start // coarser : end // coarser] = self._infer(slabs, build, names, level, kind)[0]
            if self.progress is not None:
                self.done += flops * (end - start)
                self.progress(min(1.0, self.done / self.total))
        return out

    def _infer(self, slabs, build, names, level, kind):
        """Return the output of a graph for slabs of its inputs; the next call overwrites it."""
        shapes = tuple(slab.shape for slab in slabs)

        def compile_graph():
            graph = [_parameter(shape[1:]) for shape in shapes]
            return _Request(_compile(graph, build(graph, names, kind)), shapes)

        key = (self.config, names[0], kind, shapes)
        if key != self.key:
            self.request = None  # or the memory of two graphs is held
            size = _slab_bytes(self.config, level, kind.planes, self.shape)
            self.key, self.request = key, _GRAPHS.get(self.parameters, key, size, compile_graph)
        return self.request(slabs)

    def _bottom(self, graph, names, kind):
        return self._convolve(graph[0], names, kind)

    def _down(self, graph, names, kind):
        ops = import_openvino().opset13

        x, zeros, two = self._convolve(graph[0], names, kind), [0, 0, 0], [2, 2, 2]
        return ops.max_pool(x, two, [1, 1, 1], zeros, zeros, two).output(0)

    def _up(self, graph, names, kind):
        ops = import_openvino().opset13

        skip, up = graph
        first, *others = names
        layer, later = self.parameters[first], len(others)
        split = skip.get_partial_shape()[1].get_length()
        halo = later // 2 + 1
        # Of the planes that the transposed convolution gives, those that the next convolutions do not need are left
        # out; at the ends of the box it gives one plane outside.
        before, after = 1 if kind.first else 2 * halo + 1 - later, 1 if kind.last else 2 * halo + 1 - later
        kernel = np.transpose(fold_kernel(np.asarray(layer["kernel"])[..., split:, :]), (3, 4, 0, 1, 2))
        more = {"pads_begin": [before, 1, 1], "pads_end": [after, 1, 1], "dilations": [1, 1, 1]}
        from_up = ops.convolution_backprop_data(up, _constant(kernel), [2, 2, 2], **more)
        x = ops.add(from_up, _convolution(skip, np.asarray(layer["kernel"])[..., :split, :], kind))
        return self._convolve(self._activate(x, first), others, kind)

    def _convolve(self, x, names, kind):
        for name in names:
            x = self._activate(_convolution(x, np.asarray(self.parameters[name]["kernel"]), kind), name)
        return x

    def _activate(self, x, name):
        """Add the bias; apply LeakyReLU, except to the output."""
        ops = import_openvino().opset13

        x = ops.add(x, _constant(np.asarray(self.parameters[name]["bias"]).reshape(1, -1, 1, 1, 1)))
        return x if name == "out" else ops.prelu(x, _constant(np.full(1, self.config.negative_slope)))


class _Request:
    """An inference request, and arrays for its inputs, which are used again: their pages are touched once."""

    def __init__(self, request, shapes):
        self.request, self.inputs = request, [np.empty(shape, np.float32) for shape in shapes]

    def __call__(self, slabs):
        for buffer, slab in zip(self.inputs, slabs, strict=True):
            np.copyto(buffer, slab)
        return self.request.infer(self.inputs, share_inputs=True, share_outputs=True)[0]


def slab_ends(planes: int, size: int, least: int) -> list[tuple[int, int]]:
    """Return first plane and end of every slab; none is thinner than its neighbors' halos, and all sizes are even.

    The first and the last are thin: each has a graph of its own, whose memory is touched for a single use.
    """
    if planes <= max(size, 3 * least - 1):
        return [(0, planes)]
    middle = planes - 2 * least
    count = min(-(-middle // size), middle // least)
    inner = middle // (2 * count) * 2
    return list(itertools.pairwise([0, *(least + inner * number for number in range(count + 1)), planes]))


def _convolution(x, kernel, kind):
    ops = import_openvino().opset13

    kernel = _constant(np.transpose(kernel, (4, 3, 0, 1, 2)))
    ones = [1, 1, 1]
    return ops.convolution(x, kernel, ones, [int(kind.first), 1, 1], [int(kind.last), 1, 1], ones)


def fold_kernel(kernel: np.ndarray) -> np.ndarray:
    """Fold a kernel `(3, 3, 3, ...)` on repeated voxels into one of a transposed convolution, `(4, 4, 4, ...)`.

    Output voxel `o` of a stride of 2 sees coarse voxel `i` through the tap `o - 2 i + 1`.
    """
    for axis in range(3):
        first, middle, last = np.moveaxis(kernel, axis, 0)
        kernel = np.moveaxis(np.stack([last, middle + last, first + middle, first]), 0, axis)
    return kernel


def _constant(array):
    ops = import_openvino().opset13

    return ops.constant(np.ascontiguousarray(array, np.float32))


def _parameter(shape):
    ops = import_openvino().opset13

    return ops.parameter([1, *shape], np.float32)


def _compile(graph, output):
    """Return an inference request of a graph, in float32 also on processors that have half precision."""
    openvino = import_openvino()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "ENABLE_CPU_PINNING": False,
    }
    model = openvino.Model([openvino.opset13.result(output)], graph, "level")
    return openvino.Core().compile_model(model, "CPU", settings).create_infer_request()


@functools.lru_cache
def import_openvino():
    """Return OpenVINO, imported without the package by which it reports to its maker over the network."""
    name = "openvino_telemetry"
    reporting = sys.modules.get(name)
    sys.modules[name] = None  # which makes its import fail
    try:
        import openvino
        import openvino.opset13
    finally:
        del sys.modules[name]
        if reporting is not None:
            sys.modules[name] = reporting
    return openvino


SLABS = SlabRunner(
    name="OpenVINO", efficiency=0.8, sizes=sizes, run=run, count_bytes=count_bytes, count_flops=count_flops
)
