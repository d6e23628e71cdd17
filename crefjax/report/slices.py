"""Three orthogonal planes through a particle: before, after, the change, and the mask's outline.

Images have the axes of the maps: x (else y) to the right, z (else y) upwards. All planes show the same part of the box,
the one around the mask.
"""

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from crefjax.masking import bounding_box

LARGEST_SIDE = 512  # pixels; larger planes are binned
_MARGIN = 0.1  # of the longest side, kept around the mask
_COLORS = 127  # of a scale; the next pixel value is clear
_OUTSIDE = 0.01  # mask below which local maps are not shown
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GRAYS, _INDEXED = 0, 3


def png_bytes(pixels: np.ndarray, colors: np.ndarray | None = None) -> bytes:
    """Return an image as the bytes of a PNG file (W3C recommendation of 2003).

    Args:
        pixels: `(rows, columns)`, uint8; the first row is the top.
        colors: `(up to 256, 4)`, uint8, red, green, blue and opacity of every pixel value; None for shades of gray.

    Raises:
        ValueError: the pixels are not two-dimensional bytes.
    """
    if pixels.ndim != 2 or pixels.dtype != np.uint8:
        raise ValueError(f"expected bytes (rows, columns), found {pixels.dtype} of shape {pixels.shape}")
    rows, columns = pixels.shape
    kind = _GRAYS if colors is None else _INDEXED
    chunks = [_chunk(b"IHDR", struct.pack(">2I5B", columns, rows, 8, kind, 0, 0, 0))]
    if colors is not None:
        chunks += [_chunk(b"PLTE", colors[:, :3].tobytes()), _chunk(b"tRNS", colors[:, 3].tobytes())]
    unfiltered = np.pad(pixels, ((0, 0), (1, 0)))  # every row starts with the number of its filter, 0
    chunks += [_chunk(b"IDAT", zlib.compress(unfiltered.tobytes(), 6)), _chunk(b"IEND", b"")]
    return _SIGNATURE + b"".join(chunks)


def _chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


class ImageLayer(NamedTuple):
    """One quantity in the three planes.

    Attributes:
        name: for the page.
        images: PNG files of the z, y, and x plane.
        low, high: the values of the first and the last color.
        unit: of the values.
        scale: the colors as an image one pixel high, a PNG file; None for grays.
    """

    name: str
    images: tuple[bytes, bytes, bytes]
    low: float
    high: float
    unit: str
    scale: bytes | None


class Plane(NamedTuple):
    """Position, axes, and outline of a plane.

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
    """Images of a particle.

    Attributes:
        planes: perpendicular to z, y, and x.
        before, after: in grays of one scale.
        change: |after - before| after matching, in standard deviations of the full map within the mask.
        gain, offset: by which the denoised map was matched, `gain * denoised + offset`.
        std: standard deviation of the full map within the mask.
        local: of the local maps.
    """

    planes: tuple[Plane, Plane, Plane]
    before: ImageLayer
    after: ImageLayer
    change: ImageLayer
    gain: float
    offset: float
    std: float
    local: tuple[ImageLayer, ...]


def cut_slices(
    full: np.ndarray,
    denoised: np.ndarray,
    mask: np.ndarray,
    voxel_size: float,
    *,
    local: Mapping[str, np.ndarray] | None = None,
) -> Slices:
    """Cut the planes in which the particle varies most.

    The denoised map is matched to the full map by the gain and the offset that fit it best within the mask (least
    squares): both are then shown in the same grays.

    Args:
        full: `(z, y, x)`, the mean of the half-maps.
        denoised: the same shape.
        mask: the same shape, 0 to 1.
        voxel_size: Å.
        local: local maps by their names, `(z, y, x)`, 0 to 1.
    """
    inside = mask > 0.5
    if not inside.any():
        inside = mask > 0
    gain, offset, std = match(full[inside], denoised[inside])
    indices = [most_variable_plane(denoised, inside, axis) for axis in range(3)]
    box = bounding_box(inside, round(_MARGIN * max(inside.shape)))

    def cut(array):
        return [_cut_plane(array, axis, index, box) for axis, index in enumerate(indices)]

    before, after, masks = cut(full), [gain * plane + offset for plane in cut(denoised)], cut(mask)
    low, high = _gray_range(before, after, masks)
    change = [np.abs(b - a) / std for b, a in zip(before, after, strict=True)]
    highest = max(float(np.percentile(np.concatenate([plane.ravel() for plane in change]), 99.7)), 1e-6)
    shown = [plane >= _OUTSIDE for plane in masks]
    return Slices(
        planes=tuple(_plane(axis, indices[axis], box, masks[axis], voxel_size) for axis in range(3)),
        before=ImageLayer("full map", _grays(before, low, high), low, high, "map's units", None),
        after=ImageLayer("denoised map", _grays(after, low, high), low, high, "map's units", None),
        change=_colored("change", change, highest, "σ", "viridis", [True] * 3),
        gain=gain,
        offset=offset,
        std=std,
        local=tuple(_colored(name, cut(array), 1.0, "", "cividis", shown) for name, array in (local or {}).items()),
    )


def match(full: np.ndarray, denoised: np.ndarray) -> tuple[float, float, float]:
    """Fit `gain * denoised + offset` to the full map by least squares.

    Args:
        full: voxels within the mask, `(voxels,)`.
        denoised: the same.

    Returns:
        The gain (1 if the denoised map is constant or has the opposite contrast), the offset, and the standard
        deviation of the full map (1 if it is constant).
    """
    full, denoised = full.astype(np.float64), denoised.astype(np.float64)
    mean_full, mean_denoised = full.mean(), denoised.mean()
    variation = denoised - mean_denoised
    power = np.dot(variation, variation)
    gain = float(np.dot(variation, full - mean_full) / power) if power > 0 else 1.0
    gain = gain if gain > 0 else 1.0
    return gain, float(mean_full - gain * mean_denoised), float(full.std()) or 1.0


def most_variable_plane(array: np.ndarray, inside: np.ndarray, axis: int) -> int:
    """Return the index of the plane along an axis with the most variation within the mask.

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


