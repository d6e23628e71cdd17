import gzip
import json
import shutil

import mrcfile
import numpy as np
import pytest
from array_record.python import array_record_module
from helpers.datasets import (
    VOXEL,
    padded_slice,
    patch_grid,
    random_map,
    read_float64,
    standardized,
    tree,
    write_entry,
    write_map,
)

from crefjax import __version__
from crefjax.data import prepare_entry
from crefjax.data.manifest import EntryRecord, load_manifest
from crefjax.data.prepare import find_sources, prepare, split_entries
from crefjax.errors import UserError


def prepared(entries, folder, **settings):
    """Prepare a dataset; return its manifest and the reported lines."""
    lines = []
    settings = {"patch": 16, "stride": 16, "dtype": "float32"} | settings
    return prepare(entries, folder, report=lines.append, **settings), lines


def stored(folder, shard):
    """Return positions and maps of a shard, read with ArrayRecord and NumPy alone."""
    reader = array_record_module.ArrayRecordReader(str(folder / shard.file))
    for record in reader.read_all():
        yield tuple(np.frombuffer(record[16:28], "<i4")), np.frombuffer(record[32:], "<f4").reshape(-1, 16, 16, 16)


def test_patches_equal_slices_of_the_maps(dataset, entries):
    manifest = load_manifest(dataset)
    assert [entry.name for entry in manifest.entries] == ["e0", "e1", "e2", "e3"]
    for entry, folder in zip(manifest.entries, entries, strict=True):
        maps = standardized(folder)
        found = dict(stored(dataset, entry.shards[0]))
        assert list(found) == patch_grid(maps[0].shape, 16, 12)  # the mask reaches into each of them
        for start, arrays in found.items():
            assert len(arrays) == 3
            for array, whole in zip(arrays, maps, strict=True):
                np.testing.assert_allclose(array, padded_slice(whole, start, 16), atol=2e-5)


def test_manifest_describes_the_dataset(dataset, entries):
    found = json.loads((dataset / "manifest.json").read_text())
    settings = {name: found[name] for name in ("crefjax", "patch", "stride", "dtype", "validation", "seed", "truth")}
    expected = {"crefjax": __version__, "patch": 16, "stride": 12, "dtype": "float32", "validation": 0.25, "seed": 0}
    assert settings == {**expected, "truth": True}
    entry = found["entries"][0]
    first, second = (read_float64(entries[0] / f"half_map_{n}.mrc") for n in (1, 2))
    assert entry["half_map_1"] == str(entries[0] / "half_map_1.mrc")
    assert entry["box"] == [20, 24, 36]
    assert entry["voxel_size"] == pytest.approx(VOXEL)
    assert entry["mean"] == pytest.approx(((first + second) / 2).mean(), rel=1e-6)
    assert entry["deviation"] == pytest.approx(((first + second) / 2).std(), rel=1e-6)
    assert entry["mask_info"] is None
    sums = tree(entries[0])
    assert entry["sha256"] == {name: sums[f"{name}.mrc"] for name in ("half_map_1", "half_map_2", "mask", "truth")}
    shard = entry["shards"][0]
    assert (shard["sha256"], shard["records"]) == (tree(dataset)[shard["file"]], entry["patches"])
    assert sum(found["patches"].values()) == sum(each["patches"] for each in found["entries"])
    assert sorted(each["split"] for each in found["entries"]) == ["training"] * 3 + ["validation"]


def test_patches_outside_the_mask_and_constant_ones_are_dropped(tmp_path):
    folder = write_entry(tmp_path / "e", (16, 16, 64))
    mask = np.zeros((16, 16, 64), np.float32)
    mask[..., :16] = 1
    mask[..., 16:32].flat[:40] = 1  # 0.98 % of the patch
    mask[..., 32:48].flat[:41] = 1  # 1.001 %
    mask[..., 48:] = 1
    write_map(folder / "mask.mrc", mask)
    half = read_float64(folder / "half_map_1.mrc").astype("f4")
    half[..., 48:] = 7
    write_map(folder / "half_map_1.mrc", half)
    manifest, _ = prepared([folder], tmp_path / "dataset")
    entry = manifest.entries[0]
    assert [start for start, _ in stored(tmp_path / "dataset", entry.shards[0])] == [(0, 0, 0), (0, 0, 32)]
    assert (entry.patches, entry.patches_dropped) == (2, 2)


