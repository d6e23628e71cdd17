import dataclasses
import json

import numpy as np
import pytest
from helpers.datasets import (
    batches_equal,
    list_patches,
    padded_slice,
    random_map,
    read_float64,
    standardized,
    write_entry,
)

from crefjax.data import specimen_batches as specimen_module
from crefjax.data.patches import Specimen, rotate
from crefjax.data.specimen_batches import load_entry, load_specimen, specimen_batches, split_weights
from crefjax.errors import UserError


def specimen(shape=(24, 28, 48), seed=0, name="s", mask=None):
    """Return maps whose values are the places of their voxels, by which patches are recognized."""
    if mask is None:
        mask = np.zeros(shape, np.float32)
        mask[4:-4, 4:-4, 3:-3] = 1
    places = np.arange(1, mask.size + 1, dtype=np.float32).reshape(mask.shape)
    return Specimen(name, places * mask, -places * mask, mask, 1.0, 0.0, 1.0)


def test_a_specimen_is_standardized_and_masked(entries):
    expected = standardized(entries[0])
    for loaded in (
        load_entry(entries[0]),
        load_specimen(
            *(entries[0] / f"{name}.mrc" for name in ("half_map_1", "half_map_2", "mask")),
            truth_path=entries[0] / "truth.mrc",
        ),
    ):
        assert loaded.name == "e0"
        assert loaded.voxel_size == pytest.approx(1.5)
        for found, expected_map in zip((loaded.half_map_1, loaded.half_map_2, loaded.truth), expected, strict=True):
            np.testing.assert_allclose(found, expected_map, atol=2e-5)
        assert np.array_equal(loaded.mask, read_float64(entries[0] / "mask.mrc"))


def test_an_entry_is_brought_to_a_working_grid(entries):
    files = [entries[0] / f"{name}.mrc" for name in ("half_map_1", "half_map_2", "mask")]
    expected = load_specimen(*files, voxels=3.0)
    loaded = load_entry(entries[0], voxels=3.0)
    assert loaded.grid is not None
    assert loaded.voxel_size == expected.voxel_size != load_entry(entries[0]).voxel_size
    np.testing.assert_array_equal(loaded.half_map_1, expected.half_map_1)


def test_an_unusable_specimen_is_refused(tmp_path):
    entry = write_entry(tmp_path / "e")
    with pytest.raises(UserError, match="truth"):
        load_specimen(entry / "half_map_1.mrc", entry / "half_map_2.mrc", truth_path=tmp_path / "truth.mrc")
    entry = write_entry(tmp_path / "flat", (6, 20, 20))
    (entry / "mask.mrc").unlink()
    with pytest.raises(UserError, match=r"half_map_1\.mrc and .*half_map_2\.mrc: mask: expected") as caught:
        load_entry(entry)
    assert "\n" not in str(caught.value)


def test_weights_of_the_two_parts_by_hand():
    mask = np.zeros((20, 24, 50), np.float32)
    mask[5:15, 5:15, 10:40] = 1  # 30 long along x; a fifth of it begins at 34
    axis, training, held_out = split_weights(mask, 0.2)
    edge = [0.5 * (1 - np.cos(np.pi * (k - 0.5) / 4)) for k in (1, 2, 3, 4)]
    assert axis == 2
    np.testing.assert_allclose(training, [1] * 29 + edge[::-1] + [0] * 17, atol=1e-6)
    np.testing.assert_allclose(held_out, [0] * 35 + edge + [1] * 11, atol=1e-6)
    assert [axis.tolist() for axis in split_weights(mask, 0)[1:]] == [[1] * 50, [0] * 50]
    assert split_weights(mask.transpose(2, 0, 1), 0.2)[0] == 0


