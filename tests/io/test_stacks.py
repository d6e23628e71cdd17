"""Stacks of images, compared with mrcfile."""

from pathlib import Path

import mrcfile
import numpy as np
import pytest

from crefjax.errors import UserError
from crefjax.io.stacks import read_image, read_images, split_image_name, write_stack

IMAGES = Path(__file__).parents[3] / "shared/images"


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(3, 2, (5, 8, 8)).astype(np.float32)


def test_a_stack_written_in_parts_is_a_valid_stack(tmp_path, images):
    path = tmp_path / "a.mrcs"
    with write_stack(path, 5, 8, 1.5) as append:
        append(images[:3])
        append(images[3])
        append(images[4:])
    assert mrcfile.validate(path)
    with mrcfile.open(path) as file:
        assert file.is_image_stack()
        np.testing.assert_array_equal(file.data, images)
        assert file.voxel_size.x == file.voxel_size.y == 1.5
        assert file.header.dmean == pytest.approx(images.mean(), rel=1e-5)
        assert file.header.rms == pytest.approx(images.std(), rel=1e-5)


def test_a_stack_with_too_few_images_does_not_appear(tmp_path, images):
    path = tmp_path / "a.mrcs"
    with pytest.raises(ValueError, match="expected 5 images, found 3"), write_stack(path, 5, 8, 1.5) as append:
        append(images[:3])
    assert list(tmp_path.iterdir()) == []


def test_other_shapes_and_values_are_refused(tmp_path, images):
    with pytest.raises(ValueError, match="8 x 8"), write_stack(tmp_path / "a.mrcs", 5, 8, 1.5) as append:
        append(images[:, :4])
    with pytest.raises(ValueError, match="finite"), write_stack(tmp_path / "a.mrcs", 5, 8, 1.5) as append:
        append(images * np.nan)


def test_an_existing_stack_is_kept(tmp_path):
    path = tmp_path / "a.mrcs"
    path.write_bytes(b"mine")
    with pytest.raises(UserError, match="exists"), write_stack(path, 1, 8, 1.5) as append:
        append(np.zeros((8, 8)))
    assert path.read_bytes() == b"mine"


def test_single_images_are_read(tmp_path, images):
    path = tmp_path / "a.mrcs"
    with mrcfile.new(path) as file:
        file.set_data(images)
        file.set_image_stack()
    np.testing.assert_array_equal(read_image(path, 2), images[1])
    np.testing.assert_array_equal(read_images(path, [5, 1]), images[[4, 0]])
    with pytest.raises(UserError, match="expected image 6, found a stack of 5"):
        read_image(path, 6)


def test_files_that_are_no_stacks_are_refused_in_one_line(tmp_path):
    path = tmp_path / "a.mrcs"
    with pytest.raises(UserError, match="No such file"):
        read_image(path, 1)
    path.write_bytes(b"x" * 2000)
    with pytest.raises(UserError, match="expected a stack of"):
        read_image(path, 1)


def test_image_names_are_split():
    assert split_image_name("000012@Extract/job003/a.mrcs", "p.star") == (12, "Extract/job003/a.mrcs")
    assert split_image_name("a.mrc", "p.star") == (1, "a.mrc")
    for name in ("0@a.mrcs", "x@a.mrcs", "3@"):
        with pytest.raises(UserError, match="expected image names"):
            split_image_name(name, "p.star")


@pytest.mark.skipif(not IMAGES.is_dir(), reason="needs ../shared/images")
def test_a_stack_without_the_word_map_is_read():
    image = read_image(IMAGES / "empiar_10076_7.mrc", 7)
    raw = np.fromfile(IMAGES / "empiar_10076_7.mrc", "<f4", count=320**2, offset=1024 + 6 * 4 * 320**2)
    np.testing.assert_array_equal(image, raw.reshape(320, 320))
