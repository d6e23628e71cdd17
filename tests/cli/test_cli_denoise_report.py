"""`crefjax denoise` with `--report` and `--local`, and its default scale."""

import json
import re

import numpy as np
import pytest
from helpers.cli import assert_refused, densities, labels_of, read, relative, run_crefjax, run_ok, tree, valid, write
from scipy import ndimage

FIGURES = ("fsc", "fit_to_cref", "power", "directional", "ratios", "kept")


@pytest.fixture
def words(pair, weights):
    return ["denoise", *pair, "-o", "out.mrc", "--weights", weights]


def test_default_scale_is_in_the_label(words, pair, weights):
    run_ok(*words)
    run_ok("denoise", pair[0], "-o", "single.mrc", "--weights", weights)
    for name, scale in (("out.mrc", "signal"), ("single.mrc", "input")):
        assert labels_of(read(name)[1])[-1].endswith(f"scale {scale}".encode())
    run_ok(*words[:4], "named.mrc", *words[5:], "--scale", "signal")
    np.testing.assert_array_equal(read("named.mrc")[0], read("out.mrc")[0])


@pytest.mark.parametrize("name", ["mask.mrc", "auto"])
def test_output_on_the_signals_scale_is_0_outside_the_mask(name, words, pair):
    run_ok("mask", *pair, "-o", "mask.mrc")
    mask = read("mask.mrc")[0]
    run_ok(*words, "--mask", name, "--halves")
    for output in ("out.mrc", "out_half_map_1.mrc", "out_half_map_2.mrc"):
        data = read(output)[0]
        assert not data[mask == 0].any()
        assert data[mask == 1].std() > 0.1


def test_half_maps_of_noise_give_a_warning_and_an_empty_map(workdir, weights):
    noise = np.random.default_rng(7).standard_normal((2, 24, 24, 24)).astype("f4")
    pair = [write(workdir / f"noise_{n}.mrc", half) for n, half in enumerate(noise, 1)]
    outcome = run_ok("denoise", *pair, "-o", "out.mrc", "--weights", weights)
    warnings = [line for line in outcome.err.splitlines() if line.startswith("warning")]
    assert len(warnings) == 1
    assert "hardly correlate" in warnings[0]
    assert read("out.mrc")[0].std() < 0.25 * noise.mean(0).std()


def test_report_is_written_and_its_maps_exist(words, workdir):
    before = tree(workdir)
    outcome = run_ok(*words, "--report", "findings")
    after = tree(workdir)
    figures = {f"findings/figures/{name}.{kind}" for name in FIGURES for kind in ("png", "svg")}
    plain = {f"findings/{name}" for name in ("index.html", "report.json", "view.cxc", "full_map.mrc")}
    assert set(after) == {*before, "out.mrc", "findings", "findings/figures", *figures, *plain}
    assert {name: after[name] for name in before} == before
    opened = re.findall(
        r'^open "([^"]+)"', (workdir / "findings" / "view.cxc").read_text(encoding="utf-8"), re.MULTILINE
    )
    full, denoised = (read(workdir / "findings" / name)[0] for name in opened)
    assert relative(full, np.mean([half.astype("f8") for half in densities()], axis=0)) < 1e-6
    np.testing.assert_array_equal(denoised, read("out.mrc")[0])
    report = json.loads((workdir / "findings" / "report.json").read_text(encoding="utf-8"))
    assert report["parameters"]["command"] == "denoise"
    assert report["parameters"]["scale"] == "signal"
    for name, file in (("half_map_1", "half_1.mrc"), ("half_map_2", "half_2.mrc")):
        assert report["inputs"][name]["sha256"] == before[file]
    assert report["variances"] is not None  # denoised half-maps are measured, written or not
    for warning in report["warnings"]:
        assert f"warning: {warning['text']}" in outcome.err
    assert "index.html" in outcome.err


def test_report_numbers_equal_those_of_the_report_command(words, pair, workdir):
    """The report command is given the files that `--halves` writes, and the same mask."""
    box = np.zeros((20, 17, 23), "f4")
    box[4:16, 3:14, 4:20] = 1
    mask = write(workdir / "mask.mrc", ndimage.uniform_filter(box, 3))
    run_ok(*words, "--halves", "--mask", mask, "--report", "findings")
    maps = ("--denoised", "out.mrc", "--denoised-halves", "out_half_map_1.mrc", "out_half_map_2.mrc")
    run_ok("report", *pair, *maps, "--mask", mask, "-o", "again")
    own, again = (
        json.loads((workdir / name / "report.json").read_text(encoding="utf-8")) for name in ("findings", "again")
    )
    for part in ("curves", "variances", "ratios", "resolution", "warnings", "mask"):
        assert own[part] == again[part], part


