"""Parts, cavities, extension, and edge of a mask, with exact values by hand."""

import numpy as np
import pytest

from crefjax.masking import bounding_box, dilate_with_soft_edge, remove_small_components


def distance_from(center, shape):
    squares = [(np.arange(n) - c) ** 2 for n, c in zip(shape, center, strict=True)]
    return np.sqrt(squares[0][:, None, None] + squares[1][:, None] + squares[2])


def test_exact_extension_and_raised_cosine():
    body = np.zeros((40, 40, 40), bool)
    body[20, 20, 20] = True
    mask = dilate_with_soft_edge(body, 3, 6)
    along = [1, 1, 1, 1] + [0.5 * (1 + np.cos(np.pi * d / 6)) for d in range(1, 6)] + [0, 0]
    np.testing.assert_allclose(mask[20, 20, 20:31], along, atol=1e-6)
    np.testing.assert_allclose(mask[20:31, 20, 20], along, atol=1e-6)
    assert mask[20, 22, 22] == 1  # distance sqrt(8)
    assert mask[20, 20 + 4, 20 + 4] == pytest.approx(0.5 * (1 + np.cos(np.pi * (32**0.5 - 3) / 6)))
    assert mask[22, 22, 22] == pytest.approx(0.5 * (1 + np.cos(np.pi * (12**0.5 - 3) / 6)))


def test_extension_by_whole_voxels_counts_them():
    body = np.zeros((24, 24, 24), bool)
    body[12, 12, 12] = True
    counts = [int(dilate_with_soft_edge(body, n, 0).sum()) for n in range(4)]
    assert counts == [1, 7, 33, 123]  # lattice points within 0, 1, 2, 3 of the origin


def test_distances_do_not_depend_on_slabs():
    body = np.zeros((150, 12, 12), bool)
    body[[0, 60, 131, 149], 6, 5] = True
    mask = dilate_with_soft_edge(body, 2, 5)
    distance = np.min([distance_from((z, 6, 5), body.shape) for z in (0, 60, 131, 149)], axis=0)
    expected = 0.5 * (1 + np.cos(np.pi * np.clip((distance - 2) / 5, 0, 1)))
    np.testing.assert_allclose(mask, expected, atol=1e-6)


def test_only_small_closed_cavities_are_filled():
    body = np.zeros((32, 32, 32), bool)
    body[4:28, 4:28, 4:28] = True  # 13824 voxels
    body[8:10, 8:10, 8:10] = False  # closed
    body[20, 20, 4:10] = False  # a well from the surface
    expected = body.copy()
    expected[8:10, 8:10, 8:10] = True
    assert remove_small_components(body, 0.1, 0) == (1, 1)
    np.testing.assert_array_equal(body, expected)

    capsid = np.zeros((32, 32, 32), bool)
    capsid[4:28, 4:28, 4:28] = True
    capsid[6:26, 6:26, 6:26] = False  # 8000 voxels in a shell of 5824
    before = capsid.copy()
    remove_small_components(capsid, 0.1, 0)
    np.testing.assert_array_equal(capsid, before)


def test_parts_that_touch_at_a_corner_are_one():
    body = np.zeros((12, 12, 12), bool)
    body[2:4, 2:4, 2:4] = body[4:6, 4:6, 4:6] = True
    assert remove_small_components(body, 0.1, 0) == (1, 1)
    assert body.sum() == 16


def test_bounding_box_with_a_margin_ends_at_the_border():
    mask = np.zeros((8, 9, 10), bool)
    mask[2:4, 5, 9] = True
    assert bounding_box(mask) == (slice(2, 4), slice(5, 6), slice(9, 10))
    assert bounding_box(mask, 3) == (slice(0, 7), slice(2, 9), slice(6, 10))
