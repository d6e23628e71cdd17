"""Folders that appear at once, small files, and the final path in the messages about temporary ones."""

import errno
import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from crefjax.errors import UserError, path_error
from crefjax.utils.atomic import (
    atomic_directory,
    end_writing,
    is_disk_full,
    remove_temporary,
    temporary_sibling,
    write_json,
)


def test_directory_replaces_the_old_one(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("")
    with atomic_directory(tmp_path / "out") as folder:
        (folder / "new").write_text("")
        assert os.listdir(tmp_path / "out") == ["old"]
    assert os.listdir(tmp_path / "out") == ["new"]
    assert os.listdir(tmp_path) == ["out"]


def test_failure_in_a_directory_names_the_final_path(tmp_path):
    def fail():
        with atomic_directory(tmp_path / "out") as folder:
            raise path_error(folder / "map.mrc", f"no space left in {folder}; make room")

    with pytest.raises(UserError) as caught:
        fail()
    out = tmp_path / "out"
    assert str(caught.value) == f"{out / 'map.mrc'}: no space left in {out}; make room"
    assert os.listdir(tmp_path) == []


def test_other_errors_in_a_directory_are_unchanged(tmp_path):
    for error in (UserError("no path"), path_error("elsewhere.mrc", "wrong")):

        def fail(error=error):
            with atomic_directory(tmp_path / "out"):
                raise error

        with pytest.raises(UserError) as caught:
            fail()
        assert caught.value is error


def test_temporary_files_are_removed_before_a_program_ends(tmp_path):
    with temporary_sibling(tmp_path / "out") as hidden:
        hidden.mkdir()
        (hidden / "file").write_text("")
        remove_temporary()
        assert os.listdir(tmp_path) == []


def test_after_the_end_of_writing_threads_end_instead_of_waiting(tmp_path, monkeypatch):
    monkeypatch.setattr("crefjax.utils.atomic._ended", False)  # restored afterwards
    end_writing()

    def make_folder():
        with atomic_directory(tmp_path / "folder"):
            pass

    with ThreadPoolExecutor(2) as threads:
        for work in (make_folder, lambda: write_json(tmp_path / "a.json", {})):
            with pytest.raises(SystemExit):
                threads.submit(work).result(timeout=60)
    assert os.listdir(tmp_path) == []


def test_json_is_written_completely_or_not_at_all(tmp_path):
    write_json(tmp_path / "a.json", {"name": "Å", "value": 1.5})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"name": "Å", "value": 1.5}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"value": float("nan")})
    assert "1.5" in (tmp_path / "a.json").read_text(encoding="utf-8")
    with pytest.raises(UserError, match=r"b\.json: cannot be written"):
        write_json(tmp_path / "no" / "b.json", {})


@pytest.mark.parametrize(("name", "full"), [("ENOSPC", True), ("EDQUOT", True), ("EFBIG", True), ("EIO", False)])
def test_errors_of_a_full_disk(name, full):
    assert is_disk_full(OSError(getattr(errno, name), name)) is full


def test_error_keeps_its_path_and_is_one_line():
    error = path_error("a\nb.mrc", "expected a map")
    assert (error.path, error.text, str(error)) == ("a\nb.mrc", "expected a map", "a b.mrc: expected a map")
