"""Parts of a dataset, prepared by several processes, and joined: the same bytes as one run."""

import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from helpers.cli import error_line, run_crefjax
from helpers.datasets import random_map, tree, write_entry, write_map

from crefjax.data.dataset_folder import Part, locked_dataset
from crefjax.data.manifest import load_manifest
from crefjax.data.prepare import prepare
from crefjax.errors import UserError

SETTINGS = {"patch": 16, "stride": 16, "validation": 0.3}


def prepared(entries, folder, **more):
    lines = []
    result = prepare(entries, folder, report=lines.append, **(SETTINGS | more))
    return result, lines


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    """Seven entries, three of which cannot be used: one is a copy, one has no half-map 2, one has a mask of zeros."""
    folder = tmp_path_factory.mktemp("entries")
    made = [write_entry(folder / f"e{n}", (16, 18, 20 + n), seed=n) for n in range(5)]
    made.append(shutil.copytree(made[1], folder / "f_copy_of_e1"))
    (made[2] / "half_map_2.mrc").unlink()
    write_map(made[3] / "mask.mrc", np.zeros((16, 18, 23), np.float32))
    made.append(write_entry(folder / "g", (20, 17, 16), seed=9))
    return made


@pytest.fixture(scope="module")
def whole(tmp_path_factory, entries):
    """The manifest, the lines, and the files of one run."""
    folder = tmp_path_factory.mktemp("whole") / "dataset"
    manifest, lines = prepared(entries, folder)
    assert [entry.name for entry in manifest.entries] == ["e0", "e1", "e4", "g"]
    assert set(manifest.left_out) == {"e2", "e3", "f_copy_of_e1"}
    return manifest, lines, tree(folder)


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_parts_in_any_order_are_joined_to_the_same_bytes(tmp_path, entries, whole, order):
    for number in order:
        summary, _ = prepared(entries, tmp_path / "dataset", part=Part(number, 3))
        assert summary.part == Part(number, 3)
        assert not (tmp_path / "dataset/manifest.json").exists()
    _, lines = prepared(entries, tmp_path / "dataset")
    assert sorted(lines) == sorted(whole[1])
    assert tree(tmp_path / "dataset") == whole[2]


def test_a_part_prepares_every_nth_entry(tmp_path, entries):
    summary, _ = prepared(entries, tmp_path / "dataset", part=Part(1, 3))  # e0, e3, g
    assert (summary.entries, set(summary.left_out)) == (2, {"e3"})
    assert {path.name for path in (tmp_path / "dataset/entries").iterdir()} == {"e0", "g"}


def test_joining_reads_no_map_again(tmp_path, entries, whole, monkeypatch):
    for number in (1, 2):
        prepared(entries, tmp_path / "dataset", part=Part(number, 2))

    def again(*_):
        raise AssertionError("a map was read again")

    with monkeypatch.context() as patch:
        patch.setattr("crefjax.data.prepare.inspect_entry", again)
        patch.setattr("crefjax.data.prepare.cut_entry", again)
        prepared(entries, tmp_path / "dataset")
    assert tree(tmp_path / "dataset") == whole[2]


def test_what_a_missing_part_would_have_done_is_done_when_joining(tmp_path, entries, whole):
    prepared(entries, tmp_path / "dataset", part=Part(2, 3))
    _, lines = prepared(entries, tmp_path / "dataset")
    assert lines[0] == "not finished: part 1 of 3, 3 of 3; what is missing is prepared now"
    assert tree(tmp_path / "dataset") == whole[2]


def test_entries_that_changed_since_their_part_are_read_again(tmp_path, entries):
    own = [shutil.copytree(entry, tmp_path / entry.name) for entry in entries[:2]]
    prepared(own, tmp_path / "dataset", part=Part(1, 1))
    write_map(own[1] / "half_map_1.mrc", random_map((16, 18, 21), 50))
    prepared(own, tmp_path / "dataset")
    prepared(own, tmp_path / "anew")
    assert tree(tmp_path / "dataset") == tree(tmp_path / "anew")


