"""The MRC2014/CCP4 header: its fields, how it is written back, and how two headers differ.

`crefjax.io.maps` and `crefjax.io.stacks` read and write files. Field names and meanings are those of the MRC2014
standard (Cheng et al. 2015, J. Struct. Biol. 192, 146).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from mrcfile import utils
from mrcfile.constants import MAP_ID
from mrcfile.dtypes import HEADER_DTYPE

HEADER_BYTES = HEADER_DTYPE.itemsize  # 1024
ISOTROPY = 1e-3  # voxel sizes that differ by a smaller fraction are the same

REAL_MODES = {
    0: "8-bit integers",
    1: "16-bit integers",
    2: "32-bit floats",
    6: "16-bit unsigned integers",
    12: "16-bit floats",
}
OTHER_MODES = {3: "complex 16-bit integers", 4: "complex numbers", 101: "4-bit integers"}
_EXTENDED_TYPES = (b"CCP4", b"MRCO", b"SERI", b"AGAR", b"FEI1", b"FEI2", b"HDF5")  # known to mrcfile.validate
_VERSIONS = (20140, 20141)
_LABELS = slice(224, 1024)
_LABEL_BYTES = 80
# Entries that should differ between input and output: the output has other voxels, and a label that says so.
_EXPECTED = ("Data mode", "Minimum, maximum", "Mean, standard deviation", "Labels", "Byte order")
_LARGEST_SIDE = 2**20  # a side read in the wrong byte order is 2^24 or more


@dataclass(frozen=True, eq=False)
class Header:
    """A map's header as found in its file.

    Attributes:
        raw: the 1024 bytes of the header, unchanged.
        extended: the bytes of the extended header, unchanged; empty if there is none.
        byte_order: "<" or ">", the order in which the file holds its numbers.
    """

    raw: bytes
    extended: bytes
    byte_order: str

    @property
    def fields(self) -> np.recarray:
        """Fields of the header under mrcfile's names, read-only."""
        return _view(self.raw, self.byte_order)

    @property
    def axes(self) -> tuple[int, int, int]:
        """(MAPC, MAPR, MAPS): the axes, x=1, y=2, z=3, along which columns, rows and sections run."""
        axes = tuple(int(self.fields[name]) for name in ("mapc", "mapr", "maps"))
        return (1, 2, 3) if axes == (0, 0, 0) else axes  # left blank by some programs, always meaning x, y, z

    @property
    def file_shape(self) -> tuple[int, int, int]:
        """Shape of the data in the file, (sections, rows, columns)."""
        return tuple(int(self.fields[name]) for name in ("nz", "ny", "nx"))

    @property
    def to_zyx(self) -> tuple[int, int, int]:
        """Transposition from the axes of the file to (z, y, x)."""
        slowest_first = self.axes[::-1]
        return tuple(slowest_first.index(axis) for axis in (3, 2, 1))

    @property
    def from_zyx(self) -> tuple[int, int, int]:
        """Transposition from (z, y, x) to the axes of the file."""
        return tuple(int(axis) for axis in np.argsort(self.to_zyx))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the map's array, (z, y, x)."""
        return tuple(self.file_shape[axis] for axis in self.to_zyx)

    @property
    def dtype(self) -> np.dtype:
        """Type of a voxel in the file, with its byte order."""
        return utils.dtype_from_mode(self.fields.mode).newbyteorder(self.byte_order)

    @property
    def data_bytes(self) -> int:
        """Bytes of the voxels in the file."""
        sections, rows, columns = self.file_shape
        return sections * rows * columns * self.dtype.itemsize

    @property
    def voxel_sizes(self) -> tuple[float, float, float]:
        """Voxel size along (x, y, z), Å: cell length over number of intervals, which may differ from the map's side."""
        cell = self.fields.cella
        with np.errstate(all="ignore"):
            return tuple(
                float(np.float64(cell[axis]) / np.float64(self.fields[intervals]))
                for axis, intervals in zip("xyz", ("mx", "my", "mz"), strict=True)
            )

    @property
    def origin(self) -> tuple[float, float, float]:
        """Position of the first voxel, (x, y, z), Å: ORIGIN if any word of it is set, else NSTART times voxel size."""
        origin = tuple(float(self.fields.origin[axis]) for axis in "xyz")
        if any(origin) and np.all(np.isfinite(origin)):
            return origin
        # Unlike MX and CELLA, NXSTART belongs to the columns, not to x.
        starts = [int(self.fields[name]) for name in ("nxstart", "nystart", "nzstart")]
        return tuple(
            starts[self.axes.index(axis)] * size for axis, size in zip((1, 2, 3), self.voxel_sizes, strict=True)
        )

    def for_output(self, statistics: tuple[float, float, float, float], label: str = "") -> bytes:
        """Return the 1024 bytes to write before float32 voxels: this header, made valid, with one more label.

        The file's own byte order is kept, because the extended header is in it.

        Args:
            statistics: minimum, maximum, mean and standard deviation of the voxels.
            label: cut to 80 ASCII characters; it replaces the last of ten labels. None is added if it is empty.
        """
        raw = bytearray(self.raw)
        labels = _labels(self.raw, label)
        raw[_LABELS] = b"".join(labels).ljust(10 * _LABEL_BYTES, b"\0")
        fields = _view(raw, self.byte_order)
        fields.nlabl = len(labels)
        fields.mode = 2
        fields.dmin, fields.dmax, fields.dmean, fields.rms = statistics
        fields.mapc, fields.mapr, fields.maps = self.axes
        fields.nsymbt = len(self.extended)
        fields.map = MAP_ID
        if _stamped_order(raw) != self.byte_order:
            fields.machst = np.frombuffer(utils.machine_stamp_from_byte_order(self.byte_order), np.uint8)
        if fields.nversion not in _VERSIONS:
            fields.nversion = _VERSIONS[-1]
        if fields.ispg < 0:
            fields.ispg = 1
        if self.extended and bytes(fields.exttyp) not in _EXTENDED_TYPES:
            fields.exttyp = b"CCP4" if _is_symmetry_text(self.extended) else b"MRCO"
        return bytes(raw)


