"""Patches of labeled maps against slices of the arrays that were written."""

import mrcfile
import numpy as np
import pytest

from crefjax.data.labeled_maps import AROUND_STRUCTURE, labeled_batches, load_labeled_map
from crefjax.data.map_features import measure_features, standardize_features
from crefjax.data.patches import CUBE_ROTATIONS, rotate
from crefjax.errors import UserError

SHAPE, PATCH = (40, 24, 32), 16
DENSITY = np.random.default_rng(9).random(SHAPE).astype(np.float16)
AT_LEAST_2 = 2 + np.random.default_rng(0).random(SHAPE, np.float32)
HALF_3 = 3 * (np.arange(np.prod(SHAPE)).reshape(SHAPE) % 2).astype(np.int8)


def write(path, array, voxel_size=1.0):
    with mrcfile.new(path, array, overwrite=True) as mrc:
        mrc.voxel_size = voxel_size


def write_labeled(folder, *, density=None, structure=None, voxel_size=1.0):
    folder.mkdir()
    if density is None:
        density = DENSITY
    if structure is None:
        structure = np.zeros(SHAPE, np.int8)
        structure[30:34, 4:8, 20:24] = 1
    write(folder / "map.mrc", density, voxel_size)
    write(folder / "structure.mrc", structure, voxel_size)
    return folder


def test_arrays_are_those_of_the_files(tmp_path):
    labeled = load_labeled_map(write_labeled(tmp_path / "a"))
    assert labeled.name == "a"
    assert labeled.density.dtype == np.float16
    np.testing.assert_array_equal(labeled.density, DENSITY)
    assert labeled.structure.sum() == 64
    assert labeled.structure[30:34, 4:8, 20:24].all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"voxel_size": 1.5}, "expected voxels of 1 Å, found 1.5 Å"),
        (
            {"density": AT_LEAST_2},
            "expected density from 0 to 1",
        ),
        ({"density": -DENSITY}, "expected density from 0 to 1"),
        (
            {"structure": 3 * (np.arange(np.prod(SHAPE)).reshape(SHAPE) % 2).astype(np.int8)},
            "structure.mrc: expected a map of 0 and 1",
        ),
    ],
)
def test_maps_that_do_not_fit_are_refused(tmp_path, change, message):
    folder = write_labeled(tmp_path / "a", **change)
    with pytest.raises(UserError, match=message):
        load_labeled_map(folder)


def test_patches_are_slices_of_map_and_labels_in_the_same_orientation(tmp_path):
    labeled = load_labeled_map(write_labeled(tmp_path / "a"))
    slices = {}
    for z, y, x in np.ndindex(*(side - PATCH + 1 for side in SHAPE)):
        part = labeled.density[z : z + PATCH, y : y + PATCH, x : x + PATCH]
        slices[z, y, x] = part
    first_voxels = {}
    for place, part in slices.items():
        first_voxels.setdefault(part.tobytes(), place)
    batches = labeled_batches([labeled], patch=PATCH, batch=4, count=12, seed=1, threads=0)
    orientations = set()
    for batch in batches:
        for density, structure in zip(batch["map"], batch["structure"], strict=True):
            turned = [np.ascontiguousarray(undo(density, index)).astype(np.float16) for index in range(24)]
            index = next(number for number, part in enumerate(turned) if part.tobytes() in first_voxels)
            z, y, x = first_voxels[turned[index].tobytes()]
            expected = labeled.structure[z : z + PATCH, y : y + PATCH, x : x + PATCH]
            np.testing.assert_array_equal(undo(structure, index), expected)
            orientations.add(index)
    assert len(orientations) > 4


def undo(array, index):
    """Turn a patch back: the rotation that gives the identity after `CUBE_ROTATIONS[index]`."""
    probe = np.arange(27).reshape(3, 3, 3)
    turned = rotate(probe, index)
    back = next(number for number in range(len(CUBE_ROTATIONS)) if np.array_equal(rotate(turned, number), probe))
    return rotate(array, back)


def test_most_patches_hold_structure(tmp_path):
    labeled = load_labeled_map(write_labeled(tmp_path / "a"))
    batches = labeled_batches([labeled], patch=PATCH, batch=50, count=400, seed=2, threads=0)
    share = np.mean([patch.any() for batch in batches for patch in batch["structure"]])
    assert AROUND_STRUCTURE - 0.06 < share < 1


