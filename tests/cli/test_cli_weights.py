"""`crefjax weights`: import, list, show, and search by name."""

import json
import shutil

import numpy as np
import pytest
from helpers.cli import read, relative, run_ok


@pytest.fixture
def found(workdir, monkeypatch):
    """Return the folder whose weights are found by name."""
    (workdir / "found").mkdir()
    monkeypatch.setenv("CREFJAX_WEIGHTS", str(workdir / "found"))
    return workdir / "found"


def test_imported_weights_have_a_card(arrays_file, workdir):
    run_ok("weights", "import", arrays_file, "-o", "imported")
    card = json.loads((workdir / "imported" / "card.json").read_text())
    assert {"architecture", "source", "license", "training", "expected_input"} <= set(card)
    assert "322881" in json.dumps(card)
    assert list(workdir.iterdir()) == [workdir / "imported"]


def test_import_prints_the_number_of_parameters(arrays_file, workdir):
    assert "322,881" in run_ok("weights", "import", arrays_file, "-o", "imported").text


def test_import_reads_any_order_of_arrays(arrays_file, imported, pair):
    """The order, compression, and strides of the arrays do not matter."""
    with np.load(arrays_file) as known:
        np.savez_compressed(
            "a.npz", **{name: np.asarray(known[name], order="F") for name in sorted(known, reverse=True)}
        )
    run_ok("weights", "import", "a.npz", "-o", "again")
    for name in ("again", imported):
        run_ok("denoise", *pair, "-o", "out.mrc", "--weights", name, "--scale", "none", "--overwrite")
        shutil.copy("out.mrc", f"{'again' if name == 'again' else 'first'}.mrc")
    assert relative(read("again.mrc")[0], read("first.mrc")[0]) == 0


def test_empty_list_names_the_folder_of_weights(found):
    text = run_ok("weights", "list").text
    assert str(found) in text


def test_weights_in_the_user_folder_are_found_by_name(found, arrays_file, weights, pair):
    run_ok("weights", "import", arrays_file, "-o", found / "mine")
    shutil.copytree(weights, found / "small")
    listed = run_ok("weights", "list").out
    assert {line.split()[0] for line in listed.splitlines() if str(found) in line and "," in line} >= {"mine"}
    assert "small" in listed
    shown = run_ok("weights", "show", "small").out
    for text in ("random numbers", "none needed", "any map"):
        assert text in shown
    assert "322881" in run_ok("weights", "show", "mine").out.replace(",", "")
    by_name = run_ok("denoise", *pair, "-o", "name.mrc", "--weights", "small").text
    run_ok("denoise", *pair, "-o", "path.mrc", "--weights", weights)
    assert "small" in by_name
    assert relative(read("name.mrc")[0], read("path.mrc")[0]) == 0


def test_shipped_weights_are_listed_and_the_default(found, weights, pair):
    shutil.copytree(weights, found / "another")
    listed = run_ok("weights", "list").out.splitlines()
    assert [line.split()[:3] for line in listed[:4]] == [
        ["classifier", "classification", "170,657"],
        ["cref", "denoising", "799,889"],
        ["images", "images", "82,465"],
        ["truth", "denoising", "799,889"],
    ]
    assert [line.endswith("(default)") for line in listed] == [True, False, True, True, False]
    assert "weights truth" in run_ok("denoise", *pair, "-o", "out.mrc").text
    run_ok("denoise", *pair, "-o", "named.mrc", "--weights", "truth")
    assert relative(read("out.mrc")[0], read("named.mrc")[0]) == 0


@pytest.mark.parametrize("name", ["cref", "truth", "classifier", "images"])
def test_shipped_weights_have_license_and_description(name):
    shown = run_ok("weights", "show", name).out
    for text in ("license: Apache-2.0", "good for: ", "not good for: ", "training: ", "models: PDB entries (CC0) "):
        assert text in shown
    # The entries of the project's benchmark.
    trained_on = shown.split("  models: ")[1].splitlines()[0]
    for never in ("8TZE", "7YC8"):
        assert never not in trained_on


def test_damaged_folder_does_not_hide_other_weights(found, weights, pair):
    shutil.copytree(weights, found / "good")
    shutil.copytree(weights, found / "bad")
    (found / "bad" / "card.json").write_text("{")
    (found / "notes.txt").write_text("mine")
    (found / "empty").mkdir()
    run_ok("denoise", *pair, "-o", "out.mrc", "--weights", "good")
    assert "good" in run_ok("weights", "show", "good").out
    assert "good" in run_ok("weights", "list").out


def test_overwrite_replaces_a_weights_folder(arrays_file, weights, workdir):
    shutil.copytree(weights, workdir / "small")
    run_ok("weights", "import", arrays_file, "-o", "small", "--overwrite")
    assert "322881" in run_ok("weights", "show", "small").out.replace(",", "")
    assert list(workdir.iterdir()) == [workdir / "small"]
