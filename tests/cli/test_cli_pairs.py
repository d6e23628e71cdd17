"""Half-maps that are not a pair, or not as a refinement wrote them, in every command."""

import json
import shutil

import mrcfile
import numpy as np
import pytest
from helpers.cli import assert_refused, error_line, read, run_crefjax, run_ok, write


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """Half-maps of a phantom with independent noise."""
    folder = tmp_path_factory.mktemp("simulated") / "entry"
    words = ("--voxel-size", 1.5, "--resolution", 5, "--residues", 150, "--margin", 12)
    run_ok("simulate", "phantom", "-o", folder, *words)
    return folder


@pytest.fixture
def entry(simulated, workdir):
    """A copy of the half-maps in the working directory."""
    return shutil.copytree(simulated, workdir / "entry")


def changed(entry, change, name="changed.mrc"):
    array, _ = read(entry / "half_map_2.mrc")
    return write(entry.parent / name, np.ascontiguousarray(change(array)).astype("f4"), voxel=1.5)


NO_PAIR = {
    "shifted by 3, 0, 0 Å": lambda half: np.roll(half, 2, 2),
    "mirrored along z": lambda half: half[::-1],
}


@pytest.mark.parametrize("text", NO_PAIR)
def test_half_maps_that_are_not_a_pair_are_refused_without_insist(workdir, entry, weights, text):
    pair = (entry / "half_map_1.mrc", changed(entry, NO_PAIR[text]))
    commands = {
        "denoise": ("denoise", *pair, "-o", "out.mrc", "--weights", weights),
        "report": ("report", *pair, "--denoised", entry / "truth.mrc", "-o", "report"),
        "finetune": ("finetune", *pair, "-o", "weights", "--weights", weights, "--minutes", 0.01),
    }
    for words in commands.values():
        message = assert_refused(workdir, *words, names=("half_map_1.mrc", "changed.mrc", text, "--insist"))
        assert "FSC-0.143 at" in message
    for name in ("denoise", "report"):
        outcome = run_ok(*commands[name], "--insist")
        assert text in outcome.err
    numbers = json.loads((workdir / "report" / "report.json").read_text())
    assert any(warning["kind"] == "half_maps" and text in warning["text"] for warning in numbers["warnings"])
    assert text in (workdir / "report" / "index.html").read_text()


@pytest.mark.parametrize("text", NO_PAIR)
def test_fsc_and_mask_report_half_maps_that_are_not_a_pair(workdir, entry, text):
    pair = (entry / "half_map_1.mrc", changed(entry, NO_PAIR[text]))
    outcome = run_ok("fsc", *pair)
    assert outcome.err.startswith("warning: if these are half-maps, half-map 2 is")
    assert text in outcome.err
    assert "resolution at FSC 0.143" in outcome.out
    assert text in run_ok("mask", *pair, "-o", "mask.mrc").err
    assert run_ok("fsc", entry / "half_map_1.mrc", entry / "half_map_2.mrc").err == ""


@pytest.mark.parametrize("given_mask", [False, True])
def test_rescaled_half_map_gives_the_same_map(workdir, entry, weights, given_mask):
    mask = ("--mask", entry / "mask.mrc") if given_mask else ()
    first = entry / "half_map_1.mrc"
    common = ("--weights", weights, *mask)
    sound = run_ok("denoise", first, entry / "half_map_2.mrc", "-o", "sound.mrc", *common)
    assert "FSC of the half-maps falls below 0.143 at" in sound.err
    assert ("within the mask" if given_mask else "within a mask made from them") in sound.err
    assert "warning" not in sound.err
    expected, _ = read(workdir / "sound.mrc")
    for number, change in enumerate((lambda half: 37 * half + 5, lambda half: half - 20 * half.std())):
        path = changed(entry, change)
        outcome = run_ok("denoise", first, path, "-o", f"out{number}.mrc", *common)
        assert "warning: half-map 2 is not on the scale of half-map 1" in outcome.err
        path.unlink()
        found, _ = read(workdir / f"out{number}.mrc")
        assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.999
        assert np.polyfit(expected.ravel(), found.ravel(), 1)[0] == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("count", [1, 2])
