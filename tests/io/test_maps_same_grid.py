"""Comparison of the grids of two maps."""

import numpy as np
import pytest
from helpers.mrc_bytes import mrc

from crefjax.errors import UserError
from crefjax.io.maps import Map, check_same_grid, read_map, write_map


def make(tmp_path, name, shape=(2, 3, 4), voxel_size=1.5, origin=(0.0, 0.0, 0.0)):
    path = tmp_path / name
    write_map(path, Map.from_array(np.arange(np.prod(shape)).reshape(shape), voxel_size, origin), label="x")
    return read_map(path)


@pytest.mark.parametrize(
    ("other", "match"),
    [
        ({"shape": (4, 3, 2)}, r"same shape.*\(2, 3, 4\) and \(4, 3, 2\)"),
        ({"voxel_size": 1.503}, "same voxel size, found 1.5 and 1.503 Å"),
        ({"origin": (0, 0, 0.03)}, "same origin, found 0, 0, 0 and 0, 0, 0.03 Å"),
    ],
)
def test_maps_on_different_grids_are_refused(tmp_path, refused, other, match):
    a, b = make(tmp_path, "a.mrc"), make(tmp_path, "b.mrc", **other)
    refused(check_same_grid, a, b, "half-maps", names=["a.mrc", "b.mrc", "half-maps"], match=match)


def test_rounded_voxel_sizes_and_origins_are_the_same_grid(tmp_path):
    b = make(tmp_path, "b.mrc", voxel_size=1.501, origin=(0.01, -0.01, 0))
    check_same_grid(make(tmp_path, "a.mrc"), b, "half-maps")


def test_nstart_is_compared_as_an_origin(tmp_path, refused):
    a = make(tmp_path, "a.mrc", origin=(-3, 0, 1.5))
    (tmp_path / "b.mrc").write_bytes(mrc(nstart=(-2, 0, 1)))
    check_same_grid(a, read_map(tmp_path / "b.mrc"), "half-maps")
    (tmp_path / "c.mrc").write_bytes(mrc(nstart=(-2, 0, 2)))
    refused(check_same_grid, a, read_map(tmp_path / "c.mrc"), "x", names="c.mrc", match="-3, 0, 3 Å")


def test_maps_without_files_are_named_by_order():
    a = Map.from_array(np.zeros((2, 2, 2)), 1)
    with pytest.raises(UserError, match="the first map and the second map: expected maps of the same"):
        check_same_grid(a, Map.from_array(np.zeros((2, 2, 3)), 1), "maps")
