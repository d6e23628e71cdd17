"""The contrast of maps at low frequencies: ratios of gemmi's densities, changed by known factors per frequency."""

import csv
import json

import gemmi
import numpy as np
import pytest
from reference.gemmi_density import gemmi_density

from analysis.validation import contrast as study
from crefjax.io.maps import Map, write_map
from crefjax.simulate.atoms import translate_atoms, write_model
from crefjax.simulate.phantom import phantom

SIDE, VOXEL = 40, 1.5


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with a model and its map, and one whose low frequencies are weak; the factor of the latter."""
    folder = tmp_path_factory.mktemp("contrast")
    atoms = phantom(80)
    atoms = translate_atoms(atoms, SIDE * VOXEL / 2 - atoms.center)
    write_model(folder / "model.cif", atoms, (SIDE * VOXEL,) * 3)
    structure = gemmi.read_structure(str(folder / "model.cif"))
    density = gemmi_density(structure, np.zeros(3), (SIDE,) * 3, VOXEL)
    axis = np.fft.fftfreq(SIDE, VOXEL)
    squared = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2
    weak = np.fft.ifftn(np.fft.fftn(density) * (1 - 0.6 * np.exp(-30.0 * squared))).real
    for name, array in (("plain", density), ("weak", 5 * weak)):
        write_map(folder / f"{name}.mrc", Map.from_array(array.astype("f4"), VOXEL), label="test")
    return folder


def test_ratios_are_those_by_which_the_map_differs_from_its_model(here):
    model = str(here / "model.cif")
    call = [str(here / "plain.mrc"), str(here / "weak.mrc"), "--model", model, model, "-o", str(here / "out")]
    assert study.STUDY.main(call) == 0
    with open(here / "out" / "contrast.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for name, factor in (("plain", lambda s: np.ones_like(s)), ("weak", lambda s: 1 - 0.6 * np.exp(-30 * s**2))):
        own = [row for row in rows if row["map"].endswith(f"{name}.mrc")]
        s, ratio = (np.array([float(row[key]) for row in own]) for key in ("frequency", "ratio"))
        assert s[0] == pytest.approx(1 / 30)  # the second shell of 60 Å
        assert s[-1] > 0.3
        inner = s < 0.3
        expected = factor(s[inner])
        np.testing.assert_allclose(ratio[inner] / ratio[inner][-1], expected / expected[-1], atol=0.04)
    told = json.loads((here / "out" / "contrast.json").read_text())["maps"][str(here / "weak.mrc")]
    assert list(told) == ["20", "12", "8", "6", "5", "4", "3"]
    expected = (1 - 0.6 * np.exp(-30 / 400)) / (1 - 0.6 * np.exp(-30 / 16))
    assert told["20"] / told["4"] == pytest.approx(expected, abs=0.04)


def test_a_map_without_its_model_is_refused(here, capsys):
    assert study.STUDY.main([str(here / "plain.mrc"), "--model", "a.pdb", "b.pdb", "-o", str(here / "no")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (here / "no").exists()
