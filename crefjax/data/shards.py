"""Patches as records of ArrayRecord shards: their bytes, writing a shard, and reading it with every doubt checked.

ArrayRecord checks the bytes of a record by itself, but takes a shard that is cut short for an empty one; the header of
a record says which one it is, and its checksum covers what was written.
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
MAPS = ("half_map_1", "half_map_2", "truth")  # in the order in which a record has them

_MAGIC = b"CRFP"
# Magic, code of the type, number of maps, index in the shard, side, position (z, y, x), CRC-32 of the rest.
_HEADER = struct.Struct("<4sHHII3iI")
# One thread and one record a chunk: the same patches give the same bytes. For noise, level 1 is as small as 3.
_WRITER = "group_size:1,zstd:1,max_parallelism:1,pad_to_block_boundary:false"
_READER = "readahead_buffer_size:0,max_parallelism:0"
_OPEN_SHARDS = 128


def record_bytes(patch: int, dtype: str, maps: int) -> int:
    """Size of one record before compression, bytes."""
    return _HEADER.size + maps * patch**3 * np.dtype(dtype).itemsize


def encode(index: int, position: Sequence[int], maps: Sequence[np.ndarray], dtype: str) -> bytes:
    """The record of one patch.

    Args:
        index: number of the patch in its shard.
        position: first voxel `(z, y, x)` in the box, negative where the patch begins before it.
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
                f"expected standardized densities up to 65504 for float16, found {peak:.4g}; look for a wrong voxel in "
                "the half-maps, or give --dtype float32"
            )
    head = (_MAGIC, DTYPES.index(dtype), len(maps), index, maps[0].shape[0], *position)
    checksum = zlib.crc32(_HEADER.pack(*head, 0))
    for array in stored:
        checksum = zlib.crc32(array, checksum)
    return b"".join([_HEADER.pack(*head, checksum), *(array.tobytes() for array in stored)])


def decode(record: bytes, index: int, patch: int, dtype: str, maps: int) -> list[np.ndarray]:
    """The maps of a record, read-only views `(p, p, p)` of its bytes.

    Args:
        record: the bytes.
        index: number that the patch must have in its shard.
        patch: side that it must have.
        dtype: type that it must have.
        maps: how many maps it must have.

    Raises:
        ValueError: it is not this record, or its bytes were changed.
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


def write_shard(path: Path, records: Iterable[bytes]) -> int:
    """Write a shard, and have it on the disk before returning; gives the number of records.

    Raises:
        OSError: the disk is full, or refuses; without a number where ArrayRecord only told so in words.
    """
    count = 0
    try:
        writer = array_record_module.ArrayRecordWriter(str(path), _WRITER)
        for record in records:
            writer.write(record)
            count += 1
        writer.close()  # only now does a full disk show for sure
    except RuntimeError as error:
        raise OSError(*_reason(path, str(error))) from error
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return count


def _reason(path, text):
    """Number and words of the system's error that ArrayRecord tells of."""
    known = {os.strerror(number): number for number in range(1, 134)}
    for words, number in known.items():
        if f": {words}" in text:
            return number, words, str(path)
    return (text.split(";")[0],)


class ShardReader:
    """Random access to the records of shards, from any thread; opens a shard when it is first asked for.

    Args:
        shards: path and number of records of each, in order.
    """

    def __init__(self, shards: Sequence[tuple[Path, int]]):
        self._shards = list(shards)
        # ArrayRecord's readers are safe to share; one that is put aside lives on while a thread still reads with it.
        self._open: OrderedDict[int, object] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, shard: int, index: int) -> bytes:
        """The bytes of record `index` of a shard.

        Raises:
            UserError: the shard cannot be read, or is damaged.
        """
        path, _ = self._shards[shard]
        try:
            found = self._reader(shard).read([index])
        except (RuntimeError, ValueError, IndexError) as error:
            raise damaged(path, f"record {index} cannot be read: {str(error).split(';')[0]}") from error
        return found[0]

    def _reader(self, shard):
        with self._lock:
            if shard in self._open:
                self._open.move_to_end(shard)
                return self._open[shard]
            path, records = self._shards[shard]
            if not path.is_file():  # it would read as empty
                raise path_error(path, "the shard is gone; run crefjax prepare again with the same arguments")
            reader = array_record_module.ArrayRecordReader(str(path), _READER, file_reader_buffer_size=32768)
            if reader.num_records() != records:
                raise damaged(path, f"expected {records} records, found {reader.num_records()}")
            self._open[shard] = reader
            if len(self._open) > _OPEN_SHARDS:
                self._open.popitem(last=False)
            return reader


def damaged(path: Path, text: str) -> UserError:
    """The error for a shard that is not as it was written."""
    return path_error(path, f"the shard is damaged ({text}); delete the folder it is in and run crefjax prepare again")