def test_hot_voxel_is_reported_and_replaced(workdir, entry, weights, count):
    def heat(array):
        array[3, 5, 4] = 1000 * array.std()
        return array

    sound = entry / "half_map_2.mrc"
    first = (entry / "half_map_1.mrc",) if count == 2 else ()
    run_ok("denoise", *first, sound, "-o", "sound.mrc", "--weights", weights)
    outcome = run_ok("denoise", *first, changed(entry, heat), "-o", "out.mrc", "--weights", weights)
    what = "half-map 2" if count == 2 else "the map"
    assert f"warning: {what} has a hot voxel at x, y, z = 4, 5, 3 (" in outcome.err
    found, expected = (read(workdir / name)[0] for name in ("out.mrc", "sound.mrc"))
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.9999


def test_finetune_reports_inverted_contrast(workdir, entry, weights):
    """`denoise` reports it too, and `prepare`, see tests/data."""
    paths = []
    for number in (1, 2):
        array, _ = read(entry / f"half_map_{number}.mrc")
        paths.append(write(workdir / f"dark_{number}.mrc", -array.astype("f4"), voxel=1.5))
    outcome = run_crefjax("finetune", *paths, "-o", "w", "--weights", weights, "--minutes", 0.01, "--patch", 16)
    assert "warning: the particle appears darker than the solvent (inverted contrast)" in outcome.err
    assert run_ok("denoise", *paths, "-o", "out.mrc", "--weights", weights).err.count("inverted contrast") == 1


@pytest.mark.parametrize("command", ["denoise", "report", "check", "fsc", "mask"])
def test_missing_voxel_size_can_be_given_as_an_option(workdir, entry, weights, command):
    names = {"half_map_1": "h1.mrc", "half_map_2": "h2.mrc", "mask": "m.mrc", "truth": "t.mrc"}
    for name, new in names.items():
        array, _ = read(entry / f"{name}.mrc")
        write(workdir / new, array.astype("f4"), voxel=0)
    words = {
        "denoise": ("h1.mrc", "h2.mrc", "-o", "out.mrc", "--mask", "m.mrc", "--weights", weights),
        "report": ("h1.mrc", "h2.mrc", "--denoised", "t.mrc", "--mask", "m.mrc", "-o", "report"),
        "check": ("h1.mrc", "h2.mrc", "--mask", "m.mrc"),
        "fsc": ("h1.mrc", "h2.mrc", "--mask", "m.mrc"),
        "mask": ("h1.mrc", "h2.mrc", "-o", "out.mrc"),
    }[command]
    assert_refused(workdir, command, *words, names=("h1.mrc", "voxel size above 0", "--voxel-size"))
    assert_refused(workdir, command, *words, "--voxel-size", -1)
    outcome = run_ok(command, *words, "--voxel-size", 1.5)
    if command in ("denoise", "mask"):
        with mrcfile.open(workdir / "out.mrc") as file:
            assert file.voxel_size.x == pytest.approx(1.5)
            assert mrcfile.validate(workdir / "out.mrc")
    if command in ("check", "fsc"):
        sound = run_ok(command, entry / "half_map_1.mrc", entry / "half_map_2.mrc", "--mask", entry / "mask.mrc")
        assert outcome.out == sound.out


def test_mask_of_bytes_0_and_255_is_refused(workdir, entry):
    mask, _ = read(entry / "mask.mrc")
    write(workdir / "bytes.mrc", np.where(mask > 0.5, -1, 0).astype("i1"), voxel=1.5)
    words = ("fsc", entry / "half_map_1.mrc", entry / "half_map_2.mrc", "--mask", "bytes.mrc")
    assert_refused(workdir, *words, names=("bytes.mrc", "found 0 and 255"))


def test_same_folder_twice_is_reported_as_a_folder(workdir, entry):
    for command in ("denoise", "fsc"):
        more = ("-o", "out.mrc") if command == "denoise" else ()
        message = assert_refused(workdir, command, entry, entry, *more, names="entry")
        assert "same map twice" not in message
        assert "folder" in message
    outcome = run_crefjax("check", entry, entry)
    assert "folder" in error_line(outcome.err, outcome.status)
