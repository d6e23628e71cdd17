"""Stacks of images, compared with mrcfile."""

from pathlib import Path

import mrcfile
import numpy as np
import pytest

from crefjax.errors import UserError
from crefjax.io.stacks import ImageStack, split_image_name, write_stack

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


def test_files_that_are_no_stacks_are_refused_in_one_line(tmp_path):
    path = tmp_path / "a.mrcs"
    with pytest.raises(UserError, match="No such file"):
        ImageStack(path)
    path.write_bytes(b"x" * 2000)
    with pytest.raises(UserError, match="expected a stack of"):
        ImageStack(path)


def test_image_names_are_split():
    assert split_image_name("000012@Extract/job003/a.mrcs", "p.star") == (12, "Extract/job003/a.mrcs")
    assert split_image_name("a.mrc", "p.star") == (1, "a.mrc")
    for name in ("0@a.mrcs", "x@a.mrcs", "3@"):
        with pytest.raises(UserError, match="expected image names"):
            split_image_name(name, "p.star")


def test_images_that_are_not_square_are_written_with_their_sides(tmp_path):
    images = np.arange(48, dtype=np.float32).reshape(2, 4, 6)
    with write_stack(tmp_path / "a.mrcs", 2, (4, 6), 2.0) as append:
        append(images)
    with mrcfile.open(tmp_path / "a.mrcs") as file:
        np.testing.assert_array_equal(file.data, images)
        assert (file.header.nx, file.header.ny) == (6, 4)
        assert file.voxel_size.x == file.voxel_size.y == 2.0


def test_a_stack_is_read_in_parts(tmp_path, images):
    path = tmp_path / "a.mrcs"
    with write_stack(path, 5, 8, 1.5) as append:
        append(images)
    with ImageStack(path) as stack:
        assert (stack.count, stack.shape, stack.pixel_size) == (5, (8, 8), 1.5)
        np.testing.assert_array_equal(stack.read([4, 0]), images[[4, 0]])
        np.testing.assert_array_equal(stack.read(slice(1, 3)), images[1:3])
        np.testing.assert_array_equal(stack.read_part(2, (slice(1, 4), slice(0, 8))), images[2, 1:4])


def test_a_single_image_is_a_stack_of_one(tmp_path, images):
    with mrcfile.new(tmp_path / "a.mrc", images[0]):
        pass
    with ImageStack(tmp_path / "a.mrc") as stack:
        assert (stack.count, stack.shape, stack.pixel_size) == (1, (8, 8), None)


def test_a_volume_is_no_stack_unless_its_name_says_so(tmp_path):
    cube = np.random.default_rng(1).normal(size=(8, 8, 8)).astype(np.float32)
    for name in ("a.mrc", "a.mrcs"):
        with mrcfile.new(tmp_path / name, cube):
            pass
    with pytest.raises(UserError, match="expected images, found a volume of 8x8x8 voxels"):
        ImageStack(tmp_path / "a.mrc")
    with ImageStack(tmp_path / "a.mrcs") as stack:
        assert stack.count == 8


def test_the_image_that_is_not_finite_is_named(tmp_path, images):
    with write_stack(tmp_path / "a.mrcs", 5, 8, 1.5) as append:
        append(images)
    pixels = np.memmap(tmp_path / "a.mrcs", "<f4", "r+", offset=1024, shape=images.shape)
    pixels[3, 2, 1] = np.nan
    pixels.flush()
    with ImageStack(tmp_path / "a.mrcs") as stack:
        stack.read([0])
        with pytest.raises(UserError, match="in image 4; leave it out"):
            stack.read([0, 3])
        with pytest.raises(UserError, match="in image 4"):
            stack.read_part(3, (slice(0, 4), slice(0, 4)))


@pytest.mark.skipif(not IMAGES.is_dir(), reason="needs ../shared/images")
@pytest.mark.parametrize(
    ("name", "count", "side"),
    [("empiar_10076_7.mrc", 7, 320), ("relion31.mrcs", 5, 256), ("aspire_sample.mrcs", 17, 200)],
)
def test_real_stacks_whose_headers_are_wrong_are_read(name, count, side):
    """They call themselves volumes, lack the word MAP, or have no pixel size."""
    with ImageStack(IMAGES / name) as stack:
        assert (stack.count, stack.shape) == (count, (side, side))
        assert stack.pixel_size in (None, 1.0)
        np.testing.assert_allclose(stack.read(slice(None)).std((1, 2)), 1, atol=0.3)  # RELION's normalization


@pytest.mark.skipif(not IMAGES.is_dir(), reason="needs ../shared/images")
def test_a_stack_without_the_word_map_is_read():
    with ImageStack(IMAGES / "empiar_10076_7.mrc") as stack:
        image = stack.read([6])[0]
    raw = np.fromfile(IMAGES / "empiar_10076_7.mrc", "<f4", count=320**2, offset=1024 + 6 * 4 * 320**2)
    np.testing.assert_array_equal(image, raw.reshape(320, 320))
