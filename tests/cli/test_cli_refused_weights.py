"""Weights that are unknown or damaged, and arrays of other networks."""

import importlib.util
import json
import shutil
import zipfile

import numpy as np
import pytest
from helpers.cli import assert_refused

# Threads of Orbax may raise after a damaged folder was refused, also during a later test.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

HAS_TENSORFLOW = importlib.util.find_spec("tensorflow") is not None


@pytest.fixture
def denoise(pair):
    return ["denoise", *pair, "-o", "out.mrc"]


@pytest.fixture
def damaged(workdir, weights):
    """Copy the weights folder, to be damaged."""
    shutil.copytree(weights, workdir / "damaged")
    return workdir / "damaged"


@pytest.mark.parametrize("name", ["nobody", "./nobody", "nobody/else", ""])
def test_unknown_weights_are_refused(name, denoise, workdir):
    assert_refused(workdir, *denoise, "--weights", name, names=name)
    assert_refused(workdir, "weights", "show", name, names=name)


def test_unknown_weights_message_lists_the_known_names(denoise, workdir, weights, monkeypatch):
    shutil.copytree(weights, workdir / "found" / "known")
    monkeypatch.setenv("CREFJAX_WEIGHTS", str(workdir / "found"))
    known = "(classifier, cref, images, truth, known)"
    assert_refused(workdir, *denoise, "--weights", "unknown", names=("unknown", known))


def no_card(folder):
    (folder / "card.json").unlink()


def card_of_text(folder):
    (folder / "card.json").write_text("weights of a network")


def card_cut(folder):
    card = folder / "card.json"
    card.write_bytes(card.read_bytes()[:100])


def card_empty(folder):
    (folder / "card.json").write_bytes(b"")


def card_not_utf8(folder):
    (folder / "card.json").write_bytes(b"\xff\xfe\x00{}")


def card_with(name, value):
    def damage(folder):
        card = json.loads((folder / "card.json").read_text())
        place = card["architecture"] if name in card["architecture"] else card
        if value is None:
            del place[name]
        else:
            place[name] = value
        (folder / "card.json").write_text(json.dumps(card))

    damage.__name__ = f"card_{name}_{value}"
    return damage


def card_list(folder):
    (folder / "card.json").write_text("[1, 2]")


def no_parameters(folder):
    shutil.rmtree(folder / "parameters")


def parameters_file(folder):
    no_parameters(folder)
    (folder / "parameters").write_text("none")


def parameters_empty(folder):
    no_parameters(folder)
    (folder / "parameters").mkdir()


def parameters_emptied(folder):
    for file in (folder / "parameters").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")


def parameters_cut(folder):
    """Remove the last half of each file."""
    for file in (folder / "parameters").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def parameters_without_data(folder):
    """Keep the descriptions, remove the arrays."""
    for place in (folder / "parameters").rglob("d"):
        shutil.rmtree(place)


def only_a_file(folder):
    shutil.rmtree(folder)
    folder.write_text("weights")


def empty_folder(folder):
    shutil.rmtree(folder)
    folder.mkdir()