def test_a_missing_mask_is_made(tmp_path):
    folder = write_entry(tmp_path / "e", (32, 32, 32))
    (folder / "mask.mrc").unlink()
    ball = np.linalg.norm(np.mgrid[:32, :32, :32] - 15.5, axis=0) < 8
    for n in (1, 2):
        write_map(folder / f"half_map_{n}.mrc", (10 * ball + random_map((32, 32, 32), n)).astype("f4"))
    manifest, _ = prepared([folder], tmp_path / "dataset")
    entry = manifest.entries[0]
    assert entry.mask is None
    assert 0.03 < entry.mask_info["fraction"] < 0.2  # of the box; the ball is 0.065 of it
    _, corner = next(stored(tmp_path / "dataset", entry.shards[0]))
    assert not corner[:, :4, :4, :4].any()
    assert corner[:, 12:, 12:, 12:].all()


def test_several_shards_hold_one_entry(tmp_path, monkeypatch, entries):
    monkeypatch.setattr("crefjax.data.prepare_entry.MAX_SHARD", 250_000)  # five patches of three maps
    manifest, _ = prepared(entries[:1], tmp_path / "dataset")
    shards = manifest.entries[0].shards
    assert [shard.records for shard in shards] == [5, 5, 2]
    maps = standardized(entries[0])
    found = [pair for shard in shards for pair in stored(tmp_path / "dataset", shard)]
    assert [start for start, _ in found] == patch_grid(maps[0].shape, 16, 16)
    for start, arrays in found:
        np.testing.assert_allclose(arrays[0], padded_slice(maps[0], start, 16), atol=2e-5)


def test_patches_are_side_by_side_unless_a_stride_is_given(tmp_path, entries):
    manifest, _ = prepared(entries[:1], tmp_path / "dataset", stride=None)
    assert (manifest.patch, manifest.stride) == (16, 16)


def test_truth_is_stored_by_all_or_none(tmp_path, entries):
    other = write_entry(tmp_path / "other", (20, 20, 20), seed=9)
    manifest, lines = prepared([entries[0], other], tmp_path / "dataset")
    assert lines == ["1 of 2 entries have a truth map, not all: none is stored"]
    assert not manifest.truth
    assert all(entry.truth is None and "truth" not in entry.sha256 for entry in manifest.entries)
    assert all(len(arrays) == 2 for _, arrays in stored(tmp_path / "dataset", manifest.entries[0].shards[0]))


BAD = {
    "missing": lambda e: (e / "half_map_2.mrc").unlink(),
    "truncated": lambda e: (e / "half_map_1.mrc").write_bytes((e / "half_map_1.mrc").read_bytes()[:3000]),
    "nan": lambda e: (e / "half_map_1.mrc").write_bytes((e / "half_map_1.mrc").read_bytes()[:-4] + b"\0\0\xc0\x7f"),
    "shape": lambda e: write_map(e / "half_map_2.mrc", random_map((20, 24, 35), 0)),
    "anisotropic": lambda e: write_map(e / "half_map_1.mrc", random_map((20, 24, 36), 5), (1, 1, 1.2)),
    "empty mask": lambda e: write_map(e / "mask.mrc", np.zeros((20, 24, 36), "f4")),
    "small mask": lambda e: write_map(e / "mask.mrc", np.eye(36, dtype="f4")[None, :24].repeat(20, 0) * (1e-3)),
    "no noise": lambda e: shutil.copy(e / "half_map_1.mrc", e / "half_map_2.mrc"),
}


