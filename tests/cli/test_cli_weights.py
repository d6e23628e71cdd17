"""`crefjax weights`: importing, listing, showing and finding by name."""

import json
import shutil

import numpy as np
import pytest
from helpers.cli import done, read, relative


@pytest.fixture
def found(here, monkeypatch):
    """The folder whose weights are found by name."""
    (here / "found").mkdir()
    monkeypatch.setenv("CREFJAX_WEIGHTS", str(here / "found"))
    return here / "found"


def test_imported_weights_have_a_card(arrays_file, here):
    done("weights", "import", arrays_file, "-o", "imported")
    card = json.loads((here / "imported" / "card.json").read_text())
    assert {"architecture", "source", "licence", "training", "expected_input"} <= set(card)
    assert "322881" in json.dumps(card)
    assert list(here.iterdir()) == [here / "imported"]


def test_import_says_how_many_parameters(arrays_file, here):
    assert "322,881" in done("weights", "import", arrays_file, "-o", "imported").said


def test_import_reads_any_order_of_arrays(arrays_file, imported, pair):
    """Stored in another order, compressed and with other strides, the arrays mean the same."""
    with np.load(arrays_file) as known:
        np.savez_compressed(
            "a.npz", **{name: np.asarray(known[name], order="F") for name in sorted(known, reverse=True)}
        )
    done("weights", "import", "a.npz", "-o", "again")
    for name in ("again", imported):
        done("denoise", *pair, "-o", "out.mrc", "--weights", name, "--scale", "none", "--overwrite")
        shutil.copy("out.mrc", f"{'again' if name == 'again' else 'first'}.mrc")
    assert relative(read("again.mrc")[0], read("first.mrc")[0]) == 0


def test_empty_list_says_where_weights_would_be_found(found):
    said = done("weights", "list").said
    assert str(found) in said


def test_weights_in_the_users_folder_are_listed_shown_and_found(found, arrays_file, weights, pair):
    done("weights", "import", arrays_file, "-o", found / "mine")
    shutil.copytree(weights, found / "small")
    listed = done("weights", "list").out
    assert {line.split()[0] for line in listed.splitlines() if str(found) in line and "," in line} >= {"mine"}
    assert "small" in listed
    shown = done("weights", "show", "small").out
    for text in ("random numbers", "none needed", "any map"):
        assert text in shown
    assert "322881" in done("weights", "show", "mine").out.replace(",", "")
    by_name = done("denoise", *pair, "-o", "name.mrc", "--weights", "small").said
    done("denoise", *pair, "-o", "path.mrc", "--weights", weights)
    assert "small" in by_name
    assert relative(read("name.mrc")[0], read("path.mrc")[0]) == 0


def test_the_packages_own_are_listed_and_taken_without_being_named(found, weights, pair):
    shutil.copytree(weights, found / "another")
    listed = done("weights", "list").out.splitlines()
    assert [line.split()[:2] for line in listed[:2]] == [["cref", "322,881"], ["truth", "170,657"]]
    assert [line.endswith("(default)") for line in listed] == [False, True, False]
    assert "weights truth" in done("denoise", *pair, "-o", "out.mrc").said
    done("denoise", *pair, "-o", "named.mrc", "--weights", "truth")
    assert relative(read("out.mrc")[0], read("named.mrc")[0]) == 0


@pytest.mark.parametrize("name", ["cref", "truth"])
def test_the_packages_own_may_be_shared_and_say_what_they_are(name):
    shown = done("weights", "show", name).out
    for text in ("licence: Apache-2.0", "good for: ", "not good for: ", "training: ", "models: PDB entries (CC0) "):
        assert text in shown
    # The entries that the project is measured on.
    trained_on = shown.split("  models: ")[1].splitlines()[0]
    for never in ("8TZE", "7YC8"):
        assert never not in trained_on


def test_a_damaged_folder_does_not_hide_the_others(found, weights, pair):
    shutil.copytree(weights, found / "good")
    shutil.copytree(weights, found / "bad")
    (found / "bad" / "card.json").write_text("{")
    (found / "notes.txt").write_text("mine")
    (found / "empty").mkdir()
    done("denoise", *pair, "-o", "out.mrc", "--weights", "good")
    assert "good" in done("weights", "show", "good").out
    assert "good" in done("weights", "list").out


def test_overwrite_replaces_a_weights_folder(arrays_file, weights, here):
    shutil.copytree(weights, here / "small")
    done("weights", "import", arrays_file, "-o", "small", "--overwrite")
    assert "322881" in done("weights", "show", "small").out.replace(",", "")
    assert list(here.iterdir()) == [here / "small"]
