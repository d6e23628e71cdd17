"""Density maps: the array with what its file says of it, read from and written to MRC/CCP4 files."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np

from crefjax.io import checks
from crefjax.io.checks import check_same_grid
from crefjax.io.files import atomic_write_all, check_output, is_stack_name, open_map_file, path_error
from crefjax.io.header import HEADER_BYTES, Header, byte_order, new_header, with_voxel_size

__all__ = ["Header", "Map", "check_output", "check_same_grid", "read_map", "write_map", "write_maps"]


@dataclass(frozen=True, eq=False)
class Map:
    """A density map.

    Attributes:
      array: float32, (z, y, x), C-contiguous.
      voxel_size: Å, the same along all axes.
      origin: Å, (x, y, z), of the first voxel: the header's ORIGIN where any of its words is set, else NSTART
        times the voxel size, as ChimeraX places maps.
      header: what is needed to write the map back as it came.
      path: the file that the header was read from, or None.
    """

    array: np.ndarray
    voxel_size: float
    origin: tuple[float, float, float]
    header: Header
    path: Path | None

    def replace_array(self, array: np.ndarray) -> Self:
        """The map with other voxels and the same header.

        Args:
          array: (z, y, x), of this map's shape; turned to float32.

        Raises:
          ValueError: the shape is another.
        """
        array = np.ascontiguousarray(array, dtype=np.float32)
        if array.shape != self.array.shape:
            raise ValueError(f"expected voxels of shape {self.array.shape}, found {array.shape}")
        return type(self)(array, self.voxel_size, self.origin, self.header, self.path)

    @classmethod
    def from_array(
        cls, array: np.ndarray, voxel_size: float, origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    ) -> Self:
        """A map that comes from no file.

        Args:
          array: (z, y, x); turned to float32.
          voxel_size: Å.
          origin: Å, (x, y, z), of the first voxel.

        Raises:
          ValueError: the array has not three axes, or the voxel size is not above 0.
        """
        array = np.ascontiguousarray(array, dtype=np.float32)
        if array.ndim != 3 or 0 in array.shape:
            raise ValueError(f"expected an array (z, y, x), found shape {array.shape}")
        if not (voxel_size > 0 and np.isfinite(voxel_size)):
            raise ValueError(f"expected a voxel size above 0 Å, found {voxel_size}")
        header = new_header(array.shape, float(voxel_size), origin)
        return cls(array, float(voxel_size), tuple(float(value) for value in origin), header, None)


def read_map(path: Path | str, *, allow_constant: bool = False, voxel_size: float | None = None) -> Map:
    """Reads a map: plain, gzip or bzip2, any real mode, byte order and axis order.

    Holds one copy of the voxels in memory and one section.

    Args:
      path: the file; what is in it decides, not its suffix (but `.mrcs` and `.st` are stacks by name).
      allow_constant: whether a map may have the same value everywhere, as a mask may.
      voxel_size: Å, in place of the header's, which may be wrong or missing; None for the header's.

    Raises:
      UserError: the file is missing, unreadable, foreign, cut short, a stack or an image, of a complex mode,
        has voxels that are NaN, infinite or larger than 1e15, all equal, not cubes, or without a size, or bytes
        that its header contradicts.
    """
    path = Path(path)
    if voxel_size is not None:
        checks.check_voxel_size(voxel_size, path)
    if is_stack_name(path.name):
        raise path_error(path, "expected a map, found the name of an image stack (.mrcs, .st); give a volume")
    with open_map_file(path) as (stream, size):
        header = _read_header(stream, size, path, voxel_size)
        array = _read_voxels(stream, header, path)
        expected = HEADER_BYTES + len(header.extended) + header.data_bytes
        surplus = _read_to_the_end(stream) if size is None else size - expected
        checks.check_surplus(surplus, len(header.extended), path)
    if header.fields.mode == 0 and checks.has_unsigned_bytes(header, array, path):
        for slab in array:
            slab[slab < 0] += 256
    checks.check_voxels(array, path, allow_constant=allow_constant)
    return Map(array, float(np.mean(header.voxel_sizes)), header.origin, header, path)


def _read_header(stream: BinaryIO, size: int | None, path: Path, voxel_size: float | None) -> Header:
    raw = stream.read(HEADER_BYTES)
    order = byte_order(raw) if len(raw) == HEADER_BYTES else None
    if order is None:
        raise checks.foreign_file(raw, path)
    header = Header(raw, b"", order)
    checks.check_header(header, path, sized=voxel_size is None)
    if voxel_size is not None:
        header = with_voxel_size(header, voxel_size)
    extended_bytes = int(header.fields.nsymbt)
    expected = HEADER_BYTES + extended_bytes + header.data_bytes
    if size is not None and size < expected:  # before memory is taken for what is not there
        if extended_bytes and size == expected - extended_bytes:
            raise path_error(
                path,
                f"the header says that an extended header of {extended_bytes} bytes follows (NSYMBT), and the file is "
                "short by just as many; if it has none, set NSYMBT to 0, else get it again",
            )
        raise _cut_short(path, expected, size)
    extended = stream.read(extended_bytes)
    if len(extended) < extended_bytes:
        raise _cut_short(path, expected, HEADER_BYTES + len(extended))
    return replace(header, extended=extended)


def _read_voxels(stream: BinaryIO, header: Header, path: Path) -> np.ndarray:
    sections, rows, columns = header.file_shape
    try:
        array = np.empty(header.shape, np.float32)
        section = np.empty((rows, columns), header.dtype)
    except (MemoryError, ValueError) as error:  # ValueError: more bytes than an address can tell
        raise path_error(
            path, f"a map of {header.shape} voxels does not fit into memory; use a larger machine"
        ) from error
    as_in_file = array.transpose(header.from_zyx)
    expected = HEADER_BYTES + len(header.extended) + header.data_bytes
    for index in range(sections):
        found = stream.readinto(section.view(np.uint8))  # less only at the end of the file
        if found < section.nbytes:
            raise _cut_short(path, expected, expected - (sections - index) * section.nbytes + found)
        with np.errstate(invalid="ignore"):  # a signalling NaN is found and told later
            as_in_file[index] = section
    return array


def _read_to_the_end(stream: BinaryIO) -> int:
    """The bytes that were left."""
    # Only at its end does a compressed stream show whether it is whole and its checksum right.
    left = 0
    while found := len(stream.read(2**20)):
        left += found
    return left


def _cut_short(path: Path, expected: int, found: int):
    return path_error(path, f"the map is cut short: its header asks for {expected} bytes, found {found}; get it again")


def write_map(path: Path | str, map_: Map, *, label: str, overwrite: bool = False) -> None:
    """Writes one map; see `write_maps`."""
    write_maps([(path, map_)], label=label, overwrite=overwrite)


def write_maps(maps: Iterable[tuple[Path | str, Map]], *, label: str, overwrite: bool = False) -> None:
    """Writes maps as float32 (mode 2) under the headers they came with, so that they pass mrcfile's validation.

    Kept: voxel size, cell, origin, NSTART, axis order, byte order, space group, extended header, labels. Set:
    statistics, and whatever was not valid. Written beside their places and renamed into them when all are whole.

    Args:
      maps: where to, and the map; `.mrc`, `.map` or `.ccp4`, plain or with `.gz` or `.bz2`.
      label: text added to the labels, cut to 80 ASCII characters; where ten are there, it replaces the last.
      overwrite: whether files that are there may be replaced.

    Raises:
      UserError: `check_output` refuses a path, voxels are not finite, or the disk is full or refuses;
        then nothing has been left behind and what was at the paths is as it was.
      ValueError: array and header are of different shapes.
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
    if found := checks.not_finite(map_.array):
        raise path_error(path, f"nothing was written: expected finite voxels, got {found}; check the input maps")


def _write_to(stream: BinaryIO, map_: Map, label: str) -> None:
    header = map_.header
    stream.write(header.for_output(statistics(map_.array), label))
    stream.write(header.extended)
    for section in map_.array.transpose(header.from_zyx):
        stream.write(section.astype(f"{header.byte_order}f4", order="C").tobytes())


def statistics(array: np.ndarray) -> tuple[float, float, float, float]:
    """Minimum, maximum, mean and standard deviation, summed in float64 slab by slab along the first axis."""
    mean = sum(float(slab.sum(dtype=np.float64)) for slab in array) / array.size
    squares = sum(float(np.square(slab - np.float64(mean)).sum()) for slab in array)
    return *checks.extremes(array), mean, float(np.sqrt(squares / array.size))
