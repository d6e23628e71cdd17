"""The files of `crefjax fsc` for a deposition and for tables: XML, CSV, and the corrected curves."""

import csv
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from helpers.cli import assert_refused, densities, run_crefjax, run_ok, tree, write
from test_cli_fsc import slow_curve

from crefjax.spectral.fsc import corrected_fsc

SHAPE = (20, 17, 23)
CURVES = ["fsc_unmasked", "fsc_masked", "fsc_randomized", "fsc_corrected"]


@pytest.fixture
def halves(workdir):
    return [write(workdir / f"half_{n}.mrc", data) for n, data in enumerate(densities(SHAPE, noise=0.5), 1)]


@pytest.fixture
def mask(workdir):
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    return write(workdir / "mask.mrc", np.clip(4 * (0.7 - np.sqrt(z**2 + y**2 + x**2)), 0, 1).astype("f4"))


def read_csv(path):
    with open(path, newline="") as stream:
        rows = list(csv.reader(stream))
    return rows[0], [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


def read_xml(path):
    """Check the structure of EMDB's FSC files, as RELION, Bsoft, and Scipion write them; return title and points."""
    root = ElementTree.parse(path).getroot()
    assert root.tag == "fsc"
    assert set(root.attrib) == {"title", "xaxis", "yaxis"}
    assert (root.get("xaxis"), root.get("yaxis")) == ("Resolution (A-1)", "Correlation Coefficient")
    points = []
    for coordinate in root:
        assert (coordinate.tag, [child.tag for child in coordinate]) == ("coordinate", ["x", "y"])
        assert all(re.fullmatch(r"-?\d+\.\d+", child.text) for child in coordinate)  # no exponent: a plain decimal
        points.append(tuple(float(child.text) for child in coordinate))
    return root.get("title"), points


def test_xml_without_a_mask_has_the_unmasked_curve(halves, workdir):
    run_ok("fsc", *halves, "--xml", "fsc.xml")
    title, points = read_xml("fsc.xml")
    frequency, curve = slow_curve(*densities(SHAPE, noise=0.5))
    assert title == "crefjax unmasked FSC"
    assert points[0] == (0, 1)
    np.testing.assert_allclose([x for x, _ in points], frequency, atol=1e-6)
    np.testing.assert_allclose([y for _, y in points][1:], curve[1:], atol=1e-5)


def test_xml_within_a_mask_has_the_corrected_curve(halves, mask, workdir):
    outcome = run_ok("fsc", *halves, "--mask", mask, "--xml", "fsc.xml", "--csv", "fsc.csv", "--seed", "4")
    title, points = read_xml("fsc.xml")
    names, rows = read_csv("fsc.csv")
    assert title == "crefjax masked-corrected FSC"
    assert [y for _, y in points] == pytest.approx([float(row["fsc_corrected"]) for row in rows], abs=1e-6)
    assert names == ["shell", "frequency", "resolution", *CURVES]
    assert [int(row["shell"]) for row in rows] == list(range(12))
    assert rows[0]["resolution"] == ""
    assert float(rows[3]["resolution"]) == pytest.approx(23 * 1.5 / 3)
    _, unmasked = slow_curve(*densities(SHAPE, noise=0.5))
    assert [float(row["fsc_unmasked"]) for row in rows] == pytest.approx(list(unmasked), abs=1e-5)
    shell = next(s for s in range(1, 12) if unmasked[s] < 0.8)
    # Up to the second shell past the randomization the curve is the masked one.
    kept = [row["fsc_masked"] == row["fsc_corrected"] for row in rows]
    assert all(kept[1 : shell + 2])
    assert not any(kept[shell + 2 :])
    assert f"{23 * 1.5 / shell:.2f} Å on (shell {shell})" in outcome.err
    assert "seed 4" in outcome.err


def test_the_seed_is_that_of_the_library(halves, mask, workdir):
    from crefjax.io.maps import read_map

    run_ok("fsc", *halves, "--mask", mask, "--csv", "fsc.csv", "--seed", "4")
    arrays = [read_map(path).array for path in (*halves, mask)]
    expected = corrected_fsc(*arrays[:2], 1.5, arrays[2], seed=4)
    found = [float(row["fsc_randomized"]) for row in read_csv("fsc.csv")[1]]
    assert found == pytest.approx(list(expected.randomized.fsc), abs=1e-6)


def test_corrected_curves_are_in_table_json_and_figure(halves, mask, workdir):
    outcome = run_ok(
        "fsc", *halves, "--mask", mask, "--corrected", "--json", "fsc.json", "--csv", "fsc.csv", "--plot", "fsc.svg"
    )
    numbers = json.loads(Path("fsc.json").read_text())
    rows = read_csv("fsc.csv")[1]
    for name in ("fsc_unmasked", "fsc_randomized", "fsc_corrected"):
        assert numbers[name] == pytest.approx([float(row[name]) for row in rows], abs=1e-6)
    assert numbers["seed"] == 0
    assert f"resolution at corrected FSC 0.143: {numbers['corrected_resolution_at_0.143']:.2f} Å" in outcome.out
    table = [line.split() for line in outcome.out.splitlines() if line.strip()[:1].isdigit()]
    assert [float(row[-1]) for row in table] == pytest.approx(numbers["fsc_corrected"], abs=6e-5)
    assert "phases randomized" in Path("fsc.svg").read_text()


def test_a_masked_curve_alone_is_not_randomized(halves, mask, workdir):
    outcome = run_ok("fsc", *halves, "--mask", mask, "--json", "fsc.json")
    assert "random" not in outcome.text
    assert "fsc_corrected" not in Path("fsc.json").read_text()


def test_earlier_outputs_are_replaced_and_other_files_are_not(halves, workdir):
    run_ok("fsc", *halves, "--xml", "a.xml", "--csv", "a.csv")
    before = tree(workdir)
    run_ok("fsc", *halves, "--xml", "a.xml", "--csv", "a.csv")
    assert tree(workdir) == before
    for name in ("a.xml", "a.csv"):
        (workdir / name).write_text("dear to the user")
        assert_refused(workdir, "fsc", *halves, f"--{name[2:]}", name, names=name)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--corrected"], "--corrected"),
        (["--seed", "-1"], "--seed"),
        (["--xml", "a.txt"], ".xml"),
        (["--csv", "a.xml"], ".csv"),
        (["--csv", "a.csv", "--plot", "none/a.png"], "does not exist"),
    ],
)
def test_wrong_options_are_refused(words, message, halves, workdir):
    assert_refused(workdir, "fsc", *halves, *words, names=message)


