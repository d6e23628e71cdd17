"""Written maps, byte by byte and as mrcfile reads them."""

import bz2
import gzip
import struct
import time
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from helpers.mrc_bytes import mrc, valid

from crefjax.io.maps import Map, read_map, write_map
from crefjax.utils.statistics import extremes, mean_and_std

SHARED = Path(__file__).parents[2].parent / "shared"
NOTE = "crefjax denoise"


def copy(tmp_path, content: bytes, name="out.mrc", label=NOTE):
    """Return the bytes of a file with this content after reading and writing; it must validate."""
    source = tmp_path / "in.mrc"
    source.write_bytes(content)
    write_map(tmp_path / name, read_map(source), label=label)
    assert source.read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["in.mrc", name])
    assert valid(tmp_path / name)
    return (tmp_path / name).read_bytes()


@pytest.mark.parametrize("order", ["<", ">"])
def test_only_statistics_and_label_change(tmp_path, order):
    words = {
        "n": (3, 2, 4),
        "axes": (2, 3, 1),
        "nstart": (-5, 6, 7),
        "origin": (1.5, -2.5, 3.0),
        "m": (40, 30, 20),
        "extra1": b"abcdefgh",
        "extra2": bytes(range(84)),
        "exttyp": b"FEI1",
        "ispg": 4,
        "extended": b"\1\2\3\4" * 20,
        "angles": (0.0, 0.0, 0.0),
    }
    first = "Å of old".encode("latin-1")
    # 0 .. 23: mean 11.5, variance (24^2 - 1) / 12.
    expected = mrc(
        order,
        labels=(first, NOTE.encode().ljust(80)),
        stats=(0.0, 23.0, 11.5),
        rms=np.sqrt(575 / 12),
        **words,
    )
    assert copy(tmp_path, mrc(order, labels=(first,), **words)) == expected


def test_invalid_headers_are_made_valid(tmp_path):
    content = mrc(
        nversion=0, ispg=-1, map_id=bytes(4), stamp=bytes(4), axes=(0, 0, 0), nlabl=9, exttyp=b"\xff\xfe\0\0",
        extended=b"\1" * 80,
    )  # fmt: skip
    out = copy(tmp_path, content)
    assert struct.unpack_from("<3i", out, 64) == (1, 2, 3)
    assert struct.unpack_from("<i", out, 88) == (1,)
    assert out[104:108] == b"MRCO"
    assert struct.unpack_from("<i", out, 108) == (20141,)
    assert out[208:216] == b"MAP \x44\x44\0\0"
    assert struct.unpack_from("<i", out, 220) == (1,)


@pytest.mark.parametrize("stamp", [b"\x44\x41\0\0", b"\x44\x44\x20\x20"])
def test_right_stamp_is_kept(tmp_path, stamp):
    assert copy(tmp_path, mrc(stamp=stamp))[212:216] == stamp


def test_wrong_stamp_is_set_to_the_order_of_the_numbers(tmp_path):
    assert copy(tmp_path, mrc(">", stamp=b"\x44\x44\0\0"))[212:216] == b"\x11\x11\0\0"


@pytest.mark.parametrize("version", [20140, 20141])
def test_version_is_kept(tmp_path, version):
    assert struct.unpack_from("<i", copy(tmp_path, mrc(nversion=version)), 108) == (version,)


@pytest.mark.parametrize(
    ("exttyp", "extended", "expected"),
    [
        (bytes(4), b"X,  Y,  Z".ljust(80), b"CCP4"),
        (bytes(4), b"X,  Y,  Z".ljust(81), b"MRCO"),
        (bytes(4), bytes(160), b"MRCO"),
        (b"ABCD", b"\1\2\3", b"MRCO"),
        (b"SERI", b"X,  Y,  Z".ljust(80), b"SERI"),
        (bytes(4), b"", bytes(4)),
    ],
)
def test_type_of_extended_header(tmp_path, exttyp, extended, expected):
    out = copy(tmp_path, mrc(exttyp=exttyp, extended=extended))
    assert out[104:108] == expected
    assert out[1024 : 1024 + len(extended)] == extended