def test_local_maps_are_on_the_grid_of_the_half_maps(workdir, weights):
    shape = (20, 17, 23)
    header = {"axes": (3, 2, 1), "origin": (12.5, -3.25, 100), "nstart": (-5, 7, 11), "labels": [b"of a refinement"]}
    pair = [write(workdir / f"h{n}.mrc", data, **header) for n, data in enumerate(densities(), 1)]
    before = tree(workdir)
    run_ok("denoise", *pair, "-o", "out.map.gz", "--weights", weights, "--local", "--report", "findings")
    names = ("out_local_agreement.map.gz", "out_local_change.map.gz")
    assert {name for name in tree(workdir) if "/" not in name} == {*before, "out.map.gz", "findings", *names}
    for name in names:
        data, h = read(name)
        assert valid(name)
        assert data.shape == shape
        assert 0 <= data.min() < data.max() <= 1
        assert (h.mapc, h.mapr, h.maps) == (3, 2, 1)
        assert h.origin.tolist() == (12.5, -3.25, 100)
        assert (h.nxstart, h.nystart, h.nzstart) == (-5, 7, 11)
        assert h.cella.tolist() == pytest.approx((34.5, 25.5, 30.0))
        assert labels_of(h)[0] == b"of a refinement"


def test_options_that_need_two_half_maps_are_refused_with_one(pair, weights, workdir):
    words = ["denoise", pair[0], "-o", "out.mrc", "--weights", weights]
    for more in (["--scale", "signal"], ["--report", "findings"], ["--local"], ["--report", "findings", "--local"]):
        message = assert_refused(workdir, *words, *more, names="two half-maps")
        assert message.count("\n") == 0
        assert more[0] in message or more[-1] in message


@pytest.mark.parametrize("place", ["others", "a file", "around an input", "an earlier report"])
def test_unusable_report_folder_is_refused_before_maps_are_read(place, words, workdir):
    (workdir / "half_2.mrc").write_text("no map")
    folder = workdir / "findings"
    if place == "others":
        folder.mkdir()
        (folder / "notes.txt").write_text("dear to the user")
    elif place == "a file":
        folder.write_text("dear to the user")
    elif place == "around an input":
        folder.mkdir()
        (workdir / "half_1.mrc").rename(folder / "half_1.mrc")
        words[1] = folder / "half_1.mrc"
    else:
        folder.mkdir()
        (folder / "report.json").write_text('{"files": ["report.json"]}')
    more = [] if place == "an earlier report" else ["--overwrite"]
    message = assert_refused(workdir, *words, "--report", folder, *more, names="findings")
    assert "half_2.mrc" not in message
    assert ("--overwrite" in message) == (place == "an earlier report")


def test_report_folder_may_not_hold_an_output(words, workdir):
    (workdir / "half_2.mrc").write_text("no map")
    for more in (["--report", "out.mrc"], ["--report", "out_half_map_1.mrc", "--halves"]):
        assert "found the name of an output" in assert_refused(workdir, *words, *more, names=more[1])
    assert "found the name of an output" in assert_refused(workdir, *words, "--report", workdir / "out.mrc")
    (workdir / "findings").mkdir()
    words[words.index("-o") + 1] = "findings/out.mrc"
    message = assert_refused(workdir, *words, "--report", "findings", "--overwrite", names="findings/out.mrc")
    assert "folder of the output" in message
    assert "input" not in message
    words[words.index("-o") + 1] = "new.mrc"
    assert_refused(workdir, *words, "--report", "new.mrc/findings", names="new.mrc/findings")


def test_report_states_that_no_mask_could_be_made(workdir, weights):
    noise = np.random.default_rng(7).standard_normal((2, 24, 24, 24)).astype("f4")
    pair = [write(workdir / f"noise_{n}.mrc", half) for n, half in enumerate(noise, 1)]
    for scale in ("signal", "input"):
        words = ["denoise", *pair, "-o", f"{scale}.mrc", "--weights", weights, "--scale", scale, "--report", scale]
        outcome = run_ok(*words)
        report = json.loads((workdir / scale / "report.json").read_text(encoding="utf-8"))
        assert report["mask"]["from"] == "none, the whole box"
        assert outcome.err.count("no mask could be made") == 1
        assert report["warnings"][0]["kind"] == "no_signal"
        assert report["use"]["for"] == ["Nothing: the half-maps hold almost no signal."]


def test_model_needs_a_report_and_is_shown_in_it(words, workdir):
    atom = "ATOM      1  CA  ALA A   1      15.000  12.000  15.000  1.00 30.00           C\nEND\n"
    (workdir / "model.pdb").write_text(atom)
    assert_refused(workdir, *words, "--model", "model.pdb", names=["--model", "--report"])
    run_ok(*words, "--model", "model.pdb", "--report", "findings")
    assert "The model is model.pdb" in (workdir / "findings" / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("what", ["agreement", "change"])
def test_existing_local_map_is_kept(what, words, workdir):
    (workdir / f"out_local_{what}.mrc").write_text("dear to the user")
    assert "--overwrite" in assert_refused(workdir, *words, "--local", names=f"out_local_{what}.mrc")


def test_overwrite_replaces_all_outputs(words, workdir):
    more = ("--halves", "--local", "--report", "findings")
    run_ok(*words, *more)
    first = tree(workdir)
    assert_refused(workdir, *words, *more)
    outcome = run_crefjax(*words, *more, "--overwrite")
    assert outcome.status == 0, outcome.err
    assert set(tree(workdir)) == set(first)