def test_one_file_for_two_outputs_is_refused(halves, workdir):
    assert_refused(workdir, "fsc", *halves, "--xml", "a.xml", "--json", "./a.xml", names="a.xml")


def test_no_xml_is_written_for_denoised_half_maps(halves, weights, workdir):
    run_ok("denoise", *halves, "-o", "out.mrc", "--halves", "--weights", weights)
    denoised = [workdir / f"out_half_map_{n}.mrc" for n in (1, 2)]
    message = assert_refused(workdir, "fsc", *denoised, "--xml", "a.xml", names="out_half_map_1.mrc")
    assert "not a resolution" in message


def test_table_by_direction(pair, workdir):
    outcome = run_ok("fsc", *pair, "--directional", "directions.csv")
    assert "resolution by direction: " in outcome.out
    with open("directions.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["x", "y", "z", "resolution_at_0.5", "resolution_at_0.143"]
    assert len(rows) == 100
    for row in rows:
        assert sum(float(row[axis]) ** 2 for axis in "xyz") == pytest.approx(1, abs=1e-5)
        assert float(row["resolution_at_0.143"]) <= float(row["resolution_at_0.5"])


def test_table_by_direction_is_a_csv_file(pair, workdir):
    outcome = run_crefjax("fsc", *pair, "--directional", "directions.txt")
    assert outcome.status == 2
    assert ".csv" in outcome.err


def test_json_has_the_resolutions_by_direction(pair, workdir):
    """The same as the table, which a test of the directions compares to slow NumPy, and their best and worst."""
    outcome = run_ok("fsc", *pair, "--json", "fsc.json", "--directional", "directions.csv")
    found = json.loads(Path("fsc.json").read_text())["directional"]
    with open("directions.csv", newline="") as stream:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]
    assert found["half_angle"] == 20
    for vector, row in zip(found["directions"], rows, strict=True):
        assert vector == pytest.approx([row[axis] for axis in "xyz"], abs=1e-4)
    for threshold in ("resolution_at_0.5", "resolution_at_0.143"):
        assert found[threshold] == pytest.approx([row[threshold] for row in rows], abs=1e-4)
    assert found["preferred"] == ("no sign" not in outcome.out)
    for name in ("best", "worst"):
        place = found["directions"].index(found[name]["direction"])
        assert found[name]["resolution_at_0.143"] == found["resolution_at_0.143"][place]
    assert found["ratio"] >= 1
    assert found["spread"] > 0


def test_json_alone_has_the_resolutions_by_direction(pair, workdir):
    outcome = run_ok("fsc", *pair, "--json", "fsc.json")
    assert "directional" in json.loads(Path("fsc.json").read_text())
    assert "by direction" not in outcome.out