@pytest.mark.parametrize(
    ("labels", "kept"),
    [
        ((b"a", b"", b" " * 80, b"b\xc5\xff", b"\0late"), [b"a", b"b\xc5\xff", b"\0late"]),
        (tuple(b"%d" % i for i in range(9)), [b"%d" % i for i in range(9)]),
        (tuple(b"%d" % i for i in range(10)), [b"%d" % i for i in range(9)]),
    ],
)
def test_labels(tmp_path, labels, kept):
    out = copy(tmp_path, mrc(labels=labels))
    found = [out[start : start + 80] for start in range(224, 1024, 80)]
    assert found[: len(kept)] == [label.ljust(80, b"\0") for label in kept]
    assert found[len(kept)] == NOTE.encode().ljust(80)
    assert found[len(kept) + 1 :] == [bytes(80)] * (9 - len(kept))
    assert struct.unpack_from("<i", out, 220) == (len(kept) + 1,)


@pytest.mark.parametrize(
    ("label", "expected"),
    [("x" * 100, b"x" * 80), ("two\nlines\t5 Å", b"two lines 5 ?"), (" ", b"")],
)
def test_added_label_is_80_printable_ascii_bytes(tmp_path, label, expected):
    out = copy(tmp_path, mrc(), label=label)
    assert out[224:304].rstrip(b" \0") == expected
    assert struct.unpack_from("<i", out, 220) == (1 if expected else 0,)


def test_statistics_of_a_small_spread_far_from_zero():
    # Neighbors in float32 at 1e8 are 8 apart: neither the mean between them nor the sums fit into it.
    array = np.full((3, 4, 6), 1e8, np.float32)
    array[..., ::2] += 8
    assert (*extremes(array), *mean_and_std(array)) == (1e8, 1e8 + 8, 1e8 + 4, 4)


@pytest.mark.parametrize("suffix", [".mrc", ".map", ".ccp4", ".MRC"])
@pytest.mark.parametrize(("end", "unpack"), [("", bytes), (".gz", gzip.decompress), (".bz2", bz2.decompress)])
def test_suffix_selects_the_compression(tmp_path, suffix, end, unpack):
    out = unpack(copy(tmp_path, mrc(), f"out{suffix}{end}"))
    assert len(out) == 1024 + 96
    assert np.frombuffer(out[1024:], "<f4").tolist() == list(range(24))


def test_same_map_gives_same_gzip_bytes(tmp_path, monkeypatch):
    map_ = Map.from_array(np.arange(24).reshape(2, 3, 4), 1.5)
    write_map(tmp_path / "a.mrc.gz", map_, label="x")
    monkeypatch.setattr(time, "time", lambda: 1e9)
    write_map(tmp_path / "b.mrc.gz", map_, label="x")
    assert (tmp_path / "a.mrc.gz").read_bytes() == (tmp_path / "b.mrc.gz").read_bytes()


def test_map_from_an_array_is_written(tmp_path):
    array = np.arange(24, dtype=np.float64).reshape(2, 3, 4)
    write_map(tmp_path / "new.mrc", Map.from_array(array, 1.25, (1, -2, 3.5)), label=NOTE)
    assert valid(tmp_path / "new.mrc")
    with mrcfile.open(tmp_path / "new.mrc") as mrc_:
        np.testing.assert_array_equal(mrc_.data, array)
        assert mrc_.voxel_size.tolist() == (1.25, 1.25, 1.25)
        assert mrc_.header.origin.tolist() == (1, -2, 3.5)
        assert mrc_.is_volume()
        assert mrc_.get_labels() == [NOTE.ljust(80)]
    again = read_map(tmp_path / "new.mrc")
    assert (again.voxel_size, again.origin) == (1.25, (1, -2, 3.5))


