"""`crefjax images`: a simulated set in one command, and mistakes in one line."""

import json

import mrcfile
import numpy as np
import pytest
from helpers.cli import assert_refused, run_ok

SMALL = ["phantom", "--residues", 100, "--pixel-size", 4, "--count", 2, "--side", 32]


def test_a_set_is_simulated_from_a_map(workdir, random_map):
    outcome = run_ok("images", "simulate", random_map, "-o", "set", "--count", 2, "--dose", 30)
    assert "2 particle images of 16x16 pixels of 5 Å, particles bright" in outcome.out
    record = json.loads((workdir / "set/set.json").read_text())
    assert record["parameters"]["dose"] == 30
    assert record["parameters"]["pixel_size"] == 5
    with mrcfile.open(workdir / "set/images.mrcs") as file:
        assert file.data.shape == (2, 16, 16)
    assert_refused(workdir, "images", "simulate", random_map, "-o", "set", "--count", 2, names="exists")


@pytest.fixture
def random_map(workdir):
    array = np.zeros((16, 16, 16), np.float32)
    array[5:11, 6:10, 4:11] = np.random.default_rng(0).uniform(1, 2, (6, 4, 7))
    with mrcfile.new(workdir / "particle.mrc") as file:
        file.set_data(array)
        file.voxel_size = 5.0
    return "particle.mrc"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([*SMALL[:3], "--count", 2], "expected a pixel size, found none; give the --pixel-size"),
        ([*SMALL, "--particles", 5], "--particles has an effect only with --micrographs"),
        ([*SMALL, "--micrographs", "--shift", 5], "--shift has an effect only without --micrographs"),
        ([*SMALL, "--dose", 1e6], "expected dose of 0.1 to 10000"),
        (["none.pdb", "--pixel-size", 4, "--count", 2], "none.pdb"),
        (["none.pdb", "--residues", 5, "--pixel-size", 4, "--count", 2], "--residues has an effect only"),
    ],
)
def test_mistakes_are_refused_and_leave_nothing(workdir, options, message):
    assert_refused(workdir, "images", "simulate", *options, "-o", "set", names=message)
