"""Other programs' maps on the grid of an entry: where a map lies, and its density at the entry's voxels.

A program may write its map upsampled, resampled to 1 Å, cropped, or under a header that is incomplete or misleading:
LAFTER halves the voxels and keeps NSTART, DeepEMhancer sets the origin to zero, EMReady adds up ORIGIN and NSTART. Of
several readings of a header by which a map would cover the entry's density, the one by which it correlates best with
the half-map is taken, and reported; the plainest if it correlates by none. Nothing else is moved.
"""

from functools import partial
from operator import matmul
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.fft
import scipy.sparse
from mrcfile.dtypes import HEADER_DTYPE

from crefjax.errors import UserError, path_error
from crefjax.io.files import open_map_file
from crefjax.io.header import HEADER_BYTES, ISOTROPY, Header, byte_order
from crefjax.io.maps import ORIGIN_TOLERANCE, Map, check_header, check_voxels, read_map
from crefjax.masking import LOWPASS, MIN_PART, remove_small_components
from crefjax.masking.threshold import is_inverted, low_pass, particle_level

COVERED = 0.9  # of the entry's density must be in the map
RATIOS = (0.2, 5.0)  # of the map's voxel size to the entry's
_SAME = 0.02  # voxels of the entry; boxes, or places on one grid, that differ by less are the same
_CORRELATES = 10.0  # at least, in standard deviations of the correlation with white noise, 1 / sqrt(voxels)
_BLOCK = 2**20  # voxels
_HALF_WIDTH, _KAISER = 24, 6.0  # of the interpolation: zero crossings to either side, and the window's beta


class ResampledMap(NamedTuple):
    """A map on an entry's grid.

    Attributes:
        map: its header is that of the entry's half-map.
        how: it was brought there, in words: "as it is", "Fourier-cropped from 192x192x192 at 0.8 Å".
    """

    map: Map
    how: str


class _Place(NamedTuple):
    """A reading of a header: voxel size and place of the first voxel (z, y, x), in the entry's voxels; remarks."""

    size: float
    offset: np.ndarray
    remarks: tuple[str, ...] = ()


def read_resampled(path: Path, like: Map, *, mask: np.ndarray | None = None) -> ResampledMap:
    """Read a map and resample it to the grid of another one.

    A map of the same box is cropped or padded in Fourier space, which is exact; one of the same voxel size is cut or
    set into the box; any other is interpolated by a windowed sinc, cut off at the lower of the two Nyquist frequencies.
    Voxels that the map does not cover get the level at its border: 0 if a program masked its map, and no step if it
    added a constant.

    Args:
        path: of the map.
        like: the entry's half-map 1.
        mask: `(z, y, x)` on its grid, 0 to 1, of which the map must cover 90 %; None for the particle in `like`.

    Raises:
        UserError: `read_map` refuses the file, its map covers too little of the entry's density by every reading of
            its header, or its voxels are beyond 0.2 to 5 times the entry's.
    """
    map_, repairs = _read(Path(path), like)
    places = _places(map_, like)
    shares = _shares(map_, like, places, mask)
    best = (0.0, None, "")
    for number, (place, share) in enumerate(zip(places, shares, strict=True)):
        if share < COVERED:
            continue
        array, how = _bring(map_.array, like.array.shape, place, place.size * like.voxel_size)
        score = abs(correlation(array, like.array)) * np.sqrt(array.size) if len(places) > 1 else _CORRELATES
        score = score if score >= _CORRELATES else float(number == 0)  # other readings must show that they are right
        if score > best[0]:
            coverage = [f"{share:.1%} of the density covered"] * (share < 1)
            best = (score, array, ", ".join([how, *repairs, *place.remarks, *coverage]))
    if best[1] is None:
        raise _refusal(map_, like, places[0], shares[0])
    return ResampledMap(like.replace_array(best[1]), best[2])