def test_unusable_entries_are_reported_and_skipped(tmp_path, entries):
    bad = {}
    for number, (name, spoil) in enumerate(BAD.items()):
        bad[name] = write_entry(tmp_path / name, seed=20 + number, truth=True)
        spoil(bad[name])
    manifest, lines = prepared([*bad.values(), *entries[:2], tmp_path / "nowhere"], tmp_path / "dataset")
    assert [entry.name for entry in manifest.entries] == ["e0", "e1"]
    assert set(manifest.left_out) == {*BAD, "nowhere"}
    skipped = {line.removeprefix("skipped ").split(": ")[0]: line for line in lines if line.startswith("skipped ")}
    assert set(skipped) == {*BAD, "nowhere"}
    for name, line in skipped.items():
        assert str(tmp_path / name) in line
        assert "\n" not in line
    assert "cut short" in skipped["truncated"]
    assert "cubic voxels" in skipped["anisotropic"]
    only_good, _ = prepared(entries[:2], tmp_path / "only_good")
    assert [e.shards for e in only_good.entries] == [e.shards for e in manifest.entries]


def test_no_usable_entry_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match="dataset: expected at least one usable entry, found none among 1"):
        prepared([tmp_path / "nowhere"], tmp_path / "dataset")
    assert list(tmp_path.iterdir()) == []


def test_same_half_maps_are_used_once(tmp_path, entries):
    copy = shutil.copytree(entries[0], tmp_path / "copy")
    swapped = write_entry(tmp_path / "swapped", seed=7)
    shutil.copy(entries[1] / "half_map_2.mrc", swapped / "half_map_1.mrc")  # one of them is enough
    manifest, lines = prepared([copy, swapped, *entries[:2], entries[0]], tmp_path / "dataset")
    assert len(manifest.entries) == 2
    assert len([line for line in lines if "duplicate" in line]) == 2


