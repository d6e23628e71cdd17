import json
import shutil
import signal
import subprocess
import sys
import time

import pytest
from helpers.datasets import random_map, tree, write_entry, write_map

from crefjax.data import prepare_entry
from crefjax.data.manifest import load_manifest
from crefjax.data.prepare import locked_dataset, prepare
from crefjax.errors import UserError
from crefjax.utils.workers import run_tasks

SETTINGS = {"patch": 16, "stride": 8, "dtype": "float16", "validation": 0.5}


def prepared(entries, folder, **settings):
    lines = []
    prepare(entries, folder, report=lines.append, **(SETTINGS | settings))
    return lines


@pytest.fixture(scope="module")
def whole(tmp_path_factory, entries):
    """Return every file of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole") / "dataset"
    prepared(entries, folder)
    return tree(folder)


def test_any_number_of_jobs_and_any_order_give_the_same_bytes(tmp_path, entries, whole):
    prepared(entries[::-1], tmp_path / "dataset", jobs=2)
    assert tree(tmp_path / "dataset") == whole


def command(entries, folder, jobs):
    options = ["--patch", "16", "--stride", "8", "--validation", "0.5", "--jobs", str(jobs)]
    return [sys.executable, "-m", "crefjax", "prepare", *map(str, entries), "-o", str(folder), *options]


@pytest.mark.slow
@pytest.mark.parametrize(("jobs", "after"), [(1, 1), (1, 3), (2, 1)])
def test_a_killed_run_continues_to_the_same_bytes(tmp_path, entries, whole, jobs, after):
    """Killed as soon as some of the entries are finished, or while the next one is written."""
    folder = tmp_path / "dataset"
    process = subprocess.Popen(command(entries, folder, jobs), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(list(folder.glob("entries/*/entry.json"))) < after and process.poll() is None:
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = {path: path.stat().st_ino for path in folder.glob("entries/*/*.array_record")}
    prepared(entries, folder, jobs=jobs)
    assert tree(folder) == whole
    assert all(path.stat().st_ino == number for path, number in there.items())  # not cut again


@pytest.mark.parametrize("step", ["load_specimen", "_write_shards", "_entry"])
def test_an_interrupted_entry_leaves_nothing(tmp_path, entries, whole, monkeypatch, step):
    right, calls = getattr(prepare_entry, step), []

    def interrupted(*arguments, **words):
        calls.append(step)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return right(*arguments, **words)

    with monkeypatch.context() as patch:
        patch.setattr(prepare_entry, step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepared(entries, tmp_path / "dataset")
    assert {name for name in tree(tmp_path / "dataset") if "entries" in name} == {n for n in whole if "entries/e0" in n}
    with pytest.raises(UserError, match=r"the dataset is unfinished.*to finish it"):
        load_manifest(tmp_path / "dataset")
    prepared(entries, tmp_path / "dataset")
    assert tree(tmp_path / "dataset") == whole


def test_a_complete_dataset_is_not_changed(tmp_path, entries, whole):
    prepared(entries, tmp_path / "dataset")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "dataset").rglob("*") if path.is_file()}
    lines = prepared(entries, tmp_path / "dataset", jobs=2)
    assert lines == [f"{tmp_path / 'dataset'} is complete: nothing was left to do"]
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "dataset").rglob("*") if path.is_file()}


def test_missing_or_damaged_files_are_prepared_again(tmp_path, entries, whole):
    folder = tmp_path / "dataset"
    prepared(entries, folder)
    (folder / "entries/e1/00000.array_record").unlink()
    with open(folder / "entries/e2/00000.array_record", "ab") as file:
        file.write(b"more")
    (folder / "entries/e3/entry.json").write_text("{")
    (folder / ".crefjax-0123.tmp").mkdir()  # as a killed run leaves it
    prepared(entries, folder)
    assert tree(folder) == whole


def test_changed_half_maps_are_cut_again(tmp_path, entries):
    own = [shutil.copytree(entry, tmp_path / entry.name) for entry in entries[:2]]
    prepared(own, tmp_path / "dataset")
    write_map(own[1] / "half_map_1.mrc", random_map((16, 33, 18), 50))
    prepared(own, tmp_path / "dataset")
    prepared(own, tmp_path / "anew")
    assert tree(tmp_path / "dataset") == tree(tmp_path / "anew")
    (own[1] / "half_map_2.mrc").unlink()
    lines = prepared(own, tmp_path / "dataset")
    assert lines[0].startswith("skipped e1: ")
    assert [entry.name for entry in load_manifest(tmp_path / "dataset").entries] == ["e0"]
    assert not (tmp_path / "dataset/entries/e1").exists()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"patch": 18}, "started with `patch` 16, not 18"),
        ({"stride": 9}, "started with `stride` 8, not 9"),
        ({"dtype": "float32"}, "started with `dtype` float16, not float32"),
        ({"validation": 0.1}, "started with `validation` 0.5, not 0.1"),
        ({"seed": 1}, "started with `seed` 0, not 1"),
    ],
)
def test_other_settings_are_refused_and_change_nothing(tmp_path, entries, whole, other, message):
    prepared(entries, tmp_path / "dataset")
    with pytest.raises(UserError, match=f"{message}; use the same, give `overwrite`"):
        prepared(entries, tmp_path / "dataset", **other)
    assert tree(tmp_path / "dataset") == whole


def test_other_entries_are_refused(tmp_path, entries, whole):
    prepared(entries, tmp_path / "dataset")
    more = write_entry(tmp_path / "more", seed=30)
    with pytest.raises(UserError, match=r"started with other entries .*more is new.*e0 is missing"):
        prepared([*entries[1:], more], tmp_path / "dataset")
    assert tree(tmp_path / "dataset") == whole


def test_overwrite_starts_over_and_keeps_other_files(tmp_path, entries, whole):
    prepared(entries[:1], tmp_path / "dataset", seed=4)
    (tmp_path / "dataset/notes.txt").write_text("mine")
    prepared(entries, tmp_path / "dataset", overwrite=True)
    found = tree(tmp_path / "dataset")
    assert found.pop("notes.txt")
    assert found == whole


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_not_a_dataset_is_never_changed(tmp_path, entries, overwrite):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.png").write_bytes(b"cat")
    with pytest.raises(UserError, match="so it is not a dataset"):
        prepared(entries, tmp_path / "photos", overwrite=overwrite)
    (tmp_path / "photos/dataset.json").write_text('{"format": "of another program"}')
    with pytest.raises(UserError, match=r"`overwrite`|expected a"):
        prepared(entries, tmp_path / "photos", overwrite=overwrite)
    with pytest.raises(UserError, match="lies inside this folder"):
        prepared(entries, entries[0].parent, overwrite=overwrite)
    assert sorted(path.name for path in (tmp_path / "photos").iterdir()) == ["cat.png", "dataset.json"]
    assert entries[0].is_dir()


def test_an_empty_folder_is_used_and_a_missing_parent_refused(tmp_path, entries, whole):
    (tmp_path / "dataset").mkdir()
    prepared(entries, tmp_path / "dataset")
    assert tree(tmp_path / "dataset") == whole
    with pytest.raises(UserError, match="does not exist; make it first"):
        prepared(entries, tmp_path / "a" / "b")


def test_a_dataset_is_locked_against_a_second_process(tmp_path, entries):
    with (
        locked_dataset(tmp_path / "dataset", {}, [], overwrite=False),
        pytest.raises(UserError, match="another crefjax prepare"),
        locked_dataset(tmp_path / "dataset", {}, [], overwrite=False),
    ):
        pass


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OSError(5, "Input/output error")])
def test_preparation_continues_after_a_full_disk(tmp_path, entries, whole, monkeypatch, error):
    right, calls = prepare_entry.shards.write_shard, []

    def failing(path, records, **words):
        calls.append(path)
        if len(calls) == 3:
            path.write_bytes(b"half a shard")
            raise error
        return right(path, records, **words)

    with monkeypatch.context() as patch:
        patch.setattr(prepare_entry.shards, "write_shard", failing)
        with pytest.raises(UserError, match=f"dataset: .*{error.strerror}.*run the same command again"):
            prepared(entries, tmp_path / "dataset")
    assert sorted(path.name for path in (tmp_path / "dataset").iterdir()) == ["dataset.json", "entries"]
    assert len(list((tmp_path / "dataset/entries").iterdir())) == 2
    prepared(entries, tmp_path / "dataset")
    assert tree(tmp_path / "dataset") == whole


def _end_or_double(task):
    if task == "end":
        import os

        os.kill(os.getpid(), signal.SIGKILL)
    if task == "raise":
        raise UserError("no")
    return 2 * task


def test_a_killed_worker_is_reported(tmp_path, entries, monkeypatch):
    monkeypatch.setattr("crefjax.data.prepare.cut_entry", _kill_oneself)
    with pytest.raises(UserError, match=r"dataset: a worker process was killed.*fewer `jobs`"):
        prepared(entries, tmp_path / "dataset", jobs=2)
    assert not (tmp_path / "dataset").exists()


def _kill_oneself(_):
    _end_or_double("end")


def test_exceptions_of_workers_are_raised():
    found = []
    with pytest.raises(UserError, match=r"^no$"):
        found.extend(run_tasks(_end_or_double, [1, "raise", 2, 3], jobs=2))
    assert set(found) <= {(1, 2), (2, 4), (3, 6)}


def test_files_contain_neither_times_nor_temporary_paths(tmp_path, entries, whole):
    prepared(entries, tmp_path / "dataset")
    for path in (tmp_path / "dataset").rglob("*.json"):
        text = json.dumps(json.loads(path.read_text()))
        assert ".crefjax-" not in text
        assert str(tmp_path) not in text