def test_no_voxel_is_in_both_parts():
    """The value of each voxel is its place along x, the longest axis."""
    cropped = specimen((32, 32, 64))
    along = np.arange(1, 65, dtype=np.float32) * cropped.mask
    cropped = Specimen("s", along, -along, cropped.mask, 1.0, 0.0, 1.0)
    seen = {}
    for region, weight in zip(("training", "held_out"), split_weights(cropped.mask, 0.3)[1:], strict=True):
        count = 200 if region == "training" else None
        settings = {"patch": 16, "batch": 4, "held_out": 0.3, "rotations": False}
        expected, seen[region] = along.max(axis=(0, 1)) * weight, set()
        for _, half, other in list_patches(specimen_batches([cropped], region=region, count=count, **settings)):
            assert np.array_equal(half, -other)
            columns = half.max(axis=(0, 1))
            start = next(x for x in range(49) if np.array_equal(expected[x : x + 16], columns))
            seen[region].update((start + np.flatnonzero(columns)).tolist())
    assert max(seen["training"]) < min(seen["held_out"]) - 2  # the gap
    assert min(seen["training"]) == 3
    assert max(seen["held_out"]) == 60


def test_random_patches_depend_only_on_seed_and_index():
    both = [specimen(name="a"), specimen((30, 30, 30), name="b")]
    settings = {"patch": 16, "seed": 7}
    one_by_one = list_patches(specimen_batches(both, batch=1, threads=0, **settings), 30)
    in_sixes = list_patches(specimen_batches(both, batch=6, threads=3, **settings), 5)
    for first, other in zip(one_by_one, in_sixes, strict=True):
        assert first[0] == other[0]
        assert np.array_equal(first[1], other[1])
    assert {sample[0] for sample in one_by_one} == {0, 1}
    assert len({sample[1].tobytes() for sample in one_by_one}) == 30
    other_seed = list_patches(specimen_batches(both, patch=16, batch=6, seed=8), 5)
    assert not any(np.array_equal(a[1], b[1]) for a, b in zip(one_by_one, other_seed, strict=True))


def test_random_patches_are_parts_of_the_map_in_all_orientations():
    whole, turns = specimen(), set()
    for _, half, _ in list_patches(specimen_batches([whole], patch=16, batch=10, held_out=0), 15):
        peak = np.unravel_index(np.argmax(half), half.shape)
        for turn in range(24):
            back = next(b for b in range(24) if np.array_equal(rotate(rotate(CHIRAL, turn), b), CHIRAL))
            found = rotate(half, back)
            at = np.array(np.unravel_index(int(half[peak]) - 1, whole.mask.shape))
            start = at - np.argwhere(found == half[peak])[0]
            if np.array_equal(padded_slice(whole.half_map_1, start, 16), found):
                turns.add(turn)
                break
        else:
            raise AssertionError("a patch that is no part of the map")
        assert np.count_nonzero(half) >= 0.01 * 16**3
    assert len(turns) >= 20


CHIRAL = np.arange(8.0).reshape(2, 2, 2)


def test_training_patches_reach_the_whole_mask():
    small = specimen((20, 20, 36))
    found = list_patches(specimen_batches([small], patch=16, batch=10, held_out=0, rotations=False), 40)
    seen = {int(value) - 1 for sample in found for value in np.unique(sample[1])} - {-1}
    assert seen == set(np.flatnonzero(small.mask).tolist())


def test_held_out_patches_cover_their_part_once():
    whole = specimen((24, 40, 90))
    settings = {"patch": 16, "batch": 4, "region": "held_out", "held_out": 0.4}
    batches = specimen_batches([whole], **settings)
    found = list_patches(batches)
    assert len(found) == batches.size
    weight = split_weights(whole.mask, 0.4)[2]
    inside = np.flatnonzero(whole.mask * (weight == 1))
    seen = {int(value) - 1 for sample in found for value in np.unique(sample[1])}
    assert set(inside.tolist()) <= seen
    for count in (3, 2 * len(found)):
        assert len(list_patches(specimen_batches([whole], count=count, **settings))) == count


def test_a_position_is_resumed_exactly():
    both = [specimen(name="a"), specimen((30, 30, 30), name="b")]
    settings = {"patch": 16, "batch": 3, "seed": 1}
    batches = specimen_batches(both, **settings)
    assert batches.names == ("a", "b")
    [next(batches) for _ in range(5)]
    state = json.loads(json.dumps(batches.get_state()))
    batches_after = [next(batches) for _ in range(4)]
    anew = specimen_batches(both, threads=1, **settings)
    anew.set_state(state)
    assert all(batches_equal(next(anew), batch) for batch in batches_after)
    with pytest.raises(UserError, match="resume with the settings of the saved run"):
        specimen_batches(both[:1], **settings).set_state(state)
    # An entry that was simulated again, on another machine, agrees to rounding; another scale is another entry.
    specimen_batches([dataclasses.replace(both[0], std=1 + 1e-5), both[1]], **settings).set_state(state)
    with pytest.raises(UserError, match="position in the training data"):
        specimen_batches([dataclasses.replace(both[0], std=1.1), both[1]], **settings).set_state(state)


