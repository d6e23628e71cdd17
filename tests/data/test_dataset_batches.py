import itertools
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from helpers.datasets import batches_equal, list_patches, padded_slice, patch_grid, standardized, write_entry

from crefjax.data.dataset_batches import batches_of_process, dataset_batches, fast_copy_layout, widen
from crefjax.data.manifest import load_manifest
from crefjax.data.patches import rotate
from crefjax.data.prepare import prepare
from crefjax.errors import UserError

PLAIN = {"rotations": False, "shuffle": False, "repeat": False}


@pytest.fixture(scope="module")
def training(dataset, entries):
    """Return every training patch by hand: the entry's index and its maps, in the order of the manifest."""
    manifest = load_manifest(dataset)
    out = []
    for number, (entry, folder) in enumerate(zip(manifest.entries, entries, strict=True)):
        if entry.split == "training":
            maps = [np.float32(map_) for map_ in standardized(folder)]
            out += [
                (number, *(padded_slice(map_, at, 16) for map_ in maps)) for at in patch_grid(maps[0].shape, 16, 12)
            ]
    return out


@pytest.fixture
def copied(dataset, tmp_path):
    return shutil.copytree(dataset, tmp_path / "copy")


def which(sample, training):
    """Return the index of a sample's patch and its rotation, which are the same for all its maps."""
    sums = np.array([np.abs(patch[1]).sum() for patch in training])
    for index in np.argsort(np.abs(sums - np.abs(sample[1]).sum()))[:3]:
        for turn in range(24):
            if all(
                np.allclose(rotate(np.asarray(expected), turn), found, atol=2e-5)
                for expected, found in zip(training[index][1:], sample[1:], strict=True)
            ):
                assert training[index][0] == sample[0]
                return int(index), turn
    raise AssertionError("a patch that is none of them")


def test_one_pass_in_order(dataset, training):
    batches = dataset_batches(dataset, batch=5, **PLAIN)
    assert batches.names == ("e0", "e1", "e2", "e3")
    assert batches.size == len(training)
    found = list(batches)
    assert [len(batch["entry"]) for batch in found[:-1]] == [5] * (len(found) - 1)
    assert len(found[-1]["entry"]) == (len(training) - 1) % 5 + 1
    assert {name: (array.shape[1:], array.dtype) for name, array in found[0].items()} == {
        "entry": ((), np.int32),
        **dict.fromkeys(("half_map_1", "half_map_2", "truth"), ((16, 16, 16), np.float32)),
    }
    for sample, expected in zip(list_patches(found), training, strict=True):
        assert sample[0] == expected[0]
        for array, other in zip(sample[1:], expected[1:], strict=True):
            np.testing.assert_allclose(array, other, atol=2e-5)


def test_batches_of_one_patch_run_through_epochs(dataset, training):
    batches = dataset_batches(dataset, batch=1, rotations=False, shuffle=False)
    for _, half_map_1, *_ in [*training, *training[:2]]:
        batch = next(batches)
        assert batch["half_map_1"].shape == (1, 16, 16, 16)
        np.testing.assert_allclose(batch["half_map_1"][0], half_map_1, atol=2e-5)


def test_no_entry_is_on_both_sides(dataset):
    sides = [set(), set()]
    for side, split in zip(sides, ("training", "validation"), strict=True):
        for batch in dataset_batches(dataset, split=split, batch=4, **PLAIN):
            side.update(batch["entry"].tolist())
    assert len(sides[0]) == 3
    assert len(sides[1]) == 1
    assert not sides[0] & sides[1]


def test_shuffled_epochs_have_every_patch_once_in_any_of_24_orientations(dataset, training):
    batches = dataset_batches(dataset, batch=len(training), seed=5)
    epochs = [[which(sample, training) for sample in list_patches(batches, 1)] for _ in range(3)]
    for epoch in epochs:
        assert sorted(index for index, _ in epoch) == list(range(len(training)))
    orders = [tuple(index for index, _ in epoch) for epoch in epochs]
    assert len({*orders, tuple(range(len(training)))}) == 4
    turns = np.bincount([turn for epoch in epochs for _, turn in epoch], minlength=24)
    assert len(turns) == 24
    assert (turns > 0).sum() >= 20  # of more than 100 draws
    assert [turn for _, turn in epochs[0]] != [turn for _, turn in epochs[1]]


def test_seeds_differ(dataset):
    first, second = (next(dataset_batches(dataset, batch=8, seed=seed)) for seed in (0, 1))
    assert not batches_equal(first, second)


@pytest.mark.parametrize("threads", [0, 1, 5])
def test_batches_do_not_depend_on_the_number_of_threads(dataset, threads):
    many = dataset_batches(dataset, batch=7, seed=2, threads=threads)
    few = dataset_batches(dataset, batch=7, seed=2)
    assert all(batches_equal(next(many), next(few)) for _ in range(12))


