"""`crefjax denoise --entries`: many pairs, faults of single ones, and runs that continue an earlier one."""

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from helpers.cli import assert_refused, densities, read, run_crefjax, run_ok, tree, write


@pytest.fixture
def entries(workdir):
    """Write two entries of like boxes, of which the second has a mask."""
    folders = []
    for seed, name in enumerate(("one", "two")):
        folder = workdir / "entries" / name
        folder.mkdir(parents=True)
        for n, data in enumerate(densities(seed=seed), 1):
            write(folder / f"half_map_{n}.mrc", data)
        folders.append(folder)
    mask = np.zeros((20, 17, 23), "f4")
    mask[4:16, 3:14, 4:19] = 1
    write(folders[1] / "mask.mrc", mask)
    return folders


@pytest.fixture
def words(entries, weights):
    return ["denoise", "--entries", *entries, "-o", "out", "--weights", weights]


def rows(out):
    """Return the cells of every row of the table, by the entry's name."""
    lines = out.splitlines()
    assert lines[0].split() == ["entry", "FSC-0.143", "seconds", "warnings", "found"]
    return {line.split()[0]: re.split(r"\s{2,}", line.strip()) for line in lines[1:-1]}


def broken(workdir, name="broken"):
    """Write an entry whose second half-map is cut short."""
    folder = workdir / "entries" / name
    folder.mkdir()
    for n, data in enumerate(densities(seed=7), 1):
        path = write(folder / f"half_map_{n}.mrc", data)
    path.write_bytes(path.read_bytes()[:5000])
    return folder


def test_every_entry_gets_what_denoise_writes_for_it_alone(words, entries, weights, workdir):
    outcome = run_ok(*words, "--halves")
    assert sorted(os.listdir(workdir / "out")) == ["one", "two"]
    for folder in entries:
        made = workdir / "out" / folder.name
        assert set(tree(made)) == {"denoised.mrc", "denoised_half_map_1.mrc", "denoised_half_map_2.mrc", "run.json"}
        pair = [folder / "half_map_1.mrc", folder / "half_map_2.mrc"]
        mask = ["--mask", folder / "mask.mrc"] if folder.name == "two" else []
        run_ok("denoise", *pair, *mask, "-o", f"{folder.name}.mrc", "--weights", weights, "--halves")
        np.testing.assert_array_equal(read(made / "denoised.mrc")[0], read(f"{folder.name}.mrc")[0])
    assert not read("out/two/denoised.mrc")[0][0].any()  # outside its mask
    table = rows(outcome.out)
    assert set(table) == {"one", "two"}
    record = json.loads((workdir / "out/one/run.json").read_text())
    assert table["one"][1] == f"{record['found']['resolution_at_0.143']:.2f} Å"
    assert outcome.out.splitlines()[-1] == "2 entries: 2 done"


def test_like_boxes_are_compiled_for_once(weights, workdir, caplog):
    """The box is that of no other test, so that the first entry is compiled for; the second one then is not."""
    for name, seed in (("one", 0), ("two", 1)):
        (workdir / name).mkdir()
        for n, data in enumerate(densities((14, 22, 26), seed=seed), 1):
            write(workdir / name / f"half_map_{n}.mrc", data)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        counts = []
        for words in (["one", "-o", "first"], ["two", "one", "-o", "both"]):
            caplog.clear()
            run_ok("denoise", "--entries", *words, "--weights", weights)
            counts.append(sum("Finished XLA compilation" in record.getMessage() for record in caplog.records))
    assert counts[0] > 0
    assert counts[1] == 0


