"""Files that are not a usable map are refused with one line, and not changed."""

import bz2
import gzip
import os

import numpy as np
import pytest
from helpers.mrc_bytes import mrc

from crefjax.io.maps import read_map


@pytest.fixture
def read_refused(file, refused, tmp_path):
    """Return the message of read_map for a file of this content, which must not change."""

    def call(content: bytes, match: str, name="map.mrc"):
        path = file(content, name)
        message = refused(read_map, path, names=name, match=match)
        assert path.read_bytes() == content
        assert list(tmp_path.iterdir()) == [path]
        return message

    return call


@pytest.mark.parametrize("kept", [1, 3, 211, 1023])
def test_cut_within_header(read_refused, kept):
    read_refused(mrc()[:kept], "not an MRC/CCP4 map, or cut short: a header has 1024 bytes, found")


def test_short_by_its_extended_header(read_refused):
    read_refused(mrc(nsymbt=80), r"an extended header of 80 bytes \(NSYMBT\), and the file is too short by")


@pytest.mark.parametrize("kept", [1024, 1025, 1103, 1105, 1199])
def test_cut_within_extended_header_or_data(read_refused, kept):
    read_refused(mrc(extended=bytes(80))[:kept], f"cut short: its header asks for 1200 bytes, found {kept}")


@pytest.mark.parametrize("kept", [1024, 1060, 1104, 1130, 1199])
@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_cut_before_compression(read_refused, pack, kept):
    content = pack(mrc(extended=bytes(80))[:kept])
    read_refused(content, f"cut short: its header asks for 1200 bytes, found {kept}", "map.mrc.gz")


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9, -12, -8, -4, -1])
def test_cut_gzip(read_refused, kept):
    whole = gzip.compress(mrc(n=(10, 10, 10), data=np.random.default_rng(0).normal(size=1000)))
    end = int(kept * len(whole)) if kept > 0 else kept
    read_refused(whole[:end], "cut short", "map.map.gz")


def test_cut_bzip2(read_refused):
    read_refused(bz2.compress(mrc())[:-5], "cut short", "map.map.bz2")


def test_damaged_gzip(read_refused):
    content = bytearray(gzip.compress(mrc()))
    content[-6] ^= 255  # the checksum
    read_refused(bytes(content), "damaged", "map.map.gz")


@pytest.mark.parametrize("at", [60, 110])
def test_damaged_within_compressed(read_refused, at):
    voxels = np.random.default_rng(0).normal(size=24)
    for pack in (gzip.compress, bz2.compress):
        content = bytearray(pack(mrc(data=voxels)))
        content[at : at + 8] = bytes(8)
        read_refused(bytes(content), "damaged|cut short|not an MRC/CCP4 map", "map.map.gz")


def test_missing_file(refused, tmp_path):
    refused(read_map, tmp_path / "gone.mrc", names="gone.mrc", match="no such file")


def test_file_used_as_folder(refused, file):
    refused(read_map, file(mrc()) / "map.mrc", names="map.mrc", match="no such file")


def test_folder(refused, tmp_path):
    refused(read_map, tmp_path, names=tmp_path.name, match="found a folder")


def test_pipe(refused, tmp_path):
    os.mkfifo(tmp_path / "pipe.mrc")
    refused(read_map, tmp_path / "pipe.mrc", names="pipe.mrc", match="a pipe or a device")


def test_name_with_a_line_break(refused, tmp_path):
    refused(read_map, tmp_path / "a\nb.mrc", names="b.mrc", match="no such file")


def test_empty_file(read_refused):
    read_refused(b"", "empty file")


def test_empty_gzip(read_refused):
    read_refused(gzip.compress(b"", mtime=0), "not an MRC/CCP4 map", "map.mrc.gz")


def test_no_permission(file, refused):
    path = file(mrc())
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("root may read everything")
    refused(read_map, path, names="map.mrc", match="cannot be read .Permission denied")


