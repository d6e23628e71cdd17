import errno
import os
import platform
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest
from helpers.datasets import random_map

from crefjax.data.shards import ShardReader, decode, encode, record_bytes, write_shard
from crefjax.errors import UserError


def patches(count, seed=0):
    return [random_map((2, 16, 16, 16), [seed, k]) for k in range(count)]


def shard(path, count=12, dtype="float16", **more):
    return write_shard(path, (encode(k, (k, -1, 0), list(p), dtype) for k, p in enumerate(patches(count))), **more)


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_written_patches_are_read_back(tmp_path, dtype, compress):
    assert shard(tmp_path / "a", dtype=dtype, compress=compress) == 12
    reader = ShardReader([(tmp_path / "a", 12)])
    for index, expected in enumerate(patches(12)):
        found = decode(reader.read(0, index), index, 16, dtype, 2)
        assert np.array_equal(found, expected.astype(dtype))


def test_the_bytes_of_a_shard_are_the_same_each_time(tmp_path):
    for name in "ab":
        shard(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_layout_of_a_record_by_hand():
    first, second = patches(1)[0]
    record = encode(7, (1, -2, 3), [first, second], "float16")
    assert len(record) == record_bytes(16, "float16", 2) == 32 + 2 * 2 * 16**3
    assert record[:4] == b"CRFP"
    assert np.frombuffer(record[4:8], "<u2").tolist() == [0, 2]
    assert np.frombuffer(record[8:16], "<u4").tolist() == [7, 16]
    assert np.frombuffer(record[16:28], "<i4").tolist() == [1, -2, 3]
    assert record[-2 * 16**3 :] == second.astype("<f2").tobytes()


def test_another_record_raises():
    record = encode(3, (0, 0, 0), list(patches(1)[0]), "float16")
    for arguments in ((4, 16, "float16", 2), (3, 32, "float16", 2), (3, 16, "float32", 2), (3, 16, "float16", 3)):
        with pytest.raises(ValueError, match="a record of"):
            decode(record, *arguments)
    for place in (0, 17, 30, 40, len(record) - 1):
        changed = bytearray(record)
        changed[place] ^= 4
        with pytest.raises(ValueError, match="a record"):
            decode(bytes(changed), 3, 16, "float16", 2)


def test_float16_does_not_overflow_silently():
    array = np.zeros((16, 16, 16), np.float32)
    array[3, 4, 5] = -7e4
    with pytest.raises(UserError, match=r"65504.*found 7e\+04.*`dtype` float32"):
        encode(0, (0, 0, 0), [array, array], "float16")
    assert encode(0, (0, 0, 0), [array, array], "float32")


@pytest.mark.parametrize("place", [70, 3000, 0.3, 0.5, 0.7])
def test_flipped_bytes_are_reported_with_the_file(tmp_path, place):
    """Most bytes are covered by ArrayRecord's own checksums; a record is either right or refused."""
    path, records = tmp_path / "a.array_record", patches(12)
    shard(path)
    raw = bytearray(path.read_bytes())
    used = len(bytes(raw).rstrip(b"\0")) - 2**16  # the footer is in the last block of 64 KiB
    for offset in range(8):
        raw[int(place if isinstance(place, int) else place * used) + offset] ^= 0xFF
    path.write_bytes(raw)
    refusals = []
    for index in range(12):
        try:
            record = ShardReader([(path, 12)]).read(0, index)
        except UserError as error:
            refusals.append(str(error))
        else:
            assert np.array_equal(decode(record, index, 16, "float16", 2), records[index].astype("f2"))
    assert refusals
    assert all(refusal.startswith(f"{path}: the shard is damaged") and "\n" not in refusal for refusal in refusals)


@pytest.mark.parametrize("left", [0, 10, 70_000, -1])
def test_a_shard_cut_short_is_reported(tmp_path, left):
    path = tmp_path / "a.array_record"
    shard(path)
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(UserError, match=r"a\.array_record: the shard is damaged \(expected 12 records, found 0\)"):
        ShardReader([(path, 12)]).read(0, 0)


def test_a_missing_shard_is_reported(tmp_path):
    with pytest.raises(UserError, match=r"gone: the shard is missing"):
        ShardReader([(tmp_path / "gone", 12)]).read(0, 0)


def test_many_shards_are_not_all_open(tmp_path, monkeypatch):
    monkeypatch.setattr("crefjax.data.shards._OPEN_SHARDS", 3)
    for number in range(10):
        shard(tmp_path / str(number), count=1)
    reader = ShardReader([(tmp_path / str(number), 1) for number in range(10)])
    for _ in range(2):
        for number in range(10):
            decode(reader.read(number, 0), 0, 16, "float16", 2)
    links = [os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    opened = [os.readlink(link) for link in links if os.path.islink(link)]
    assert sum(name.startswith(str(tmp_path)) for name in opened) <= 3


def test_a_full_disk_is_an_oserror(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[0][1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            shard(tmp_path / "a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before[0])
        signal.signal(signal.SIGXFSZ, before[1])
    assert caught.value.errno == errno.EFBIG


def test_no_space_left_keeps_its_error_number():
    with pytest.raises(OSError, match="No space left") as caught:
        write_shard("/dev/full", (encode(0, (0, 0, 0), list(p), "float32") for p in patches(2)))
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc, whose memory is adjusted")
def test_memory_of_records_is_used_again():
    """Six blocks of 4 MiB are written and freed together, 20 times: all but the first take few new pages."""
    code = (
        "import resource\n"
        "from crefjax.data.shards import ShardReader\n"
        "ShardReader([])\n"
        "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "before = faults()\n"
        "for _ in range(20):\n"
        "    blocks = [bytes([number]) * 2**22 for number in range(1, 7)]\n"
        "    del blocks\n"
        "print((faults() - before) * resource.getpagesize() / (6 * 2**22))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert float(done.stdout) < 5, done.stderr
