"""Labeled maps for the voxel classifier: what is simulated, and filaments that run through the box."""

import json

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from crefjax.data.labeled_maps import load_labeled_map
from crefjax.simulate.atoms import write_model
from crefjax.simulate.phantom import phantom
from experiments.voxel_classifier import filament, simulate_maps
from experiments.voxel_classifier.filament import build_filament, filament_box


@pytest.fixture(scope="module")
def unit():
    return phantom(30, seed=2)


@pytest.fixture(scope="module")
def built(unit):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filament, "LENGTH", 40.0)
        return build_filament(unit, np.random.default_rng(3))


def test_a_filament_repeats_its_unit_without_clashes(unit, built):
    copies = built.positions.reshape(-1, len(unit), 3)
    assert len(copies) >= 3
    distances = cdist(copies[0], copies[0])
    for copy in copies[1:]:
        np.testing.assert_allclose(cdist(copy, copy), distances, atol=1e-2)
    rises = np.diff(copies[:, :, 2].mean(1))
    np.testing.assert_allclose(rises, rises[0], atol=1e-2)
    assert (cdist(copies[0], copies[1]).min(1) < 3).mean() <= 0.002
    closer = copies[1] - [0, 0, 2]  # two steps of the search nearer, some of the near copies clash
    near = [cdist(copies[0], closer).min(1)] + [cdist(copies[0], copies[k] - [0, 0, 2 * k]).min(1) for k in (2, 3)]
    assert max((distance < 3).mean() for distance in near) > 0.002


def test_a_filament_of_too_many_atoms_is_refused(unit, monkeypatch):
    monkeypatch.setattr(filament, "MOST_ATOMS", 100)
    with pytest.raises(filament.UserError, match="expected a filament of 100 atoms or fewer"):
        build_filament(unit, np.random.default_rng(0))


def test_the_box_of_a_filament_cuts_both_of_its_ends():
    mask = np.zeros((60, 40, 40), np.float32)
    mask[5:55, 15:25, 12:30] = 1
    for seed in range(5):
        z, y, x = filament_box(mask, 8, np.random.default_rng(seed))
        assert 5 < z.start < z.stop < 55
        assert 25 <= z.stop - z.start <= 37  # from half to three quarters of its length
        assert (y, x) == (slice(7, 33), slice(4, 38))


def test_plain_maps_show_the_model_and_the_noise_alone(tmp_path, unit, monkeypatch):
    monkeypatch.setattr(simulate_maps, "RESOLUTIONS", (6.0, 7.0))
    monkeypatch.setattr(simulate_maps, "CHANCES", dict.fromkeys(simulate_maps.CHANCES, 1.0))
    write_model(tmp_path / "model.cif", unit)
    arguments = [str(tmp_path / "model.cif"), "-o", str(tmp_path / "maps"), "--variants", "3", "--plain"]
    assert simulate_maps.main(arguments) == 0
    records = [json.loads(path.read_text()) for path in (tmp_path / "maps").glob("model_?_plain/pair.json")]
    assert len(records) == 3
    for record in records:
        assert record["complete"]
        assert record["drawn"] == dict.fromkeys(simulate_maps.CHANCES, False)
        assert record["settings"]["belt"] is None


def test_simulated_maps_are_labeled_and_kept(tmp_path, unit, monkeypatch, capsys):
    monkeypatch.setattr(filament, "LENGTH", 30.0)
    monkeypatch.setattr(simulate_maps, "RESOLUTIONS", (6.0, 7.0))
    write_model(tmp_path / "model.cif", unit)
    out = tmp_path / "maps"
    arguments = [str(tmp_path / "model.cif"), "-o", str(out), "--seed", "1"]
    assert simulate_maps.main([*arguments, "--filaments", "--half-maps"]) == 2  # a threshold needs three maps
    assert "expected 3 maps or more" in capsys.readouterr().err
    folder = out / "model_0_filament"
    assert {path.name for path in folder.iterdir()} >= {"half_map_1.mrc", "half_map_2.mrc", "mask.mrc", "pair.json"}
    labeled = load_labeled_map(folder)
    assert labeled.structure[0].any()
    assert labeled.structure[-1].any()
    assert labeled.density[labeled.structure].mean() > 3 * labeled.density[~labeled.structure].mean()
    before = (folder / "map.mrc").stat().st_mtime_ns
    assert simulate_maps.main([*arguments, "--variants", "2"]) == 0
    assert "maps fit their models" in capsys.readouterr().out
    assert (folder / "map.mrc").stat().st_mtime_ns == before
    resolutions = [json.loads(path.read_text())["resolution"] for path in out.glob("model_?/pair.json")]
    assert len(resolutions) == 2
    assert all(6 <= resolution <= 7 for resolution in resolutions)
