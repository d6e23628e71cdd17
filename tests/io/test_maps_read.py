"""Reading of maps of every mode, byte order, axis order, and compression."""

import bz2
import gzip
import itertools
import struct

import numpy as np
import pytest
from helpers.mrc_bytes import MODES, mrc

from crefjax.io.maps import read_map


def test_voxels_keep_their_places(file):
    # 24 voxels 0..23, columns (x, 4 of them) fastest: voxel (x=3, y=1, z=1) is number 3 + 4*1 + 12*1 = 19.
    map_ = read_map(file(mrc()))
    assert map_.array.shape == (2, 3, 4)
    assert map_.array[1, 1, 3] == 19
    assert map_.array.dtype == np.float32
    assert map_.array.flags.c_contiguous
    assert map_.array.flags.writeable
    assert map_.voxel_size == 1.5
    assert map_.origin == (0, 0, 0)


@pytest.mark.parametrize("axes", list(itertools.permutations((1, 2, 3))))
def test_axis_order_is_turned_to_zyx(file, axes):
    size = {1: 5, 2: 4, 3: 3}  # x, y, z
    columns, rows, sections = (size[axis] for axis in axes)
    data = np.zeros(60)
    place = {1: 3, 2: 1, 3: 2}  # one voxel, at x=3, y=1, z=2
    column, row, section = (place[axis] for axis in axes)
    data[(section * rows + row) * columns + column] = 7
    start = {1: 10, 2: 20, 3: 30}
    content = mrc(n=(columns, rows, sections), axes=axes, data=data, nstart=tuple(start[axis] for axis in axes))
    map_ = read_map(file(content))
    assert map_.array.shape == (3, 4, 5)
    assert np.argwhere(map_.array == 7).tolist() == [[2, 1, 3]]
    assert map_.array.sum() == 7
    assert map_.origin == (15, 30, 45)  # NSTART along x, y, z times 1.5 Å
    assert map_.array.flags.c_contiguous


def test_blank_axis_order_means_xyz(file):
    assert read_map(file(mrc(axes=(0, 0, 0)))).array[1, 1, 3] == 19


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("mode", "values"),
    [
        (0, [-128, 127, 5]),
        (1, [-32768, 32767, 300]),
        (2, [-1.25e10, 3.5, 7e-30]),
        (6, [0, 65535, 40000]),
        (12, [-65504.0, 65504.0, 0.099975586]),
    ],
)
def test_modes_and_byte_orders(file, mode, values, order):
    data = np.tile(values, 8)
    map_ = read_map(file(mrc(order, data=data, mode=mode)))
    assert map_.array.dtype == np.float32
    np.testing.assert_array_equal(map_.array.ravel(), np.float32(data))
    assert map_.header.byte_order == order


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stamp", [bytes(4), b"\x44\x41\0\0", b"\x44\x44\x20\x20", b"\x11\x11\0\0", b"DA  "])
@pytest.mark.parametrize("order", ["<", ">"])
def test_odd_or_wrong_machine_stamp(file, mode, stamp, order):
    map_ = read_map(file(mrc(order, mode=mode, stamp=stamp)))
    np.testing.assert_array_equal(map_.array.ravel(), np.arange(24))


@pytest.mark.parametrize(
    "words",
    [
        {"nversion": 0},
        {"stats": (5.0, 1.0, 9.0), "rms": 400.0},
        {"nlabl": 77, "labels": (b"one",)},
        {"nlabl": -3},
        {"ispg": 0},  # as Chimera and RELION write volumes
        {"ispg": 401},
        {"ispg": 19},
        {"angles": (0.0, 0.0, 0.0)},
        {"map_id": b"MAP\0"},
        {"map_id": bytes(4)},
    ],
)
def test_unusual_but_valid_headers_are_read(file, words):
    assert read_map(file(mrc(**words))).array[1, 1, 3] == 19


def test_crop_has_the_voxel_size_of_its_whole_cell(file):
    map_ = read_map(file(mrc(m=(100, 200, 50), cell=(120.0, 240.0, 60.0))))
    assert map_.voxel_size == pytest.approx(1.2, rel=1e-6)


def test_origin_takes_precedence_over_nstart(file):
    map_ = read_map(file(mrc(origin=(0.0, -2.5, 0.0), nstart=(7, 8, 9))))
    assert map_.origin == (0, -2.5, 0)


def test_extended_header_is_kept_and_skipped(file):
    map_ = read_map(file(mrc(extended=b"some bytes" * 8)))
    assert map_.header.extended == b"some bytes" * 8
    assert map_.array[1, 1, 3] == 19


def test_extra_bytes_at_the_end_are_ignored(file):
    assert read_map(file(mrc() + b"more")).array[1, 1, 3] == 19


@pytest.mark.parametrize("name", ["a.mrc", "a.mrc.gz", "a.map.bz2", "a.ccp4", "noname"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress])
def test_compression_is_recognized_by_content(file, name, pack):
    assert read_map(file(pack(mrc()), name)).array[1, 1, 3] == 19


def test_width_that_looks_like_gzip_is_read_as_a_map(file):
    width = struct.unpack("<i", b"\x1f\x8b\0\0")[0]
    path = file(mrc(n=(width, 2, 2), data=np.arange(4 * width) % 100))
    assert read_map(path).array[1, 0, 3] == (2 * width + 3) % 100


def test_path_may_be_text(file):
    path = file(mrc())
    assert read_map(str(path)).path == path


def test_nearly_cubic_voxels_are_accepted(file):
    # 0.07 % apart, as cells rounded to two digits are.
    assert read_map(file(mrc(cell=(6.0, 4.5, 3.002)))).voxel_size == pytest.approx(1.5, rel=1e-3)


@pytest.mark.parametrize(
    ("unsigned", "stats", "flags"),
    [
        (False, (0.0, -1.0, -2.0), None),  # the standard's own meaning
        (False, (-128.0, 127.0, None), None),
        (True, (0.0, 255.0, None), None),
        (True, (0.0, 255.0, -1.0), None),  # a mean that is not known
        (True, (0.0, 255.0, None), 0),
        (True, (0.0, -1.0, -2.0), 0),
        (False, (0.0, -1.0, -2.0), 1),
        (False, (-128.0, 127.0, None), 3),
    ],
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_bytes_are_signed_unless_imod_or_the_statistics_say_otherwise(file, order, unsigned, stats, flags):
    data = np.array([0, 255, 128, 127, *range(10), *range(240, 250)], np.uint8)
    meant = data.astype(float) if unsigned else data.astype(np.int8).astype(float)
    stats = tuple(meant.mean() if number is None else number for number in stats)
    extra = bytes(84) if flags is None else (bytes(40) + struct.pack(order + "2i", 1146047817, flags)).ljust(84, b"\0")
    map_ = read_map(file(mrc(order, mode=0, data=data.astype(np.int8), stats=stats, extra2=extra)))
    np.testing.assert_array_equal(map_.array.ravel(), meant)
