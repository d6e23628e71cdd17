"""Three orthogonal planes through a particle: before, after, what changed, and the mask's outline.

Images have their axes as the maps do: x to the right where there is x, z (else y) upwards. All planes show the same
part of the box, the one around the mask.
"""

import struct
import zlib
from dataclasses import dataclass
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from crefjax.masking import bounding_box

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _INDEXED = 0, 3


def png_bytes(pixels: np.ndarray, colors: np.ndarray | None = None) -> bytes:
    """An image as the bytes of a PNG file (W3C recommendation of 2003).

    Args:
        pixels: `(rows, columns)`, uint8; the first row is the top.
        colors: `(up to 256, 4)`, uint8, red, green, blue and opacity of every pixel value; None for shades of grey.

    Raises:
        ValueError: the pixels are not two-dimensional bytes.
    """
    if pixels.ndim != 2 or pixels.dtype != np.uint8:
        raise ValueError(f"expected bytes (rows, columns), found {pixels.dtype} of shape {pixels.shape}")
    rows, columns = pixels.shape
    kind = _GREY if colors is None else _INDEXED
    chunks = [_chunk(b"IHDR", struct.pack(">2I5B", columns, rows, 8, kind, 0, 0, 0))]
    if colors is not None:
        chunks += [_chunk(b"PLTE", colors[:, :3].tobytes()), _chunk(b"tRNS", colors[:, 3].tobytes())]
    unfiltered = np.pad(pixels, ((0, 0), (1, 0)))  # every row begins with the number of its filter, 0
    chunks += [_chunk(b"IDAT", zlib.compress(unfiltered.tobytes(), 6)), _chunk(b"IEND", b"")]
    return _SIGNATURE + b"".join(chunks)


def _chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


LARGEST_SIDE = 512  # pixels; larger planes are binned
_MARGIN = 0.1  # of the longest side, kept around the mask
_STOPS = 127  # colours of a scale; the next pixel value is what lies outside
_OUTSIDE = 0.01  # mask below which local maps say nothing
_INVERT = -1


class Layer(NamedTuple):
    """One quantity in the three planes.

    Attributes:
        name: for the page.
        images: PNG files of the z, y and x plane.
        low, high: the values of the first and the last colour.
        unit: of them.
        scale: the colours as an image one pixel high, a PNG file; None for greys.
    """

    name: str
    images: tuple[bytes, bytes, bytes]
    low: float
    high: float
    unit: str
    scale: bytes | None


class Plane(NamedTuple):
    """Where a plane lies and what it shows.

    Attributes:
        axis: the axis that it is perpendicular to, `z`, `y` or `x`.
        across, up: the axes to the right and upwards.
        position: Å from the first voxel of the box.
        index: voxel along the axis, from 0.
        width, height: of the images, in pixels.
        pixel: side of a pixel, Å.
        outline: of the mask at 0.5, polygons `(points, 2)` in pixels from the upper left corner.
    """

    axis: str
    across: str
    up: str
    position: float
    index: int
    width: int
    height: int
    pixel: float
    outline: list[np.ndarray]


@dataclass(frozen=True)
class Slices:
    """What the page shows of a particle.

    Attributes:
        planes: perpendicular to z, y and x.
        before, after: greys, of one scale.
        change: |after - before| after matching, in standard deviations of the full map within the mask.
        gain, offset: by which the denoised map was matched, `gain * denoised + offset`.
        local: further layers, where local maps were given.
    """

    planes: tuple[Plane, Plane, Plane]
    before: Layer
    after: Layer
    change: Layer
    gain: float
    offset: float
    local: tuple[Layer, ...]


def cut_slices(full: np.ndarray, denoised: np.ndarray, mask: np.ndarray, voxel_size: float, *, local=()) -> Slices:
    """Cut the planes in which the particle has most.

    The denoised map is matched to the full map by the gain and the offset that fit it best within the mask (least
    squares): both are then shown in the same greys.

    Args:
        full: `(z, y, x)`, the mean of the half-maps.
        denoised: the same shape.
        mask: the same shape, 0 to 1.
        voxel_size: Å.
        local: names and local maps of 0 to 1, `(z, y, x)`.
    """
    inside = mask > 0.5
    if not inside.any():
        inside = mask > 0
    gain, offset, deviation = match(full[inside], denoised[inside])
    where = tuple(fullest_plane(denoised, inside, axis) for axis in range(3))
    box = bounding_box(inside, round(_MARGIN * max(inside.shape)))
    cut = [_cutter(axis, where[axis], box) for axis in range(3)]
    before = [one(full) for one in cut]
    after = [gain * one(denoised).astype(np.float64) + offset for one in cut]
    masks = [one(mask) for one in cut]
    low, high = _grey_range(before, after, masks)
    change = [np.abs(b - a) / deviation for b, a in zip(before, after, strict=True)]
    highest = max(float(np.percentile(np.concatenate([one.ravel() for one in change]), 99.7)), 1e-6)
    planes = tuple(_plane(axis, where[axis], box, masks[axis], voxel_size) for axis in range(3))
    return Slices(
        planes=planes,
        before=Layer("full map", _greys(before, low, high), low, high, "map's units", None),
        after=Layer("denoised map", _greys(after, low, high), low, high, "map's units", None),
        change=_coloured("change", change, highest, "σ", "viridis", [None] * 3),
        gain=gain,
        offset=offset,
        local=tuple(
            _coloured(name, [one(array) for one in cut], 1.0, "", "cividis", [m >= _OUTSIDE for m in masks])
            for name, array in local
        ),
    )


