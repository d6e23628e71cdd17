"""`crefjax check`: its lines, its JSON and its exit status."""

import json

import mrcfile
import numpy as np
import pytest
from helpers.cli import assert_refused, error_line, run_crefjax, tree, write


@pytest.fixture
def pair(workdir):
    """Write half-maps of a phantom with independent noise."""
    words = ("--voxel-size", 1.5, "--resolution", 5, "--residues", 150, "--margin", 12)
    assert run_crefjax("simulate", "phantom", "-o", "entry", *words).status == 0
    return [workdir / "entry" / f"half_map_{number}.mrc" for number in (1, 2)]


def test_sound_pair_has_no_findings(workdir, pair):
    before = tree(workdir)
    outcome = run_crefjax("check", *pair)
    assert (outcome.status, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert lines[-1] == "no problem found: the half-maps are ready for denoising"
    assert "falls below 0.143 at" in lines[1]
    assert tree(workdir) == before


def test_shifted_half_map_gives_exit_status_1(workdir, pair):
    with mrcfile.open(pair[1]) as file:
        write(workdir / "shifted.mrc", np.roll(file.data, 2, 2), voxel=1.5)
    for _ in range(2):  # its own output may be replaced
        outcome = run_crefjax("check", pair[0], "shifted.mrc", "--mask", "entry/mask.mrc", "--json", "check.json")
        assert (outcome.status, outcome.err) == (1, "")
    assert (
        "not a pair: half-map 2 is shifted by 3, 0, 0 Å along x, y, z relative to half-map 1: FSC-0.143" in outcome.out
    )
    found = json.loads((workdir / "check.json").read_text())
    assert found["pair"] is False
    assert found["voxel_size"] == 1.5
    (finding,) = found["findings"]
    assert (finding["kind"], finding["serious"], finding["numbers"]["shift"]) == ("shift", True, [3.0, 0.0, 0.0])
    assert found["resolution_at_0.143"] == pytest.approx(finding["numbers"]["resolution"])


def test_invalid_json_outputs_are_refused(workdir, pair):
    (workdir / "own.json").write_text("{}")
    for name, text in [
        ("check.txt", "must end in .json"),
        ("no/check.json", "folder"),
        ("own.json", "is not replaced"),
    ]:
        assert_refused(workdir, "check", *pair, "--json", name, names=[name, text])
    outcome = run_crefjax("check", pair[0], "nowhere.mrc")
    assert "nowhere.mrc" in error_line(outcome.err, outcome.status)