def new_header(shape, voxel_size: float, origin=(0.0, 0.0, 0.0), *, stack: bool = False) -> Header:
    """Return the header of a map, or of a stack of images, that comes from no file.

    Args:
        shape: (z, y, x).
        voxel_size: Å.
        origin: Å, (x, y, z), of the first voxel.
        stack: whether the sections are images, each a volume of its own.
    """
    raw = bytearray(HEADER_BYTES)
    fields = _view(raw, "<")
    fields.nz, fields.ny, fields.nx = fields.mz, fields.my, fields.mx = shape
    fields.mode = 2
    for axis, intervals in zip("xyz", shape[::-1], strict=True):
        fields.cella[axis] = voxel_size * intervals
    fields.cellb = (90, 90, 90)
    fields.mapc, fields.mapr, fields.maps = 1, 2, 3
    fields.ispg = 1
    if stack:
        fields.ispg, fields.mz, fields.cella.z = 0, 1, voxel_size
    fields.nversion = _VERSIONS[-1]
    fields.origin = tuple(origin)
    fields.map = MAP_ID
    fields.machst = np.frombuffer(utils.machine_stamp_from_byte_order("<"), np.uint8)
    return Header(bytes(raw), b"", "<")


def with_voxel_size(header: Header, voxel_size: float) -> Header:
    """Return a copy of a header with another voxel size.

    Missing intervals (MX, MY, MZ) are set to the numbers of voxels.

    Args:
        header: the header to copy.
        voxel_size: Å, along all axes.
    """
    raw = bytearray(header.raw)
    fields = _view(raw, header.byte_order)
    for axis, intervals, side in zip("xyz", ("mx", "my", "mz"), header.shape[::-1], strict=True):
        if fields[intervals] <= 0:
            fields[intervals] = side
        fields.cella[axis] = voxel_size * float(fields[intervals])
    return Header(bytes(raw), header.extended, header.byte_order)


def byte_order(raw: bytes) -> str | None:
    """Return the byte order in which 1024 bytes are a plausible header, or None.

    The order of the machine stamp is tried first. Some files have an empty or wrong stamp, or no mark "MAP", so the
    fields decide.
    """
    stamped = _stamped_order(raw) or "<"
    for order in (stamped, "<" if stamped == ">" else ">"):
        if _is_plausible(_view(raw, order)):
            return order
    return stamped if raw[208:211] == MAP_ID[:3] else None


