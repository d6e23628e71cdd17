"""`crefjax view`."""

import numpy as np
import pytest
from helpers.cli import assert_refused, densities, run_ok, write

ATOM = "ATOM      1  CA  ALA A   1      15.000  12.000  15.000  1.00 30.00           C\nEND\n"


@pytest.fixture
def maps(workdir):
    return [write(workdir / f"map_{n}.mrc", data) for n, data in enumerate(densities(), 1)]


def test_page_of_one_map(maps, workdir):
    outcome = run_ok("view", maps[0], "-o", "view.html")
    assert "wrote view.html" in outcome.err
    page = (workdir / "view.html").read_text(encoding="utf-8")
    assert "map_1.mrc" in page
    assert "Upper row" not in page
    assert "Both contours" not in page


def test_page_of_two_maps_and_a_model(maps, workdir):
    (workdir / "model.pdb").write_text(ATOM)
    outcome = run_ok("view", *maps, "--model", "model.pdb", "-o", "view.html")
    assert "warning" not in outcome.err
    page = (workdir / "view.html").read_text(encoding="utf-8")
    for text in ("map_1.mrc", "map_2.mrc − map_1.mrc", "model.pdb", "Both contours enclose"):
        assert text in page


def test_maps_of_the_same_name_are_told_apart(maps, workdir):
    (workdir / "other").mkdir()
    other = write(workdir / "other" / "map_1.mrc", densities()[1])
    run_ok("view", maps[0], other, "-o", "view.html")
    assert "<h1>" + f"{maps[0]} and {other}</h1>" in (workdir / "view.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"voxel": 1.6}, ["voxel size", "1.5", "1.6"]),
        ({"origin": (3, 0, 0)}, ["origin", "3, 0, 0"]),
    ],
)
def test_maps_on_different_grids_are_refused(changed, told, maps, workdir):
    moved = write(workdir / "moved.mrc", densities()[1], **changed)
    assert_refused(workdir, "view", maps[0], moved, "-o", "view.html", names=["map_1.mrc", "moved.mrc", *told])


def test_maps_of_different_shapes_are_refused(maps, workdir):
    cut = write(workdir / "cut.mrc", densities((20, 17, 22))[1])
    assert_refused(workdir, "view", maps[0], cut, "-o", "view.html", names=["cut.mrc", "(20, 17, 22)"])


def test_existing_page_is_replaced_only_with_overwrite(maps, workdir):
    (workdir / "view.html").write_text("dear to the user")
    assert "--overwrite" in assert_refused(workdir, "view", maps[0], "-o", "view.html", names="view.html")
    run_ok("view", maps[0], "-o", "view.html", "--overwrite")
    assert "map_1.mrc" in (workdir / "view.html").read_text(encoding="utf-8")


def test_unusable_output_and_model_are_refused(maps, workdir):
    assert_refused(workdir, "view", maps[0], "-o", "view.txt", names=["view.txt", ".html"])
    assert_refused(workdir, "view", maps[0], "-o", "none/view.html", names="none")
    assert_refused(workdir, "view", maps[0], "--model", "none.cif", "-o", "view.html", names="none.cif")
    (workdir / "text.cif").write_text("no model")
    assert_refused(workdir, "view", maps[0], "--model", "text.cif", "-o", "view.html", names="text.cif")


def test_model_outside_the_box_gives_a_warning(maps, workdir):
    (workdir / "model.pdb").write_text(ATOM.replace("15.000  12", "95.000  12"))
    outcome = run_ok("view", maps[0], "--model", "model.pdb", "-o", "view.html")
    assert "warning: model.pdb: 0% of its atoms lie in the box" in outcome.err


def test_constant_map_is_refused(workdir):
    flat = write(workdir / "flat.mrc", np.ones((8, 8, 8), "f4"))
    assert_refused(workdir, "view", flat, "-o", "view.html", names="flat.mrc")


def test_hostile_file_name_is_escaped(maps, workdir):
    name = "<b>&'.mrc"
    maps[0].rename(workdir / name)
    run_ok("view", name, "-o", "view.html")
    page = (workdir / "view.html").read_text(encoding="utf-8")
    assert "<b>" not in page
    assert "&lt;b&gt;" in page
