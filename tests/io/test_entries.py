"""Entry folders, half-map pairs, and masks."""

import os
import shutil

import numpy as np
import pytest
from helpers.mrc_bytes import mrc

from crefjax.errors import UserError
from crefjax.io.entries import Output, check_mask, find_entry, load_mask, load_pair
from crefjax.io.maps import Map, read_map

PAIR = ["half_map_1.mrc", "half_map_2.mrc"]


@pytest.fixture
def folder(tmp_path):
    """Make a folder of empty files; finding does not open them."""

    def make(*names):
        for name in names:
            path = tmp_path / "8abc" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path / "8abc"

    return make


def test_all_files_of_an_entry_are_found(folder):
    path = folder(
        "half_map_1.mrc",
        "half_map_2.mrc.gz",
        "mask.map",
        "model.cif.gz",
        "reference.ccp4.bz2",
        "truth.mrc",
        "notes.txt",
        "outputs/b/full.mrc",
        "outputs/a/half_map_1.map.gz",
        "outputs/a/half_map_2.map.gz",
        "outputs/empty/log.txt",
        "outputs/file.mrc",
    )
    entry = find_entry(str(path))
    assert (entry.path, entry.name) == (path, "8abc")
    assert entry.half_map_1 == path / "half_map_1.mrc"
    assert entry.half_map_2 == path / "half_map_2.mrc.gz"
    assert entry.mask == path / "mask.map"
    assert entry.model == path / "model.cif.gz"
    assert entry.reference == path / "reference.ccp4.bz2"
    assert entry.truth == path / "truth.mrc"
    a, b = path / "outputs/a", path / "outputs/b"
    assert entry.outputs == {
        "a": Output(None, a / "half_map_1.map.gz", a / "half_map_2.map.gz"),
        "b": Output(b / "full.mrc", None, None),
    }
    assert list(entry.outputs) == ["a", "b"]


@pytest.mark.parametrize("end", ["", ".gz", ".bz2"])
@pytest.mark.parametrize("suffix", [".mrc", ".map", ".ccp4"])
@pytest.mark.parametrize("prefix", ["", "emd_1234_"])
def test_entry_may_have_half_maps_alone(folder, prefix, suffix, end):
    names = [f"{prefix}half_map_{number}{suffix}{end}" for number in (1, 2)]
    path = folder(*names)
    entry = find_entry(path)
    assert [entry.half_map_1, entry.half_map_2] == [path / name for name in names]
    assert (entry.mask, entry.model, entry.reference, entry.truth, entry.outputs) == (None,) * 4 + ({},)


def test_emdb_names(folder):
    path = folder("emd_1234.map.gz", "emd_1234_half_map_1.map.gz", "emd_1234_half_map_2.map.gz", "emd_1234_msk_1.map")
    entry = find_entry(path)
    assert entry.mask == path / "emd_1234_msk_1.map"
    assert entry.reference is None


def test_own_mask_takes_precedence_over_that_of_emdb(folder):
    path = folder(*PAIR, "mask.mrc", "emd_1_msk_1.map")
    assert find_entry(path).mask == path / "mask.mrc"


def test_current_folder_has_its_own_name(folder, monkeypatch):
    monkeypatch.chdir(folder(*PAIR))
    assert find_entry(".").name == "8abc"


@pytest.mark.parametrize(
    ("names", "match"),
    [
        (["half_map_1.mrc"], "expected half_map_2.mrc .* found half_map_1.mrc; rename"),
        (["a.txt"], "expected half_map_1.mrc .* found no map at all"),
        ([f"{i}.mrc" for i in range(9)], r"found 0.mrc, 1.mrc, 2.mrc, 3.mrc, 4.mrc, 5.mrc, \.\.\."),
        (["half_map_1.mrc/x", "half_map_2.mrc"], "expected half_map_1"),
        (
            ["half_map_1.mrc", "half_map_1.map.gz", "half_map_2.mrc"],
            "one half_map_1, found half_map_1.map.gz and half_map_1.mrc",
        ),
        (
            [*PAIR, "emd_7_half_map_2.map"],
            "one half_map_2, found emd_7_half_map_2.map and half_map_2.mrc",
        ),
        (
            ["emd_7_half_map_1.map", "emd_8_half_map_2.map"],
            "one EMDB entry, found emd_7_half_map_1.map and emd_8",
        ),
        (
            [*PAIR, "mask.mrc", "mask.map"],
            "one mask, found mask.map and mask.mrc",
        ),
        (
            [*PAIR, "model.cif", "model.pdb"],
            "one model, found model.cif and model.pdb",
        ),
        (
            [*PAIR, "outputs/a/full.mrc", "outputs/a/full.map"],
            "a: expected one full",
        ),
    ],
)
def test_missing_or_ambiguous_files_are_refused(folder, refused, names, match):
    refused(find_entry, folder(*names), names="8abc", match=match)