def _read(path: Path, like: Map) -> tuple[Map, list[str]]:
    """Return the map, and remarks on repairs that reading it needed."""
    with open_map_file(path) as (stream, size):
        raw = stream.read(HEADER_BYTES)
        order = byte_order(raw) if len(raw) == HEADER_BYTES else None
        header, remarks = _repair_header(Header(raw, b"", order), size, like) if order else (None, [])
        content = stream.read() if remarks else b""
    if not remarks:
        return read_map(path), []
    check_header(header, path)
    content = content[int(header.fields.nsymbt) :][: header.data_bytes]
    if len(content) < header.data_bytes:
        raise path_error(
            path,
            f"cut short: expected {header.data_bytes} bytes of voxels, found {len(content)}; copy or download it again",
        )
    array = np.frombuffer(content, header.dtype).reshape(header.file_shape)
    array = np.ascontiguousarray(array.transpose(header.to_zyx), np.float32)
    check_voxels(array, path, allow_constant=False)
    return Map(array, float(np.mean(header.voxel_sizes)), header.origin, header, path), remarks


def _repair_header(header: Header, size: int | None, like: Map) -> tuple[Header, list[str]]:
    """Return the header, with the voxel size that fills the entry's box if it has none, and remarks.

    Topaz writes float32 under the header of its input, even if that is float16: a file of just that length is read so.
    """
    raw, remarks = bytearray(header.raw), []
    if min(header.file_shape) < 2 or sorted(header.axes) != [1, 2, 3]:
        return header, remarks
    fields = np.frombuffer(raw, HEADER_DTYPE.newbyteorder(header.byte_order)).reshape(()).view(np.recarray)
    mode, needed = int(fields.mode), HEADER_BYTES + int(fields.nsymbt) + 4 * int(np.prod(header.file_shape))
    if size == needed and mode in (0, 1, 6, 12):
        remarks.append(f"its voxels read as float32, for which the file is as long as it should be, not as mode {mode}")
        fields.mode = 2
    intervals = [int(fields[name]) for name in ("mx", "my", "mz")]
    bare = max(intervals) == 1 and fields.ispg == 0  # as a stack of images would have it
    missing = bare or min(intervals) < 1 or not np.all(np.nan_to_num(header.voxel_sizes) > 0)
    filling = _filling(header.shape, like.array.shape)
    if missing and filling is not None:
        remarks.append(f"its voxel size, missing in its header, taken as {filling * like.voxel_size:.4g} Å")
        fields.mz, fields.my, fields.mx = header.shape
        for axis, side in zip("zyx", header.shape, strict=True):
            fields.cella[axis] = filling * like.voxel_size * side
    return Header(bytes(raw), header.extended, header.byte_order), remarks


def _filling(shape, own, size: float = 0.0) -> float | None:
    """Return the voxel size, in the entry's, that gives a map the entry's box, or None if that cannot be meant.

    It can if the sides are whole multiples or parts of the entry's, or if by its own size the box is as long to half a
    voxel.
    """
    shape, own = np.array(shape), np.array(own)
    filling = float(own.max() / shape[own.argmax()])
    multiples = not np.any(np.maximum(shape, own) % np.minimum(shape, own))
    apart = [np.abs(shape * each - own).max() / max(each, 1) for each in (filling, size)]
    return filling if apart[0] <= 0.5 and (multiples or apart[1] <= 0.5) else None


def _places(map_: Map, like: Map) -> list[_Place]:
    """Return the readings of the headers, the plainest first, and alone if it gives the map the entry's box."""
    fields, unit, zyx = like.header.fields, like.voxel_size, slice(None, None, -1)
    origin, size = np.array(map_.origin[zyx]) / unit, map_.voxel_size / unit
    at_origin = np.nan_to_num([float(fields.origin[axis]) for axis in "zyx"]) / unit
    starts = [int(fields[name]) for name in ("nxstart", "nystart", "nzstart")]
    at_start = np.array([starts[like.header.axes.index(axis)] for axis in (3, 2, 1)])
    places = [
        _Place(size, origin - np.array(like.origin[zyx]) / unit),
        _Place(size, origin - at_origin - at_start, ("placed by the sum of the half-map's ORIGIN and NSTART",)),
    ]
    if np.abs(np.array(map_.array.shape) * size - like.array.shape).max() <= max(size, 1):
        moved = f"its origin of {_coordinates(map_.origin)} Å taken as the half-map's of {_coordinates(like.origin)} Å"
        places.insert(1, _Place(size, np.zeros(3), (moved,)))
    filling = _filling(map_.array.shape, like.array.shape, size)
    if filling is not None and not _is_same_box(map_.array.shape, like.array.shape, _Place(size, np.zeros(3))):
        taken = f"its voxel size of {map_.voxel_size:.4g} Å taken as {filling * unit:.4g} Å to fill the half-map's box"
        places.append(_Place(filling, np.zeros(3), (taken,)))
    kept = []
    for a in places[: 1 if _is_same_box(map_.array.shape, like.array.shape, places[0]) else None]:
        if not any(a.size == b.size and np.abs(a.offset - b.offset).max() <= ORIGIN_TOLERANCE for b in kept):
            kept.append(a)
    return kept


