"""Memory of reading and writing: for a map of 512³ voxels, half a GiB, hardly more than the map itself."""

import tracemalloc

import numpy as np
import pytest
from helpers.mrc_bytes import mrc

from crefjax.io.entries import load_mask, load_pair
from crefjax.io.maps import read_map, write_map

SIDE = 96
ARRAY = 4 * SIDE**3
# Sections in float64, the buffers of streams and compression.
LITTLE = 2**19


@pytest.fixture
def peak():
    """Return the most bytes allocated at once while a function runs."""

    def measure(function, *args, **kwargs):
        tracemalloc.start()
        try:
            function(*args, **kwargs)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    return measure


@pytest.fixture
def large(file):
    def make(name="1.mrc", order="<", seed=0, **words):
        data = np.random.default_rng(seed).integers(0, 2, SIDE**3)
        return file(mrc(order, n=(SIDE,) * 3, data=data, **words), name)

    return make


@pytest.mark.parametrize(
    "words", [{}, {"order": ">"}, {"axes": (3, 2, 1)}, {"mode": 12}, {"mode": 0, "axes": (2, 1, 3)}]
)
def test_reading_holds_one_copy(large, peak, words):
    path = large(**words)
    assert ARRAY <= peak(read_map, path) <= ARRAY + LITTLE


@pytest.mark.parametrize("name", ["out.mrc", "out.mrc.gz"])
@pytest.mark.parametrize("axes", [(1, 2, 3), (3, 2, 1)])
def test_writing_holds_no_copy(large, peak, tmp_path, axes, name):
    map_ = read_map(large(axes=axes))
    assert peak(write_map, tmp_path / name, map_, label="x") <= LITTLE


def test_pair_holds_two_copies(large, peak):
    assert peak(load_pair, large("1.mrc"), large("2.mrc", seed=1)) <= 2 * ARRAY + LITTLE


def test_mask_holds_one_copy(large, peak):
    path = large()
    map_ = read_map(path)
    assert peak(load_mask, path, map_) <= ARRAY + LITTLE
