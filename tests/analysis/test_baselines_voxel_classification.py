"""The study of voxel classification on a small map, with a classifier whose output is known."""

import csv
import json

import mrcfile
import numpy as np
import pytest
from helpers.classifier import balls, save_line_classifier

from analysis.baselines.voxel_counts import confusion
from analysis.framework.discovery import load_study

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
