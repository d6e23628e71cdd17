"""Density maps: arrays with headers, read from and written to MRC/CCP4 files, and the checks that they must pass."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np

from crefjax.errors import path_error
from crefjax.io.files import check_output, is_stack_name, open_map_file
from crefjax.io.header import (
    HEADER_BYTES,
    ISOTROPY,
    OTHER_MODES,
    REAL_MODES,
    Header,
    byte_order,
    new_header,
    with_voxel_size,
)
from crefjax.utils.atomic import atomic_write_all
from crefjax.utils.statistics import extremes, mean_and_std

ORIGIN_TOLERANCE = 0.01  # voxels
_ANGLE_TOLERANCE = 0.01  # degrees
_LARGEST, _LEAST = 1e15, 1e-15  # squares of larger or smaller values, summed over a map, leave the range of float32
_VOXEL_SIZES = (0.05, 1000.0)  # Å; nothing finer or coarser is a map
_FEW_BYTES = 1024  # at the end of a file that need not be accounted for
_IMOD_STAMP = 1146047817  # "IMOD" in the word after the 39th; flags follow, of which the first says: signed bytes
_IMOD_WORDS = slice(152, 160)

_FOREIGN = {
    b"\x89HDF": "an HDF5 file; convert it to MRC",
    b"PK\x03\x04": "a zip archive; unpack it",
    b"\xfd7zXZ": "an xz file; unpack it",
    b"\x28\xb5\x2f\xfd": "a zstd file; unpack it",
    b"\x1f\x8b": "a file compressed twice; unpack it",
    b"%PDF": "a PDF file",
    b"\x89PNG": "a PNG image",
    b"II*\0": "a TIFF image",
    b"MM\0*": "a TIFF image",
}


@dataclass(frozen=True, eq=False)
class Map:
    """A density map.

    Attributes:
        array: float32, (z, y, x), C-contiguous.
        voxel_size: Å, the same along all axes.
        origin: Å, (x, y, z), of the first voxel: the header's ORIGIN where any of its words is set, else NSTART
            times the voxel size, as ChimeraX places maps.
        header: of the file, for writing the map back.
        path: the file that the header was read from, or None.
    """

    array: np.ndarray
    voxel_size: float
    origin: tuple[float, float, float]
    header: Header
    path: Path | None

    def replace_array(self, array: np.ndarray) -> Self:
        """Return the map with other voxels and the same header.

        Args:
            array: (z, y, x), of this map's shape; converted to float32.

        Raises:
            ValueError: another shape.
        """
        array = np.ascontiguousarray(array, dtype=np.float32)
        if array.shape != self.array.shape:
            raise ValueError(f"expected voxels of shape {self.array.shape}, found {array.shape}")
        return type(self)(array, self.voxel_size, self.origin, self.header, self.path)

    @classmethod
    def from_array(
        cls, array: np.ndarray, voxel_size: float, origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    ) -> Self:
        """Return a map that comes from an array and has no file.

        Args:
            array: (z, y, x); converted to float32.
            voxel_size: Å.
            origin: Å, (x, y, z), of the first voxel.

        Raises:
            ValueError: not three axes, or a voxel size that is not above 0.
        """
        array = np.ascontiguousarray(array, dtype=np.float32)
        if array.ndim != 3 or 0 in array.shape:
            raise ValueError(f"expected an array (z, y, x), found shape {array.shape}")
        if not (voxel_size > 0 and np.isfinite(voxel_size)):
            raise ValueError(f"expected a voxel size above 0 Å, found {voxel_size}")
        header = new_header(array.shape, float(voxel_size), origin)
        return cls(array, float(voxel_size), tuple(float(value) for value in origin), header, None)


def read_map(path: Path | str, *, allow_constant: bool = False, voxel_size: float | None = None) -> Map:
    """Read a map: plain, gzip, or bzip2, of any real mode, byte order, and axis order.

    One copy of the voxels and one section are held in memory.

    Args:
        path: the file; its content decides, not its suffix (but `.mrcs` and `.st` are stacks by name).
        allow_constant: whether a map may have the same value everywhere, as a mask may.
        voxel_size: Å, instead of the header's, which may be wrong or missing; None for the header's.

    Raises:
        UserError: the file is missing, unreadable, foreign, cut short, a stack or an image, of a complex mode,
            has voxels that are NaN, infinite or larger than 1e15, all equal, not cubic, or of unknown size; or its
            length contradicts its header.
    """
    path = Path(path)
    if voxel_size is not None:
        _check_voxel_size(voxel_size, path)
    if is_stack_name(path.name):
        raise path_error(path, "expected a map, found the name of an image stack (.mrcs, .st); give a volume")
    with open_map_file(path) as (stream, size):
        header = _read_header(stream, size, path, voxel_size)
        array = _read_voxels(stream, header, path)
        expected = HEADER_BYTES + len(header.extended) + header.data_bytes
        surplus = _read_to_the_end(stream) if size is None else size - expected
        _check_surplus(surplus, len(header.extended), path)
    if header.fields.mode == 0 and _has_unsigned_bytes(header, array, path):
        for slab in array:
            slab[slab < 0] += 256
    check_voxels(array, path, allow_constant=allow_constant)
    return Map(array, float(np.mean(header.voxel_sizes)), header.origin, header, path)


def read_header(path: Path | str) -> Header:
    """Read the header of a map as it is in its file.

    Raises:
        UserError: the file is missing, unreadable, or foreign.
    """
    path = Path(path)
    with open_map_file(path) as (stream, _):
        header = _first_bytes(stream, path)
        return replace(header, extended=stream.read(int(header.fields.nsymbt)))


def _read_header(stream: BinaryIO, size: int | None, path: Path, voxel_size: float | None) -> Header:
    header = _first_bytes(stream, path)
    check_header(header, path, sized=voxel_size is None)
    if voxel_size is not None:
        header = with_voxel_size(header, voxel_size)
    extended_bytes = int(header.fields.nsymbt)
    expected = HEADER_BYTES + extended_bytes + header.data_bytes
    if size is not None and size < expected:  # before memory is allocated for missing voxels
        if extended_bytes and size == expected - extended_bytes:
            raise path_error(
                path,
                f"the header announces an extended header of {extended_bytes} bytes (NSYMBT), and the file is too "
                "short by just that; set NSYMBT to 0 if there is no extended header, otherwise get the file again",
            )
        raise _cut_short(path, expected, size)
    extended = stream.read(extended_bytes)
    if len(extended) < extended_bytes:
        raise _cut_short(path, expected, HEADER_BYTES + len(extended))
    return replace(header, extended=extended)


def _first_bytes(stream: BinaryIO, path: Path) -> Header:
    """Return the header, without an extended one."""
    raw = stream.read(HEADER_BYTES)
    order = byte_order(raw) if len(raw) == HEADER_BYTES else None
    if order is None:
        raise _foreign_file(raw, path)
    return Header(raw, b"", order)


def _read_voxels(stream: BinaryIO, header: Header, path: Path) -> np.ndarray:
    sections, rows, columns = header.file_shape
    try:
        array = np.empty(header.shape, np.float32)
        section = np.empty((rows, columns), header.dtype)
    except (MemoryError, ValueError) as error:  # ValueError: more bytes than can be addressed
        raise path_error(
            path, f"a map of {header.shape} voxels does not fit into memory; use a larger machine"
        ) from error
    as_in_file = array.transpose(header.from_zyx)
    expected = HEADER_BYTES + len(header.extended) + header.data_bytes
    for index in range(sections):
        received = stream.readinto(section.view(np.uint8))  # fewer bytes only at the end of the file
        if received < section.nbytes:
            raise _cut_short(path, expected, expected - (sections - index) * section.nbytes + received)
        with np.errstate(invalid="ignore"):  # a signalling NaN is reported later
            as_in_file[index] = section
    return array


def _read_to_the_end(stream: BinaryIO) -> int:
    """Return the number of remaining bytes."""
    # A compressed stream checks its length and its checksum only at its end.
    remaining = 0
    while received := len(stream.read(2**20)):
        remaining += received
    return remaining


def check_map_file(path: Path | str) -> None:
    """Check that a map file is whole, without looking at its voxels; a compressed one is read to its checksum.

    Raises:
        UserError: not a map, cut short, or compressed and damaged.
    """
    path = Path(path)
    with open_map_file(path) as (stream, size):
        header = _first_bytes(stream, path)
        expected = HEADER_BYTES + max(0, int(header.fields.nsymbt))
        if int(header.fields.mode) in REAL_MODES:
            expected += header.data_bytes
        found = HEADER_BYTES + _read_to_the_end(stream) if size is None else size
        if found < expected:
            raise _cut_short(path, expected, found)


def _cut_short(path: Path, expected: int, found: int):
    return path_error(path, f"the map is cut short: its header asks for {expected} bytes, found {found}; get it again")


def write_map(path: Path | str, map_: Map, *, label: str, overwrite: bool = False) -> None:
    """Write one map; see `write_maps`."""
    write_maps([(path, map_)], label=label, overwrite=overwrite)


def write_maps(maps: Iterable[tuple[Path | str, Map]], *, label: str, overwrite: bool = False) -> None:
    """Write maps as float32 (mode 2) with their own headers, so that they pass mrcfile's validation.

    Kept: voxel size, cell, origin, NSTART, axis order, byte order, space group, extended header, labels. Set:
    statistics, and fields that are not valid. All files appear together, once they are complete.

    Args:
        maps: paths with their maps; `.mrc`, `.map` or `.ccp4`, plain or with `.gz` or `.bz2`.
        label: text added to the labels, cut to 80 ASCII characters; it replaces the last of ten.
        overwrite: whether existing files may be replaced.

    Raises:
        UserError: `check_output` refuses a path, voxels are not finite, or the file system refused; nothing is left
            behind, and the paths are as they were.
        ValueError: array and header have different shapes.
    """
    maps = [(Path(path), map_) for path, map_ in maps]
    for path, map_ in maps:
        check_output(path, overwrite=overwrite)
        _check_writable(path, map_)
    with atomic_write_all(overwrite=overwrite) as stage:
        for path, map_ in maps:
            needed = HEADER_BYTES + len(map_.header.extended) + 4 * map_.array.size
            with stage(path, needed) as stream:
                _write_to(stream, map_, label)


def _check_writable(path: Path, map_: Map) -> None:
    if map_.array.shape != map_.header.shape:
        raise ValueError(f"expected voxels of shape {map_.header.shape}, found {map_.array.shape}")
    if counts := _count_not_finite(map_.array):
        raise path_error(path, f"nothing was written: expected finite voxels, got {counts}; check the input maps")


def _write_to(stream: BinaryIO, map_: Map, label: str) -> None:
    header = map_.header
    stream.write(header.for_output((*extremes(map_.array), *mean_and_std(map_.array)), label))
    stream.write(header.extended)
    for section in map_.array.transpose(header.from_zyx):
        stream.write(section.astype(f"{header.byte_order}f4", order="C").tobytes())


def full_map(half_map_1: np.ndarray, half_map_2: np.ndarray) -> np.ndarray:
    """Return the full map of two half-maps, which is their mean; float32."""
    full = np.add(half_map_1, half_map_2, dtype=np.float32)
    full *= np.float32(0.5)
    return full


def _foreign_file(head, path):
    """Return the error for a file whose first bytes are not a header, naming what they look like."""
    for magic, what in _FOREIGN.items():
        if head.startswith(magic):
            return path_error(path, f"not an MRC/CCP4 map: it looks like {what}")
    if head and all(byte in b"\t\n\r\f" or 32 <= byte < 127 for byte in head):
        begin = " ".join(head[:60].decode("ascii").split())[:40]
        return path_error(path, f"not an MRC/CCP4 map: it looks like text (it begins {begin!r}); give a map")
    if len(head) < HEADER_BYTES:
        return path_error(
            path,
            f"not an MRC/CCP4 map, or cut short: a header has {HEADER_BYTES} bytes, found {len(head)}; get it again",
        )
    return path_error(path, "not an MRC/CCP4 map: its first 1024 bytes are not such a header; check the file")


def check_header(header: Header, path: Path, *, sized: bool = True) -> None:
    """Raise UserError unless the header describes one map with cubic voxels, and, if `sized`, of known size."""
    fields = header.fields
    if int(fields.mode) in OTHER_MODES:
        what = OTHER_MODES[int(fields.mode)]
        raise path_error(path, f"expected real voxels, found mode {fields.mode} ({what}); convert it to mode 2")
    if int(fields.mode) not in REAL_MODES:
        raise path_error(
            path, f"expected one of the modes {tuple(REAL_MODES)}, found mode {fields.mode}; convert it to mode 2"
        )
    if min(header.file_shape) <= 0:
        raise path_error(path, f"expected sides above 0, found (z, y, x) {header.file_shape}; the header is damaged")
    if sorted(header.axes) != [1, 2, 3]:
        raise path_error(path, f"expected MAPC, MAPR, MAPS to be 1, 2, 3 in some order, found {header.axes}")
    if fields.nsymbt < 0:
        raise path_error(path, f"expected an extended header of 0 bytes or more, found {fields.nsymbt} (NSYMBT)")
    _check_one_volume(header, path)
    _check_cell(header, path, sized)


def _check_one_volume(header: Header, path: Path) -> None:
    fields = header.fields
    sections, interval_count, group = int(fields.nz), int(fields.mz), int(fields.ispg)
    if min(header.file_shape) == 1:
        raise path_error(path, f"expected a map, found a single image, (z, y, x) {header.file_shape}; give a volume")
    # Chimera and RELION write volumes with space group 0 too; a stack of images has one interval per section.
    if group == 0 and interval_count == 1:
        raise path_error(
            path,
            f"expected a map, found a stack of {sections} images (ISPG 0, MZ 1); give a volume, or set "
            f"ISPG to 1 and MZ to {sections} if it is one",
        )
    if 401 <= group <= 630 and interval_count != sections:
        raise path_error(
            path,
            f"expected one map, found a stack of volumes (ISPG {group}, {sections} sections, MZ "
            f"{interval_count}); give one volume",
        )


def _check_cell(header: Header, path: Path, sized: bool) -> None:
    fields = header.fields
    angles = [float(fields.cellb[name]) for name in ("alpha", "beta", "gamma")]
    if not all(angle == 0 or abs(angle - 90) <= _ANGLE_TOLERANCE for angle in angles):
        raise path_error(path, f"expected cell angles of 90 degrees, found {_join(angles)}; resample the map")
    if not sized:
        return
    sizes = np.array(header.voxel_sizes)
    intervals = [int(fields[name]) for name in ("mx", "my", "mz")]
    if min(intervals) <= 0:
        raise path_error(
            path,
            f"expected MX, MY, MZ above 0, found {_join(intervals)}; set them to the numbers of voxels "
            "along x, y, z, and the cell to their lengths in Å",
        )
    if not (np.all(np.isfinite(sizes)) and np.all(sizes > 0)):
        raise path_error(
            path,
            f"expected a voxel size above 0 Å, found {_join(sizes)} Å along x, y, z; give the `voxel_size`, or "
            f"set it, for example in Python: mrcfile.open({path.name!r}, 'r+').voxel_size = 1.05",
        )
    if sizes.max() - sizes.min() > ISOTROPY * sizes.min():
        raise path_error(path, f"expected cubic voxels, found {_join(sizes)} Å along x, y, z; resample the map")
    _check_voxel_size(float(sizes.mean()), path)


def _check_voxel_size(voxel_size, path):
    least, most = _VOXEL_SIZES
    if not least <= voxel_size <= most:
        raise path_error(
            path,
            f"expected a voxel size of {least:g} to {most:g} Å, found {voxel_size:.4g} Å; give the right `voxel_size`",
        )


def _check_surplus(surplus, extended, path):
    """Raise UserError if a file is so much longer than its header says that its voxels may lie elsewhere.

    A few bytes at the end do no harm; a section, or a line of an extended header, means that the header is wrong.
    """
    if surplus >= _FEW_BYTES or (surplus > 0 and (surplus + extended) % 80 == 0):
        raise path_error(
            path, f"the file has {surplus} bytes more than its header asks for; correct its sides, mode, or NSYMBT"
        )


def check_voxels(array: np.ndarray, path: Path, *, allow_constant: bool) -> None:
    """Raise UserError if voxels are NaN, infinite, or out of range, or if all are equal."""
    if counts := _count_not_finite(array):
        raise path_error(path, f"expected finite voxels, found {counts}; replace them")
    low, high = extremes(array)
    if max(-low, high) > _LARGEST:
        raise path_error(
            path,
            f"expected voxels below {_LARGEST:g} in magnitude, found {low:.3g} to {high:.3g}; correct the map, "
            "or divide it by a number",
        )
    if 0 < max(-low, high) < _LEAST:
        raise path_error(
            path,
            f"expected voxels above {_LEAST:g} in magnitude, found {low:.3g} to {high:.3g}; multiply the map by a "
            "number",
        )
    if low == high and not allow_constant:
        raise path_error(path, f"expected a density map, found the value {low:g} in every voxel; check the file")


def _has_unsigned_bytes(header, array, path):
    """Return whether the voxels `array` of a mode 0 map, read as signed bytes, are meant as 0 to 255.

    By the standard they are signed. IMOD writes unsigned ones, and marks them by its stamp and a flag (IMOD's
    description of the MRC format); other programs do so only by DMIN, DMAX and DMEAN.

    Raises:
        UserError: flag, statistics and voxels contradict each other.
    """
    slabs = [[(way.min(), way.max(), way.mean(dtype=np.float64)) for way in (slab, slab % 256)] for slab in array]
    ranges = {}  # least, largest and mean of the voxels, read in both ways
    for unsigned in (False, True):
        least, largest, mean = np.array([slab[unsigned] for slab in slabs]).T
        ranges[unsigned] = (least.min(), largest.max(), mean.mean())
    if ranges[False] == ranges[True]:
        return False
    fields = header.fields
    stated = tuple(float(fields[name]) for name in ("dmin", "dmax", "dmean"))
    stamp, flags = np.frombuffer(header.raw[_IMOD_WORDS], f"{header.byte_order}i4")
    by_flag = None if stamp != _IMOD_STAMP else not flags & 1
    if not all(np.isfinite(stated)) or stated[1] <= stated[0]:  # by the standard: not known
        return bool(by_flag)
    count = 3 if stated[0] <= stated[2] <= stated[1] else 2
    fits = [
        unsigned
        for unsigned, values in ranges.items()
        if all(abs(a - b) <= 0.5 for a, b in list(zip(stated, values, strict=True))[:count])
    ]
    if not fits or by_flag not in (None, *fits):
        flagged = "" if by_flag is None else f", IMOD's flag says {'unsigned' if by_flag else 'signed'}"
        raise path_error(
            path,
            f"expected the values that its header states, DMIN {stated[0]:g} and DMAX {stated[1]:g}{flagged}; found "
            f"{ranges[False][0]:g} to {ranges[False][1]:g} if its bytes are signed, {ranges[True][0]:g} to "
            f"{ranges[True][1]:g} if they are unsigned; write the map again as mode 2",
        )
    return fits[0]


def _count_not_finite(array):
    """Return the numbers of NaN and infinite voxels in words; empty if all are finite."""
    if all(np.isfinite(extremes(array))):
        return ""
    nan = sum(int(np.isnan(slab).sum()) for slab in array)
    infinite = sum(int(np.isinf(slab).sum()) for slab in array)
    return f"{nan} NaN and {infinite} infinite of {array.size}"


def check_same_grid(a, b, what: str) -> None:
    """Check that two maps lie on the same grid.

    Voxel sizes within 0.1 % are the same, and origins within 0.01 voxel along each axis: programs round both.
    The origin is the one of `Map`, so an ORIGIN and an NSTART that mean the same place are the same.

    Args:
        a: a map.
        b: the other map.
        what: name of both in the message: "half-maps", "mask and half-map".

    Raises:
        UserError: shape, voxel size or origin differ; the message has both files and both values.
    """
    names = f"{a.path or 'the first map'} and {b.path or 'the second map'}"
    if a.array.shape != b.array.shape:
        raise path_error(
            names,
            f"expected {what} of the same shape, found (z, y, x) {a.array.shape} and {b.array.shape} voxels; "
            "give maps on the same grid",
        )
    if abs(a.voxel_size - b.voxel_size) > ISOTROPY * min(a.voxel_size, b.voxel_size):
        raise path_error(
            names,
            f"expected {what} of the same voxel size, found {a.voxel_size:.5g} and {b.voxel_size:.5g} Å; "
            "set the right one in the header, or resample one map",
        )
    if np.abs(np.subtract(a.origin, b.origin)).max() > ORIGIN_TOLERANCE * a.voxel_size:
        raise path_error(
            names,
            f"expected {what} with the same origin, found {_join(a.origin)} and {_join(b.origin)} Å "
            "along x, y, z; give maps on the same grid, or set the same ORIGIN and NSTART in both headers",
        )


def _join(values) -> str:
    return ", ".join(f"{value:.5g}" for value in values)