DAMAGES = [
    *(no_card, card_of_text, card_cut, card_empty, card_not_utf8, card_list, only_a_file, empty_folder),
    *(card_with("card_version", value) for value in (None, 0, 2, 99, "one")),
    *(card_with("architecture", value) for value in (None, "unet3d", {"depth": 2})),
    *(card_with("network", value) for value in ("transformer", None)),
    *(card_with("depth", value) for value in (3, 0, -1, "two", None)),
    *(card_with("down_width", value) for value in (4, 2.5)),
    *(card_with("last_widths", value) for value in ([2], 2, [])),
    *(card_with("compute_dtype", value) for value in ("float99",)),
    *(no_parameters, parameters_file, parameters_empty, parameters_emptied, parameters_cut, parameters_without_data),
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damaged_weights_folder_is_refused(damage, denoise, damaged, workdir):
    damage(damaged)
    assert_refused(workdir, *denoise, "--weights", damaged, names="damaged")


def test_message_of_another_card_version_has_both(denoise, damaged, workdir):
    card_with("card_version", 99)(damaged)
    assert_refused(workdir, *denoise, "--weights", damaged, names=("99", "1"))


@pytest.mark.parametrize("damage", [no_card, card_cut, card_with("card_version", 99), only_a_file])
def test_damaged_weights_are_not_shown(damage, damaged, workdir):
    damage(damaged)
    assert_refused(workdir, "weights", "show", damaged, names="damaged")


def changed(**arrays):
    """Return a change of the 36 arrays; None removes an array."""

    def change(known):
        known = known | {name: value for name, value in arrays.items() if value is not None}
        return {name: value for name, value in known.items() if arrays.get(name, value) is not None}

    return change


def with_nan(known):
    kernel = known["02_kernel"].copy()
    kernel[0, 0, 0, 0, 0] = np.nan
    return known | {"02_kernel": kernel}


def turned(known):
    return known | {"14_kernel": known["16_kernel"][:, :, :, :16], "30_kernel": np.moveaxis(known["30_kernel"], 4, 3)}


CHANGES = {
    "one missing": changed(**{"13_bias": None}),
    "first missing": changed(**{"00_kernel": None}),
    "other shape": changed(**{"01_bias": np.zeros(17, "f4")}),
    "one more axis": changed(**{"01_bias": np.zeros((1, 16), "f4")}),
    "one more": changed(**{"36_kernel": np.zeros((3, 3, 3, 1, 1), "f4")}),
    "other names": lambda known: {f"layer_{name}": value for name, value in known.items()},
    "text": changed(**{"01_bias": np.full(16, "zero")}),
    "objects": changed(**{"01_bias": np.array([{}] * 16)}),
    "complex": changed(**{"01_bias": np.zeros(16, "c8")}),
    "NaN": with_nan,
    "infinite": changed(**{"01_bias": np.full(16, np.inf, "f4")}),
    "turned": turned,
    "none": lambda known: {},
}


@pytest.mark.parametrize("change", CHANGES)
def test_arrays_of_another_network_are_refused(change, arrays_file, workdir):
    with np.load(arrays_file) as known:
        arrays = CHANGES[change](dict(known))
    np.savez(workdir / "arrays.npz", **arrays)
    assert_refused(workdir, "weights", "import", "arrays.npz", "-o", "imported", names="arrays.npz")


def test_message_of_a_wrong_array_has_its_name_and_both_shapes(arrays_file, workdir):
    with np.load(arrays_file) as known:
        np.savez(workdir / "arrays.npz", **CHANGES["other shape"](dict(known)))
    assert_refused(workdir, "weights", "import", "arrays.npz", "-o", "imported", names=("01_bias", "16", "17"))


def text(path, arrays_file):
    path.write_text("arrays\n" * 500)


def cut(path, arrays_file):
    path.write_bytes(arrays_file.read_bytes()[:100_000])


def one_byte_wrong(path, arrays_file):
    raw = bytearray(arrays_file.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    path.write_bytes(raw)


def other_zip(path, arrays_file):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no arrays")


def folder(path, arrays_file):
    path.mkdir()


def one_array(path, arrays_file):
    with path.open("wb") as file:
        np.save(file, np.zeros(16, "f4"))


@pytest.mark.parametrize("make", [text, cut, one_byte_wrong, other_zip, folder, one_array])
def test_file_without_arrays_is_refused(make, arrays_file, workdir):
    make(workdir / "arrays.npz", arrays_file)
    assert_refused(workdir, "weights", "import", "arrays.npz", "-o", "imported", names="arrays.npz")


def test_missing_arrays_are_refused(workdir):
    assert_refused(workdir, "weights", "import", "nowhere.npz", "-o", "imported", names="nowhere.npz")


@pytest.mark.parametrize("prefix", ["saved-model-epoch-192", "nowhere/saved-model-epoch-192"])
def test_missing_checkpoint_is_refused(prefix, workdir):
    assert_refused(workdir, "weights", "import", prefix, "-o", "imported", names="saved-model-epoch-192")


@pytest.mark.skipif(HAS_TENSORFLOW, reason="TensorFlow is installed")
def test_checkpoint_without_tensorflow_names_the_package_to_install(workdir):
    for suffix in (".index", ".data-00000-of-00001"):
        (workdir / f"model{suffix}").write_bytes(bytes(100))
    message = assert_refused(workdir, "weights", "import", "model", "-o", "imported")
    assert "published" in message or "tensorflow" in message.lower()


@pytest.mark.skipif(not HAS_TENSORFLOW, reason="TensorFlow is not installed")
def test_damaged_checkpoint_is_refused(workdir):
    for suffix in (".index", ".data-00000-of-00001"):
        (workdir / f"model{suffix}").write_bytes(bytes(100))
    assert_refused(workdir, "weights", "import", "model", "-o", "imported", names="model")


def test_existing_weights_folder_is_kept(arrays_file, damaged, workdir):
    message = assert_refused(workdir, "weights", "import", arrays_file, "-o", damaged, names="damaged")
    assert "--overwrite" in message


@pytest.mark.parametrize("more", [(), ("--overwrite",)])
def test_foreign_folder_is_never_replaced(more, arrays_file, workdir):
    (workdir / "work").mkdir()
    (workdir / "work" / "thesis.txt").write_text("years")
    assert_refused(workdir, "weights", "import", arrays_file, "-o", "work", *more, names="work")
    assert_refused(workdir, "weights", "import", arrays_file, "-o", workdir, *more)
    (workdir / "file").write_text("no folder")
    assert_refused(workdir, "weights", "import", arrays_file, "-o", "file", *more, names="file")


def test_arrays_are_never_replaced_by_their_weights(arrays_file, workdir):
    shutil.copy(arrays_file, workdir / "arrays.npz")
    assert_refused(workdir, "weights", "import", "arrays.npz", "-o", "arrays.npz", "--overwrite", names="arrays.npz")


def test_failed_import_keeps_the_old_folder(damaged, workdir):
    (workdir / "arrays.npz").write_text("none")
    assert_refused(workdir, "weights", "import", "arrays.npz", "-o", damaged, "--overwrite", names="arrays.npz")