@pytest.mark.parametrize("change", ["gz", "level and scale", "sign", "float16", "bytes", "origin"])
def test_a_copy_of_a_half_map_is_recognized_by_its_voxels(tmp_path, entries, change):
    copy = shutil.copytree(entries[0], tmp_path / "copy")
    for name in ("half_map_1.mrc", "half_map_2.mrc"):
        path = copy / name
        if change == "gz":
            (copy / f"{name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
            continue
        with mrcfile.open(path, mode="r+") as file:
            array = np.array(file.data)
            if change == "origin":
                file.header.origin = (3.0, 0.0, 1.0)
            elif change == "bytes":
                file.set_data(np.round(array / np.abs(array).max() * 127).astype(np.int8))
            elif change == "float16":
                file.set_data(array.astype(np.float16))
            else:
                file.set_data((-array if change == "sign" else 3 * array + 7).astype(np.float32))
    if change == "origin":
        (copy / "mask.mrc").unlink(missing_ok=True)
    manifest, lines = prepared([*entries[:2], copy], tmp_path / "dataset", jobs=1)
    assert len(manifest.entries) == 2
    assert len([line for line in lines if "duplicate" in line]) == 1


def test_an_unexpected_error_skips_only_its_entry(tmp_path, entries, monkeypatch):
    def broken(paths, *more, **settings):
        if "e0" in str(paths):
            raise ZeroDivisionError("of a kind\nthat nobody thought of")
        return load_specimen(paths, *more, **settings)

    load_specimen = prepare_entry.load_specimen
    monkeypatch.setattr(prepare_entry, "load_specimen", broken)
    manifest, lines = prepared(entries[:2], tmp_path / "dataset", jobs=1)
    assert [entry.name for entry in manifest.entries] == ["e1"]
    assert [line for line in lines if line.startswith("skipped e0: ")] == [
        f"skipped e0: {entries[0]}: the entry cannot be read (ZeroDivisionError: of a kind that nobody thought of); "
        "check its files"
    ]


def test_names_are_made_unique(tmp_path):
    folders = [tmp_path / place / name for place in ("a", "b") for name in ("map", "map-2", "Map", "ä b")]
    sources = find_sources([*folders, folders[0]])
    assert [source.folder for source in sources] == sorted(folders)
    for names in ([source.name for source in sources], [source.key for source in sources]):
        assert len({name.lower() for name in names}) == 8
    assert all(set(source.key) <= set("abcdefghijklmnopqrstuvwxyzM-_0123456789") for source in sources)


def record(number, name=None):
    sums = {"half_map_1": f"{number:064x}", "half_map_2": f"{number + 1000:064x}"}
    return EntryRecord(name or f"n{number}", "", "", None, None, sums, 1.0, (1, 1, 1), 0.0, 1.0, None, 1, 0, ())


@pytest.mark.parametrize(
    ("count", "share", "expected"),
    [(1, 0.5, 0), (2, 0.1, 1), (2, 0.9, 1), (20, 0.1, 2), (20, 0.0, 0), (55, 0.1, 6), (5, 0.99, 4)],
)
def test_split_has_the_requested_size(count, share, expected):
    split = [entry.split for entry in split_entries([record(n) for n in range(count)], share, 0)]
    assert split.count("validation") == expected
    assert split.count("training") == count - expected


def test_split_depends_only_on_seed_and_checksums():
    def validation(entries, seed):
        return {
            entry.sha256["half_map_1"] for entry in split_entries(entries, 0.3, seed) if entry.split == "validation"
        }

    entries = [record(number) for number in range(30)]
    renamed = [record(number, f"other {number}") for number in reversed(range(30))]
    assert validation(entries, 0) == validation(renamed, 0)
    assert len({frozenset(validation(entries, seed)) for seed in range(5)}) == 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patch": 15}, "patch: expected an even side"),
        ({"stride": 0}, "`stride`: expected 1 to 16"),
        ({"stride": 17}, "`stride`: expected 1 to 16"),
        ({"dtype": "float64"}, "`dtype`: expected one of float16, float32"),
        ({"validation": 1.0}, "`validation`: expected a share"),
        ({"jobs": 0}, "`jobs`: expected 1 or more"),
    ],
)
def test_settings_out_of_range_are_refused(tmp_path, entries, settings, message):
    with pytest.raises(UserError, match=message):
        prepared(entries, tmp_path / "dataset", **settings)
    assert list(tmp_path.iterdir()) == []


def test_densities_beyond_float16_are_reported(tmp_path):
    folder = write_entry(tmp_path / "e", truth=True)
    write_map(folder / "truth.mrc", 1e6 * random_map((20, 24, 36), 0))  # half-maps cannot go so far beyond their own
    other = write_entry(tmp_path / "other", seed=1, truth=True)
    manifest, lines = prepared([folder, other], tmp_path / "dataset", dtype="float16")
    assert [entry.name for entry in manifest.entries] == ["other"]
    assert "expected standardized densities up to 65504 for float16" in lines[0]
    assert str(folder) in lines[0]
    assert lines[1] == "only one entry: none is held out, because an entry is never on both sides of the split"
    assert manifest.patches["validation"] == 0
    manifest, _ = prepared([folder, other], tmp_path / "dataset", overwrite=True)
    assert len(manifest.entries) == 2


def test_a_copy_of_an_entry_that_is_refused_is_used(tmp_path, entries):
    """The first by name has a mask that cannot be used."""
    bad = shutil.copytree(entries[0], tmp_path / "a_bad")
    write_map(bad / "mask.mrc", 3 * np.ones((20, 24, 36), np.float32))
    again = shutil.copytree(entries[0], tmp_path / "b_good")
    third = shutil.copytree(entries[0], tmp_path / "c_copy")
    folders = [bad, again, third, entries[1]]
    manifest, _ = prepared(folders, tmp_path / "dataset")
    assert [entry.name for entry in manifest.entries] == ["b_good", "e1"]
    assert set(manifest.left_out) == {"a_bad", "c_copy"}
    assert "mask" in manifest.left_out["a_bad"]
    assert "found one of b_good, a duplicate" in manifest.left_out["c_copy"]
    before = tree(tmp_path / "dataset")
    prepared(folders, tmp_path / "dataset")
    assert tree(tmp_path / "dataset") == before
    alone, _ = prepared([again, entries[1]], tmp_path / "alone")
    assert [entry.shards for entry in alone.entries] == [entry.shards for entry in manifest.entries]