def test_open_refused_by_the_system(file, refused, monkeypatch):
    path = file(mrc())

    def deny(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", deny)
    refused(read_map, path, names="map.mrc", match="cannot be read .Permission denied")


@pytest.mark.parametrize(
    ("content", "looks_like"),
    [
        (b"<!DOCTYPE html>\n<html>not found</html>", "text .it begins '<!DOCTYPE html>"),
        (b"loop_\n_rlnImageName\n" * 100, "text"),
        (b"\x89HDF\r\n\x1a\n" + bytes(2000), "HDF5"),
        (b"PK\x03\x04" + bytes(2000), "zip"),
        (b"\xfd7zXZ\0" + bytes(2000), "xz"),
        (bytes(2000), "1024 bytes are not such a header"),
        (bytes(range(256)) * 8, "1024 bytes are not such a header"),
        (gzip.compress(gzip.compress(mrc(), mtime=0), mtime=0), "compressed twice"),
        (gzip.compress(b"<html>" * 300, mtime=0), "text"),
    ],
)
def test_foreign_file(read_refused, content, looks_like):
    message = read_refused(content, looks_like)
    assert "not an MRC/CCP4 map" in message


@pytest.mark.parametrize(
    ("bad", "message"),
    [([np.nan], "1 NaN and 0 inf"), ([np.inf, -np.inf, np.nan, np.nan], "2 NaN and 2 infinite of 24")],
)
@pytest.mark.parametrize("mode", [2, 12])
def test_non_finite_voxels_are_refused(read_refused, bad, message, mode):
    data = np.arange(24.0)
    data[20 - len(bad) : 20] = bad
    read_refused(mrc(data=data, mode=mode), message)


def test_constant_map(read_refused, file):
    content = mrc(data=np.full(24, 0.25))
    read_refused(content, "found the value 0.25 in every voxel")
    assert np.all(read_map(file(content), allow_constant=True).array == 0.25)


@pytest.mark.parametrize(("mode", "what"), [(3, "complex"), (4, "complex"), (101, "4-bit"), (7, "mode 7")])
def test_complex_modes_are_refused(read_refused, mode, what):
    read_refused(mrc(mode=mode), what)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"ispg": 0, "m": (4, 3, 1)}, "stack of 2 images"),
        ({"ispg": 401, "m": (4, 3, 1)}, "stack of volumes"),
        ({"n": (4, 6, 1)}, "single image"),
        ({"n": (4, 6, 1), "ispg": 0}, "single image"),
    ],
)
def test_images_and_stacks(read_refused, words, message):
    read_refused(mrc(**words), message)


@pytest.mark.parametrize("name", ["a.mrcs", "a.st", "a.mrcs.gz", "a.MRCS"])
def test_stack_by_name(read_refused, name):
    read_refused(mrc(), "image stack", name)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"cell": (6.0, 4.5, 3.1)}, "cubic voxels, found 1.5, 1.5, 1.55 Å"),
        ({"cell": (6.0, 4.5, 3.006)}, "cubic voxels, found 1.5, 1.5, 1.503 Å"),
        ({"cell": (1e-30, 1e-30, 0.0)}, "voxel size above 0 Å"),
        ({"cell": (0.0, 0.0, 0.0)}, "found 0, 0, 0 Å .* set it"),
        ({"cell": (-6.0, -4.5, -3.0)}, "found -1.5, -1.5, -1.5 Å"),
        ({"cell": (np.nan, 4.5, 3.0)}, "found nan, 1.5, 1.5 Å"),
        ({"cell": (np.inf, 4.5, 3.0)}, "found inf, 1.5, 1.5 Å"),
        ({"m": (0, 3, 2)}, "MX, MY, MZ above 0, found 0, 3, 2"),
        ({"m": (-4, -3, -2)}, "MX, MY, MZ above 0"),
        ({"angles": (90.0, 90.0, 120.0)}, "90 degrees, found 90, 90, 120"),
        ({"angles": (90.0, np.nan, 90.0)}, "90 degrees"),
        ({"axes": (1, 1, 3)}, "MAPC, MAPR, MAPS"),
        ({"n": (4, 0, 2), "m": (4, 3, 2)}, "sides above 0"),
        ({"n": (4, 3, -2), "m": (4, 3, 2), "data": [1]}, "sides above 0"),
        ({"nsymbt": -1}, "extended header"),
    ],
)
def test_invalid_headers_are_refused(read_refused, words, message):
    read_refused(mrc(**words), message)


def test_damaged_header_allocates_no_memory(read_refused):
    # 2^19 voxels a side would be 512 PiB: refused by the file's size, before anything is allocated.
    read_refused(mrc(n=(2**19,) * 3, data=[1, 2]), "cut short")


def test_damaged_compressed_header_asks_for_more_than_memory(read_refused):
    for side in (2**19, 2**31 - 1):
        content = gzip.compress(mrc(n=(side,) * 3, data=[1, 2]))
        read_refused(content, "does not fit into memory", "map.mrc.gz")


@pytest.mark.parametrize("value", [1e37, -1e36, 2e15])
def test_values_near_the_limits_of_float32_are_refused(read_refused, value):
    data = np.arange(24.0)
    data[5] = value
    read_refused(mrc(data=data), "expected voxels below 1e\\+15 in magnitude, found")


IMOD = bytes(40) + b"IMOD"


@pytest.mark.parametrize(
    ("stats", "extra2"),
    [
        ((0.0, 100.0, 50.0), bytes(84)),  # neither way
        ((0.0, 255.0, 90.0), bytes(84)),  # another mean
        ((0.0, 255.0, 125.0), (IMOD + b"\1\0\0\0").ljust(84, b"\0")),  # the flag says signed
        ((-128.0, 127.0, -3.0), (IMOD + bytes(4)).ljust(84, b"\0")),  # the flag says unsigned
    ],
)
def test_bytes_that_contradict_their_header_are_refused(read_refused, stats, extra2):
    read_refused(
        mrc(mode=0, data=BYTES, stats=stats, extra2=extra2), "expected the values that its header states, DMIN"
    )


# Read as unsigned: 0 to 255, of mean 3000 / 24 = 125; as signed: 12 fewer by 256, -128 to 127 and -3.
BYTES = np.array([0, 255, 128, 127, *range(10), *range(240, 250)], np.uint8).astype(np.int8)
