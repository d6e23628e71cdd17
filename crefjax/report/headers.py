"""The headers of the input and the output of a denoiser, entry by entry."""

from typing import NamedTuple

from crefjax.io.files import open_map_file
from crefjax.io.header import HEADER_BYTES, Header, byte_order
from crefjax.io.maps import Map

_MODES = {
    0: "8-bit integers",
    1: "16-bit integers",
    2: "32-bit floats",
    6: "16-bit unsigned integers",
    12: "16-bit floats",
}
# Entries that should differ: the output has other voxels, and a label that says so.
_EXPECTED = ("Data mode", "Minimum, maximum", "Mean, standard deviation", "Labels", "Byte order")


class HeaderRow(NamedTuple):
    """An entry of the headers of input and output.

    Attributes:
        name: of the entry.
        before, after: its values in the input and in the output.
        differs: whether they differ.
        expected: whether a difference is as it should be.
    """

    name: str
    before: str
    after: str
    differs: bool
    expected: bool


def header_rows(before: Map, after: Map) -> list[HeaderRow]:
    """Compare the headers of an input and an output, entry by entry.

    Args:
        before: a map; its header is read from its file if it has one.
        after: the same.
    """
    entries, entries_after = (_entries(_header(map_)) for map_ in (before, after))
    return [
        HeaderRow(name, value, entries_after[name], value != entries_after[name], name in _EXPECTED)
        for name, value in entries.items()
    ]


def _header(map_):
    """Read the header from the file: a map that was written has one label more there."""
    if map_.path is None:
        return map_.header
    with open_map_file(map_.path) as (stream, _):
        raw = stream.read(HEADER_BYTES)
        order = byte_order(raw)
        return Header(raw, stream.read(int(Header(raw, b"", order).fields.nsymbt)), order)


def _entries(header):
    fields = header.fields
    side = dict(zip("zyx", header.shape, strict=True))
    labels = [_text(label) for label in fields.label[: max(int(fields.nlabl), 0)]]
    kind = _text(fields.exttyp)
    return {
        "Size x, y, z (voxels)": _listed(side[axis] for axis in "xyz"),
        "Voxel size x, y, z (Å)": _listed(f"{size:.6g}" for size in header.voxel_sizes),
        "Cell x, y, z (Å)": _listed(f"{float(fields.cella[axis]):.6g}" for axis in "xyz"),
        "Cell angles (°)": _listed(f"{float(fields.cellb[name]):g}" for name in ("alpha", "beta", "gamma")),
        "ORIGIN x, y, z (Å)": _listed(f"{float(fields.origin[axis]):.6g}" for axis in "xyz"),
        "NSTART column, row, section": _listed(int(fields[name]) for name in ("nxstart", "nystart", "nzstart")),
        "First voxel lies at x, y, z (Å)": _listed(f"{value:.6g}" for value in header.origin),
        "Axis order (MAPC, MAPR, MAPS)": _listed(header.axes),
        "Data mode": f"{int(fields.mode)} ({_MODES.get(int(fields.mode), 'unknown')})",
        "Space group (ISPG)": str(int(fields.ispg)),
        "Extended header": f"{len(header.extended)} bytes {kind}".strip() if header.extended else "none",
        "Byte order": "little-endian" if header.byte_order == "<" else "big-endian",
        "Minimum, maximum": _listed(f"{float(fields[name]):.5g}" for name in ("dmin", "dmax")),
        "Mean, standard deviation": _listed(f"{float(fields[name]):.5g}" for name in ("dmean", "rms")),
        "Labels": "\n".join(labels) if labels else "none",
    }


def _listed(values):
    return ", ".join(str(value) for value in values)


def _text(raw):
    return bytes(raw).rstrip(b"\0 ").decode("ascii", "replace")