def test_entries_made_from_one_map_are_reported(tmp_path, entries):
    turned = shutil.copytree(entries[0], tmp_path / "turned")
    for path in turned.glob("*.mrc"):
        write_map(path, np.ascontiguousarray(read_float64(path)[::-1, :, ::-1]).astype(np.float32))
    manifest, lines = prepared([*entries[:2], turned], tmp_path / "dataset")
    assert len(manifest.entries) == 3
    assert [line for line in lines if "made from one map" in line] == [
        "note: e0 and turned seem to be made from one map, rotated, cropped, or masked; remove one of them, or they "
        "may be on both sides of the split"
    ]


def test_half_maps_that_are_not_a_pair_are_skipped(tmp_path, entries):
    """They are skipped unless the user insists; a wrong scale is corrected and reported."""
    shifted, scaled = (shutil.copytree(entries[n], tmp_path / name) for n, name in ((0, "shifted"), (1, "scaled")))
    write_map(shifted / "half_map_2.mrc", np.roll(read_float64(shifted / "half_map_2.mrc"), 3, 2).astype(np.float32))
    write_map(scaled / "half_map_2.mrc", (4 * read_float64(scaled / "half_map_2.mrc") - 7).astype(np.float32))
    manifest, lines = prepared([shifted, scaled], tmp_path / "dataset")
    assert list(manifest.left_out) == ["shifted"]
    assert "half-map 2 is shifted by 4.5, 0, 0 Å" in manifest.left_out["shifted"]
    assert manifest.left_out["shifted"].endswith("or `insist` on these")
    assert any("scaled: half-map 2 is not on the scale of half-map 1" in line for line in lines)
    assert "is not on the scale" in manifest.entries[0].notes[0]
    assert load_manifest(tmp_path / "dataset") == manifest
    for found, expected in zip(
        next(stored(tmp_path / "dataset", manifest.entries[0].shards[0]))[1], standardized(entries[1]), strict=True
    ):
        np.testing.assert_allclose(found, padded_slice(expected, (0, 0, 0), 16), atol=0.1)
    manifest, _ = prepared([shifted, scaled], tmp_path / "insisted", insist=True)
    assert manifest.insist
    assert [entry.name for entry in manifest.entries] == ["scaled", "shifted"]


def test_a_voxel_size_replaces_that_of_the_headers(tmp_path, entries):
    without = shutil.copytree(entries[0], tmp_path / "without")
    for path in without.glob("*.mrc"):
        write_map(path, read_float64(path).astype(np.float32), voxel=0)
    _, lines = prepared([without, entries[1]], tmp_path / "one")
    assert "voxel size above 0" in lines[0]
    manifest, _ = prepared([without, entries[1]], tmp_path / "dataset", voxel_size=VOXEL)
    assert manifest.voxel_size == VOXEL
    assert [entry.voxel_size for entry in manifest.entries] == [VOXEL, VOXEL]
    assert load_manifest(tmp_path / "dataset") == manifest


@pytest.mark.parametrize(("solvent", "compressed"), [(0, False), (8, True)])
def test_patches_are_compressed_if_part_of_them_is_solvent(tmp_path, solvent, compressed):
    entry = write_entry(tmp_path / "entry", (16, 16, 32))
    mask = np.ones((16, 16, 32), np.float32)
    mask[:, :solvent] = 0
    write_map(entry / "mask.mrc", mask)
    manifest = prepare([entry], tmp_path / "dataset", patch=16, dtype="float16", validation=0, report=lambda line: None)
    (shard,) = manifest.entries[0].shards
    content = (tmp_path / "dataset" / shard.file).read_bytes()
    assert (b"CRFP" not in content) == compressed  # the mark of a record
