import json

import pytest

from crefjax.report import convergence
from crefjax.report.convergence import convergence_figure, write_figure

TRAINED = [{"kind": "training", "step": step, "loss": 1 / step} for step in range(1, 21)]
EVALUATED = [
    {"kind": "evaluation", "step": step, "loss": 0.3, "cref_rmse": 0.2, "fsc_truth": 0.7, "fsc_truth_full": 0.6}
    for step in (10, 20)
]


@pytest.mark.parametrize(("kind", "magic"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_figure_files_are_what_they_say(kind, magic):
    assert convergence_figure(TRAINED + EVALUATED, kind).startswith(magic)


def words(rows):
    return convergence_figure(rows, "svg").decode()


def test_the_figure_tells_what_was_evaluated():
    whole = words(TRAINED + EVALUATED)
    for text in ("held out: RMSE of FSC", "held out: mean FSC to the truth", "held out: full map's mean FSC"):
        assert f"<!-- {text}" in whole
    without = [{name: value for name, value in row.items() if "truth" not in name} for row in EVALUATED]
    assert "truth" not in words(TRAINED + without)
    assert "RMSE" in words(TRAINED + without)


@pytest.mark.parametrize("rows", [[], TRAINED[:1], EVALUATED[:1], TRAINED, [{**EVALUATED[0], "loss": float("nan")}]])
def test_little_to_show_is_no_mistake(rows):
    assert convergence_figure(rows, "png").startswith(b"\x89PNG")


def test_a_figure_is_replaced_and_a_line_that_was_cut_off_left_out(tmp_path, monkeypatch):
    lines = [json.dumps(row) for row in TRAINED + EVALUATED]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"kind": "trai')
    (tmp_path / "convergence.png").write_bytes(b"old")
    drawn = []
    monkeypatch.setattr(convergence, "convergence_figure", lambda rows, kind: drawn.append(rows) or b"\x89PNG new")
    write_figure(tmp_path)
    assert drawn == [TRAINED + EVALUATED]
    assert (tmp_path / "convergence.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["convergence.png", "metrics.jsonl"]
