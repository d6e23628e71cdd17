"""Outputs that exist, cannot be written, or would replace an input."""

import contextlib
import os
import shutil
import subprocess
import sys

import pytest
from helpers.cli import OPENERS, assert_refused, densities, error_line, run_crefjax, run_ok, tree, write

WRITERS = ["denoise", "mask"]


@pytest.fixture
def writers(pair, weights):
    """Return a function that makes the command line of a command and an output."""

    def make(command, output, *more):
        extra = ["--weights", weights] if command == "denoise" else []
        return [command, *pair, "-o", output, *extra, *more]

    return make


@pytest.mark.parametrize("command", WRITERS)
def test_existing_output_is_kept(command, writers, workdir):
    (workdir / "out.mrc").write_text("dear to the user")
    message = assert_refused(workdir, *writers(command, "out.mrc"), names="out.mrc")
    assert "--overwrite" in message


@pytest.mark.parametrize("half", [1, 2])
def test_existing_denoised_half_map_is_kept(half, writers, workdir):
    (workdir / f"out_half_map_{half}.mrc").write_text("dear to the user")
    message = assert_refused(workdir, *writers("denoise", "out.mrc", "--halves"), names=f"out_half_map_{half}.mrc")
    assert "--overwrite" in message


@pytest.mark.parametrize("command", WRITERS)
@pytest.mark.parametrize("more", [(), ("--overwrite",)])
def test_output_in_a_missing_folder_is_refused(command, more, writers, workdir):
    assert_refused(workdir, *writers(command, workdir / "nowhere" / "out.mrc", *more), names="nowhere")


@pytest.mark.parametrize("command", WRITERS)
@pytest.mark.parametrize("more", [(), ("--overwrite",)])
def test_output_that_is_a_folder_is_refused(command, more, writers, workdir):
    (workdir / "out.mrc").mkdir()
    assert_refused(workdir, *writers(command, "out.mrc", *more), names="out.mrc")


@pytest.mark.parametrize("command", WRITERS)
@pytest.mark.parametrize("name", ["out.txt", "out.png", "out", "out.mrc.zip", "", "out.mrcs"])
def test_output_without_a_map_suffix_is_refused(command, name, writers, workdir):
    assert_refused(workdir, *writers(command, name))


@pytest.mark.parametrize("command", WRITERS)
@pytest.mark.parametrize("more", [(), ("--overwrite",)])
@pytest.mark.parametrize("spelling", ["half_1.mrc", "half_2.mrc", "./sub/../half_2.mrc", "link.mrc", "hard.mrc"])
def test_input_is_never_replaced(command, more, spelling, writers, workdir):
    (workdir / "sub").mkdir()
    (workdir / "link.mrc").symlink_to("half_1.mrc")
    os.link(workdir / "half_1.mrc", workdir / "hard.mrc")
    assert_refused(workdir, *writers(command, spelling, *more))


def test_denoised_half_map_never_replaces_an_input(workdir, weights):
    pair = [write(workdir / f"emd_half_map_{n}.mrc", data) for n, data in enumerate(densities(), 1)]
    words = ["denoise", *pair, "-o", "emd.mrc", "--weights", weights, "--halves", "--overwrite"]
    assert_refused(workdir, *words, names="emd_half_map_1.mrc")


def test_mask_is_never_replaced(writers, workdir):
    run_ok(*writers("mask", workdir / "mask.mrc"))
    assert_refused(workdir, *writers("denoise", "mask.mrc", "--mask", "mask.mrc", "--overwrite"), names="mask.mrc")


@pytest.mark.parametrize("option", ["--json", "--plot"])
@pytest.mark.parametrize("spelling", ["half_1.png", "./half_1.png", "link.png"])
def test_fsc_never_replaces_an_input(option, spelling, pair, workdir):
    shutil.copy(pair[0], workdir / "half_1.png")
    (workdir / "link.png").symlink_to("half_1.png")
    before = tree(workdir)
    outcome = run_crefjax("fsc", "half_1.png", "half_2.mrc", option, spelling)
    assert tree(workdir) == before
    error_line(outcome.err, outcome.status)