def test_missing_folder_is_refused(folder, refused):
    path = folder("file")
    refused(find_entry, path / "gone", names="gone", match="no folder of that name")
    refused(find_entry, path / "file", names="file", match="no folder of that name")


def test_unreadable_folder(folder, refused, monkeypatch):
    def deny(*args):
        raise PermissionError(13, "Permission denied")

    path = folder("half_map_1.mrc")
    monkeypatch.setattr(os, "listdir", deny)
    refused(find_entry, path, names="8abc", match="cannot be read .Permission denied")


@pytest.fixture
def write(tmp_path):
    def make(name, **words):
        path = tmp_path / name
        path.write_bytes(mrc(**words))
        return path

    return make


NOISE = np.arange(24)[::-1]


def test_pair(write):
    first, second = load_pair(write("1.mrc"), write("2.mrc", data=NOISE))
    assert first.array.ravel().tolist() == list(range(24))
    assert second.array.ravel().tolist() == list(range(23, -1, -1))


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ({"n": (4, 2, 3)}, "same shape"),
        ({"cell": (6.4, 4.8, 3.2)}, "same voxel size, found 1.5 and 1.6"),
        ({"origin": (1.0, 0.0, 0.0)}, "same origin"),
        ({"nstart": (0, 0, -1)}, "same origin"),
    ],
)
def test_pair_on_different_grids(write, refused, words, match):
    refused(load_pair, write("1.mrc"), write("2.mrc", data=NOISE, **words), names=["1.mrc", "2.mrc"], match=match)


@pytest.mark.parametrize("make", [lambda a, b: b.symlink_to(a), lambda a, b: b.hardlink_to(a), shutil.copy])
def test_same_map_twice_is_refused(write, refused, tmp_path, make):
    first = write("1.mrc")
    make(first, tmp_path / "2.mrc")
    refused(load_pair, first, tmp_path / "2.mrc", names=["1.mrc", "2.mrc"], match="same map twice")
    refused(load_pair, first, tmp_path / "." / "1.mrc", names="1.mrc", match="same map twice .one file")


def test_same_voxels_in_another_mode_are_refused(write, refused):
    refused(load_pair, write("1.mrc"), write("2.mrc", mode=12), names=["1.mrc", "2.mrc"], match="all voxels equal")


def test_pair_that_differs_in_one_voxel(write):
    data = np.arange(24)
    data[17] += 1
    assert load_pair(write("1.mrc"), write("2.mrc", data=data))[1].array[1, 1, 1] == 18


def test_pair_with_a_missing_file_is_refused(write, refused, tmp_path):
    refused(load_pair, write("1.mrc"), tmp_path / "2.mrc", names="2.mrc", match="no such file")


def test_mask(write):
    data = np.linspace(-0.0009, 1.0009, 24)
    mask = load_mask(write("mask.mrc", data=data), read_map(write("1.mrc")))
    np.testing.assert_array_equal(mask.array.ravel(), np.clip(data.astype(np.float32), 0, 1))
    assert (mask.array.min(), mask.array.max()) == (0, 1)


def test_mask_of_ones(write):
    assert np.all(load_mask(write("mask.mrc", data=np.ones(24), mode=0), read_map(write("1.mrc"))).array == 1)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ({"data": np.zeros(24)}, "found 0 in every voxel"),
        ({"data": np.full(24, -0.0005)}, "found 0 in every voxel"),
        ({"data": np.linspace(0, 255, 24), "mode": 6}, "values 0 to 1, found 0 to 255"),
        ({"data": np.linspace(-0.01, 1, 24)}, "values 0 to 1, found -0.01 to 1"),
        (
            {"data": np.linspace(0, 1, 24), "origin": (9.0, 0.0, 0.0)},
            "mask and half-map with the same origin",
        ),
        ({"data": np.linspace(0, 1, 24), "n": (4, 2, 3)}, "same shape"),
        ({"data": [np.nan] * 24}, "24 NaN"),
    ],
)
def test_mask_refused(write, refused, words, match):
    refused(load_mask, write("mask.mrc", **words), read_map(write("1.mrc")), names="mask.mrc", match=match)


@pytest.mark.parametrize(("voxels", "fine"), [(1, False), (26, False), (27, True)])
def test_mask_of_few_voxels(voxels, fine):
    array = np.zeros((12, 12, 12), np.float32)
    array.ravel()[:voxels] = 1
    mask = Map.from_array(array, 1.5)
    if fine:
        check_mask(mask, mask)
        return
    with pytest.raises(UserError, match=f"a mask of at least 27 voxels, found {voxels}; give"):
        check_mask(mask, mask)
