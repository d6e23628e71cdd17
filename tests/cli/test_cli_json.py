"""The records that `denoise`, `mask`, and `report` write as JSON; the keys are those of docs/command_line.md."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from helpers.cli import assert_refused, densities, read, run_crefjax, run_ok, write
from test_cli_fsc import slow_curve, slow_resolution

from crefjax import __version__

KEYS = ["format_version", "crefjax", "command", "inputs", "box", "voxel_size", "settings", "found", "warnings"]
KEYS += ["outputs", "seconds"]
PAGE = Path(__file__).parents[2] / "docs/command_line.md"


def load(text):
    def refuse(word):
        raise AssertionError(word)

    return json.loads(text, parse_constant=refuse)


@pytest.fixture
def record(pair, weights):
    """Return a function that runs a command with `--json -` and returns the record."""

    def run(command, *words):
        more = ["--weights", weights] if command == "denoise" else []
        outcome = run_ok(command, *pair, *words, *more, "--json", "-")
        return load(outcome.out), outcome

    return run


def test_record_of_denoise(record, pair):
    found, outcome = record("denoise", "-o", "out.mrc", "--halves", "--rotations", "4")
    assert list(found) == KEYS
    assert (found["format_version"], found["crefjax"], found["command"]) == (1, __version__, "denoise")
    assert found["inputs"] == {"half_map_1": str(pair[0]), "half_map_2": str(pair[1])}
    assert (found["box"], found["voxel_size"]) == ([20, 17, 23], 1.5)
    assert found["settings"]["weights"] == "small"
    assert found["settings"]["rotations"] == 4
    assert found["settings"]["scale"] == "signal"
    assert found["outputs"] == {
        "full": "out.mrc",
        "half_map_1": "out_half_map_1.mrc",
        "half_map_2": "out_half_map_2.mrc",
    }
    assert all(Path(path).is_file() for path in found["outputs"].values())
    assert found["warnings"] == []
    assert found["seconds"]["total"] >= found["seconds"]["denoising"] > 0
    assert "wrote out.mrc" in outcome.err


def test_resolution_in_the_record_is_that_of_the_half_maps(record, workdir):
    mask = np.zeros((20, 17, 23), "f4")
    mask[5:15, 3:14, 4:20] = 1
    write(workdir / "mask.mrc", mask)
    found = record("denoise", "-o", "out.mrc", "--mask", "mask.mrc")[0]["found"]
    halves = [half.astype("f8") for half in densities()]
    masked = [(half - np.average(half, weights=1 - mask)) * mask for half in halves]
    curve = slow_curve(*masked)[1]
    assert found["resolution_at_0.5"] == pytest.approx(slow_resolution(curve, 0.5, 23 * 1.5), rel=1e-3)
    assert found["measured_within"] == "mask"
    assert found["pair"] is True


def test_record_of_mask(record):
    found, outcome = record("mask", "-o", "mask.mrc")
    assert list(found) == KEYS
    written = read("mask.mrc")[0]
    assert found["found"]["fraction"] == pytest.approx((written >= 0.5).mean(), abs=1e-6)
    assert found["found"]["volume"] == pytest.approx((written >= 0.5).sum() * 1.5**3)
    assert f"threshold {found['settings']['threshold']:.4g}" in outcome.err
    assert found["outputs"] == {"mask": "mask.mrc"}
    assert all(f"note: {note}" in outcome.err for note in found["found"]["notes"])


def test_record_of_report(record, pair, workdir):
    full = write(workdir / "full.mrc", np.mean(densities(), axis=0, dtype="f4"))
    found, _ = record("report", "--denoised", full, "-o", "rep")
    assert list(found) == KEYS
    numbers = load((workdir / "rep/report.json").read_text())
    assert found["found"]["warnings"] == numbers["warnings"] != []
    assert found["found"]["cref_rmse"] == numbers["cref_rmse"]
    assert found["found"]["resolution_at_0.5"] == numbers["resolution"]["fsc_0.5"]["angstrom"]
    assert found["warnings"] == [warning["text"] for warning in numbers["warnings"]]
    assert found["outputs"] == {"report": "rep"}


def test_report_of_denoise_is_in_its_record(record, workdir):
    found, _ = record("denoise", "-o", "out.mrc", "--report", "rep")
    numbers = load((workdir / "rep/report.json").read_text())
    assert found["found"]["report"]["warnings"] == numbers["warnings"]
    assert found["outputs"]["report"] == "rep"


def test_warnings_and_findings_are_in_the_record(pair, weights, workdir):
    loud = write(workdir / "loud.mrc", 10 * densities()[1])
    outcome = run_ok("denoise", pair[0], loud, "-o", "out.mrc", "--weights", weights, "--json", "run.json")
    found = load((workdir / "run.json").read_text())
    (finding,) = [finding for finding in found["found"]["findings"] if finding["kind"] == "scale"]
    assert finding["numbers"]["ratio"] == pytest.approx(10, rel=0.1)
    assert finding["serious"] is False
    assert finding["text"] in found["warnings"]
    printed = re.findall(r"^warning: (.*)$", outcome.err, re.M)
    assert found["warnings"] == printed


def test_single_map_has_no_resolution(pair, weights, workdir):
    run_ok("denoise", pair[0], "-o", "out.mrc", "--weights", weights, "--json", "run.json")
    found = load((workdir / "run.json").read_text())
    assert found["found"]["resolution_at_0.143"] is None
    assert found["found"]["pair"] is None
    assert "one map given" in found["warnings"][0]


@pytest.mark.parametrize("command", ["fsc", "check"])
def test_other_commands_write_their_json_to_standard_output_too(command, record, pair, workdir):
    found, outcome = record(command)
    run_ok(command, *pair, "--json", "file.json")
    assert found == load((workdir / "file.json").read_text())
    assert "Å" in outcome.err


def test_a_refusal_writes_no_json(pair, weights, workdir):
    outcome = run_crefjax("denoise", pair[0], pair[0], "-o", "out.mrc", "--weights", weights, "--json", "-")
    assert (outcome.status, outcome.out) == (2, "")
    assert_refused(workdir, "denoise", pair[0], pair[0], "-o", "o.mrc", "--json", "run.json", names="half_1.mrc")


def test_earlier_record_is_replaced_and_another_file_is_not(pair, workdir):
    run_ok("mask", *pair, "-o", "mask.mrc", "--json", "run.json")
    run_ok("mask", *pair, "-o", "mask.mrc", "--json", "run.json", "--overwrite")
    (workdir / "mine.json").write_text('{"dear": "to the user"}')
    words = ["mask", *pair, "-o", "other.mrc", "--json"]
    assert_refused(workdir, *words, "mine.json", names="mine.json")
    assert_refused(workdir, *words, "run.txt", names=".json")
    assert_refused(workdir, *words, "none/run.json", names="does not exist")


def test_json_within_the_report_is_refused(pair, weights, workdir):
    (workdir / "rep").mkdir()
    words = ["denoise", *pair, "-o", "out.mrc", "--weights", weights, "--report", "rep", "--json", "rep/run.json"]
    assert_refused(workdir, *words, names="rep")


def test_names_that_are_not_utf8_are_written(pair, workdir):
    odd = workdir / os.fsdecode(b"h\xe9lice.mrc")
    pair[0].rename(odd)
    run_ok("mask", odd, pair[1], "-o", "mask.mrc", "--json", "run.json")
    assert load((workdir / "run.json").read_text())["inputs"]["half_map_1"] == str(odd)


def keys_of(value, prefix=""):
    for key, item in value.items():
        yield prefix + key
        if isinstance(item, dict) and key in ("found", "settings", "grid", "report"):
            yield from keys_of(item)


def test_every_key_is_documented(record, pair, workdir):
    documented = set(re.findall(r"`([\w.]+)`", PAGE.read_text(encoding="utf-8")))
    records = [
        record("denoise", "-o", "out.mrc", "--report", "rep")[0],
        record("mask", "-o", "mask.mrc")[0],
        record("report", "--denoised", "out.mrc", "-o", "rep2")[0],
    ]
    keys = {key for found in records for key in keys_of(found)}
    assert keys <= documented, keys - documented
