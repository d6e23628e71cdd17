"""From half-maps to a denoised map: standardize, run the network, put the result back on the input's scale."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from crefjax.errors import UserError
from crefjax.inference.plan import Plan, find_device, plan_run
from crefjax.inference.streaming import run_network
from crefjax.io.entries import check_mask, load_mask, load_pair
from crefjax.io.maps import Map, check_same_grid, read_map
from crefjax.weights.store import Weights, load_weights

SCALES = ("input", "none")


@dataclass(frozen=True)
class Denoised:
    """What a run gives: the denoised full map and, where asked for, the denoised half-maps."""

    full: Map
    half_map_1: Map | None = None
    half_map_2: Map | None = None


def denoise(
    half_map_1: Map | str | Path,
    half_map_2: Map | str | Path | None = None,
    mask: Map | str | Path | None = None,
    weights: Weights | str | Path | None = None,
    *,
    scale: str = "input",
    device: str | None = None,
    max_memory: float | None = None,
    progress: Callable[[float], None] | None = None,
) -> Map:
    """Denoise the full map of two half-maps.

    Args:
        half_map_1: a map or the path of one; its header goes to the result.
        half_map_2: the same; None if `half_map_1` is a full map already.
        mask: values 0 to 1 on the same grid; None for none.
        weights: loaded, or a name or path to load; the package's own if None.
        scale: `input`, with the mean and the deviation of the full map (with a mask, of the masked one within it), or
            `none`, as the network gives it.
        device: `cpu`, `gpu`, or None for whatever is best.
        max_memory: GiB to keep within; None for what is free.
        progress: called with the share of the work that is done, 0 to 1.

    Returns:
        The denoised map on the grid of the half-maps; nothing is written.

    Raises:
        UserError: whatever is wrong with maps, mask, weights, device or memory, in one line.
    """
    if half_map_2 is None:
        pair = (_as_map(half_map_1),)
    elif isinstance(half_map_1, Map) or isinstance(half_map_2, Map):
        pair = (_as_map(half_map_1), _as_map(half_map_2))
        check_same_grid(*pair, "half-maps")
    else:
        pair = load_pair(half_map_1, half_map_2)
    if isinstance(mask, Map):
        check_mask(mask, pair[0])
    elif mask is not None:
        mask = load_mask(mask, pair[0])
    if not isinstance(weights, Weights):
        weights = load_weights(weights)
    plan = plan_denoise(pair, weights, mask=mask, device=device, max_memory=max_memory)
    return denoise_maps(pair, weights, plan, mask=mask, scale=scale, progress=progress).full


def plan_denoise(
    pair: tuple[Map, ...],
    weights: Weights,
    *,
    mask: Map | None = None,
    halves: bool = False,
    device: str | None = None,
    max_memory: float | None = None,
) -> Plan:
    """What `denoise_maps` with the same arguments will take.

    Raises:
        UserError: no such device, or not enough memory.
    """
    # The maps themselves, the mask, and three for the standardized map, the output and what becomes of it.
    host_maps = len(pair) + (mask is not None) + 3 + 2 * halves
    return plan_run(
        pair[0].array.shape,
        weights.config,
        find_device(device),
        host_maps=host_maps,
        runs=3 if halves else 1,
        max_memory=max_memory,
    )


def denoise_maps(
    pair: tuple[Map, ...],
    weights: Weights,
    plan: Plan,
    *,
    mask: Map | None = None,
    scale: str = "input",
    halves: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Denoised:
    """Denoise checked half-maps, or one full map, as planned.

    Args:
        pair: two half-maps on one grid, or one full map.
        weights: of the network.
        plan: from `plan_denoise`.
        mask: on the same grid, 0 to 1.
        scale: one of `SCALES`.
        halves: whether the half-maps are denoised as well. An FSC between the results is no resolution: both
            went through the same network, so their errors are not independent.
        progress: called with the share of the work that is done, 0 to 1.

    Raises:
        UserError: the scale is unknown, halves are asked of one map, or nothing is left within the mask.
    """
    if scale not in SCALES:
        raise UserError(f"--scale: expected one of {', '.join(SCALES)}, found {scale}")
    if halves and len(pair) != 2:
        raise UserError("--halves: expected two half-maps, found one map; give both half-maps")
    full = pair[0].array if len(pair) == 1 else _mean(*(one.array for one in pair))
    arrays = [full, *(one.array for one in pair)] if halves else [full]
    results = []
    for number, array in enumerate(arrays):
        share = _share(progress, number, len(arrays))
        results.append(_denoise_array(array, weights, plan, None if mask is None else mask.array, scale, share))
    return Denoised(*(pair[0].replace_array(result) for result in results))


def _denoise_array(array, weights, plan, mask, scale, progress):
    mean, deviation = _moments(array)
    if not deviation > 0:
        raise UserError(
            "expected a density map, found the same value in every voxel of the full map; check the half-maps"
        )
    x = (array - np.float32(mean)) / np.float32(deviation)
    if mask is not None:
        x *= mask
        inside = _moments(x, mask)
        if not inside[1] > 0:
            raise UserError(
                "expected density within the mask, found the same value in every voxel of it; check the mask"
            )
    else:
        inside = (0.0, 1.0)
    y = _run(x, weights, plan, progress)
    if scale == "input":
        # Within the mask, if there is one: outside it the network's input was made zero.
        y_mean, y_deviation = _moments(y, mask)
        if not y_deviation > 0:
            raise UserError(f"weights {weights.name}: the network's output is constant; the weights are of no use")
        gain = deviation * inside[1] / y_deviation
        offset = mean + deviation * inside[0] - gain * y_mean
        y = y * np.float32(gain) + np.float32(offset)
    return y if mask is None else y * mask


def _run(x, weights, plan, progress):
    """The network, with thinner slabs if the device had less room than it said."""
    slab = plan.slab
    while True:
        try:
            return run_network(weights.parameters, x, weights.config, slab=slab, device=plan.device, progress=progress)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            if slab <= 2:
                raise UserError(
                    f"{plan.device.platform} ran out of memory with the thinnest slabs; close other programs, choose "
                    "--device cpu, or crop or bin the half-maps"
                ) from error
            slab = max(n for n in range(2, slab, 2) if plan.slab % n == 0)


def _moments(array, mask=None):
    """Mean and deviation, weighted by a mask if there is one; float64, plane by plane."""
    masks = [None] * len(array) if mask is None else mask
    weight = float(array.size) if mask is None else sum(float(plane.sum(dtype=np.float64)) for plane in mask)

    def total(planes):
        return sum(
            float((plane if one is None else plane * one).sum(dtype=np.float64))
            for plane, one in zip(planes, masks, strict=True)
        )

    mean = total(array) / weight
    return mean, float(np.sqrt(total(np.square(plane - mean, dtype=np.float64) for plane in array) / weight))


def _mean(first, second):
    out = first + second
    out *= np.float32(0.5)
    return out


def _as_map(one):
    return one if isinstance(one, Map) else read_map(one)


def _share(progress, number, count):
    return None if progress is None else lambda share: progress((number + share) / count)
