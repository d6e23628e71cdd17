"""Headers that are changed at random: a map is read as the standard has it, or refused, and nothing else.

Derandomized, and a part of what `pytest tests/corpus --full` tries.
"""

import contextlib
import struct
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from corpus_commands import run
from corpus_material import FIELDS, half_maps, write_map
from helpers.mrc_bytes import MODES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crefjax.errors import UserError
from crefjax.io.maps import read_map

SIDE = 16
SECONDS = 5  # at most, for one example
MIB = 2**20
WORDS = st.one_of(
    st.sampled_from([0, 1, 2, 3, 6, 12, 15, 16, 17, 24, 80, 401, 1024, -1, -16, 2**20, 2**24, 2**31 - 1, -(2**31)]),
    st.integers(-(2**31), 2**31 - 1),
)
NUMBERS = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, 24.0, 90.0, -1.0, 1e-30, 1e30, 1e-45, float("nan"), float("inf")]),
    st.floats(width=32),
)


def values(kind):
    """What a field may be set to."""
    count = int(kind[:-1] or 1)
    if kind[-1] == "s":
        return st.tuples(st.binary(min_size=count, max_size=count))
    return st.tuples(*[WORDS if kind[-1] == "i" else NUMBERS] * count)


FIELD = st.sampled_from(sorted(FIELDS)).flatmap(
    lambda name: values(FIELDS[name][1]).map(lambda chosen: (*FIELDS[name], chosen))
)
BYTES = st.tuples(st.integers(0, 1023), st.just("1s"), st.tuples(st.binary(min_size=1, max_size=1)))
FILES = {
    "mode": st.sampled_from(sorted(MODES)),
    "order": st.sampled_from("<>"),
    "changes": st.lists(st.one_of(FIELD, FIELD, BYTES), max_size=4),
    "length": st.sampled_from([0, 0, 0, 1, 80, 5000, -1, -80, -9000, -17_000]),
}


def content(mode, order, changes, length):
    """A map file with some of its header changed, longer or shorter by some bytes."""
    with tempfile.TemporaryDirectory() as folder:
        scale = 1 if mode in (2, 12) else 20
        array = 40 + scale * half_maps(shape=(SIDE,) * 3)[0]
        raw = bytearray(write_map(Path(folder) / "map.mrc", array.clip(0, 120), order, mode=mode).read_bytes())
    for offset, kind, chosen in changes:
        struct.pack_into(order + kind, raw, offset, *chosen)
    return bytes(raw) + bytes(length) if length >= 0 else bytes(raw[:length])


def readings(raw):
    """The voxels (z, y, x), and the voxel size, that the words of a header say, in either byte order."""
    for order in "<>":
        nx, ny, nz, mode = struct.unpack_from(order + "4i", raw)
        axes = struct.unpack_from(order + "3i", raw, 64)
        axes = (1, 2, 3) if axes == (0, 0, 0) else axes
        (extended,) = struct.unpack_from(order + "i", raw, 92)
        if mode not in MODES or min(nx, ny, nz) <= 0 or extended < 0 or sorted(axes) != [1, 2, 3]:
            continue
        dtype = np.dtype(MODES[mode]).newbyteorder(order)
        if len(raw) < 1024 + extended + nx * ny * nz * dtype.itemsize:
            continue
        data = np.frombuffer(raw, dtype, nx * ny * nz, 1024 + extended).reshape(nz, ny, nx)
        data = data.transpose([2 - axes.index(axis) for axis in (3, 2, 1)])
        with np.errstate(all="ignore"):
            size = np.array(struct.unpack_from(order + "3f", raw, 40)) / struct.unpack_from(order + "3i", raw, 28)
            yield data.astype("f4"), size
            if mode == 0:
                yield data.astype("u1").astype("f4"), size


def check_read(path, raw):
    """One reading is the one that the map has, or the map is refused in one line."""
    found, message = None, ""
    try:
        found = read_map(path)
    except UserError as error:
        message = str(error)
    if found is None:
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
    else:
        assert any(
            np.array_equal(found.array, array) and np.allclose(size, found.voxel_size, rtol=2e-3)
            for array, size in readings(raw)
        )


def examples(request, count):
    full = request.config.getoption("--full", default=False)
    return settings(
        max_examples=count * (50 if full else 1),
        deadline=1000 * SECONDS,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


def test_a_map_is_read_as_its_header_says_or_refused(request, tmp_path):
    @examples(request, 400)
    @given(st.fixed_dictionaries(FILES))
    def check(words):
        path, raw = tmp_path / "map.mrc", content(**words)
        path.write_bytes(raw)
        tracemalloc.start()
        try:
            check_read(path, raw)
            assert tracemalloc.get_traced_memory()[1] < MIB + 20 * len(raw)
        finally:
            tracemalloc.stop()
        assert path.read_bytes() == raw

    check()


@pytest.mark.parametrize("command", ["fsc", "check"])
def test_a_command_ends_as_it_should(command, request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_map(tmp_path / "sound.mrc", half_maps(shape=(SIDE,) * 3)[1])

    @examples(request, 40)
    @given(st.fixed_dictionaries(FILES))
    def check(words):
        raw = content(**words)
        Path("map.mrc").write_bytes(raw)
        outcome = run([command, "sound.mrc", "map.mrc"])
        assert outcome.status in ((0, 1, 2) if command == "check" else (0, 2)), outcome.text
        assert "Traceback" not in outcome.text
        if outcome.status == 2:
            last = outcome.err.splitlines()[-1]
            assert last.startswith("crefjax: ")
            assert "map.mrc" in last
        assert Path("map.mrc").read_bytes() == raw
        with contextlib.suppress(FileNotFoundError):
            Path("map.mrc").unlink()
        assert [path.name for path in tmp_path.iterdir()] == ["sound.mrc"]

    check()