def test_truth_is_stored_only_if_the_entries_of_all_parts_have_it(tmp_path):
    own = [write_entry(tmp_path / f"t{n}", (16, 16, 18), seed=n, truth=n != 1) for n in range(4)]
    for number in (1, 2):
        prepared(own, tmp_path / "dataset", part=Part(number, 2))
    manifest, lines = prepared(own, tmp_path / "dataset")
    assert not manifest.truth
    assert lines == ["3 of 4 entries have a truth map, not all: none is stored"]
    prepared(own, tmp_path / "anew")
    assert tree(tmp_path / "dataset") == tree(tmp_path / "anew")


def test_a_part_of_a_complete_dataset_changes_nothing(tmp_path, entries, whole):
    prepared(entries, tmp_path / "dataset")
    _, lines = prepared(entries, tmp_path / "dataset", part=Part(1, 2))
    assert lines == [f"{tmp_path / 'dataset'} is complete: nothing was left to do"]
    assert tree(tmp_path / "dataset") == whole[2]


def test_parts_may_run_at_once_but_not_twice_nor_beside_the_whole(tmp_path):
    settings = {"settings": {}, "sources": [], "overwrite": False}
    with (
        locked_dataset(tmp_path / "d", part=Part(1, 2), **settings),
        locked_dataset(tmp_path / "d", part=Part(2, 2), **settings),
    ):
        with (
            pytest.raises(UserError, match="another crefjax prepare is writing part 1 of 2"),
            locked_dataset(tmp_path / "d", part=Part(1, 2), **settings),
        ):
            pass
        with (
            pytest.raises(UserError, match="another crefjax prepare is writing this dataset"),
            locked_dataset(tmp_path / "d", **settings),
        ):
            pass


@pytest.mark.parametrize("part", ["0/3", "4/3", "3", "a/b", "1/2/3", "-1/2"])
def test_invalid_parts_are_refused(tmp_path, part):
    outcome = run_crefjax("prepare", tmp_path, "-o", tmp_path / "d", f"--part={part}")
    assert "--part: expected K/N" in error_line(outcome.err, outcome.status)


def test_a_part_refuses_to_replace_a_dataset(tmp_path, entries):
    outcome = run_crefjax("prepare", *entries, "-o", tmp_path / "d", "--part", "1/2", "--overwrite")
    assert "a part would remove the others" in error_line(outcome.err, outcome.status)


def test_the_command_says_what_a_part_did_and_what_to_do_next(tmp_path, entries):
    outcome = run_crefjax("prepare", *entries, "-o", tmp_path / "d", "--patch", 16, "--part", "2/3")
    assert outcome.out.splitlines() == [
        "part 2 of 3: 8 patches of 2 entries",
        "when all parts are finished, run the same command without --part",
    ]


@pytest.mark.slow
def test_parts_that_are_killed_at_random_give_the_same_bytes(tmp_path, request):
    """With --full, of a hundred entries."""
    count, kill = (100, 4) if request.config.getoption("--full") else (10, 1)
    own = [write_entry(tmp_path / f"entries/e{n}", (16, 16, 17 + n % 7), seed=n) for n in range(count)]
    prepared(own, tmp_path / "whole")
    folder, chance, kills = tmp_path / "dataset", random.Random(1), 0
    words = [sys.executable, "-m", "crefjax", "prepare", *map(str, own), "-o", str(folder), "--quiet"]
    words += ["--patch", "16", "--stride", "16", "--validation", "0.3", "--jobs", str(1 + (count > 10))]
    while not all((Part(number, 2).folder(folder) / "found.json").exists() for number in (1, 2)):
        processes = [subprocess.Popen([*words, "--part", f"{number}/2"]) for number in (1, 2)]
        for process in processes:
            before = len(list(folder.glob("entries/*")))
            if kills < kill:
                while len(list(folder.glob("entries/*"))) < before + count // 10 and process.poll() is None:
                    time.sleep(0.002)
                time.sleep(chance.uniform(0, 0.1))
                process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
    assert kills >= kill
    prepared(own, folder)
    assert tree(folder) == tree(tmp_path / "whole")
    assert len(load_manifest(folder).entries) == count
