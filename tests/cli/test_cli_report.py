"""`crefjax report` for maps of any program."""

import gzip
import hashlib
import json
import os
import shutil

import mrcfile
import numpy as np
import pytest
from helpers.cli import assert_refused, densities, error_line, read, run_crefjax, run_ok, tree, write
from scipy import ndimage

SHAPE = (20, 17, 23)


@pytest.fixture
def blurred(pair):
    """Write blurred maps that stand for the denoised full map and half-maps."""
    halves = [ndimage.gaussian_filter(data, 1) for data in densities()]
    folder = pair[0].parent
    paths = [write(folder / f"denoised_{n}.mrc", data) for n, data in enumerate(halves, 1)]
    return write(folder / "denoised.mrc", np.mean(halves, axis=0, dtype="f4")), *paths


@pytest.fixture
def mask(pair):
    """Write a mask: a box around the body, with one soft voxel."""
    box = np.zeros(SHAPE, "f4")
    box[3:17, 3:14, 3:20] = 0.5
    box[4:16, 4:13, 4:19] = 1
    return write(pair[0].parent / "mask.mrc", box)


@pytest.fixture
def words(pair, blurred, mask):
    """Return the command line with all maps."""
    return ["report", *pair, "--denoised", blurred[0], "--denoised-halves", *blurred[1:], "--mask", mask, "-o", "out"]


def numbers(folder="out"):
    def refuse(word):
        raise AssertionError(word)

    with open(f"{folder}/report.json", encoding="utf-8") as stream:
        return json.load(stream, parse_constant=refuse)


def test_report_is_a_folder_with_page_numbers_figures_and_script(words, workdir):
    before = tree(workdir)
    outcome = run_ok(*words, "--local")
    after = tree(workdir)
    assert {name: after[name] for name in before} == before
    written = {name for name in after if name.startswith("out/")}
    figures = {f"out/figures/{name}.{kind}" for name in FIGURES for kind in ("png", "svg")}
    plain = {"index.html", "report.json", "view.cxc", "full_map.mrc", "local_agreement.mrc", "local_change.mrc"}
    assert written == {"out/figures", *figures, *(f"out/{name}" for name in plain)}
    assert set(after) == {*before, *written, "out"}
    assert "index.html" in outcome.text
    report = numbers()
    for name, file in (("half_map_1", "half_1.mrc"), ("denoised_2", "denoised_2.mrc"), ("mask", "mask.mrc")):
        assert report["inputs"][name]["sha256"] == hashlib.sha256((workdir / file).read_bytes()).hexdigest()
    assert report["mask"]["from"] == "mask.mrc"
    assert report["parameters"]["command"] == "report"
    assert report["variances"] is not None
    agreement = read("out/local_agreement.mrc")[0]
    assert agreement.shape == SHAPE
    assert 0 <= agreement.min() < agreement.max() <= 1


FIGURES = ("fsc", "fit_to_cref", "power", "directional", "ratios", "kept")


def test_report_without_mask_and_half_maps(pair, blurred, workdir):
    run_ok("report", *pair, "--denoised", blurred[0], "-o", "out")
    run_ok("mask", *pair, "-o", "auto.mrc")
    report = numbers()
    assert report["mask"]["from"] == "made automatically"
    assert report["mask"]["share"] == pytest.approx((read("auto.mrc")[0] > 0.5).mean(), abs=1e-3)
    assert report["variances"] is None
    assert sorted(report["inputs"]) == ["denoised", "half_map_1", "half_map_2"]
    assert "--denoised-halves" in (workdir / "out" / "index.html").read_text(encoding="utf-8")


def test_compressed_maps_are_read(pair, blurred, workdir):
    packed = workdir / "packed.mrc.gz"
    packed.write_bytes(gzip.compress(blurred[0].read_bytes()))
    run_ok("report", *pair, "--denoised", packed, "-o", "out")
    assert read("out/denoised_map.mrc")[0] == pytest.approx(read(blurred[0])[0])


def test_earlier_report_is_replaced_only_with_overwrite(words, workdir):
    run_ok(*words)
    first = tree(workdir / "out")
    assert "--overwrite" in assert_refused(workdir, *words, names="out")
    run_ok(*words, "--overwrite", "--local")
    assert set(tree(workdir / "out")) > set(first)
    (workdir / "out" / "notes.txt").write_text("dear to the user")
    assert_refused(workdir, *words, "--overwrite", names="notes.txt")


