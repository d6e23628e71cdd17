"""`crefjax classify`: maps without the voxels that a known classifier takes for noise."""

import numpy as np
import pytest
from helpers.classifier import balls, save_line_classifier
from helpers.cli import assert_refused, labels_of, read, run_ok, valid, write

SHAPE, VOXEL_SIZE = (36, 32, 40), 1.25


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_line_classifier(tmp_path_factory.mktemp("weights") / "line")


@pytest.fixture
def map_path(workdir):
    density = balls(SHAPE, VOXEL_SIZE) + 1e-3 * np.random.default_rng(1).standard_normal(SHAPE)
    return write(workdir / "map.mrc", density.astype("f4"), voxel=VOXEL_SIZE)


def test_the_map_is_written_with_its_own_header_and_density(map_path, weights):
    outcome = run_ok("classify", map_path, "-o", "out.mrc", "--weights", weights, "--probability", "p.mrc")
    assert valid("out.mrc")
    before, after = read(map_path), read("out.mrc")
    values, counts = np.unique(after[0], return_counts=True)
    kept = after[0] != values[counts.argmax()]  # the solvent's density
    assert 0.02 < kept.mean() < 0.5
    np.testing.assert_array_equal(after[0][kept], before[0][kept])
    assert abs(values[counts.argmax()]) < 0.01
    assert after[1].cella == before[1].cella
    assert any(b"classify, weights line, threshold 0.035" in label for label in labels_of(after[1]))
    probability = read("p.mrc")[0]
    assert probability.min() >= 0
    assert probability.max() <= 1
    np.testing.assert_array_equal(probability[kept] >= 0.035, True)
    assert "removed" in outcome.out
    assert "1 piece" in outcome.out
    assert "wrote out.mrc and p.mrc" in outcome.out


def test_the_structural_mode_removes_more(map_path, weights):
    kept = {}
    for mode in ("background", "structural"):
        run_ok("classify", map_path, "-o", f"{mode}.mrc", "--weights", weights, "--mode", mode)
        kept[mode] = read(f"{mode}.mrc")[0] == read(map_path)[0]
    assert kept["structural"].sum() < kept["background"].sum()


def test_a_given_threshold_replaces_the_one_of_the_mode(map_path, weights):
    run_ok("classify", map_path, "-o", "a.mrc", "--weights", weights, "--threshold", "0.495")
    run_ok("classify", map_path, "-o", "b.mrc", "--weights", weights, "--mode", "structural")
    np.testing.assert_array_equal(read("a.mrc")[0], read("b.mrc")[0])


def test_mistakes_are_refused_in_one_line_before_anything_is_written(map_path, weights, workdir):
    assert "between 0 and 1" in assert_refused(
        workdir, "classify", map_path, "-o", "out.mrc", "--weights", weights, "--threshold", 1
    )
    assert "expected weights for classification" in assert_refused(
        workdir, "classify", map_path, "-o", "out.mrc", "--weights", "truth"
    )
    write(workdir / "dark.mrc", -read(map_path)[0].astype("f4"), voxel=VOXEL_SIZE)
    assert "inverted contrast" in assert_refused(workdir, "classify", "dark.mrc", "-o", "out.mrc", "--weights", weights)