def test_batches_continue_from_a_saved_position(tmp_path):
    maps = [load_labeled_map(write_labeled(tmp_path / name)) for name in "ab"]
    settings = {"patch": PATCH, "batch": 3, "seed": 4, "threads": 0}
    batches = labeled_batches(maps, **settings)
    next(batches)
    state = batches.get_state()
    expected = next(batches)
    resumed = labeled_batches(maps, **settings)
    resumed.set_state(state)
    found = next(resumed)
    for name in ("map", "structure", "entry"):
        np.testing.assert_array_equal(found[name], expected[name])
    assert batches.names == ("a", "b")


def test_a_box_smaller_than_the_patch_lies_in_its_middle(tmp_path):
    shape = (10, 20, 20)
    density = np.zeros(shape, np.float16)
    density[...] = np.linspace(0.1, 1, 10).reshape(10, 1, 1)
    structure = np.ones(shape, np.int8)
    structure[0, 0, 0] = 0
    folder = write_labeled(tmp_path / "a", density=density, structure=structure)
    batch = next(labeled_batches([load_labeled_map(folder)], patch=16, batch=1, rotations=False, threads=0))
    np.testing.assert_array_equal(batch["map"][0, :3], 0)
    np.testing.assert_array_equal(batch["structure"][0, 4:13], 1)
    np.testing.assert_array_equal(batch["map"][0, 13:], 0)


@pytest.mark.parametrize("change", [{"patch": 15}, {"batch": 0}, {"count": 0}, {"maps": []}, {"gain": (0.0, 1.0)}])
def test_impossible_settings_are_refused(tmp_path, change):
    settings = {"maps": [load_labeled_map(write_labeled(tmp_path / "a"))], "patch": 16, "batch": 2} | change
    with pytest.raises(UserError, match="expected"):
        labeled_batches(settings.pop("maps"), **settings)


def test_density_is_multiplied_by_a_random_gain_and_clipped(tmp_path):
    density = np.full(SHAPE, 0.6, np.float16)
    density[0, 0, 0] = 0
    labeled = load_labeled_map(write_labeled(tmp_path / "a", density=density))
    settings = {"patch": PATCH, "batch": 40, "seed": 3, "threads": 0}
    levels = next(labeled_batches([labeled], gain=(0.5, 4.0), **settings))["map"].max((1, 2, 3))
    assert 0.3 <= levels.min() < 0.45
    assert levels.max() == 1
    assert 0.3 < np.mean(levels < 1) < 0.6  # 1 / 0.6 is at 0.58 of the range of the logarithm
    np.testing.assert_allclose(next(labeled_batches([labeled], **settings))["map"].max((1, 2, 3)), 0.6, rtol=1e-3)


def test_patches_have_the_features_of_their_whole_map_with_the_gain_of_the_patch(tmp_path):
    random = np.random.default_rng(4)
    ball = np.exp(-np.square(np.indices(SHAPE) - 12).sum(0) / 18) + 0.02 * random.random(SHAPE)
    maps = [
        load_labeled_map(write_labeled(tmp_path / name, density=np.minimum(ball * scale, 1).astype(np.float16)))
        for name, scale in (("a", 0.6), ("b", 0.3))
    ]
    settings = {"patch": PATCH, "batch": 12, "seed": 3, "threads": 0}
    assert "features" not in next(labeled_batches(maps, **settings))
    plain = next(labeled_batches(maps, features=True, **settings))
    expected = [standardize_features(measure_features(labeled.density.astype(np.float32))) for labeled in maps]
    np.testing.assert_allclose(plain["features"], np.array(expected)[plain["entry"]], rtol=1e-6)
    bright = next(labeled_batches(maps, features=True, gain=(1.2, 1.2), **settings))
    scaled = [standardize_features(measure_features(labeled.density.astype(np.float32)), 1.2) for labeled in maps]
    np.testing.assert_allclose(bright["features"], np.array(scaled)[bright["entry"]], rtol=1e-5)
    assert (bright["features"][:, 0] > plain["features"][:, 0]).all()
    np.testing.assert_array_equal(bright["features"][:, 1:], plain["features"][:, 1:])
