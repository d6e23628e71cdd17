"""What weights make of noise alone: whether structure comes out of it, and how much of it passes."""

import itertools
from collections.abc import Sequence

import numpy as np

from crefjax.data.grid import level_and_rms
from crefjax.inference.denoise import denoise_maps
from crefjax.inference.memory_plan import plan_denoise
from crefjax.inference.request import DenoiseRequest
from crefjax.inference.slabs import run_network
from crefjax.io.maps import Map
from crefjax.spectral.covariances import shell_covariances
from crefjax.spectral.curves import has_no_signal
from crefjax.weights.store import Weights

_BOXES = 8


def noise_alone(halves: Sequence[np.ndarray], truth: np.ndarray, voxel_size: float, weights: Weights) -> dict:
    """What weights make of noise alone, as strong as in a specimen's half-maps.

    Args:
        halves: the two half-maps of a specimen, cubic `(z, y, x)`.
        truth: the same.
        voxel_size: Å.
        weights: loaded.

    Returns:
        curves by shell, within a soft sphere, as at the border of the box outputs have its padding in common: `fsc` of
        the outputs for two boxes, mean over all pairs of eight; `scatter`, the deviation of that mean if the outputs
        have nothing in common, by the scatter of the pairs around 0; `passed`, the power of the output for noise over
        that of the output for the specimen's full map;
        `left`, the deviation of what calibration leaves of a pair of noise over that of its full map.
    """
    deviation = float(np.std([half - truth.astype(np.float64) for half in halves]))
    random = np.random.default_rng(7)
    full = (halves[0] + halves[1]) / 2
    noises = [
        random.standard_normal(full.shape, np.float32) * np.float32(deviation / np.sqrt(2)) for _ in range(_BOXES)
    ]
    request = DenoiseRequest(tuple(Map.from_array(half, voxel_size) for half in halves), weights)
    plan = plan_denoise(request)
    outputs = [_own_output(each, full, request, plan) for each in (*noises, full)]
    inside = soft_sphere(len(full))
    found = shell_covariances(outputs, inside, levels=[float(np.average(each, weights=inside)) for each in outputs])
    # Beyond what the network's grid can hold there is nothing.
    power = [np.maximum(found.of(i, i), np.finfo(np.float64).tiny) for i in range(_BOXES)]
    pairs = [found.of(i, j) / np.sqrt(power[i] * power[j]) for i, j in itertools.combinations(range(_BOXES), 2)]
    passed = np.mean(power, axis=0) / np.maximum(found.of(_BOXES, _BOXES), np.finfo(np.float64).tiny)
    pair = tuple(Map.from_array(each * np.float32(np.sqrt(2)), voxel_size) for each in noises[:2])
    done = denoise_maps(DenoiseRequest(pair, weights))
    mean = (pair[0].array + pair[1].array) / 2
    return {
        "fsc": np.mean(pairs, axis=0).tolist(),
        # What a network leaves of noise is uneven: it scatters more than as many voxels of white noise would. Pairs of
        # independent boxes are uncorrelated, also those that share one.
        "scatter": (np.sqrt(np.mean(np.square(pairs), axis=0) / len(pairs))).tolist(),
        "passed": passed.tolist(),
        "left": float(done.full.array.std() / mean.std()),
        "told": has_no_signal(done.half_map_fsc.fsc),
    }


def soft_sphere(side: int) -> np.ndarray:
    """A sphere of 0.4 of a cubic box in radius, with an edge as wide as 0.1 of it, float64."""
    place = (np.arange(side) - (side - 1) / 2) / side
    radius = np.sqrt(place[:, None, None] ** 2 + place[:, None] ** 2 + place**2)
    return 0.5 + 0.5 * np.cos(np.pi * np.clip((radius - 0.35) / 0.1, 0, 1))


def _own_output(one, full, request, plan):
    """The network's own output for a box in the units of a full map: on its grid, standardized by its moments."""
    # Noise standardized by its own moments would be stronger than it is beside a signal, and at another level.
    grid, weights = plan.grid, request.weights
    if weights.grid:
        region = request.region.array
        level, deviation = level_and_rms(grid.resample(full), None if region is None else grid.resample_mask(region))
    else:
        level, deviation = full.mean(), full.std()
    scaled = ((grid.resample(one) - level) / deviation).astype(np.float32)
    out = run_network(weights.parameters, scaled, weights.config, slab=plan.slab, device=plan.device)
    return grid.restore(out, one.shape)
