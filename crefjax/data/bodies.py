"""From the voxels above a threshold to a soft mask: connected parts, cavities, extension, edge."""

import itertools
import math

import numpy as np
from scipy import ndimage

from crefjax.data.particle_level import no_particle

MAX_CAVITY = 0.1  # of the volume of the largest part

_SLAB = 64  # z planes whose distances are computed at once
_ALL_NEIGHBOURS = np.ones((3, 3, 3), bool)


def remove_small_components(body: np.ndarray, min_part: float, smallest: float) -> tuple[int, int]:
    """Clear the small parts of `body` and fill its small cavities, in place; parts found and kept.

    Raises:
        UserError: no part has `smallest` voxels.
    """
    if not body.any():
        raise no_particle()
    body = body[_bounding_box(body, 1)]
    labels, found = ndimage.label(body, _ALL_NEIGHBOURS)
    sizes = _label_sizes(labels, found)
    sizes[0] = 0
    largest = sizes.max()
    if largest < smallest:
        raise no_particle()
    keep = sizes >= max(min_part * largest, 1)
    _select(keep, labels, body)
    del labels

    # By faces alone, since the body is connected by corners too. What touches the block's border is open.
    labels, count = ndimage.label(~body)
    fill = _label_sizes(labels, count) < MAX_CAVITY * largest
    for axis, end in itertools.product(range(3), (0, -1)):
        fill[np.take(labels, end, axis)] = False
    fill[0] = True  # the body itself
    _select(fill, labels, body)
    return found, int(keep.sum())


def _label_sizes(labels: np.ndarray, count: int) -> np.ndarray:
    # Plane by plane: NumPy makes 8-byte copies of what it counts, and of indices below.
    return sum(np.bincount(plane.reshape(-1), minlength=count + 1) for plane in labels)


def _select(chosen: np.ndarray, labels: np.ndarray, out: np.ndarray) -> None:
    for plane, out_plane in zip(labels, out, strict=True):
        out_plane[:] = chosen[plane]


def _bounding_box(body: np.ndarray, margin: int) -> tuple[slice, ...]:
    """The smallest block that holds all True voxels, and `margin` voxels around, within the box."""
    slices = []
    for axis in range(3):
        other = tuple(a for a in range(3) if a != axis)
        where = np.flatnonzero(body.any(axis=other))
        slices.append(slice(max(where[0] - margin, 0), where[-1] + 1 + margin))
    return tuple(slices)


def dilate_with_soft_edge(body: np.ndarray, extend: float, soft_edge: float) -> np.ndarray:
    """The mask, float32, from the distance to the body; see `make_mask` for the formula.

    Distances matter only up to `extend + soft_edge`, so that they are exact when they are computed for slabs
    with that much around them; SciPy's transform takes some 50 bytes a voxel.
    """
    mask = np.zeros(body.shape, np.float32)
    reach = math.ceil(extend + soft_edge)
    z_range, y_range, x_range = _bounding_box(body, reach)
    for start in range(z_range.start, min(z_range.stop, len(body)), _SLAB):
        stop = min(start + _SLAB, len(body))
        first = max(start - reach, 0)
        near = body[first : stop + reach, y_range, x_range]
        if near.any():
            distance = ndimage.distance_transform_edt(~near)[start - first : stop - first]
            mask[start:stop, y_range, x_range] = _edge(distance, extend, soft_edge)
    return mask


def taper_at_border(mask: np.ndarray, soft_edge: float) -> bool:
    """Let a mask fall off towards the border of the box, in place; whether it reached the border.

    A raised cosine over `soft_edge` voxels from every face. The discrete Fourier transform joins opposite faces of the
    box: density cut off there correlates between any two half-maps, up to Nyquist, and an FSC would count it as signal.
    """
    reached = any(bool((np.take(mask, end, axis) >= 0.5).any()) for axis in range(3) for end in (0, -1))
    for axis, side in enumerate(mask.shape):
        distance = np.minimum(np.arange(side), np.arange(side)[::-1]) + 0.5
        window = 1 - _edge(distance, 0, soft_edge)
        mask *= window.astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
    return reached


def _edge(distance: np.ndarray, extend: float, soft_edge: float) -> np.ndarray:
    beyond = distance - extend
    if soft_edge == 0:
        return beyond <= 0
    return 0.5 + 0.5 * np.cos(np.pi * np.clip(beyond / soft_edge, 0, 1))
