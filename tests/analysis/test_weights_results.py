"""The comparison of the package's own weights with other methods, by hand from a few rows."""

import pytest

from analysis.weights import weights_results
from analysis.weights.weights_results import compared

pytestmark = pytest.mark.slow

ROWS = {
    ("one", "full map"): {"mean_fsc": "0.5", "least_gain": "-0.2"},
    ("two", "full map"): {"mean_fsc": "0.6", "least_gain": "-0.1"},
    ("one", "wiener"): {"mean_fsc": "0.4", "error": "0.2"},
    ("two", "wiener"): {"mean_fsc": "0.5", "error": "0.4"},
    ("one", "truth"): {"mean_fsc": "0.8", "error": "0.1", "bias_share": "0.05"},
    ("two", "truth"): {"mean_fsc": "0.56", "error": "0.6", "bias_share": ""},
    ("one", "crefdenoiser_calibrated"): {"mean_fsc": "0.7", "bias_share": "0.04"},
    ("two", "crefdenoiser_calibrated"): {"mean_fsc": "0.7", "bias_share": "0.09"},
}


def test_comparison_lists_means_counts_and_signs():
    lines = compared([{"entry": entry, "method": method, **more} for (entry, method), more in ROWS.items()])
    assert "| full map | 0.550 | -0.150 |  |  |  |  |  |  |" in lines
    assert "| truth | 0.680 |  | 0.3500 |  |  | 0.050 |  |  |" in lines
    assert "| two | 0.600 | 0.500 | 0.560 | 0.700 |" in lines
    assert "- truth: mean FSC to the truth at least that of full map in 1 of 2, +0.1300 on average" in lines
    assert "- truth: error against the truth at most that of wiener in 1 of 2, +0.05000 on average" in lines
    line = "- truth: bias/signal up to FSC-0.143 at most that of crefdenoiser_calibrated in 0 of 1, +0.0100 on average"
    assert line in lines


def test_a_copy_of_a_changed_entry_is_recognized_as_stale(tmp_path):
    for folder in ("one", "copy"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "half_map_1.mrc").write_bytes(b"map")
    (tmp_path / "copy" / "more.mrc").write_bytes(b"made of it")
    assert weights_results._same_maps(tmp_path / "one", tmp_path / "copy")
    (tmp_path / "one/half_map_1.mrc").write_bytes(b"pam")
    assert not weights_results._same_maps(tmp_path / "one", tmp_path / "copy")
    assert not weights_results._same_maps(tmp_path / "one", tmp_path / "nowhere")


def test_mistakes_are_one_line(tmp_path, capsys):
    for name in ("models/cryoem", "models/docking", "models/em", "bench", "maps"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "file").write_text("")
    for more, message in (
        (["-o", str(tmp_path / "out"), "--jobs", "0"], "--jobs: expected 1 or more"),
        (["-o", str(tmp_path / "file")], "file: File exists"),
    ):
        assert weights_results.STUDY.main([str(tmp_path), *more]) == 2
        errors = capsys.readouterr().err
        assert message in errors
        assert len(errors.splitlines()) == 1