def test_fsc_never_replaces_its_mask(pair, workdir):
    run_ok("mask", *pair, "-o", "mask.mrc")
    assert_refused(workdir, "fsc", *pair, "--mask", "mask.mrc", "--json", "mask.mrc")


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_fsc_into_a_missing_folder_is_refused(option, pair, workdir):
    assert_refused(workdir, "fsc", *pair, option, workdir / "nowhere" / "fsc.png", names="nowhere")


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_fsc_into_a_folder_is_refused(option, pair, workdir):
    (workdir / "fsc.png").mkdir()
    assert_refused(workdir, "fsc", *pair, option, "fsc.png", names="fsc.png")


@pytest.mark.parametrize("name", ["fsc.xyz", "fsc"])
def test_unknown_plot_format_is_refused_and_leaves_no_json(name, pair, workdir):
    assert_refused(workdir, "fsc", *pair, "--json", "fsc.json", "--plot", name, names=name)


def test_json_and_plot_in_one_file_is_refused(pair, workdir):
    assert_refused(workdir, "fsc", *pair, "--json", "both.png", "--plot", "both.png", names="both.png")


def run_in_little_space(words, folder, limit):
    """Run the command in a process whose files are limited to `limit` bytes."""
    program = (
        f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); "
        "from crefjax.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, words)], cwd=folder, capture_output=True, text=True, timeout=100
    )


@pytest.mark.parametrize("output", ["out.mrc", "out.mrc.gz"])
def test_file_size_limit_leaves_no_file(output, writers, workdir):
    words = writers("denoise", output)
    before = tree(workdir)
    ended = run_in_little_space(words, workdir, 3000)
    assert tree(workdir) == before
    error_line(ended.stderr, ended.returncode)


def test_file_size_limit_keeps_the_old_output(writers, workdir):
    (workdir / "out.mrc").write_text("earlier output")
    before = tree(workdir)
    ended = run_in_little_space(writers("mask", "out.mrc", "--overwrite"), workdir, 3000)
    assert tree(workdir) == before
    error_line(ended.stderr, ended.returncode)


@pytest.fixture
def small_disk(workdir):
    """Mount a disk of 128 KiB, or skip the test."""
    disk = workdir / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    words = [mount, "-t", "tmpfs", "-o", "size=128k", "none", str(disk)]
    if mount is None or subprocess.run(words, capture_output=True).returncode != 0:
        pytest.skip("no file system can be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def fill(path):
    """Fill a disk."""
    with contextlib.suppress(OSError), open(path, "wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


def test_full_disk_leaves_no_file(small_disk, writers, pair, arrays_file, workdir):
    """28 KiB are free: the map's 31 KiB, the figure and the weights do not fit."""
    (small_disk / "ballast").write_bytes(bytes(100 * 1024))
    for suffix in ["", *OPENERS]:
        for command in WRITERS if not suffix else ["denoise"]:
            message = assert_refused(workdir, *writers(command, small_disk / f"out.mrc{suffix}"), names="out.mrc")
            assert "space" in message
    fill(small_disk / "more")
    for option in ("--json", "--plot"):
        message = assert_refused(workdir, "fsc", *pair, option, small_disk / "fsc.png", names="fsc.png")
        assert "space" in message
    message = assert_refused(workdir, "weights", "import", arrays_file, "-o", small_disk / "imported")
    assert "space" in message


def test_full_disk_at_the_second_output_leaves_no_output(small_disk, writers, workdir):
    """There is space for two maps, not for three."""
    (small_disk / "ballast").write_bytes(bytes(48 * 1024))
    assert_refused(workdir, *writers("denoise", small_disk / "out.mrc", "--halves"))


def test_full_disk_keeps_the_old_outputs(small_disk, writers, workdir):
    for name in ("out.mrc", "out_half_map_1.mrc", "out_half_map_2.mrc"):
        (small_disk / name).write_text(f"the older {name}")
    (small_disk / "ballast").write_bytes(bytes(48 * 1024))
    assert_refused(workdir, *writers("denoise", small_disk / "out.mrc", "--halves", "--overwrite"))


def test_read_only_folder_is_refused(small_disk, writers, workdir):
    words = ["mount", "-o", "remount,ro", str(small_disk)]
    if subprocess.run(words, capture_output=True).returncode != 0:
        pytest.skip("the file system cannot be made read-only")
    assert_refused(workdir, *writers("denoise", small_disk / "out.mrc"), names="out.mrc")