def _binning(shape):
    """Return by what factor a plane is binned to at most `LARGEST_SIDE` pixels."""
    return -(-max(shape) // LARGEST_SIDE)


def _cut_plane(array, axis, index, box):
    """Cut and bin a plane, upwards axis first, in float64; an incomplete bin at the far sides is dropped."""
    plane = np.asarray(array[(*box[:axis], index, *box[axis + 1 :])], np.float64)
    factor = _binning(plane.shape)
    rows, columns = (side // factor for side in plane.shape)
    return plane[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor).mean((1, 3))


def _plane(axis, index, box, mask, voxel_size):
    up, across = (other for other in range(3) if other != axis)
    height, width = mask.shape
    return Plane(
        axis="zyx"[axis],
        across="zyx"[across],
        up="zyx"[up],
        position=float(index * voxel_size),
        index=index,
        width=width,
        height=height,
        pixel=float(_binning([box[up].stop - box[up].start, box[across].stop - box[across].start]) * voxel_size),
        outline=_outline(mask[::-1]),
    )


def _outline(mask):
    """Return polygons around the part above 0.5, in pixels from the upper left corner of the upper left pixel."""
    if min(mask.shape) < 2 or not (mask > 0.5).any() or (mask > 0.5).all():
        return []
    contour = Figure().add_subplot().contour(mask, levels=[0.5])
    return [polygon + 0.5 for path in contour.get_paths() for polygon in path.to_polygons(closed_only=False)]


def _gray_range(before, after, masks):
    """Return the range of the grays: wide enough for the denoised map, and for most of the full map."""
    inside = [mask > 0.5 for mask in masks]
    if not any(part.any() for part in inside):
        inside = [np.ones_like(part) for part in inside]
    noisy, clean = (
        np.concatenate([plane[part] for plane, part in zip(planes, inside, strict=True)]) for planes in (before, after)
    )
    low = min(np.percentile(noisy, 2), np.percentile(clean, 0.5))
    high = max(np.percentile(noisy, 98), np.percentile(clean, 99.7))
    return float(low), float(high) if high > low else float(low) + 1.0


def _grays(planes, low, high):
    return tuple(png_bytes(_levels(plane, low, high, 255)[::-1]) for plane in planes)  # rows run downwards


def _levels(plane, low, high, highest):
    return np.round(np.clip((plane - low) / (high - low), 0, 1) * highest).astype(np.uint8)


def _colored(name, planes, high, unit, colormap, shown):
    """Return a layer in the colors of a map, from 0 to `high`; it is clear where `shown` is false."""
    colors = matplotlib.colormaps[colormap](np.linspace(0, 1, _COLORS), bytes=True)
    colors = np.concatenate([colors, np.zeros((1, 4), np.uint8)])
    images = tuple(
        png_bytes(np.where(part, _levels(plane, 0.0, high, _COLORS - 1), np.uint8(_COLORS))[::-1], colors)
        for plane, part in zip(planes, shown, strict=True)
    )
    scale = png_bytes(np.arange(_COLORS, dtype=np.uint8)[np.newaxis], colors)
    return ImageLayer(name, images, 0.0, high, unit, scale)
