"""Output paths are checked early; files appear complete or not at all; checksums and JSON lines."""

import hashlib
import json
import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from helpers.mrc_bytes import valid

from crefjax.io.files import check_output, check_output_file, check_output_folder, read_json_lines, sha256
from crefjax.io.maps import Map, write_map
from crefjax.utils.atomic import atomic_write

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def map_():
    return Map.from_array(np.arange(24).reshape(2, 3, 4), 1.5)


def test_existing_file_is_kept_without_overwrite(tmp_path, refused, map_):
    out = tmp_path / "out.mrc"
    out.write_bytes(b"precious")
    for call in (lambda: check_output(out), lambda: write_map(out, map_, label="x")):
        refused(call, names="out.mrc", match="exists.*`overwrite`")
    assert out.read_bytes() == b"precious"
    check_output(out, overwrite=True)
    write_map(out, map_, label="x", overwrite=True)
    assert valid(out)
    assert os.listdir(tmp_path) == ["out.mrc"]


def test_dangling_link_counts_as_a_file(tmp_path, refused):
    (tmp_path / "out.mrc").symlink_to("gone.mrc")
    refused(check_output, tmp_path / "out.mrc", names="out.mrc", match="exists")


def test_overwriting_a_link_leaves_its_target(tmp_path, map_):
    (tmp_path / "target.mrc").write_bytes(b"precious")
    (tmp_path / "out.mrc").symlink_to("target.mrc")
    write_map(tmp_path / "out.mrc", map_, label="x", overwrite=True)
    assert (tmp_path / "target.mrc").read_bytes() == b"precious"
    assert not (tmp_path / "out.mrc").is_symlink()


def test_file_that_appears_while_writing_is_kept(tmp_path, refused, map_, monkeypatch):
    real = os.fsync
    out = tmp_path / "out.mrc"

    def fsync(descriptor):
        out.write_bytes(b"precious")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    refused(write_map, out, map_, label="x", names="out.mrc", match="exists")
    assert out.read_bytes() == b"precious"
    assert os.listdir(tmp_path) == ["out.mrc"]


@pytest.mark.parametrize("name", ["out", "out.gz", "out.mrcs", "out.mrc.xz", ".mrc"])
def test_other_suffixes_are_refused(tmp_path, refused, name):
    refused(check_output, tmp_path / name, names=name, match="must end in one of .mrc, .map, .ccp4")


def test_impossible_output_paths_are_refused(tmp_path, refused):
    refused(check_output, tmp_path / "no" / "out.mrc", names="out.mrc", match="no does not exist; make it")
    (tmp_path / "folder.mrc").mkdir()
    refused(check_output, tmp_path / "folder.mrc", overwrite=True, names="folder.mrc", match="found a folder")
    (tmp_path / "file").write_bytes(b"")
    refused(check_output, tmp_path / "file" / "out.mrc", names="out.mrc", match="does not exist")
    refused(check_output, tmp_path / ("x" * 300 + ".mrc"), names="xxx.mrc", match="too long")


def test_input_is_never_overwritten(tmp_path, refused):
    (tmp_path / "in.mrc").write_bytes(b"")
    (tmp_path / "link.mrc").symlink_to("in.mrc")
    inputs = [None, tmp_path / "gone.mrc", tmp_path / "in.mrc"]
    for name in ("in.mrc", "link.mrc"):
        refused(
            check_output,
            tmp_path / name,
            overwrite=True,
            inputs=inputs,
            names=name,
            match="replace the input",
        )
    check_output(tmp_path / "out.mrc", inputs=inputs)


def test_folder_without_permission_is_refused(tmp_path, refused, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    refused(check_output, tmp_path / "out.mrc", names="out.mrc", match="not writable")


def test_read_only_folder_is_refused(tmp_path, refused):
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("root may write everywhere")
    refused(check_output, tmp_path / "out.mrc", names="out.mrc", match="not writable")
    tmp_path.chmod(0o700)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_obey_the_umask(tmp_path, map_, umask, mode):
    old = os.umask(umask)
    try:
        write_map(tmp_path / "out.mrc", map_, label="x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "out.mrc").stat().st_mode) == mode


def failing(error):
    def fail(*args, **kwargs):
        raise error

    return fail


@pytest.mark.parametrize(
    ("number", "match"),
    [
        (28, r"no space left .*0.00107 MiB needed, [0-9.e+]+ GiB free in"),  # ENOSPC; 1024 + 4 * 24 bytes
        (122, "no space left"),  # EDQUOT
        (27, "no space left"),  # EFBIG
        (5, "cannot be written .Input/output error"),
    ],
)
@pytest.mark.parametrize("step", ["fsync", "replace", "open"])
@pytest.mark.parametrize("existing", [False, True])
def test_failed_write_changes_nothing(tmp_path, refused, map_, monkeypatch, step, number, match, existing):
    out = tmp_path / "out.mrc.gz"
    if existing:
        out.write_bytes(b"precious")
    monkeypatch.setattr(os, step, failing(OSError(number, os.strerror(number))))
    refused(write_map, out, map_, label="x", overwrite=True, names="out.mrc.gz", match=match)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"precious"] * existing


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, ZeroDivisionError])
def test_exception_while_writing_leaves_nothing(tmp_path, map_, monkeypatch, error):
    monkeypatch.setattr(os, "fsync", failing(error))
    with pytest.raises(error):
        write_map(tmp_path / "out.mrc", map_, label="x")
    assert list(tmp_path.iterdir()) == []