def _is_same_box(shape, own, place: _Place) -> bool:
    """Return whether a map has the entry's box: corner and sides (for the same shape to 0.1 %, as headers round)."""
    if np.abs(place.offset).max() > ORIGIN_TOLERANCE:
        return False
    if shape == own:
        return abs(place.size - 1) <= ISOTROPY
    return bool(np.abs(np.array(shape) * place.size - own).max() <= _SAME)


def _shares(map_: Map, like: Map, places: list[_Place], mask) -> list[float]:
    """Return the share of the entry's density that the map covers at each place; 0 for implausible voxel sizes."""
    shape, own = map_.array.shape, like.array.shape
    covered = [_covered(shape, own, place) for place in places]
    if all(part == tuple(slice(0, side) for side in own) for part in covered):
        shares = [1.0] * len(places)
    else:
        density = _density(like) if mask is None else mask
        shares = [float(density[part].sum(dtype=np.float64) / density.sum(dtype=np.float64)) for part in covered]
    return [share * (RATIOS[0] <= place.size <= RATIOS[1]) for share, place in zip(shares, places, strict=True)]


def _refusal(map_: Map, like: Map, place: _Place, share: float) -> UserError:
    unit, found = like.voxel_size, f"{'x'.join(map(str, map_.array.shape))} voxels of {map_.voxel_size:.4g} Å"
    if not RATIOS[0] <= place.size <= RATIOS[1]:
        expected = f"expected voxels of {RATIOS[0]:g} to {RATIOS[1]:g} times the half-map's {unit:.4g} Å"
        return path_error(map_.path, f"{expected}, found {found}; set the right voxel size in its header")
    text = f"expected a map over at least {COVERED:.0%} of the half-map's density, found {share:.0%} of it, by {found}"
    first = f"whose first is {_coordinates(place.offset[::-1] * unit)} Å along x, y, z from the half-map's"
    advice = "give this entry's map, or set voxel size, ORIGIN and NSTART in its header"
    return path_error(map_.path, f"{text} {first}; {advice}")


def _density(like: Map) -> np.ndarray:
    """Return where the entry's particle is, bool `(z, y, x)`, by the low-passed half-map; everywhere if it has none."""
    size, longest = like.voxel_size, max(like.array.shape) * like.voxel_size
    full = like.array - np.float32(like.array.mean(dtype=np.float64))
    full = low_pass(full, size, max(min(LOWPASS, longest / 5), 3 * size))
    full *= -1 if is_inverted(full) else 1
    try:
        body = full > particle_level(full, 0.0)[0]
        remove_small_components(body, MIN_PART, 0)
    except UserError:  # nothing stands out
        return np.ones(like.array.shape, bool)
    return body


def _covered(shape, own, place: _Place) -> tuple[slice, ...]:
    """Return the entry's voxels that lie in those of the map, along z, y, x."""
    slices = []
    for side, own_side, offset in zip(shape, own, place.offset, strict=True):
        first = max(0, int(np.ceil(offset - 0.5 * place.size - _SAME)))
        last = min(own_side - 1, int(np.floor(offset + (side - 0.5) * place.size + _SAME)))
        slices.append(slice(first, max(first, last + 1)))
    return tuple(slices)


