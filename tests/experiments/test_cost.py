"""Time and memory against the number of voxels: rows, ratios, table, figure."""

import csv
import io
import json

import pytest

from experiments.benchmarks import all as cost


def test_the_fastest_round_and_the_largest_memory_count():
    rounds = [
        {"crefjax": {"seconds": 3.0, "peak_gib": 1.0}, "Keras": {"failed": "no TensorFlow"}},
        {"crefjax": {"seconds": 2.0, "peak_gib": 1.5}, "Keras": {"failed": "no TensorFlow"}},
    ]
    found = {"crefjax": {"seconds": 2.0, "peak_gib": 1.5}, "Keras": {"failed": "no TensorFlow"}}
    assert cost.best(rounds) == found
    assert cost.with_ratios(found)[0] == {"program": "crefjax", "seconds": 2.0, "peak_gib": 1.5}


def test_ratios_are_to_keras():
    rows = cost.with_ratios({"crefjax": {"seconds": 2.0, "peak_gib": 1.0}, "Keras": {"seconds": 4.0, "peak_gib": 8.0}})
    assert (rows[0]["seconds_to_keras"], rows[0]["peak_gib_to_keras"]) == (0.5, 0.125)
    assert "seconds_to_keras" not in rows[1]


def test_table_and_figure_are_written_for_the_work_and_boxes_that_are_asked_for(monkeypatch, tmp_path, capsys):
    def measure(box, keras):
        assert keras is None
        return {"crefjax": {"seconds": box / 10, "peak_gib": 0.5}, "other": {"failed": "out of memory"}}

    monkeypatch.setitem(cost.MEASURES, "network", measure)
    assert cost.main(["-o", str(tmp_path / "cost"), "--largest", "96", "--work", "network", "--repeats", "2"]) == 0
    rows = list(csv.DictReader(io.StringIO((tmp_path / "cost/cost.csv").read_text())))
    assert [(row["box"], row["program"], row["seconds"]) for row in rows] == [
        ("64", "crefjax", "6.4"),
        ("64", "other", ""),
        ("96", "crefjax", "9.6"),
        ("96", "other", ""),
    ]
    assert [row["voxels"] for row in json.loads((tmp_path / "cost/cost.json").read_text())][::2] == [64**3, 96**3]
    assert (tmp_path / "cost/cost.png").read_bytes().startswith(b"\x89PNG")
    assert "failed: out of memory" in capsys.readouterr().out


def test_a_command_that_fails_is_a_row_with_its_last_line(tmp_path):
    assert "no such file" in cost._command(["fsc", "missing.mrc", "missing.mrc"], tmp_path)["failed"]


@pytest.mark.slow
def test_a_simulation_is_measured():
    row = cost.MEASURES["simulate"](64, None)["crefjax"]
    assert row["seconds"] > 0
    assert row["peak_gib"] > 0.05
