import json
import os
import re
import signal
import subprocess
import sys
import time

import mrcfile
import numpy as np
import pytest
from helpers.cli import assert_refused, densities, error_line, run_crefjax, run_ok, tree, write
from scipy.signal import resample

from crefjax.data.grid import find_grid
from crefjax.spectral.b_factors import apply_b_factor


@pytest.fixture
def entries(workdir):
    """Write three entry folders of 20 x 17 x 23 voxels, without masks."""
    folders = [workdir / f"entry {number}" for number in range(3)]
    for number, folder in enumerate(folders):
        folder.mkdir()
        for half, array in enumerate(densities(seed=number), 1):
            write(folder / f"half_map_{half}.mrc", array)
    return folders


def prepare(entries, *more):
    return ["prepare", *entries, "-o", "dataset", "--patch", 16, "--stride", 16, *more]


def test_prepare_prints_a_summary(workdir, entries):
    outcome = run_ok(*prepare(entries))
    assert outcome.err == ""
    manifest = json.loads((workdir / "dataset/manifest.json").read_text())
    counts = manifest["patches"]
    assert outcome.out.splitlines()[:3] == [
        f"training: {counts['training']} patches of 2 entries",
        f"validation: {counts['validation']} patches of 1 entry",
        "masks were made for 3 entries without one; manifest.json has the settings",
    ]
    assert outcome.out.splitlines()[3].startswith("dataset: patches of 16³ voxels as float16, ")
    before = tree(workdir)
    again = run_ok(*prepare(entries, "--jobs", 1))
    assert again.err == "dataset is complete: nothing was left to do\n"
    assert tree(workdir) == before


def test_entries_are_resampled_to_the_grid_of_the_data(workdir):
    """The reference is SciPy's Fourier resampling; level and root mean square are those within the mask."""
    more = ("--voxel-size", 1.1, "--resolution", 4.6, "--residues", 120, "--margin", 10)
    run_ok("simulate", "phantom", "-o", "phantom", *more)
    call = ["prepare", "phantom", "-o", "dataset", "--patch", 16, "--validation", 0]
    run_ok(*call, "--grid", "data")
    manifest = json.loads((workdir / "dataset/manifest.json").read_text())
    assert manifest["grid"] == 3.3
    (entry,) = manifest["entries"]
    first, second, mask = (
        mrcfile.read(workdir / f"phantom/{name}.mrc") for name in ("half_map_1", "half_map_2", "mask")
    )
    side = entry["box"][0]
    assert 4.6 / entry["voxel_size"] == pytest.approx(3.3, rel=0.06)
    assert side * entry["voxel_size"] == pytest.approx(len(mask) * 1.1)
    assert side < len(mask)
    grid = find_grid([first, second], 1.1, mask, voxels=3.3)
    assert grid.blur > 0
    full, inside = (first + second) / 2, mask.astype(np.float64)
    for axis in range(3):
        full, inside = (resample(array, side, axis=axis) for array in (full, inside))
    full, inside = apply_b_factor(full.astype(np.float32), entry["voxel_size"], grid.blur), np.clip(inside, 0, 1)
    level = np.average(full, weights=1 - inside)
    assert entry["mean"] == pytest.approx(level, abs=1e-4 * float(full.std()))
    assert entry["deviation"] == pytest.approx(np.sqrt(np.average((full - level) ** 2, weights=inside)), rel=1e-4)
    assert_refused(workdir, *call, names="started with --grid data, not input")


def test_unusable_entry_is_reported_and_skipped(workdir, entries):
    (entries[1] / "half_map_2.mrc").unlink()
    outcome = run_ok(*prepare(entries))
    assert len(outcome.err.splitlines()) == 1
    assert outcome.err.startswith(f"skipped entry 1: {entries[1]}: expected half_map_2.mrc")
    assert "skipped 1 of 3: entry 1" in outcome.out.splitlines()


def test_prepare_fails_without_a_usable_entry(workdir, entries):
    for entry in entries:
        (entry / "half_map_1.mrc").write_bytes(b"no map")
    before = tree(workdir)
    outcome = run_crefjax(*prepare(entries))
    assert "expected at least one usable entry, found none among 3" in error_line(outcome.err, outcome.status)
    assert len(outcome.err.splitlines()) == 4
    assert tree(workdir) == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--patch", "33"], "patch: expected an even side of at least 16 voxels, found 33"),
        (["--patch", "much"], "argument --patch"),
        (["--stride", "0"], "stride: expected 1 to 16"),
        (["--dtype", "int8"], "argument --dtype"),
        (["--validation", "1.5"], "validation: expected a share from 0 to below 1, found 1.5"),
        (["--validation", "nan"], "argument --validation"),
        (["--jobs", "0"], "jobs: expected 1 or more"),
        (["-o", "missing/dataset"], "make it first"),
        (["-o", "a_file"], "expected a folder"),
        (["-o", "entry 0"], "lies inside this folder"),
    ],
)
def test_mistakes_are_one_line(workdir, entries, more, message):
    (workdir / "a_file").write_text("text")
    assert_refused(workdir, *prepare(entries, *more), names=message)


def test_other_settings_need_overwrite(workdir, entries):
    run_ok(*prepare(entries))
    assert_refused(workdir, *prepare(entries, "--seed", 1), names=["dataset: ", "started with --seed 0, not 1"])
    run_ok(*prepare(entries, "--seed", 1, "--overwrite"))
    assert json.loads((workdir / "dataset/manifest.json").read_text())["seed"] == 1


def run(entries, *more, **settings):
    argv = [sys.executable, "-m", "crefjax", *map(str, prepare(entries, *more))]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings)


def test_prepare_does_not_load_jax(workdir, entries):
    code = (
        "import sys; from crefjax.cli.main import main; status = main(sys.argv[1:])\n"
        "assert not {'jax', 'grain'} & set(sys.modules); sys.exit(status)"
    )
    argv = [sys.executable, "-c", code, *map(str, prepare(entries))]
    outcome = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (outcome.returncode, outcome.stderr) == (0, "")


@pytest.mark.parametrize("jobs", [1, 2])
def test_interrupted_run_leaves_only_finished_entries(workdir, entries, jobs):
    process = run(entries, "--jobs", jobs, start_new_session=True)
    while not (workdir / "dataset/entries").exists() and process.poll() is None:
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGINT)  # to the workers too, as by Ctrl-C
    _, err = process.communicate(timeout=30)
    if process.returncode:  # else the run was finished before
        assert process.returncode == 130
        assert err == "crefjax: interrupted (SIGINT); no unfinished file was left\n"
    names = [name for name, kind in tree(workdir / "dataset").items() if kind != "folder"]
    known = r"(dataset|manifest)\.json|entries/[\w-]+/(entry\.json|\d{5}\.array_record)"
    assert all(re.fullmatch(known, name) for name in names), names
    outcome = run_crefjax(*prepare(entries))
    assert outcome.status == 0
    run_ok(*prepare(entries), "-o", "other")
    assert tree(workdir / "dataset") == tree(workdir / "other")


def test_full_disk_is_reported_in_one_line(workdir, entries):
    limited = 'ulimit -f 100; trap "" XFSZ; exec "$@"'
    argv = [sys.executable, "-m", "crefjax", *map(str, prepare(entries, "--dtype", "float32"))]
    outcome = subprocess.run(["bash", "-c", limited, "bash", *argv], capture_output=True, text=True, check=False)
    message = error_line(outcome.stderr, outcome.returncode)
    assert "dataset: no space left (File too large); make room and run the same command again" in message
    assert not (workdir / "dataset").exists()
    run_ok(*prepare(entries, "--dtype", "float32"))