def match(full: np.ndarray, denoised: np.ndarray) -> tuple[float, float, float]:
    """Gain and offset of the least-squares fit `gain * denoised + offset` to the full map, and the latter's deviation.

    Args:
        full: voxels within the mask, `(voxels,)`.
        denoised: the same.

    Returns:
        the gain (1 where a denoised map is constant or runs against the full map), the offset and the deviation
        (1 where that is 0).
    """
    full, denoised = full.astype(np.float64), denoised.astype(np.float64)
    mean_full, mean_denoised = full.mean(), denoised.mean()
    variation = denoised - mean_denoised
    power = np.dot(variation, variation)
    gain = float(np.dot(variation, full - mean_full) / power) if power > 0 else 1.0
    gain = gain if gain > 0 else 1.0
    return gain, float(mean_full - gain * mean_denoised), float(full.std()) or 1.0


def fullest_plane(array: np.ndarray, inside: np.ndarray, axis: int) -> int:
    """The plane along an axis with the most variation within the mask.

    Args:
        array: `(z, y, x)`.
        inside: the same shape, bool.
        axis: 0, 1 or 2.
    """
    others = tuple(other for other in range(3) if other != axis)
    mean = float(array[inside].mean(dtype=np.float64))
    power = np.zeros(array.shape[axis])
    for z, (slab, part) in enumerate(zip(array, inside, strict=True)):  # slab by slab: no copy of a large map
        squares = np.square(slab - np.float32(mean)) * part
        if axis == 0:
            power[z] = squares.sum(dtype=np.float64)
        else:
            power += squares.sum(axis=others[1] - 1, dtype=np.float64)
    return int(np.argmax(power))


def _cutter(axis, index, box):
    """A function that cuts a map's plane, upwards axis first, binned to at most `LARGEST_SIDE` pixels."""
    taken = tuple(index if one == axis else box[one] for one in range(3))
    return lambda array: _binned(np.asarray(array[taken], np.float64))


def _binned(plane):
    """Means of squares of pixels; what is left over at the far sides is dropped."""
    factor = -(-max(plane.shape) // LARGEST_SIDE)
    if factor == 1:
        return plane
    rows, columns = (side // factor for side in plane.shape)
    return plane[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor).mean((1, 3))


def _plane(axis, index, box, mask, voxel_size):
    up, across = (one for one in range(3) if one != axis)
    factor = -(-max(box[up].stop - box[up].start, box[across].stop - box[across].start) // LARGEST_SIDE)
    height, width = mask.shape
    return Plane(
        axis="zyx"[axis],
        across="zyx"[across],
        up="zyx"[up],
        position=float(index * voxel_size),
        index=index,
        width=width,
        height=height,
        pixel=float(factor * voxel_size),
        outline=_outline(mask[::_INVERT]),
    )


def _outline(mask):
    """Polygons around what is above 0.5, in pixels from the upper left corner of the upper left pixel."""
    if min(mask.shape) < 2 or not (mask > 0.5).any() or (mask > 0.5).all():
        return []
    contour = Figure().add_subplot().contour(mask, levels=[0.5])
    return [polygon + 0.5 for path in contour.get_paths() for polygon in path.to_polygons(closed_only=False)]


def _grey_range(before, after, masks):
    """The grey scale: wide enough for the denoised map, and for most of the full map."""
    inside = [mask > 0.5 for mask in masks]
    noisy, clean = (
        np.concatenate([one[part] for one, part in zip(images, inside, strict=True)]) for images in (before, after)
    )
    if not len(noisy):
        noisy, clean = (np.concatenate([one.ravel() for one in images]) for images in (before, after))
    low = min(np.percentile(noisy, 2), np.percentile(clean, 0.5))
    high = max(np.percentile(noisy, 98), np.percentile(clean, 99.7))
    return float(low), float(high) if high > low else float(low) + 1.0


def _greys(images, low, high):
    return tuple(png_bytes(_levels(one, low, high, 255)[::_INVERT]) for one in images)


def _levels(image, low, high, highest):
    return np.round(np.clip((image - low) / (high - low), 0, 1) * highest).astype(np.uint8)


def _coloured(name, images, high, unit, colormap, shown):
    """A layer through a colour map, from 0 to `high`; where `shown` is false it is clear."""
    colors = matplotlib.colormaps[colormap](np.linspace(0, 1, _STOPS), bytes=True)
    colors = np.concatenate([colors, np.zeros((1, 4), np.uint8)])
    made = []
    for image, part in zip(images, shown, strict=True):
        levels = _levels(image, 0.0, high, _STOPS - 1)
        made.append(
            png_bytes((levels if part is None else np.where(part, levels, np.uint8(_STOPS)))[::_INVERT], colors)
        )
    scale = png_bytes(np.arange(_STOPS, dtype=np.uint8)[np.newaxis], colors)
    return Layer(name, tuple(made), 0.0, high, unit, scale)
