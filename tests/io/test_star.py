"""STAR files written by hand, by gemmi, and by RELION."""

from pathlib import Path

import gemmi
import numpy as np
import pytest

from crefjax.errors import UserError
from crefjax.io import star

IMAGES = Path(__file__).parents[3] / "shared/images"

BY_HAND = """
# version 30001

data_general

_rlnImageName     'a file.mrc'   # a comment
_rlnPaddingFactor 2.000000

data_tau2

loop_
_rlnSpectralIndex #1
_rlnReferenceTau2 #2
   0 1.5
   1 -2e-3
"""


def test_pairs_and_tables_are_read(tmp_path):
    path = tmp_path / "a.star"
    path.write_text(BY_HAND)
    assert star.read_star(path) == {
        "general": {"rlnImageName": "a file.mrc", "rlnPaddingFactor": "2.000000"},
        "tau2": {"rlnSpectralIndex": ["0", "1"], "rlnReferenceTau2": ["1.5", "-2e-3"]},
    }


def test_a_block_without_a_name_is_read(tmp_path):
    path = tmp_path / "a.star"
    path.write_text("data_\n\nloop_\n_rlnImageName #1\n_rlnVoltage #2\n1@a.mrcs 300\n2@a.mrcs 200\n")
    assert star.read_star(path) == {"": {"rlnImageName": ["1@a.mrcs", "2@a.mrcs"], "rlnVoltage": ["300", "200"]}}


def test_numbers_are_parsed_and_single_rows_are_scalars(tmp_path):
    path = tmp_path / "a.star"
    path.write_text(BY_HAND)
    blocks = star.read_star(path)
    np.testing.assert_array_equal(star.find_numbers(blocks["tau2"], "rlnReferenceTau2", path), [1.5, -0.002])
    assert star.find_number(blocks["general"], "rlnPaddingFactor", path) == 2
    assert star.find_text({"x": ["only"]}, "x", path) == "only"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello\nworld\n", "expected a STAR file"),
        ("", "no data block"),
        ("data_a\nloop_\n_x\n_y\n1 2 3\n", "STAR file"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, text, message):
    path = tmp_path / "a.star"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        star.read_star(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_missing_file_block_or_label_and_a_bad_number_are_named(tmp_path):
    path = tmp_path / "a.star"
    with pytest.raises(UserError, match="No such file"):
        star.read_star(path)
    with pytest.raises(UserError, match="expected a block data_x, found data_y"):
        star.find_block({"y": {}}, "x", path)
    with pytest.raises(UserError, match="expected rlnX, found no such label"):
        star.find_number({}, "rlnX", path)
    with pytest.raises(UserError, match="expected finite numbers as rlnX, found 'nan'"):
        star.find_numbers({"rlnX": ["1", "nan"]}, "rlnX", path)
    with pytest.raises(UserError, match="expected one value of rlnX, found 2"):
        star.find_text({"rlnX": ["1", "2"]}, "rlnX", path)


def test_what_is_written_is_read_by_gemmi(tmp_path):
    path = tmp_path / "a.star"
    star.write_star(
        path,
        {
            "optics": {"rlnOpticsGroup": [1], "rlnVoltage": [300.0]},
            "particles": {"rlnImageName": ["000001@a.mrcs", "000002@a.mrcs"], "rlnAngleRot": np.array([-1.25, 170.5])},
            "general": {"rlnOriginalImageSize": 32, "rlnResult": "a.mrc"},
        },
    )
    document = gemmi.cif.read(str(path))
    assert [block.name for block in document] == ["optics", "particles", "general"]
    table = document["particles"].find(["_rlnImageName", "_rlnAngleRot"])
    assert [list(row) for row in table] == [["000001@a.mrcs", "-1.250000"], ["000002@a.mrcs", "170.500000"]]
    assert document["general"].find_value("_rlnOriginalImageSize") == "32"
    assert document["optics"].find_loop("_rlnVoltage")[0] == "300.000000"


@pytest.mark.parametrize("block", [{"a": ["x y"]}, {"a": [""]}, {"a": [1, 2], "b": [1]}, {"a": [1], "b": 1}])
def test_what_relion_could_not_read_is_not_written(tmp_path, block):
    with pytest.raises(ValueError, match="expected"):
        star.write_star(tmp_path / "a.star", {"x": block})
    assert not (tmp_path / "a.star").exists()


@pytest.mark.skipif(not IMAGES.is_dir(), reason="needs ../shared/images")
def test_files_of_relion_are_read():
    new = star.read_star(IMAGES / "relion31.star")
    assert set(new) == {"optics", "particles"}
    assert new["optics"]["rlnImageSize"] == ["256"]
    assert star.find_numbers(new["particles"], "rlnOriginYAngst", "f")[0] == pytest.approx(-0.64686)
    old = star.read_star(IMAGES / "empiar_10076_7.star")
    assert len(old[""]["rlnImageName"]) == 7
