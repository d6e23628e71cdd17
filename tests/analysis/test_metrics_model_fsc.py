"""The study of map and model: its numbers against NumPy, its two command lines, and real maps with their models."""

import csv
import json

import gemmi
import mrcfile
import numpy as np
import pytest
from reference.gemmi_density import gemmi_density
from reference.spectra import fsc as numpy_fsc

from analysis.metrics import model_fsc as study
from crefjax.errors import UserError
from crefjax.io.maps import Map, read_map

SHAPE, VOXEL = (28, 34, 31), 1.5  # (z, y, x)
COUNT = max(SHAPE) // 2 + 1
ORIGIN = np.array([12.0, -6.0, 3.0])


def write_model(path, count=150):
    """Atoms of high B-factors, so that samples of their density have nothing beyond Nyquist; its path as gemmi's."""
    random = np.random.default_rng(0)
    directions = random.standard_normal((count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    middle = ORIGIN + (np.array(SHAPE[::-1]) - 1) * VOXEL / 2
    positions = middle + directions * random.uniform(0, 1, (count, 1)) ** (1 / 3) * np.array([8.0, 9.0, 7.0])
    structure, model, chain = gemmi.Structure(), gemmi.Model(1), gemmi.Chain("A")
    for number, position in enumerate(positions):
        residue, atom = gemmi.Residue(), gemmi.Atom()
        residue.name, residue.seqid = "GLY", gemmi.SeqId(str(number + 1))
        atom.name, atom.element = "C", gemmi.Element("C")
        atom.pos, atom.b_iso, atom.occ = gemmi.Position(*position), 200.0, 1.0
        residue.add_atom(atom)
        chain.add_residue(residue)
    model.add_chain(chain)
    structure.add_model(model)
    structure.write_pdb(str(path))
    return gemmi.read_structure(str(path))


def slow_mask(structure):
    """Within 3 Å of an atom, with a raised cosine over 3 Å; and the same towards the border of the box."""
    grid = np.stack(np.meshgrid(*(np.arange(side) for side in SHAPE), indexing="ij"), axis=-1)[..., ::-1]
    places = grid * VOXEL + ORIGIN
    distance = np.min([np.linalg.norm(places - cra.atom.pos.tolist(), axis=-1) for cra in structure[0].all()], axis=0)
    mask = 0.5 + 0.5 * np.cos(np.pi * np.clip((distance - 3) / 3, 0, 1))
    assert mask[[0, 1, -2, -1]].max() == 0  # clear of the border, where it would fall off
    return mask


def shells_of():
    """By the frequency, times the longest side: the box is no cube."""
    kz, ky, kx = (np.fft.fftfreq(side, VOXEL) for side in SHAPE)
    radius = np.sqrt(kz[:, None, None] ** 2 + ky[:, None] ** 2 + kx**2)
    return np.floor(radius * max(SHAPE) * VOXEL + 0.5).astype(int)


def crossing(curve, threshold):
    """Å, by walking along the curve."""
    for shell in range(2, COUNT):
        if curve[shell] < threshold:
            part = (curve[shell - 1] - threshold) / (curve[shell - 1] - curve[shell])
            return max(SHAPE) * VOXEL / (shell - 1 + part)
    return None


def write_map(path, array):
    with mrcfile.new(path) as mrc:
        mrc.set_data(np.ascontiguousarray(array, "f4"))
        mrc.voxel_size = VOXEL
        mrc.header.origin.x, mrc.header.origin.y, mrc.header.origin.z = ORIGIN


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with model, truth and noisy maps; and an entry folder with two methods."""
    here = tmp_path_factory.mktemp("model_fsc")
    structure = write_model(here / "model.pdb")
    truth, mask = gemmi_density(structure, ORIGIN, SHAPE, VOXEL), slow_mask(structure)
    random = np.random.default_rng(4)
    noise = [truth[mask > 0.5].std() * random.standard_normal(SHAPE) for _ in range(2)]
    write_map(here / "noisy.mrc", truth + noise[0])
    write_map(here / "better.mrc", 7 * (truth + 0.5 * noise[0]) + 3)
    entry = here / "entry"
    (entry / "outputs" / "better").mkdir(parents=True)
    for number, noise_map in enumerate(noise, start=1):
        write_map(entry / f"half_map_{number}.mrc", truth + noise_map)
    write_map(entry / "mask.mrc", np.ones(SHAPE))
    write_map(entry / "outputs" / "better" / "full.mrc", truth + 0.1 * noise[0])
    (entry / "model.pdb").write_bytes((here / "model.pdb").read_bytes())
    return here


@pytest.fixture(scope="module")
def parts(here):
    structure = gemmi.read_structure(str(here / "model.pdb"))
    return gemmi_density(structure, ORIGIN, SHAPE, VOXEL), slow_mask(structure)


def test_the_density_of_a_model_agrees_with_it_perfectly(here, parts):
    truth, _ = parts
    like = Map.from_array(truth, VOXEL, ORIGIN)
    (row,) = study.measure_maps({"full map": truth.astype("f4")}, like, here / "model.pdb", entry="own")
    curve = np.array(row["curves"]["fsc"])
    assert curve[1:-2].min() > 0.999
    assert row["model_fsc"] > 0.999
    for threshold in (0.5, 0.143):
        assert row[f"model_fsc_{threshold}"] == 2 * VOXEL
        assert row[f"model_falls_below_{threshold}"] == 0
    assert row["cc_mask"] > 0.999
    assert (row["entry"], row["method"], row["how"]) == ("own", "full map", "as it is")
    assert row["curves"]["frequency"] == pytest.approx(np.arange(COUNT) / (max(SHAPE) * VOXEL))


def test_numbers_match_numpy_and_fall_with_noise(here, parts):
    truth, mask = parts
    random = np.random.default_rng(5)
    noise = truth[mask > 0.5].std() * random.standard_normal(SHAPE)
    maps = {"full map": truth + noise, "less": 5 * (truth + 0.5 * noise) + 2, "more": truth + 2 * noise}
    maps = {name: map_.astype("f4") for name, map_ in maps.items()}
    like = Map.from_array(truth, VOXEL, ORIGIN)
    rows = {row["method"]: row for row in study.measure_maps(maps, like, here / "model.pdb", entry="one")}
    curves = {}
    for name, map_ in maps.items():
        level = np.sum((1 - mask) * map_) / np.sum(1 - mask)
        curves[name] = numpy_fsc((map_ - level) * mask, truth * mask)
    cut = crossing(curves["full map"], 0.143)
    low = np.fft.ifftn(np.fft.fftn(truth) * (shells_of() <= max(SHAPE) * VOXEL / cut)).real
    for name, curve in curves.items():
        row = rows[name]
        np.testing.assert_allclose(row["curves"]["fsc"][:-1], curve[:-1], atol=0.003, err_msg=name)
        assert row["model_fsc"] == pytest.approx(curve[1:-1].mean(), abs=0.001)
        for threshold in (0.5, 0.143):
            expected = crossing(curve, threshold)
            assert row[f"model_falls_below_{threshold}"] == int(expected is not None)
            assert row[f"model_fsc_{threshold}"] == pytest.approx(expected or 2 * VOXEL, abs=0.02)
        correlation = np.corrcoef(maps[name][mask > 0.5], low[mask > 0.5])[0, 1]
        assert row["cc_mask"] == pytest.approx(correlation, abs=0.003)
        assert row["lowpass"] == pytest.approx(cut, abs=0.02)
    assert rows["less"]["model_fsc"] > rows["full map"]["model_fsc"] > rows["more"]["model_fsc"]
    assert rows["less"]["cc_mask"] > rows["full map"]["cc_mask"] > rows["more"]["cc_mask"]
    assert rows["full map"]["model_falls_below_0.5"] == 1


def read_rows(folder):
    with open(folder / "model_fsc.csv", newline="") as file:
        return list(csv.DictReader(file))


def check_files(folder):
    assert {f"model_fsc.{kind}" for kind in ("csv", "json", "png", "svg")} <= {path.name for path in folder.iterdir()}
    assert (folder / "model_fsc.png").read_bytes().startswith(b"\x89PNG")
    svg = (folder / "model_fsc.svg").read_text(encoding="utf-8")
    assert "<svg" in svg
    report = json.loads((folder / "model_fsc.json").read_text(encoding="utf-8"))
    assert set(report["summary"]) == {"model_fsc", "model_fsc_0.5", "cc_mask"}
    return report


def test_maps_without_half_maps_are_compared_to_models(here, tmp_path, parts, capsys):
    truth, mask = parts
    argv = [str(here / "noisy.mrc"), "--model", str(here / "model.pdb"), "-o", str(tmp_path / "out")]
    assert study.STUDY.main([*argv, "--denoised", f"better={here / 'better.mrc'}"]) == 0
    output = capsys.readouterr().out
    assert "noisy: model by the header's ORIGIN" in output
    check_files(tmp_path / "out")
    rows = read_rows(tmp_path / "out")
    assert [(row["entry"], row["method"]) for row in rows] == [("noisy", "full map"), ("noisy", "better")]
    for row, name in zip(rows, ("noisy", "better"), strict=True):
        map_ = mrcfile.read(here / f"{name}.mrc").astype("f8")
        level = np.sum((1 - mask) * map_) / np.sum(1 - mask)
        mean = numpy_fsc((map_ - level) * mask, truth * mask)[1:-1].mean()
        assert float(row["model_fsc"]) == pytest.approx(mean, abs=0.001)
        assert (row["atoms"], row["atoms_in_box"]) == ("150", "150")


def test_entries_are_compared_to_their_models(here, tmp_path, capsys):
    """As over all entries; one without a model is left out."""
    bare = tmp_path / "bare"
    bare.mkdir()
    for number in (1, 2):
        (bare / f"half_map_{number}.mrc").symlink_to(here / "entry" / f"half_map_{number}.mrc")
    out = tmp_path / "out"
    assert study.STUDY.main([str(here / "entry"), str(bare), "-o", str(out)]) == 0
    report = check_files(out)
    assert [skip["entry"] for skip in report["left_out"]] == ["bare"]
    assert "model.cif" in report["left_out"][0]["why"]
    rows = read_rows(out)
    assert [(row["entry"], row["method"]) for row in rows] == [("entry", "full map"), ("entry", "better")]
    maps = {row["method"]: read_map(path).array for row, path in zip(rows, _paths(here), strict=True)}
    halves = [read_map(here / "entry" / f"half_map_{number}.mrc") for number in (1, 2)]
    maps["full map"] = (halves[0].array + halves[1].array) / 2
    for row, expected in zip(rows, study.measure_maps(maps, halves[0], here / "model.pdb", entry="entry"), strict=True):
        for name in ("model_fsc", "model_fsc_0.5", "model_fsc_0.143", "cc_mask"):
            assert float(row[name]) == pytest.approx(expected[name], rel=1e-4)
    capsys.readouterr()


def _paths(here):
    return here / "entry" / "half_map_1.mrc", here / "entry" / "outputs" / "better" / "full.mrc"


def test_mistakes_are_one_line(here, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    noisy, model = str(here / "noisy.mrc"), str(here / "model.pdb")
    for argv, message in (
        ([noisy, noisy, "--model", model, "-o", "out"], "expected one for each of 2 maps, found 1"),
        ([noisy, noisy, "--model", model, model, "-o", "out"], "different names"),
        ([noisy, "--model", model, "--denoised", "better.mrc", "-o", "out"], "expected NAME=MAP"),
        ([noisy, "--model", model, "--denoised", "a=b", "a=c", "-o", "out"], "expected a once for each of 1 maps"),
        ([noisy, "--model", "none.pdb", "-o", "out"], "none.pdb"),
        ([noisy, "--model", model, "--methods", "a", "-o", "out"], "--methods"),
        ([noisy, "--model", model, "--b-factor", "-1", "-o", "out"], "expected 0 to 300"),
        ([str(here / "entry"), "--b-factor", "20", "-o", "out"], "--b-factor"),
        ([str(here / "entry"), "--model", model, "-o", "out"], "entry"),
    ):
        assert study.STUDY.main(argv) == 2, argv
        error = capsys.readouterr().err.rstrip()
        assert message in error
        assert "\n" not in error
    assert not list(tmp_path.glob("out/*"))


def test_a_model_outside_the_box_is_refused(here, tmp_path):
    structure = gemmi.read_structure(str(here / "model.pdb"))
    away = gemmi.Transform()
    away.vec.fromlist([80.0, 0.0, 0.0])
    structure[0].transform_pos_and_adp(away)
    structure.write_pdb(str(tmp_path / "away.pdb"))
    like = read_map(here / "noisy.mrc")
    with pytest.raises(UserError, match="within the map's box"):
        study.measure_maps({"full map": like.array}, like, tmp_path / "away.pdb", entry="one")


@pytest.mark.parametrize("count", [1, 4, 26])
def test_figure_has_a_panel_for_each_entry(count):
    rows = []
    for number in range(count):
        for method in ("full map", "other"):
            curves = {"frequency": (np.arange(9) / 32).tolist(), "fsc": np.linspace(1, -0.2, 9).tolist()}
            numbers = {"model_fsc": 0.4, "model_fsc_0.5": 7.5, "model_fsc_0.143": 5.25, "cc_mask": 0.6}
            below = {"model_falls_below_0.5": 1, "model_falls_below_0.143": 0}
            rows.append({"entry": f"e{number}", "method": method} | numbers | below | {"curves": curves})
    drawn = study.figure(rows)
    titles = [axes.get_title() for axes in drawn.axes if axes.get_title()]
    assert titles == [f"e{number}" for number in range(min(count, 24))]
    assert len(drawn.axes) - len(titles) == (3 if count >= 3 else 0)
    labels = [text.get_text() for text in drawn.axes[0].get_legend().get_texts()]
    assert labels == ["full map: 7.50, Nyquist; 0.400", "other: 7.50, Nyquist; 0.400"]


@pytest.mark.parametrize(
    ("map_name", "model_name", "place", "stated"),
    [
        ("emd_2566_chain9.mrc", "emd_2566_chain9_3j6b.pdb.gz", "by the header's ORIGIN", 3.2),
        ("emd_5168.map", "emd_5168_3mfp.pdb.gz", "by the header's NSTART", 6.6),
    ],
)
def test_real_maps_agree_with_their_models_to_the_stated_resolution(map_name, model_name, place, stated, shared):
    """A word of the header tells where each lies: ORIGIN of the one, NSTART of the other."""
    like = read_map(shared / "maps" / map_name)
    (row,) = study.measure_maps({"full map": like.array}, like, shared / "maps" / model_name, entry="real")
    assert row["model_place"].startswith(place)
    assert row["model_fsc_0.143"] == pytest.approx(stated, rel=0.1)
    assert row["model_fsc_0.143"] < row["model_fsc_0.5"] < 1.35 * stated
