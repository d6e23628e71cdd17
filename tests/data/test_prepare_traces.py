"""Copies of a half-map are recognized, and other maps are not mistaken for copies."""

import itertools

import numpy as np
import pytest

from crefjax.data.prepare_entry import similar_entries, trace_of

SHAPE = (26, 30, 28)


def noise(seed, shape=SHAPE):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def soft(shape):
    """Return a window: 1 in the middle, falling off to 0."""
    lines = np.ix_(*(np.abs(np.linspace(-1, 1, side)) for side in shape))
    return np.clip(6 * (0.8 - np.sqrt(sum(line**2 for line in lines))), 0, 1).astype(np.float32)


CHANGES = {
    "turned": lambda map_: np.rot90(map_, axes=(0, 2)),
    "mirrored": lambda map_: map_[:, ::-1],
    "of other axes": lambda map_: map_.transpose(2, 0, 1),
    "cropped": lambda map_: map_[3:-4, 5:, 2:-2],
    "padded": lambda map_: np.pad(map_, 5),
    "masked": lambda map_: map_ * soft(map_.shape),
    "cropped and turned": lambda map_: np.rot90(map_[4:-4, 4:-4, 4:-4], axes=(1, 2)),
    "of float16": lambda map_: map_.astype(np.float16).astype(np.float32)[::-1],
}


@pytest.mark.parametrize("name", CHANGES)
def test_entries_made_from_one_map_are_similar(name):
    base = noise(1)
    if name == "of float16":
        base = base.astype(np.float16).astype(np.float32)
    changed = np.ascontiguousarray(CHANGES[name](base))
    traces = [[trace_of(noise(5))], [trace_of(base), trace_of(noise(2))], [trace_of(noise(3)), trace_of(changed)]]
    assert similar_entries(traces) == [(1, 2)]
    assert not traces[1][0].is_copy_of(traces[2][1])


def test_independent_maps_of_one_specimen_are_not_similar():
    body = 5 * soft(SHAPE)
    halves = [trace_of(body + noise(seed)) for seed in range(6)]
    assert similar_entries([[half_map] for half_map in halves]) == []
    assert not any(a.is_copy_of(b) for a, b in itertools.combinations(halves, 2))


def test_maps_of_few_values_are_not_similar():
    coarse = [np.round(10 * noise(seed)) for seed in range(2)]
    assert similar_entries([[trace_of(half_map)] for half_map in coarse]) == []


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 9, 9), (3, 3, 3), (40, 8, 8)])
def test_small_boxes_are_not_similar(shape):
    trace = trace_of(noise(1, shape))
    assert similar_entries([[trace], [trace_of(noise(2, shape))]]) == []
