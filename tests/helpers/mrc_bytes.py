"""MRC files, assembled byte by byte from the standard's table of words, without the code under test."""

import os
import struct

import mrcfile
import numpy as np

MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}


def header_bytes(order="<", **words) -> bytes:
    """Return the 1024 bytes of a 4 x 3 x 2 (nx, ny, nz) float map of 1.5 Å; `words` replaces the named words."""
    w = {
        "n": (4, 3, 2),
        "mode": 2,
        "nstart": (0, 0, 0),
        "cell": None,
        "angles": (90.0, 90.0, 90.0),
        "axes": (1, 2, 3),
        "stats": (0.0, -1.0, -2.0),
        "ispg": 1,
        "nsymbt": 0,
        "extra1": bytes(8),
        "exttyp": bytes(4),
        "nversion": 20141,
        "extra2": bytes(84),
        "origin": (0.0, 0.0, 0.0),
        "map_id": b"MAP ",
        "stamp": b"\x44\x44\0\0" if order == "<" else b"\x11\x11\0\0",
        "rms": -1.0,
        "labels": (),
        "nlabl": None,
    }
    unknown = set(words) - set(w) - {"m"}
    if unknown:
        raise KeyError(unknown)
    w.update(words)
    m = words.get("m") or xyz(w["n"], w["axes"])
    cell = w["cell"] or tuple(1.5 * count for count in m)
    nlabl = len(w["labels"]) if w["nlabl"] is None else w["nlabl"]
    parts = [
        struct.pack(order + "10i", *w["n"], w["mode"], *w["nstart"], *m),
        struct.pack(order + "6f", *cell, *w["angles"]),
        struct.pack(order + "3i", *w["axes"]),
        struct.pack(order + "3f", *w["stats"]),
        struct.pack(order + "2i", w["ispg"], w["nsymbt"]),
        w["extra1"],
        w["exttyp"],
        struct.pack(order + "i", w["nversion"]),
        w["extra2"],
        struct.pack(order + "3f", *w["origin"]),
        w["map_id"],
        w["stamp"],
        struct.pack(order + "f", w["rms"]),
        struct.pack(order + "i", nlabl),
        b"".join(label.ljust(80, b"\0") for label in w["labels"]).ljust(800, b"\0"),
    ]
    raw = b"".join(parts)
    if len(raw) != 1024:
        raise ValueError(len(raw))
    return raw


def xyz(columns_rows_sections, axes):
    """What belongs to columns, rows and sections, put in the order x, y, z."""
    axes = (1, 2, 3) if sorted(axes) != [1, 2, 3] else axes
    return tuple(columns_rows_sections[axes.index(axis)] for axis in (1, 2, 3))


def mrc(order="<", data=None, extended=b"", **words) -> bytes:
    """Return a complete file: header, extended header, voxels (columns fastest; 0, 1, 2, ... unless given)."""
    n = words.get("n", (4, 3, 2))
    dtype = np.dtype(MODES.get(words.get("mode", 2), "f4")).newbyteorder(order)
    if data is None:
        data = np.arange(n[0] * n[1] * n[2])
    words.setdefault("nsymbt", len(extended))
    return header_bytes(order, **words) + extended + np.asarray(data).astype(dtype).tobytes()


def valid(path) -> bool:
    """Return whether mrcfile's validation accepts a file."""
    with open(os.devnull, "w") as nowhere:
        return mrcfile.validate(path, print_file=nowhere)
