"""Soft edges, by hand."""

import numpy as np
import pytest

from crefjax.spectral.windows import border_window


def test_window_at_the_border_is_a_raised_cosine_from_the_faces():
    # Centers of voxels lie 0.5, 1.5, and 2.5 voxels from the face; the edge is 2 voxels wide.
    half = [0.5 - 0.5 * np.cos(np.pi * 0.25), 0.5 - 0.5 * np.cos(np.pi * 0.75), 1.0]
    assert border_window(6, 2) == pytest.approx([*half, *half[::-1]])
    assert border_window(5, 2) == pytest.approx([*half, *half[1::-1]])


def test_no_edge_is_no_window():
    assert border_window(4, 0).tolist() == [1.0] * 4