@pytest.mark.parametrize("place", ["full of others'", "a file", "a link", "nowhere/out", ".", "around the input"])
def test_invalid_output_is_refused_before_maps_are_read(place, words, workdir):
    words = [*words[:-1], "out"]
    if place == "full of others'":
        (workdir / "out").mkdir()
        (workdir / "out" / "notes.txt").write_text("dear to the user")
    elif place == "a file":
        (workdir / "out").write_text("dear to the user")
    elif place == "a link":
        (workdir / "real").mkdir()
        (workdir / "out").symlink_to("real")
    elif place == "around the input":
        (workdir / "out").mkdir()
        shutil.move(words[1], workdir / "out" / "half.mrc")
        words[1] = workdir / "out" / "half.mrc"
    else:
        words[-1] = place
    assert_refused(workdir, *words, "--overwrite", names=str(words[-1]))


def again(path, name, **changed):
    """The voxels are the same, the header is another."""
    return write(path.with_name(name), read(path)[0].astype("f4"), **changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"voxel": 1.6}, ["voxel size", "1.5", "1.6"]),
        ({"origin": (3, 0, 0)}, ["origin", "0, 0, 0", "3, 0, 0", "ORIGIN"]),
        ({"nstart": (0, 2, 0)}, ["origin", "0, 3, 0", "NSTART"]),
    ],
)
@pytest.mark.parametrize("which", ["--denoised", "--denoised-halves"])
def test_denoised_map_on_another_grid_is_refused(which, changed, message, words, workdir):
    place = words.index(which) + 1
    words[place] = again(words[place], "moved.mrc", **changed)
    assert_refused(workdir, *words, names=["half_1.mrc", "moved.mrc", *message])


def test_denoised_map_of_another_shape_is_refused(words, workdir):
    words[words.index("--denoised") + 1] = write(workdir / "cut.mrc", densities((20, 17, 22))[0])
    assert_refused(workdir, *words, names=["cut.mrc", "(20, 17, 22)", "(20, 17, 23)"])


def test_denoised_map_on_a_finer_grid_is_reported_as_such(words, workdir):
    fine = np.repeat(np.repeat(np.repeat(densities()[0], 2, 0), 2, 1), 2, 2)
    words[words.index("--denoised") + 1] = write(workdir / "fine.mrc", fine, voxel=0.75)
    message = assert_refused(workdir, *words, names=["fine.mrc", "2 times as fine", "46x34x40", "23x17x20"])
    assert "resample" in message


def test_invalid_half_maps_are_refused(words, workdir, pair):
    assert_refused(workdir, words[0], pair[0], pair[0], *words[3:], names="half_1.mrc")
    twin = shutil.copy(pair[0], workdir / "twin.mrc")
    assert_refused(workdir, words[0], pair[0], twin, *words[3:], names="same map twice")


def test_same_denoised_half_map_twice_is_refused(words, blurred, workdir):
    place = words.index("--denoised-halves") + 1
    assert_refused(
        workdir, *words[:place], blurred[1], blurred[1], *words[place + 2 :], names=["denoised_1.mrc", "twice"]
    )
    twin = shutil.copy(blurred[1], workdir / "twin.mrc")
    assert_refused(workdir, *words[:place], blurred[1], twin, *words[place + 2 :], names=["twin.mrc", "twice"])
    assert_refused(
        workdir, *words[:place], blurred[0], blurred[2], *words[place + 2 :], names=["denoised.mrc", "full map"]
    )


def test_missing_and_foreign_files_are_refused(words, workdir):
    (workdir / "text.mrc").write_text("no map")
    for option in ("--denoised", "--denoised-halves", "--mask"):
        place = words.index(option) + 1
        for name in ("missing.mrc", "text.mrc"):
            assert_refused(workdir, *words[:place], workdir / name, *words[place + 1 :], names=name)


def test_local_maps_need_denoised_half_maps(pair, blurred, workdir):
    assert_refused(
        workdir, "report", *pair, "--denoised", blurred[0], "-o", "out", "--local", names="--denoised-halves"
    )