def test_processes_make_the_parts_of_the_batches_of_one(monkeypatch):
    made, get = [], specimen_module._Random.__getitem__
    monkeypatch.setattr(
        specimen_module._Random, "__getitem__", lambda self, index: made.append(index) or get(self, index)
    )
    settings = {"patch": 16, "batch": 4, "seed": 1, "threads": 0}
    both = [specimen(name="a"), specimen((30, 30, 30), name="b")]
    parts = [specimen_batches(both, process=(index, 2), **settings) for index in range(2)]
    found = [[next(part), next(part)] for part in parts]
    assert made == [0, 1, 4, 5, 2, 3, 6, 7]
    alone = specimen_batches(both, **settings)
    for part in zip(*found, strict=True):
        together = {name: np.concatenate([share[name] for share in part]) for name in part[0]}
        assert batches_equal(together, next(alone))
    assert parts[0].get_state() == parts[1].get_state() == alone.get_state()


def test_processes_share_held_out_patches_without_loss():
    """Five, in batches of four: the last is that of the first process alone."""
    settings = {"patch": 16, "batch": 4, "region": "held_out", "held_out": 0.4, "count": 5}
    whole = specimen((24, 40, 90))
    parts = [list_patches(specimen_batches([whole], process=(index, 2), **settings)) for index in range(2)]
    alone = list_patches(specimen_batches([whole], **settings))
    assert [len(part) for part in parts] == [3, 2]
    for sample, expected in zip([*parts[0][:2], *parts[1], parts[0][2]], alone, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(sample, expected, strict=True))


def test_a_box_smaller_than_the_patch_has_zeros_around():
    thin = specimen((12, 20, 14), mask=np.ones((12, 20, 14), np.float32))
    for _, half, _ in list_patches(specimen_batches([thin], patch=16, batch=2, held_out=0, rotations=False), 3):
        assert not half[:2].any()
        assert not half[14:].any()
        assert not half[:, :, [0, 15]].any()
        assert half[2:14, :, 1:15].all()


def test_batches_have_the_truth_if_all_specimens_do(entries):
    with_truth = [load_entry(entry) for entry in entries[:2]]
    settings = {"patch": 16, "batch": 4, "held_out": 0}
    batch = next(specimen_batches(with_truth, **settings))
    assert set(batch) == {"half_map_1", "half_map_2", "truth", "entry"}
    assert (batch["entry"].dtype, batch["truth"].dtype, batch["truth"].shape) == (np.int32, np.float32, (4, 16, 16, 16))
    assert "truth" not in next(specimen_batches([*with_truth, specimen()], **settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"held_out": 0.01, "region": "held_out"}, r"s: expected a patch of 16 .*a held-out part"),
        ({"held_out": 0.99}, "the part for training, found none; change held_out"),
        ({"held_out": 0, "region": "held_out"}, "held_out: expected a share above 0"),
        ({"held_out": 1}, "held_out: expected a share from 0 to below 1"),
        ({"region": "test"}, "region: expected one of training, held_out"),
        ({"count": 0}, "count: expected 1 patch or more"),
        ({"patch": 15}, "patch: expected an even side"),
    ],
)
def test_invalid_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        specimen_batches([specimen()], **({"patch": 16, "batch": 1} | settings))
    with pytest.raises(UserError, match="specimens: expected at least one"):
        specimen_batches([], patch=16, batch=1)


def test_a_thin_mask_still_gives_patches():
    mask = np.zeros((40, 40, 40), np.float32)
    mask[18:22, 18:22, 5:35] = random_map((4, 4, 30), 0) > 0
    found = list_patches(specimen_batches([specimen(mask=mask)], patch=16, batch=5, held_out=0), 4)
    assert all(sample[1].any() for sample in found)