def _is_plausible(fields) -> bool:
    sides = (fields.nx, fields.ny, fields.nz)
    axes = (int(fields.mapc), int(fields.mapr), int(fields.maps))
    return (
        int(fields.mode) in (*REAL_MODES, *OTHER_MODES)
        and all(0 < int(side) < _LARGEST_SIDE for side in sides)
        and sorted(axes) in ([1, 2, 3], [0, 0, 0])
    )


def _view(raw, order: str) -> np.recarray:
    return np.frombuffer(raw, HEADER_DTYPE.newbyteorder(order)).reshape(()).view(np.recarray)


def _stamped_order(raw) -> str | None:
    try:
        return utils.byte_order_from_machine_stamp(raw[212:216])
    except ValueError:
        return None


def _labels(raw: bytes, added: str) -> list[bytes]:
    text = raw[_LABELS]
    old = [text[start : start + _LABEL_BYTES] for start in range(0, len(text), _LABEL_BYTES)]
    kept = [label for label in old if label.rstrip(b"\0").strip()]  # what validators count as a label
    printable = "".join(character if character.isprintable() else " " for character in added)
    new = printable.encode("ascii", "replace")[:_LABEL_BYTES].ljust(_LABEL_BYTES)
    return [*kept[:9], new] if new.strip() else kept


def _is_symmetry_text(extended: bytes) -> bool:
    return len(extended) % _LABEL_BYTES == 0 and all(32 <= byte < 127 for byte in extended)


class HeaderRow(NamedTuple):
    """An entry of the headers of an input and an output.

    Attributes:
        name: name of the entry.
        before, after: its values in the input and in the output.
        differs: whether they differ.
        expected: whether a difference is expected.
    """

    name: str
    before: str
    after: str
    differs: bool
    expected: bool


def header_rows(before: Header, after: Header) -> list[HeaderRow]:
    """Compare the headers of an input and an output, entry by entry."""
    entries, entries_after = _entries(before), _entries(after)
    return [
        HeaderRow(name, value, entries_after[name], value != entries_after[name], name in _EXPECTED)
        for name, value in entries.items()
    ]


def _entries(header):
    fields = header.fields
    side = dict(zip("zyx", header.shape, strict=True))
    labels = [_text(label) for label in fields.label[: max(int(fields.nlabl), 0)]]
    kind = _text(fields.exttyp)
    return {
        "Size x, y, z (voxels)": _joined(side[axis] for axis in "xyz"),
        "Voxel size x, y, z (Å)": _joined(f"{size:.6g}" for size in header.voxel_sizes),
        "Cell x, y, z (Å)": _joined(f"{float(fields.cella[axis]):.6g}" for axis in "xyz"),
        "Cell angles (°)": _joined(f"{float(fields.cellb[name]):g}" for name in ("alpha", "beta", "gamma")),
        "ORIGIN x, y, z (Å)": _joined(f"{float(fields.origin[axis]):.6g}" for axis in "xyz"),
        "NSTART column, row, section": _joined(int(fields[name]) for name in ("nxstart", "nystart", "nzstart")),
        "First voxel lies at x, y, z (Å)": _joined(f"{value:.6g}" for value in header.origin),
        "Axis order (MAPC, MAPR, MAPS)": _joined(header.axes),
        "Data mode": f"{int(fields.mode)} ({REAL_MODES.get(int(fields.mode), 'unknown')})",
        "Space group (ISPG)": str(int(fields.ispg)),
        "Extended header": f"{len(header.extended)} bytes {kind}".strip() if header.extended else "none",
        "Byte order": "little-endian" if header.byte_order == "<" else "big-endian",
        "Minimum, maximum": _joined(f"{float(fields[name]):.5g}" for name in ("dmin", "dmax")),
        "Mean, standard deviation": _joined(f"{float(fields[name]):.5g}" for name in ("dmean", "rms")),
        "Labels": "\n".join(labels) if labels else "none",
    }


def _joined(values):
    return ", ".join(str(value) for value in values)


def _text(raw):
    return bytes(raw).rstrip(b"\0 ").decode("ascii", "replace")