def _bring(source: np.ndarray, own, place: _Place, voxel_size: float) -> tuple[np.ndarray, str]:
    """Return the map at a place, on the entry's grid, and how it was brought there."""
    shape, size, larger = source.shape, place.size, source.size > np.prod(own)
    was = f"from {'x'.join(map(str, shape))} at {voxel_size:.4g} Å"
    if _is_same_box(shape, own, place):
        if shape == own:
            return source, "as it is"
        changes = [partial(_fourier, length=n) for n in own]
        return _along_axes(source, own, changes), f"Fourier-{'cropped' if larger else 'padded'} {was}"
    covered = _covered(shape, own, place)
    faces = [np.take(source, index, axis).ravel() for axis in range(3) for index in (0, -1)]
    array = np.full(own, np.median(np.concatenate(faces)), np.float32)
    steps = place.offset.round().astype(int)
    if max(abs(size - 1) * max(*shape, *own), np.abs(place.offset - steps).max()) <= _SAME:
        array[covered] = source[tuple(slice(s.start - at, s.stop - at) for s, at in zip(covered, steps, strict=True))]
        return array, f"{'cut' if larger else 'set into the box'} {was}"
    changes = []
    for part, side, offset in zip(covered, shape, place.offset, strict=True):
        at = (np.arange(part.start, part.stop) - offset) / size
        changes.append(partial(matmul, _sinc_matrix(at, side, min(1.0, size))))
    array[covered] = _along_axes(source, [part.stop - part.start for part in covered], changes)
    return array, f"interpolated {was}"


def _along_axes(array: np.ndarray, shape, changes: list) -> np.ndarray:
    """Change every axis by a function of planes `(length, any)`, in float64; the one that shrinks most first."""
    for axis in sorted(range(3), key=lambda axis: shape[axis] / array.shape[axis]):
        across = 1 if axis == 0 else 0
        new = np.empty([*array.shape[:axis], shape[axis], *array.shape[axis + 1 :]], np.float32)
        for plane, target in zip(np.moveaxis(array, across, 0), np.moveaxis(new, across, 0), strict=True):
            lines, to = (plane.T, target.T) if axis == 2 else (plane, target)
            to[...] = changes[axis](lines.astype(np.float64))
        array = new
    return array


def _fourier(lines: np.ndarray, length: int) -> np.ndarray:
    """Resample periodic lines along axis 0 to another number of voxels; the first stays where it is."""
    old = len(lines)
    if old == length:
        return lines
    spectrum = scipy.fft.rfft(lines, axis=0)[: length // 2 + 1] * (length / old)
    if min(old, length) % 2 == 0:  # at Nyquist one coefficient stands for two of the finer sampling
        spectrum[min(old, length) // 2] *= 2 if length < old else 0.5
    return scipy.fft.irfft(spectrum, length, axis=0)


def _sinc_matrix(at: np.ndarray, side: int, cut: float) -> scipy.sparse.csr_array:
    """Return the matrix `(places, side)` that interpolates a line of `side` voxels by a sinc in a Kaiser window.

    It passes frequencies up to `cut`, of the line's Nyquist frequency. Beyond its ends a line continues as its mirror
    image. Sparse, because threads of BLAS are slow beside other processes.
    """
    reach = int(np.ceil(_HALF_WIDTH / cut))
    index = np.floor(at).astype(int)[:, None] + np.arange(1 - reach, reach + 1)
    t = cut * (at[:, None] - index)
    weights = np.sinc(t) * np.i0(_KAISER * np.sqrt(np.clip(1 - (t / _HALF_WIDTH) ** 2, 0, None)))
    folded = index % (2 * side)
    folded = np.where(folded < side, folded, 2 * side - 1 - folded)
    rows = np.broadcast_to(np.arange(len(at))[:, None], index.shape)
    weights /= weights.sum(1, keepdims=True)
    return scipy.sparse.csr_array((weights.ravel(), (rows.ravel(), folded.ravel())), shape=(len(at), side))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return Pearson's correlation of two arrays, summed block by block in float64; 0 if one is constant."""
    a, b, products = a.ravel(), b.ravel(), np.zeros(3)
    mean_a, mean_b = a.mean(dtype=np.float64), b.mean(dtype=np.float64)
    for start in range(0, len(a), _BLOCK):
        p, q = a[start : start + _BLOCK] - mean_a, b[start : start + _BLOCK] - mean_b
        products += p @ q, p @ p, q @ q
    return float(products[0] / np.sqrt(products[1] * products[2])) if products[1] * products[2] > 0 else 0.0


def _coordinates(values) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