@pytest.mark.parametrize(("option", "name"), [("--denoised", "half-map 1"), ("--denoised-halves", "half-map 1")])
def test_map_that_was_not_denoised_gives_a_warning(option, name, words, pair, workdir):
    place = words.index(option) + 1
    outcome = run_ok(*words[:place], pair[0], *words[place + 1 :])
    first = numbers()["warnings"][0]["text"]
    assert name in first
    assert first in outcome.err
    assert "nothing was denoised" in (workdir / "out" / "index.html").read_text(encoding="utf-8")


def test_model_is_shown_and_recorded(words, workdir):
    atom = "ATOM      1  CA  ALA A   1      15.000  12.000  15.000  1.00 30.00           C\nEND\n"
    (workdir / "model.pdb").write_text(atom)
    run_ok(*words, "--model", "model.pdb")
    assert numbers()["inputs"]["model"]["sha256"] == hashlib.sha256(atom.encode()).hexdigest()
    assert numbers()["parameters"]["model"] == "model.pdb"
    assert "The model is model.pdb" in (workdir / "out" / "index.html").read_text(encoding="utf-8")
    (workdir / "far.pdb").write_text(atom.replace("15.000  12", "95.000  12"))
    outcome = run_ok(*words, "--model", "far.pdb", "--overwrite")
    assert "warning: far.pdb: 0% of its atoms" in outcome.err


def test_file_that_is_no_model_is_refused_before_maps_are_read(words, workdir):
    (workdir / "half_2.mrc").write_text("no map")
    (workdir / "text.pdb").write_text("no model")
    for name in ("text.pdb", "missing.cif"):
        assert_refused(workdir, *words, "--model", name, names=name)


def test_full_map_given_as_denoised_gives_a_warning(pair, mask, workdir):
    full = write(workdir / "mean.mrc", np.mean(densities(), axis=0, dtype="f4"))
    run_ok("report", *pair, "--denoised", full, "--mask", mask, "-o", "out")
    assert "full map" in numbers()["warnings"][0]["text"]


def test_report_with_file_names_that_are_not_utf8(words, workdir):
    """The names are bytes of Latin-1, of which ChimeraX gets a copy."""
    for place, name in ((1, b"h\xe9lice.mrc"), (words.index("--denoised") + 1, b"d\xe9bruit\xe9.mrc")):
        path = workdir / os.fsdecode(name)
        shutil.move(words[place], path)
        words[place] = path
    words[-1] = workdir / os.fsdecode(b"re\xe7u")
    run_ok(*words)
    report = numbers(words[-1])
    assert report["inputs"]["denoised"]["path"] == "d\ufffdbruit\ufffd.mrc"
    page = (words[-1] / "index.html").read_text(encoding="utf-8")
    assert "<h1>d\ufffdbruit\ufffd.mrc</h1>" in page
    assert "h\ufffdlice.mrc" in page
    assert 'open "denoised_map.mrc"' in (words[-1] / "view.cxc").read_text(encoding="utf-8")
    assert read(words[-1] / "denoised_map.mrc")[0] == pytest.approx(read(words[words.index("--denoised") + 1])[0])


def test_map_that_was_not_denoised_has_no_recommended_use(pair, mask, workdir):
    scaled = write(workdir / "scaled.mrc", np.sum(densities(), axis=0))
    run_ok("report", *pair, "--denoised", scaled, "--mask", mask, "-o", "out")
    report = numbers()
    assert report["warnings"][0]["kind"] == "not_denoised"
    (use,) = report["use"]["for"]
    assert use.startswith("Nothing, until")
    assert use in (workdir / "out" / "index.html").read_text(encoding="utf-8")


def test_usage_error_is_one_line(pair):
    outcome = run_crefjax("report", *pair, "-o", "out")
    assert "--denoised" in error_line(outcome.err, outcome.status)


def test_output_of_another_program(shared, workdir):
    entry = shared / "bench" / "8tze"
    run_ok(
        *("report", entry / "half_map_1.mrc", entry / "half_map_2.mrc", "--mask", entry / "mask.mrc"),
        *("--denoised", entry / "outputs" / "lafter" / "full.mrc", "-o", "out"),
    )
    report = numbers()
    assert report["resolution"]["fsc_0.143"]["angstrom"] == pytest.approx(3.60, abs=0.01)
    assert report["cref_rmse"] == pytest.approx(0.0325, abs=0.001)
    with mrcfile.open("out/full_map.mrc") as full:
        assert full.voxel_size.x == pytest.approx(1.4)