@pytest.mark.parametrize(("shape", "voxel_size"), [((3, 4), 1), ((0, 2, 2), 1), ((2, 2, 2), 0), ((2, 2, 2), np.nan)])
def test_map_from_an_invalid_array_raises(shape, voxel_size):
    with pytest.raises(ValueError, match="expected"):
        Map.from_array(np.zeros(shape), voxel_size)


def test_replaced_array_keeps_the_header(tmp_path):
    (tmp_path / "in.mrc").write_bytes(mrc(axes=(3, 1, 2), n=(2, 4, 3), labels=(b"old",)))
    map_ = read_map(tmp_path / "in.mrc")
    new = map_.replace_array(map_.array[::-1].astype(np.float64) * 2)
    assert new.array.dtype == np.float32
    assert new.array.flags.c_contiguous
    assert (new.voxel_size, new.origin, new.header) == (map_.voxel_size, map_.origin, map_.header)
    write_map(tmp_path / "out.mrc", new, label=NOTE)
    # In the file z runs fastest, two of them: each pair is exchanged and doubled.
    expected = 2 * np.arange(24).reshape(12, 2)[:, ::-1]
    np.testing.assert_array_equal(mrcfile.read(tmp_path / "out.mrc").reshape(12, 2), expected)
    with pytest.raises(ValueError, match="shape"):
        map_.replace_array(np.zeros((4, 3, 2)))


def test_non_finite_voxels_are_not_written(tmp_path, refused):
    array = np.zeros((2, 2, 2), np.float32)
    array[1, 1, 1] = np.nan
    refused(
        write_map,
        tmp_path / "out.mrc",
        Map.from_array(array, 1),
        label="x",
        names="out.mrc",
        match="nothing was written.*1 NaN",
    )
    assert list(tmp_path.iterdir()) == []


def test_constant_map_is_written(tmp_path):
    write_map(tmp_path / "mask.mrc", Map.from_array(np.ones((5, 6, 7)), 1), label="x")
    assert valid(tmp_path / "mask.mrc")


def test_input_is_never_opened_for_writing(tmp_path, monkeypatch):
    source = tmp_path / "in.mrc"
    source.write_bytes(mrc())
    source.chmod(0o400)
    before = source.stat()
    modes = []
    real = open

    def spy(file, mode="r", *args, **kwargs):
        if str(file) == str(source):
            modes.append(mode)
        return real(file, mode, *args, **kwargs)

    monkeypatch.setattr("builtins.open", spy)
    write_map(tmp_path / "out.mrc", read_map(source), label="x")
    assert modes == ["rb"]
    assert source.stat().st_mtime_ns == before.st_mtime_ns


KEPT = ["nx", "ny", "nz", "nxstart", "nystart", "nzstart", "mx", "my", "mz", "cella", "cellb"]
KEPT += ["mapc", "mapr", "maps", "ispg", "nsymbt", "extra1", "extra2", "origin", "map"]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder of real maps is not there")
def test_real_maps_are_written_under_their_headers(tmp_path):
    # Not the images, nor the cases, which are broken on purpose.
    folders = ("bench", "halfmaps", "maps")
    found = sorted(path for name in folders for path in (SHARED / name).rglob("*") if path.suffix in (".mrc", ".map"))
    assert found
    out = tmp_path / "out.mrc"
    for path in found:
        write_map(out, read_map(path), label=NOTE, overwrite=True)
        assert valid(out), path
        with mrcfile.open(path, permissive=True) as old, mrcfile.open(out) as new:
            for field in KEPT:
                assert old.header[field] == new.header[field], (path, field)
            np.testing.assert_array_equal(new.data, old.data.astype(np.float32))
            assert new.header.label[0] == old.header.label[0]
            assert NOTE in new.get_labels()[-1]
