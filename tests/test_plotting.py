"""Figures of an FSC curve and of a training run."""

import json

import numpy as np
import pytest

from crefjax import plotting
from crefjax.plotting import convergence_figure, fsc_figure, write_convergence_figure
from crefjax.spectral.curves import FscCurve

CURVE = FscCurve((16, 16, 16), 1.5, np.array([1, 0.99, 0.95, 0.9, 0.7, 0.4, 0.2, 0.05, 0.0]))


@pytest.mark.parametrize(("kind", "magic"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_fsc_figure_is_a_file_of_its_kind(kind, magic):
    assert fsc_figure(CURVE, (0.5, 0.143), kind).startswith(magic)


def test_fsc_figure_shows_the_resolutions():
    svg = fsc_figure(CURVE, (0.5,), "svg").decode()
    # 0.5 lies between shells 4 (0.7) and 5 (0.4): 24 Å / (4 + 2/3)
    assert "5.14 Å at 0.5" in svg
    never = FscCurve((8, 8, 8), 1.0, np.array([1, 0.9, 0.9, 0.9, 0.8]))
    assert "above 0.5 to Nyquist" in fsc_figure(never, (0.5,), "svg").decode()


TRAINING = [{"kind": "training", "step": step, "loss": 1 / step} for step in range(1, 21)]
EVALUATIONS = [
    {"kind": "evaluation", "step": step, "loss": 0.3, "cref_rmse": 0.2, "fsc_truth": 0.7, "fsc_truth_full": 0.6}
    for step in (10, 20)
]


@pytest.mark.parametrize(("kind", "magic"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_convergence_figure_is_a_file_of_its_kind(kind, magic):
    assert convergence_figure(TRAINING + EVALUATIONS, kind).startswith(magic)


def svg_text(rows):
    return convergence_figure(rows, "svg").decode()


def test_convergence_figure_has_a_curve_for_each_metric():
    whole = svg_text(TRAINING + EVALUATIONS)
    for text in ("held out: RMSE of FSC", "held out: mean FSC to the truth", "held out: full map's mean FSC"):
        assert f"<!-- {text}" in whole
    without = [{name: value for name, value in row.items() if "truth" not in name} for row in EVALUATIONS]
    assert "truth" not in svg_text(TRAINING + without)
    assert "RMSE" in svg_text(TRAINING + without)


@pytest.mark.parametrize(
    "rows", [[], TRAINING[:1], EVALUATIONS[:1], TRAINING, [{**EVALUATIONS[0], "loss": float("nan")}]]
)
def test_convergence_figure_accepts_runs_with_few_or_no_rows(rows):
    assert convergence_figure(rows, "png").startswith(b"\x89PNG")


def test_convergence_figure_is_replaced_and_an_incomplete_line_ignored(tmp_path, monkeypatch):
    lines = [json.dumps(row) for row in TRAINING + EVALUATIONS]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"kind": "trai')
    (tmp_path / "convergence.png").write_bytes(b"old")
    calls = []
    monkeypatch.setattr(plotting, "convergence_figure", lambda rows, kind: calls.append(rows) or b"\x89PNG new")
    write_convergence_figure(tmp_path)
    assert calls == [TRAINING + EVALUATIONS]
    assert (tmp_path / "convergence.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["convergence.png", "metrics.jsonl"]