def test_a_bad_entry_is_reported_in_one_line_and_skipped(words, entries, workdir):
    bad = broken(workdir)
    outcome = run_crefjax(*words[:2], bad, *words[2:], "--json", "all.json")
    assert outcome.status == 1
    (line,) = [line for line in outcome.err.splitlines() if line.startswith("skipped ")]
    assert line.startswith(f"skipped broken: {bad}/half_map_2.mrc: the map is cut short")
    assert sorted(os.listdir(workdir / "out")) == ["one", "two"]
    assert rows(outcome.out)["broken"][-1].startswith("skipped: the map is cut short")
    assert outcome.out.splitlines()[-1] == "3 entries: 2 done, 1 skipped"
    content = json.loads((workdir / "all.json").read_text())
    assert {entry["name"]: entry["status"] for entry in content["entries"]} == {
        "broken": "skipped",
        "one": "done",
        "two": "done",
    }
    assert line == f"skipped broken: {content['entries'][0]['error']}"
    done = content["entries"][1]["run"]
    assert done["outputs"] == {"full": "out/one/denoised.mrc"}
    assert done["inputs"]["half_map_1"] == str(entries[0] / "half_map_1.mrc")


@pytest.mark.parametrize("fault", ["no folder", "no half-map", "not a pair", "mask of another grid"])
def test_faults_of_an_entry(fault, words, entries, workdir):
    first = entries[0]
    if fault == "no folder":
        shutil.rmtree(first)
    elif fault == "no half-map":
        (first / "half_map_2.mrc").unlink()
    elif fault == "not a pair":
        write(first / "half_map_2.mrc", densities(seed=0)[0] + 1e-4 * densities(seed=3)[0])
    else:
        write(first / "mask.mrc", np.ones((4, 4, 4), "f4"))
    outcome = run_crefjax(*words)
    assert outcome.status == 1
    assert outcome.err.count("skipped one: ") == 1
    assert "Traceback" not in outcome.err
    assert os.listdir(workdir / "out") == ["two"]


def test_finished_entries_are_skipped_and_others_continue(words, entries, workdir):
    bad = broken(workdir)
    words = [*words[:2], bad, *words[2:]]
    assert run_crefjax(*words).status == 1
    before = tree(workdir / "out")
    shutil.copy(entries[0] / "half_map_2.mrc", bad / "half_map_2.mrc")
    shutil.copy(entries[0] / "half_map_1.mrc", bad / "half_map_1.mrc")
    outcome = run_ok(*words)
    after = tree(workdir / "out")
    assert {name: after[name] for name in before} == before
    assert "broken/denoised.mrc" in after
    assert outcome.out.splitlines()[-1] == "3 entries: 1 done, 2 finished before"
    assert rows(outcome.out)["one"][-1].endswith("(finished before)")


def test_overwrite_denoises_again(words, workdir):
    run_ok(*words)
    stamp = (workdir / "out/one/denoised.mrc").stat().st_ino
    outcome = run_ok(*words, "--overwrite", "--scale", "none")
    assert outcome.out.splitlines()[-1] == "2 entries: 2 done"
    assert (workdir / "out/one/denoised.mrc").stat().st_ino != stamp
    assert json.loads((workdir / "out/one/run.json").read_text())["settings"]["scale"] == "none"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (["--scale", "none"], "other settings (scale not given, now none)"),
        (["--halves"], "other settings (halves off, now on)"),
        (["--rotations", "4"], "(rotations not given, now 4)"),
        ("input", "its half-map 2 has changed since"),
        ("mask", "(mask not given, now a file)"),
        ("output", "denoised.mrc: expected the output of a finished entry"),
        ("record", "run.json: expected the record"),
    ],
)
def test_an_entry_that_was_finished_otherwise_is_not_passed_off(change, told, words, entries, workdir):
    run_ok(*words)
    before = tree(workdir / "out/two")
    more = []
    if isinstance(change, list):
        more = change
    elif change == "input":
        write(entries[0] / "half_map_2.mrc", densities(seed=5)[1])
    elif change == "mask":
        shutil.copy(entries[1] / "mask.mrc", entries[0])
    elif change == "output":
        (workdir / "out/one/denoised.mrc").unlink()
    else:
        (workdir / "out/one/run.json").write_text("{}")
    outcome = run_crefjax(*words, *more)
    assert outcome.status == 1
    (line,) = [line for line in outcome.err.splitlines() if line.startswith("skipped one")]
    assert told in line
    assert "--overwrite" in line
    assert tree(workdir / "out/two") == before


