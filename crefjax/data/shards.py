"""Patches as records of ArrayRecord shards: the bytes of a record, and writing and checked reading of a shard.

ArrayRecord checks the bytes of a record, but reads a shard that is cut short as an empty one. The header of our records
identifies them, and has a checksum of the patch as it was written.
"""

import os
import struct
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from array_record.python import array_record_module

from crefjax.errors import UserError, path_error

DTYPES = ("float16", "float32")
MAPS = ("half_map_1", "half_map_2", "truth")  # their order in a record

_MAGIC = b"CRFP"
# Magic, code of the type, number of maps, index in the shard, side, position (z, y, x), CRC-32 of the rest.
_HEADER = struct.Struct("<4sHHII3iI")
# One thread and one record per chunk, so that the same patches give the same bytes. Noise takes as much space at
# compression level 1 as at 3; without any it takes 8 % more, and is read in half of the time.
_WRITER = "group_size:1,{},max_parallelism:1,pad_to_block_boundary:false"
_COMPRESSION, _NO_COMPRESSION = "zstd:1", "uncompressed"
_READER = "readahead_buffer_size:0,max_parallelism:0"
_OPEN_SHARDS = 128
_LARGEST_KEPT = 2**25 - 2**16  # bytes; glibc keeps blocks below 32 MiB at most


def record_bytes(patch: int, dtype: str, maps: int) -> int:
    """Return the size of one record before compression, bytes."""
    return _HEADER.size + maps * patch**3 * np.dtype(dtype).itemsize


def encode(index: int, position: Sequence[int], maps: Sequence[np.ndarray], dtype: str) -> bytes:
    """Return the record of one patch.

    Args:
        index: number of the patch in its shard.
        position: first voxel `(z, y, x)` in the box, negative if the patch begins before it.
        maps: two or three arrays `(p, p, p)`, in the order of `MAPS`.
        dtype: one of `DTYPES`; stored in little-endian order.

    Raises:
        UserError: a value is too large for float16.
    """
    with np.errstate(over="ignore"):
        stored = [np.ascontiguousarray(array, np.dtype(dtype).newbyteorder("<")) for array in maps]
    for array, given in zip(stored, maps, strict=True):
        if not np.isfinite(array).all():
            peak = float(np.abs(given).max())
            raise UserError(
                f"expected standardized densities up to 65504 for float16, found {peak:.4g}; check the half-maps for "
                "wrong voxels, or choose the `dtype` float32"
            )
    head = (_MAGIC, DTYPES.index(dtype), len(maps), index, maps[0].shape[0], *position)
    checksum = zlib.crc32(_HEADER.pack(*head, 0))
    for array in stored:
        checksum = zlib.crc32(array, checksum)
    return b"".join([_HEADER.pack(*head, checksum), *(array.tobytes() for array in stored)])


def decode(record: bytes, index: int, patch: int, dtype: str, maps: int) -> list[np.ndarray]:
    """Return the maps of a record, read-only views `(p, p, p)` of its bytes.

    Args:
        record: the bytes.
        index: expected number of the patch in its shard.
        patch: expected side.
        dtype: expected type.
        maps: expected number of maps.

    Raises:
        ValueError: the bytes are damaged, or belong to another patch; the text continues "record 3 is".
    """
    if len(record) != record_bytes(patch, dtype, maps):
        raise ValueError(f"a record of {len(record)} bytes")
    *head, checksum = _HEADER.unpack_from(record)
    if head[:5] != [_MAGIC, DTYPES.index(dtype), maps, index, patch]:
        raise ValueError("a record of another patch")
    body = memoryview(record)[_HEADER.size :]
    if zlib.crc32(body, zlib.crc32(_HEADER.pack(*head, 0))) != checksum:
        raise ValueError("a record whose checksum is wrong")
    values = np.frombuffer(body, np.dtype(dtype).newbyteorder("<"))
    return list(values.reshape(maps, patch, patch, patch))


def write_shard(path: Path, records: Iterable[bytes], *, compress: bool = True) -> int:
    """Write a shard to the disk and return the number of records.

    Args:
        path: where to write it.
        records: from `encode`.
        compress: whether to compress the records.

    Raises:
        OSError: the file system refused; without an error number if ArrayRecord gave only a text.
    """
    count = 0
    try:
        options = _WRITER.format(_COMPRESSION if compress else _NO_COMPRESSION)
        writer = array_record_module.ArrayRecordWriter(str(path), options)
        for record in records:
            writer.write(record)
            count += 1
        writer.close()  # a full disk may show only now
    except RuntimeError as error:
        raise OSError(*_reason(path, str(error))) from error
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return count


def _reason(path, text):
    """Return number and text of the system's error in a message of ArrayRecord."""
    numbers = {os.strerror(number): number for number in range(1, 134)}
    for words, number in numbers.items():
        if f": {words}" in text:
            return number, words, str(path)
    return (text.split(";")[0],)


def _keep_freed_memory():
    """Let freed blocks of the size of a record be used again, where the C library is glibc.

    It gives blocks above a threshold back to the system, which clears every page of the next one: up to half of the
    time of reading a record. The threshold rises to the largest block that was freed (mallopt(3), M_MMAP_THRESHOLD).
    """
    bytearray(_LARGEST_KEPT)


class ShardReader:
    """Random access to the records of shards, from any thread; a shard is opened when it is first read.

    Args:
        shards: path and number of records of each, in order.
    """

    def __init__(self, shards: Sequence[tuple[Path, int]]):
        self._shards = list(shards)
        _keep_freed_memory()
        # ArrayRecord's readers may be shared; one that is dropped exists as long as a thread still reads with it.
        self._open: OrderedDict[int, object] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, shard: int, index: int) -> bytes:
        """Return the bytes of record `index` of a shard.

        Raises:
            UserError: the shard cannot be read, or is damaged.
        """
        path, _ = self._shards[shard]
        try:
            return self._reader(shard).read([index])[0]
        except (RuntimeError, ValueError, IndexError) as error:
            raise damaged_error(path, f"record {index} cannot be read: {str(error).split(';')[0]}") from error

    def _reader(self, shard):
        with self._lock:
            if shard in self._open:
                self._open.move_to_end(shard)
                return self._open[shard]
            path, records = self._shards[shard]
            if not path.is_file():  # a missing shard reads as empty
                raise path_error(path, "the shard is missing; run crefjax prepare again with the same arguments")
            reader = array_record_module.ArrayRecordReader(str(path), _READER, file_reader_buffer_size=32768)
            if reader.num_records() != records:
                raise damaged_error(path, f"expected {records} records, found {reader.num_records()}")
            self._open[shard] = reader
            if len(self._open) > _OPEN_SHARDS:
                self._open.popitem(last=False)
            return reader


def damaged_error(path: Path, text: str) -> UserError:
    """Return the error for a shard that is not as it was written."""
    return path_error(path, f"the shard is damaged ({text}); delete the folder it is in and run crefjax prepare again")
