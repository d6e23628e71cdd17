"""PNG files of one byte a pixel: grey, or through a table of colours."""

import struct
import zlib

import numpy as np

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
