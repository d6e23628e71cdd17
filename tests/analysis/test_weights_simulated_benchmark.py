"""The comparison in the documentation: every step runs, on given entries."""

import csv
from pathlib import Path

import pytest
from helpers.baseline_entries import make_entry

from analysis.weights import simulated_benchmark as study
from crefjax.simulate.half_maps import SimulationConfig
from crefjax.simulate.specimen import BulkSolvent

pytestmark = pytest.mark.slow


def test_all_steps_run_on_given_entries(tmp_path, monkeypatch, small_weights):
    (tmp_path / "one.cif").touch()
    (tmp_path / "two.cif").touch()
    (tmp_path / "large.cif").touch()
    monkeypatch.setattr(study, "ENTRIES", {"one.cif": SimulationConfig(2.0, 6.0), "two.cif": "--seed 3"})
    monkeypatch.setattr(study, "LARGE", {"large.cif": "--seed 4"})
    monkeypatch.setattr(study, "IN_SOLVENT", ("one", "large"))
    monkeypatch.setattr(study, "FILTERS", ("wiener", "lowpass"))
    monkeypatch.setattr("analysis.framework.simulation.read_atoms", lambda model: model)
    monkeypatch.setattr("analysis.framework.simulation.write_entry", lambda path, seed: make_entry(path, seed=seed))
    asked, solvents = [], []

    def additive(model, settings):
        solvents.append(settings.bulk_solvent)
        return settings.seed

    def simulate(argv):
        asked.append(argv)
        make_entry(Path(argv[3]), seed=len(asked))
        return 0

    monkeypatch.setattr("analysis.framework.simulation.simulate_half_maps", additive)
    monkeypatch.setattr("crefjax.cli.main.main", simulate)
    out = tmp_path / "out"
    assert study.STUDY.main([str(tmp_path), "-o", str(out), "--weights", str(small_weights)]) == 0
    assert asked == [
        ["simulate", str(tmp_path / f"{name}.cif"), "-o", str(out / folder / name), *options]
        for name, folder, *options in (
            ("two", "entries", "--seed", "3"),
            ("large", "entries", "--seed", "4"),
            ("large", "entries_in_solvent", "--seed", "4", "--bulk-solvent", "0.75", "--bulk-solvent-b-factor", "80"),
        )
    ]
    assert solvents == [None, BulkSolvent(0.75, 80.0)]
    with open(out / "comparison/benchmark.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    methods = ["full map", "lowpass", "small", "small_own", "wiener"]
    assert [(row["entry"], row["method"]) for row in rows] == [(e, m) for e in ("one", "two") for m in methods]
    with open(out / "comparison_large/benchmark.csv", encoding="utf-8", newline="") as stream:
        found = [(row["entry"], row["method"]) for row in csv.DictReader(stream)]
    assert found == [("large", method) for method in methods if method != "lowpass"]
    with open(out / "comparison_in_solvent/benchmark.csv", encoding="utf-8", newline="") as stream:
        found = [(row["entry"], row["method"]) for row in csv.DictReader(stream)]
    assert found == [(entry, method) for entry in ("one", "large") for method in methods if method != "lowpass"]


def test_a_missing_model_is_one_line(tmp_path, capsys):
    assert study.STUDY.main([str(tmp_path), "-o", str(tmp_path / "out"), "--weights", "none"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert "expected a model" in lines[0]
    assert not (tmp_path / "out").exists()