def test_a_position_is_resumed_exactly(dataset, training):
    batches = dataset_batches(dataset, batch=5, seed=3)
    states, found = [batches.get_state()], []
    for _ in range(3 * len(training) // 5):  # across epochs, whose borders are within batches
        found.append(next(batches))
        states.append(json.loads(json.dumps(batches.get_state())))
    for place in (0, 1, 4, len(training) // 5, len(found) - 3):
        anew = dataset_batches(dataset, batch=5, seed=3, threads=2)
        anew.set_state(states[place])
        assert anew.get_state() == states[place]
        assert all(batches_equal(next(anew), batch) for batch in found[place : place + 3])
    next(batches)
    batches.set_state(states[2])  # also back, in the same one
    assert batches_equal(next(batches), found[2])


def test_one_pass_is_resumed_at_its_end(dataset):
    batches = dataset_batches(dataset, batch=6, **PLAIN)
    last = list(batches)[-1]
    state = batches.get_state()
    anew = dataset_batches(dataset, batch=6, **PLAIN)
    anew.set_state(state)
    assert list(anew) == []
    anew.set_state({**state, "next_batch": state["next_batch"] - 1})
    assert batches_equal(next(anew), last)


@pytest.mark.parametrize("other", [{"batch": 6}, {"seed": 4}, {"rotations": False}])
def test_a_position_of_other_batches_is_refused(dataset, other):
    state = dataset_batches(dataset, batch=5, seed=3).get_state()
    with pytest.raises(UserError, match="resume with the settings of the saved run"):
        dataset_batches(dataset, **({"batch": 5, "seed": 3} | other)).set_state(state)


@pytest.mark.parametrize("count", [2, 3])
def test_processes_have_the_parts_of_the_batches_of_one(dataset, training, count):
    steps = 2 * len(training) // 6 + 1  # batches that cross the border of an epoch
    shares = [dataset_batches(dataset, batch=6, seed=1, process=(index, count)) for index in range(count)]
    alone = dataset_batches(dataset, batch=6, seed=1)
    for _ in range(steps):
        parts = [next(batches) for batches in shares]
        together = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        assert batches_equal(together, next(alone))
    states = {json.dumps(batches.get_state()) for batches in (*shares, alone)}
    assert len(states) == 1


def test_processes_share_one_pass_without_loss(dataset, training):
    settings = {"batch": 4, **PLAIN}
    patches = [list_patches(dataset_batches(dataset, process=(index, 2), **settings)) for index in range(2)]
    alone = list_patches(dataset_batches(dataset, **settings))
    found = []
    for first in range(0, len(alone), 4):
        found += patches[0][first // 2 : first // 2 + 2] + patches[1][first // 2 : first // 2 + 2]
    assert len(found) == len(alone) == len(training)
    for sample, expected in zip(found, alone, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(sample, expected, strict=True))


def test_a_position_is_restored_with_another_number_of_processes(dataset):
    alone = dataset_batches(dataset, batch=6, seed=3)
    for _ in range(3):
        next(alone)
    parts = [dataset_batches(dataset, batch=6, seed=3, process=(index, 2)) for index in range(2)]
    for batches in parts:
        batches.set_state(alone.get_state())
    found = [next(batches) for batches in parts]
    expected = next(alone)
    for name in expected:
        assert np.array_equal(np.concatenate([part[name] for part in found]), expected[name])


@pytest.mark.parametrize("shape", [(8, 8, 8), (3, 5, 7), (1, 6, 6)])
@pytest.mark.parametrize("dtype", ["<f2", "<f4"])
def test_rotated_views_keep_their_voxels_and_are_read_within_planes(shape, dtype):
    numbers = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
    for axes in itertools.permutations(range(3)):
        for flips in itertools.product((1, -1), repeat=3):
            view = numbers.transpose(axes)[tuple(slice(None, None, flip) for flip in flips)]
            found = fast_copy_layout(view)
            np.testing.assert_array_equal(found, view)
            if min(shape) > 1:
                assert abs(found.strides[0]) > view.itemsize
                assert abs(found.strides[2]) <= view.itemsize * max(shape)


class Recorded:
    """Samples of one number; which were made is remembered."""

    def __init__(self, length):
        self.length, self.made = length, []

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        self.made.append(index)
        return {"x": np.full((1, 1, 1), index, np.float32), "entry": index}


@pytest.mark.parametrize("count", [2, 3])
def test_no_process_makes_a_sample_of_another(count):
    """Of 15 in batches of 6: 0 to 5, 6 to 11, and 12 to 14."""
    sources = [Recorded(15) for _ in range(count)]
    shares = [list(batches_of_process(source, 6, (index, count))) for index, source in enumerate(sources)]
    expected = {
        2: ([0, 1, 2, 6, 7, 8, 12, 13, 14], [3, 4, 5, 9, 10, 11]),
        3: ([0, 1, 6, 7, 12, 13], [2, 3, 8, 9, 14], [4, 5, 10, 11]),
    }[count]
    for source, share, numbers in zip(sources, shares, expected, strict=True):
        assert sorted(source.made) == numbers
        assert [number for batch in share for number in batch["entry"]] == numbers


@pytest.mark.parametrize("order", ["<", ">"])
def test_every_finite_half_becomes_the_same_number(order):
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)].astype(f"{order}f2").reshape(62, 32, 32).transpose(2, 0, 1)
    found = np.empty(halves.shape, np.float32)
    widen(halves, found)
    expected = np.array([float(half) for half in halves.flat], np.float32)
    assert np.array_equal(found.ravel().view(np.uint32), expected.view(np.uint32))  # the sign of 0 too
    double = np.random.default_rng(1).standard_normal((3, 4, 5))
    found = np.empty(double.shape, np.float32)
    widen(double, found)
    assert np.array_equal(found, double.astype(np.float32))


def test_settings_out_of_range_are_refused(dataset):
    for settings, message in (
        ({"batch": 0}, "batch: expected 1"),
        ({"batch": 1, "seed": -1}, "seed: expected 0 to 4294967295"),
        ({"batch": 1, "threads": -1}, "threads: expected 0 or more"),
        ({"batch": 1, "split": "test"}, "split: expected one of training, validation"),
        ({"batch": 1, "process": (2, 2)}, "process: expected an index"),
        ({"batch": 3, "process": (0, 2)}, "batch: expected a multiple of the 2 processes"),
        ({"batch": 1000, "process": (0, 1000)}, "for each of 1000 processes"),
    ):
        with pytest.raises(UserError, match=message):
            dataset_batches(dataset, **settings)


def test_missing_validation_is_refused(tmp_path):
    entry = write_entry(tmp_path / "entry")
    prepare([entry], tmp_path / "dataset", patch=16, stride=16, report=lambda line: None)
    with pytest.raises(UserError, match=r"expected at least one validation patch.*found 0; prepare more entries"):
        dataset_batches(tmp_path / "dataset", split="validation", batch=1)


def first_shard(folder):
    manifest = load_manifest(folder)
    return folder / manifest.of_split("training")[0].shards[0].file


def test_flipped_bytes_in_a_shard_are_reported(copied):
    path = first_shard(copied)
    raw = bytearray(path.read_bytes())
    raw[20_000:20_010] = bytes(255 - byte for byte in raw[20_000:20_010])
    path.write_bytes(raw)
    with pytest.raises(UserError, match=r"00000\.array_record: the shard is damaged") as caught:
        list(dataset_batches(copied, batch=4, **PLAIN))
    assert str(path) in str(caught.value)


def test_a_shard_of_another_dataset_is_reported(copied):
    path = first_shard(copied)
    batches = dataset_batches(copied, batch=4, **PLAIN)
    other = copied / load_manifest(copied).of_split("training")[1].shards[0].file
    shutil.copy(other, path)
    with pytest.raises(UserError, match="the shard is damaged"):
        list(batches)


def test_an_incomplete_dataset_is_refused(copied, tmp_path):
    path, manifest = first_shard(copied), json.loads((copied / "manifest.json").read_text())

    def refused(message):
        with pytest.raises(UserError, match=message) as caught:
            load_manifest(copied)
        assert "\n" not in str(caught.value)

    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    refused("the shard is damaged: expected [0-9]+ bytes, found")
    path.unlink()
    refused("the shard cannot be found")
    path.write_bytes(whole)
    for text, message in (
        ("{", "expected JSON"),
        ("[]", "expected a JSON object"),
        ("{}", "expected a file that .crefjax prepare. wrote"),
        (json.dumps({**manifest, "dataset_version": 7}), "expected a dataset of version 1, found 7"),
        (json.dumps({**manifest, "entries": [{}]}), "the manifest is damaged"),
        (json.dumps({**manifest, "more": 1}), "the manifest is damaged"),
    ):
        (copied / "manifest.json").write_text(text)
        refused(message)
    (copied / "manifest.json").unlink()
    refused("the dataset is unfinished; run .* again .* to finish it")
    (copied / "dataset.json").unlink()
    refused("found no manifest.json")
    with pytest.raises(UserError, match="found no folder of that name"):
        load_manifest(tmp_path / "nowhere")


def test_a_reading_program_exits_without_messages(dataset):
    """ArrayRecord and Grain print nothing, and no thread keeps the program alive."""
    code = (
        "import sys; from crefjax.data.dataset_batches import dataset_batches\n"
        "batches = dataset_batches(sys.argv[1], batch=3)\n"
        "assert 'tensorflow' not in sys.modules\n"
        "[next(batches) for _ in range(9)]"
    )
    done = subprocess.run([sys.executable, "-c", code, str(dataset)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
