"""The study of voxel classification on a small map, with a classifier whose output is known."""

import csv
import json

import mrcfile
import numpy as np
import pytest
from helpers.classifier import balls, save_line_classifier

from analysis.baselines.voxel_counts import confusion
from analysis.framework.discovery import load_study
from crefjax.io.maps import Map, write_map
from crefjax.simulate.atoms import write_model
from crefjax.simulate.half_maps import SimulationConfig, simulate_half_maps
from crefjax.simulate.phantom import phantom

SHAPE = (40, 36, 44)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    weights = save_line_classifier(folder / "line")
    density = np.clip(balls(SHAPE, 1.0) + 0.05 * np.random.default_rng(0).standard_normal(SHAPE), 0, 1)
    structure = balls(SHAPE, 1.0) > 0.3
    entry = folder / "entry"
    entry.mkdir()
    for name, array in (("map", density.astype(np.float16)), ("structure", structure.astype(np.int8))):
        with mrcfile.new(entry / f"{name}.mrc", array) as mrc:
            mrc.voxel_size = 1.0
    (entry / "pair.json").write_text(json.dumps({"resolution": 3.4}))
    study = load_study("analysis.baselines.voxel_classification")
    assert study.main([str(entry), "--weights", str(weights), "-o", str(folder / "out")]) == 0
    with open(folder / "out" / "voxel_classification.csv", encoding="utf-8") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    report = json.loads((folder / "out" / "voxel_classification.json").read_text())
    return density.astype(np.float16).astype(np.float32), structure, rows, report, folder / "out"


def test_counts_of_the_contour_are_those_of_its_threshold(results):
    density, structure, rows, _, _ = results
    row = rows["contour"]
    expected = confusion(density >= float(row["threshold"]) - 1e-6, structure, density > 0)
    for name in ("tp", "fn", "fp", "tn"):
        assert float(row[name]) == pytest.approx(getattr(expected, name), abs=12)  # the threshold has six digits
    assert float(row["g_mean"]) > 0.9


def test_the_best_threshold_is_at_least_as_good_as_that_of_the_mode(results):
    _, _, rows, _, _ = results
    assert float(rows["classifier, best threshold"]["g_mean"]) >= float(rows["classifier, background"]["g_mean"])


def test_voxels_without_density_are_not_counted(results):
    density, _, rows, _, _ = results
    for method in ("classifier, background", "contour", "dust filter"):
        counted = sum(int(float(rows[method][name])) for name in ("tp", "fn", "fp", "tn"))
        assert counted == np.count_nonzero(density > 0)


def test_means_are_given_by_bin_of_resolution(results):
    _, _, rows, report, _ = results
    assert set(report["means"]) == {"all", "3-4 Å"}
    found = report["means"]["3-4 Å"]["contour"]
    assert found["maps"] == 1
    assert found["g_mean"] == pytest.approx(float(rows["contour"]["g_mean"]), abs=1e-4)


def test_figures_are_written(results):
    assert (results[-1] / "voxel_classification.png").read_bytes().startswith(b"\x89PNG")


def test_a_study_without_maps_is_refused(tmp_path, capsys):
    assert load_study("analysis.baselines.voxel_classification").main(["-o", str(tmp_path / "out")]) == 2
    assert "expected labeled maps, found none" in capsys.readouterr().err


@pytest.fixture(scope="module")
def with_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("with_model")
    pair = simulate_half_maps(phantom(20, seed=1), SimulationConfig(voxel_size=1.5, resolution=6.0, box=32, seed=2))
    write_map(folder / "map.mrc", Map.from_array(pair.truth, 1.5), label="truth")
    write_model(folder / "model.cif", pair.atoms)
    return folder, save_line_classifier(folder / "line")


def run_with_model(with_model, output, *words):
    folder, weights = with_model
    study = load_study("analysis.baselines.voxel_classification")
    paths = [str(folder / "map.mrc"), str(folder / "model.cif")]
    status = study.main(["--map", *paths, *words, "--weights", str(weights), "-o", str(output)])
    if status:
        return status
    with open(output / "voxel_classification.csv", encoding="utf-8") as file:
        return {row["method"]: row for row in csv.DictReader(file)}


def test_a_subunit_is_repeated_along_its_helix(with_model, tmp_path):
    one = run_with_model(with_model, tmp_path / "one", "6")
    filament = run_with_model(with_model, tmp_path / "filament", "6", "180", "15")
    structure = [sum(int(float(rows["contour"][name])) for name in ("fp", "tn")) for rows in (one, filament)]
    assert structure[1] > 1.2 * structure[0]
    assert (tmp_path / "one" / "voxel_classification.maps.png").stat().st_size > 10_000


@pytest.mark.parametrize("words", [(), ("6", "180"), ("six",)])
def test_a_map_needs_a_model_a_resolution_and_a_whole_helix(with_model, tmp_path, words, capsys):
    assert run_with_model(with_model, tmp_path, *words) == 2
    assert "expected a map, its model, the resolution in Å" in capsys.readouterr().err
