import io

import matplotlib.image
import numpy as np
import pytest
from helpers.report_inputs import BOX, body, soft_mask

from crefjax.report.slices import LARGEST_SIDE, cut_slices, match, most_variable_plane, png_bytes

AXES = {"z": 0, "y": 1, "x": 2}


def pixels(content):
    """An image as bytes: `(rows, columns)` of grays or `(rows, columns, 4)`."""
    return np.round(255 * matplotlib.image.imread(io.BytesIO(content), format="png")).astype(int)


def shown_part(inside, axis):
    """The part of an axis that the mask takes and 3 voxels, a tenth of 28, on both sides."""
    filled = np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis})))
    return slice(max(filled[0] - 3, 0), min(filled[-1] + 4, inside.shape[axis]))


def test_png_of_grays_and_of_colors():
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (5, 7), np.uint8)
    colors = random.integers(0, 256, (256, 4), np.uint8)
    assert np.array_equal(pixels(png_bytes(image)), image)
    assert np.array_equal(pixels(png_bytes(image, colors)), colors[image])


@pytest.fixture(scope="module")
def cut():
    full = (body(1) + body(2)) / 2
    local = np.broadcast_to(np.linspace(0, 1, BOX[2], dtype=np.float32), BOX)
    return cut_slices(full, 0.5 * body() + 1, soft_mask(), 1.5, local={"agreement": local})


def test_planes_go_through_the_particle_and_show_the_mask(cut):
    """The ball lies at z, y, x = 8, 13, 18; its mask spans about as many voxels as its widths ask."""
    inside = soft_mask() > 0.5
    for plane, middle in zip(cut.planes, (8, 13, 18), strict=True):
        assert abs(plane.index - middle) <= 1
        assert plane.position == 1.5 * plane.index
    for plane in cut.planes:
        up, across = (shown_part(inside, AXES[name]) for name in (plane.up, plane.across))
        assert (plane.height, plane.width) == (up.stop - up.start, across.stop - across.start)
    assert [(plane.across, plane.up) for plane in cut.planes] == [("x", "y"), ("x", "z"), ("y", "z")]


def test_images_have_their_axes_upwards_and_to_the_right(cut):
    """Voxel by voxel: the gray of a map along its plane, up and to the right."""
    full = (body(1) + body(2)) / 2
    inside = soft_mask() > 0.5
    starts = [shown_part(inside, axis).start for axis in range(3)]
    for number, plane in enumerate(cut.planes):
        image = pixels(cut.before.images[number])
        assert image.shape == (plane.height, plane.width)
        for row in range(0, plane.height, 3):
            for column in range(0, plane.width, 4):
                where = [0, 0, 0]
                where[AXES[plane.axis]] = plane.index
                where[AXES[plane.up]] = starts[AXES[plane.up]] + plane.height - 1 - row
                where[AXES[plane.across]] = starts[AXES[plane.across]] + column
                gray = 255 * (full[tuple(where)] - cut.before.low) / (cut.before.high - cut.before.low)
                assert abs(image[row, column] - np.clip(gray, 0, 255)) <= 1


def test_the_outline_lies_where_the_mask_crosses_one_half(cut):
    mask = soft_mask()
    for plane in cut.planes:
        crossed = np.take(mask, plane.index, AXES[plane.axis]) > 0.5
        points = np.concatenate(plane.outline)
        width, height = np.ptp(points, axis=0)
        assert abs(width - crossed.any(0).sum()) < 1.01
        assert abs(height - crossed.any(1).sum()) < 1.01
        assert points.min() > 0


def test_both_maps_have_one_gray_scale_after_matching(cut):
    assert (cut.before.low, cut.before.high) == (cut.after.low, cut.after.high)
    inside = soft_mask() > 0.5
    full, denoised = ((body(1) + body(2)) / 2)[inside], (0.5 * body() + 1)[inside]
    expected = np.linalg.lstsq(np.stack([denoised, np.ones_like(denoised)], 1), full, rcond=None)[0]
    assert (cut.gain, cut.offset) == pytest.approx(expected.tolist(), rel=1e-4)


def test_match_does_not_invert_a_map():
    full = body()[soft_mask() > 0.5]
    assert match(full, -full)[0] == 1
    assert match(full, np.zeros_like(full))[0] == 1
    assert match(np.zeros_like(full), full)[2] == 1


def test_colors_span_the_scale_and_are_clear_outside_the_mask(cut):
    (layer,) = cut.local
    assert (layer.low, layer.high) == (0, 1)
    image, mask = pixels(layer.images[0]), soft_mask()
    assert set(np.unique(image[..., 3])) == {0, 255}
    assert pixels(layer.scale).shape == (1, 127, 4)
    rows, columns = (shown_part(mask > 0.5, axis) for axis in (1, 2))
    assert np.array_equal(image[::-1, :, 3] > 0, mask[cut.planes[0].index, rows, columns] >= 0.01)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_most_variable_plane_has_the_largest_sum_of_squares(axis):
    array = np.random.default_rng(axis).standard_normal((5, 6, 7)).astype(np.float32)
    inside = np.ones(array.shape, bool)
    sums = [np.square(np.take(array, n, axis) - array.mean(dtype="f8")).sum() for n in range(array.shape[axis])]
    assert most_variable_plane(array, inside, axis) == int(np.argmax(sums))


def test_large_planes_are_binned():
    side = LARGEST_SIDE + 88
    shape = (4, 6, side)
    ramp = np.broadcast_to(np.arange(side, dtype=np.float32), shape)
    cut = cut_slices(ramp, ramp, np.ones(shape, np.float32), 2.0)
    assert [(plane.height, plane.width, plane.pixel) for plane in cut.planes] == [
        (3, side // 2, 4.0),
        (2, side // 2, 4.0),
        (4, 6, 2.0),
    ]
    image = pixels(cut.before.images[0])
    assert np.array_equal(image[0], image[-1])
    assert (np.diff(image[0]) >= 0).all()


@pytest.mark.parametrize("mask", [np.zeros(BOX, "f4"), np.ones(BOX, "f4"), np.full(BOX, 0.3, "f4")])
def test_masks_without_an_edge_have_no_outline(mask):
    if not mask.any():
        mask[3, 4, 5] = 0.2
    cut = cut_slices(body(1), body(), mask, 1.0)
    assert all(len(plane.outline) == 0 for plane in cut.planes)