def test_interrupt_while_writing_voxels_leaves_nothing(tmp_path):
    def write():
        with atomic_write(tmp_path / "out.mrc.bz2", needed=1, overwrite=False) as stream:
            stream.write(bytes(10**6))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_synced_is_accepted(tmp_path, map_, monkeypatch):
    real = os.fsync

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(22, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_map(tmp_path / "out.mrc", map_, label="x")
    assert valid(tmp_path / "out.mrc")


WRITES_TOO_MUCH = """
    import sys
    import numpy as np
    from crefjax.errors import UserError
    from crefjax.io.maps import Map, write_map
    noise = np.random.default_rng(0).normal(size=(64, 64, 64))
    try:
        write_map(sys.argv[1], Map.from_array(noise, 1), label="x", overwrite=True)
    except UserError as error:
        print(error)
        sys.exit(2)
"""


def write_too_much(path, limit=None):
    """Write a map in a process with a limit on the size of files; this process has JAX and cannot fork safely."""
    code = textwrap.dedent(WRITES_TOO_MUCH)
    if limit is not None:
        code = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n{code}"
    command = [sys.executable, "-W", "error", "-c", code, str(path)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["out.mrc", "out.mrc.gz", "out.mrc.bz2"])
@pytest.mark.parametrize("limit", [0, 1000, 2**18])
def test_file_size_limit_is_reported_as_no_space(tmp_path, name, limit):
    (tmp_path / name).write_bytes(b"precious")
    run = write_too_much(tmp_path / name, limit)
    assert (run.returncode, run.stderr) == (2, "")
    assert run.stdout.count("\n") == 1
    assert f"{name}: no space left (File too large): up to 1 MiB needed" in run.stdout
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"precious"]


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"no small disk can be had: {error}")
    if done.returncode:
        pytest.skip(f"no small disk can be had: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("name", ["out.mrc", "out.mrc.gz"])
def test_full_disk_is_reported_and_leaves_nothing(small_disk, name):
    run = write_too_much(small_disk / name)
    assert (run.returncode, run.stderr) == (2, "")
    assert f"{name}: no space left (No space left on device)" in run.stdout
    assert list(small_disk.iterdir()) == []


def test_json_lines_end_at_the_first_incomplete_one(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_json_lines(path) == []
    path.write_text(json.dumps({"step": 1}) + "\n" + '{"step": 2}\n{"ste')
    assert read_json_lines(path) == [{"step": 1}, {"step": 2}]


def test_checksum_is_that_of_hashlib(tmp_path, refused):
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256(tmp_path / "file") == hashlib.sha256(b"abc").hexdigest()
    refused(sha256, tmp_path / "missing", names="missing", match="cannot be read")


def test_output_folder_may_be_new_or_empty(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        check_output_folder(tmp_path / name, "a report", "report.json")
    check_output_folder(tmp_path / "no" / "new", "a report", "report.json", make_parents=True)
    assert os.listdir(tmp_path) == ["empty"]


def test_only_an_earlier_output_folder_is_overwritten(tmp_path, refused):
    def check(name):
        return check_output_folder, tmp_path / name, "a report", "report.json"

    (tmp_path / "earlier").mkdir()
    (tmp_path / "earlier" / "report.json").write_text("")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("")
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("earlier")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("earlier", "other", "file", "link", "dangling"):
        refused(*check(name), names=name, match="exists and is not replaced; .* `overwrite`")
    check_output_folder(tmp_path / "earlier", "a report", "report.json", overwrite=True)
    for name in ("other", "file", "link", "dangling"):
        refused(*check(name), overwrite=True, names=name, match="expected a report to replace")
    refused(*check("no/new"), names="no/new", match="does not exist; make it first")


def test_output_folder_never_contains_inputs_outputs_or_the_working_folder(tmp_path, refused, monkeypatch):
    call = check_output_folder, tmp_path / "out", "a report", "report.json"
    (tmp_path / "out").mkdir()
    refused(*call, inputs=[tmp_path / "out" / "in.mrc"], names="out", match="replace the folder of the input")
    refused(*call, outputs=[tmp_path / "out" / "map.mrc"], names="out", match="replace the folder of the output")
    refused(*call, outputs=[tmp_path / "out"], names="out", match="found the name of an output")
    monkeypatch.chdir(tmp_path / "out")
    refused(*call, names="out", match="the folder you work in")


def test_small_output_replaces_only_an_earlier_one(tmp_path, refused):
    (tmp_path / "earlier.json").write_text('{"findings": []}')
    (tmp_path / "empty.json").write_text("")
    (tmp_path / "other.json").write_text("{}")
    for name in ("new.json", "earlier.json", "empty.json"):
        check_output_file(tmp_path / name, suffixes=(".json",), marker=b'"findings"')
    check_output_file(tmp_path / "other.json")
    refused(check_output_file, tmp_path / "other.json", marker=b'"findings"', names="other.json", match="not replaced")
    refused(check_output_file, tmp_path / "a.txt", suffixes=(".png", ".svg"), names="a.txt", match=r"in \.png or \.svg")
    refused(check_output_file, tmp_path, names=tmp_path.name, match="found a folder")
    refused(check_output_file, tmp_path / "no" / "a.json", names="a.json", match="does not exist; make it first")
    inputs = [None, tmp_path / "empty.json"]
    refused(check_output_file, inputs[1], inputs=inputs, names="empty.json", match="replace the input")