def test_another_folder_in_the_place_of_an_output_is_kept(words, workdir):
    (workdir / "out/one").mkdir(parents=True)
    (workdir / "out/one/notes.txt").write_text("dear to the user")
    for more in ([], ["--overwrite"]):
        outcome = run_crefjax(*words, *more)
        assert outcome.status == 1
        assert "skipped one: out/one: " in outcome.err
    (workdir / "out/two/notes.txt").write_text("dear to the user")
    assert "skipped two: out/two: the folder also holds notes.txt" in run_crefjax(*words, "--overwrite").err
    assert (workdir / "out/one/notes.txt").read_text() == (workdir / "out/two/notes.txt").read_text()


def test_options_apply_to_each_entry(words, workdir):
    run_ok(*words, "--report", "rep", "--local", "--mask", "auto")
    for name in ("one", "two"):
        made = tree(workdir / "out" / name)
        assert {"rep/index.html", "denoised_local_agreement.mrc", "run.json"} <= set(made)
        assert not any(".tmp" in path for path in made)
        page = (workdir / "out" / name / "rep/view.cxc").read_text()
        assert "../denoised.mrc" in page
        assert "crefjax-" not in page
        assert (read(workdir / "out" / name / "denoised.mrc")[0] == 0).any()
    words[words.index("out")] = "bare"
    run_ok(*words, "--mask", "none")
    assert read("bare/two/denoised.mrc")[0].all()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--report", "a/b"], "--report"),
        (["--report", "run.json"], "--report"),
        (["--mask", "none.mrc"], "none.mrc"),
        (["--weights", "unknown"], "unknown"),
        (["--symmetry", "X3"], "X3"),
        (["--json", "run.txt"], ".json"),
    ],
)
def test_wrong_options_are_refused_before_any_entry(more, told, words, workdir):
    assert_refused(workdir, *words, *more, names=told)


def test_entries_of_one_name_are_refused(words, entries, workdir):
    other = workdir / "elsewhere" / "one"
    shutil.copytree(entries[0], other)
    message = assert_refused(workdir, *words[:2], other, *words[2:], names=[str(other), str(entries[0])])
    assert "twice" in message


def test_an_output_that_is_the_entry_itself_is_refused(words, workdir):
    words[words.index("out")] = "entries"
    assert_refused(workdir, *words, names="the entry itself")


def test_maps_beside_entries_and_neither_are_refused(words, entries, workdir):
    assert_refused(workdir, "denoise", entries[0] / "half_map_1.mrc", *words[1:], names="--entries")
    assert_refused(workdir, "denoise", "-o", "out.mrc", names=["HALF1", "--entries"])


@pytest.mark.slow
def test_a_killed_run_continues_where_it_was(entries, weights, workdir):
    """The process is stopped as soon as the first entry is there; the second one has nothing of it."""
    words = ["denoise", "--entries", *entries, "-o", "out", "--weights", weights]
    with subprocess.Popen([sys.executable, "-m", "crefjax", *map(str, words)], stderr=subprocess.PIPE) as running:
        until = time.monotonic() + 100
        while not (workdir / "out/one").exists() and running.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
        running.send_signal(signal.SIGTERM)
        err = running.stderr.read().decode()
    assert "Traceback" not in err
    if running.returncode != 0:
        assert running.returncode == 143
        assert os.listdir(workdir / "out") == ["one"]
    stamp = (workdir / "out/one/denoised.mrc").stat().st_mtime_ns
    run_ok(*words)
    assert (workdir / "out/one/denoised.mrc").stat().st_mtime_ns == stamp
    assert (workdir / "out/two/denoised.mrc").is_file()
