"""Reconstructions from more and more particles: rows, and numbers recomputed with NumPy."""

import csv
import json

import numpy as np
import pytest
from images.conftest import write
from reference.spectra import fsc as numpy_fsc

from analysis.images.image_reconstructions import STUDY
from analysis.images.reconstruct import compare_halves, in_box, reconstruct
from crefjax.images.sets import NOISY, ImageSet
from crefjax.images.simulate import ImageConfig
from crefjax.images.specimen import specimen_of_atoms
from crefjax.simulate.phantom import phantom
from crefjax.spectral.fsc import fsc_curve

VOXEL = 4.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A set of 24 particle images of 24 pixels."""
    config = ImageConfig(VOXEL, 24, side=24, dose=400.0)
    return write(tmp_path_factory.mktemp("sets") / "particles", specimen_of_atoms(phantom(300), VOXEL, 24), config)


def test_numbers_of_two_halves_are_those_of_their_fsc(folder):
    random = np.random.default_rng(1)
    with ImageSet(folder) as particles:
        truth = in_box(particles.truth().array, 24)
        shared = truth + 0.7 * truth.std() * random.standard_normal(truth.shape)  # as a bias of both halves
        halves = tuple((shared + 0.3 * truth.std() * random.standard_normal(truth.shape)).astype("f4") for _ in "ab")
        found = compare_halves(particles, halves)
    half = np.maximum(numpy_fsc(*halves), 0)
    assert found["fsc_truth"] == pytest.approx(numpy_fsc((halves[0] + halves[1]) / 2, truth)[1:-1].mean(), abs=1e-4)
    assert found["cref"] == pytest.approx(np.sqrt(2 * half / (1 + half))[1:-1].mean(), abs=1e-4)
    assert found["cref"] > found["fsc_truth"] + 0.05


def test_study_has_a_row_for_each_method_and_number_of_particles(folder, tmp_path):
    words = [str(folder), "-o", str(tmp_path / "out"), "--methods", "Gaussian", "--counts", "24", "8"]
    assert STUDY.main(words) == 0
    with open(tmp_path / "out/image_reconstructions.csv", encoding="utf-8") as file:
        rows = {(row["method"], int(row["particles"])): row for row in csv.DictReader(file)}
    assert list(rows) == [("raw", 8), ("raw", 24), ("Gaussian", 8), ("Gaussian", 24)]
    assert float(rows["raw", 24]["fsc_truth"]) > float(rows["raw", 8]["fsc_truth"]) > 0
    content = json.loads((tmp_path / "out/image_reconstructions.json").read_text())
    assert len(content["rows"][0]["fsc_truth_curve"]) == 13
    assert (tmp_path / "out/image_reconstructions.png").read_bytes().startswith(b"\x89PNG")


def test_raw_images_alone_are_reconstructed_and_impossible_numbers_are_refused(folder, tmp_path, capsys):
    assert STUDY.main([str(folder), "-o", str(tmp_path / "raw"), "--counts", "8"]) == 0
    assert STUDY.main([str(folder), "-o", str(tmp_path / "out"), "--counts", "8", "25"]) == 2
    assert "expected `counts` from 4 to the set's 24, found 8 to 25" in capsys.readouterr().err


def test_images_of_a_set_give_its_truth(tmp_path):
    specimen = specimen_of_atoms(phantom(300), VOXEL, 24)
    config = ImageConfig(VOXEL, 96, side=32, dose=10000.0, structure_factor=0.0, astigmatism=2000.0, seed=2)
    with ImageSet(write(tmp_path / "set", specimen, config)) as opened:
        images = opened.stack(NOISY).read(slice(None))
        found, halved = reconstruct(opened, (images, images / 2), np.arange(96))
        truth = opened.truth().array
    assert fsc_curve(found[4:28, 4:28, 4:28], truth, VOXEL).fsc[1:8].min() > 0.9
    np.testing.assert_allclose(halved, found / 2, atol=1e-4 * np.abs(found).max())
