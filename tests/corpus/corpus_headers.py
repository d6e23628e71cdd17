"""Headers that are odd, wrong, or contradict the file."""

import itertools

import numpy as np
from corpus_material import (
    ALL,
    PAIR,
    SINGLE,
    VOXEL,
    Accepted,
    Case,
    NotSilent,
    Orderly,
    half_maps,
    refused,
    set_fields,
    write_map,
)

NAN, INF = float("nan"), float("inf")
LARGEST = 2**31 - 1
IMOD = 1146047817
CELL = 24 * VOXEL


def changed(order="<", **fields):
    """Half-map 2 with other words in its header."""
    return lambda inputs: set_fields(inputs.half_map_2, order, **fields)


def both(order="<", **fields):
    def change(inputs):
        for path in inputs.halves:
            set_fields(path, order, **fields)

    return change


def written(order="<", **words):
    """Both half-maps written anew."""
    return lambda inputs: inputs.write(*half_maps(), order=order, **words)


def repeated(value):
    return (value,) * 3


REFUSED = {
    **{f"mode {mode}": ({"mode": mode}, "mode") for mode in (3, 4, 5, 7, 16, 77, 101, -1, -2, LARGEST)},
    "no columns": ({"nx": 0}, "above 0"),
    "no rows": ({"ny": 0}, "above 0"),
    "no sections": ({"nz": 0}, "above 0"),
    "negative columns": ({"nx": -24}, "above 0"),
    "negative sections": ({"nz": -24}, "above 0"),
    "endless columns": ({"nx": LARGEST}, "bytes"),
    "endless sides": ({"n": repeated(LARGEST)}, "bytes"),
    "sides of 2^30": ({"n": repeated(2**30)}, "bytes"),
    "a column more": ({"nx": 25}, "bytes"),
    "a section more": ({"nz": 25}, "bytes"),
    "sides in the other byte order": ({"n": repeated(24 << 24)}, "bytes"),
    "one section": ({"nz": 1, "mz": 1}, "image"),
    "one column": ({"nx": 1}, "image"),
    "a stack of images": ({"ispg": 0, "mz": 1}, "stack"),
    "a stack of volumes": ({"ispg": 401, "mz": 12}, "stack"),
    "a stack of volumes of one section": ({"ispg": 401, "mz": 1}, "stack"),
    "axes 1, 1, 3": ({"axes": (1, 1, 3)}, "MAPC"),
    "axes 1, 2, 4": ({"axes": (1, 2, 4)}, "MAPC"),
    "axes 0, 1, 2": ({"axes": (0, 1, 2)}, "MAPC"),
    "axes -1, 2, 3": ({"axes": (-1, 2, 3)}, "MAPC"),
    "axes of noise": ({"axes": (LARGEST, 7, -9)}, "MAPC"),
    "no intervals": ({"m": repeated(0)}, "MX"),
    "negative intervals": ({"m": repeated(-24)}, "MX"),
    "cell 0": ({"cell": repeated(0.0)}, "--voxel-size"),
    "cell 0 along y": ({"cell": (CELL, 0.0, CELL)}, "--voxel-size"),
    "cell NaN": ({"cell": repeated(NAN)}, "--voxel-size"),
    "cell NaN along z": ({"cell": (CELL, CELL, NAN)}, "--voxel-size"),
    "cell infinite": ({"cell": repeated(INF)}, "--voxel-size"),
    "cell negative": ({"cell": repeated(-CELL)}, "--voxel-size"),
    "cell of other length along z": ({"cell": (CELL, CELL, 1.01 * CELL)}, "cubic"),
    "cell of other length along x": ({"cell": (CELL / 2, CELL, CELL)}, "cubic"),
    "intervals of other number along z": ({"mz": 48}, "cubic"),
    "cell angle 120": ({"angles": (90.0, 90.0, 120.0)}, "90"),
    "cell angle NaN": ({"angles": (90.0, NAN, 90.0)}, "90"),
    "cell angle negative": ({"angles": repeated(-90.0)}, "90"),
    "a negative extended header": ({"nsymbt": -80}, "NSYMBT"),
    "an extended header that is not there": ({"nsymbt": 80}, "NSYMBT"),
    "a long extended header that is not there": ({"nsymbt": 4000}, "NSYMBT"),
    "an extended header longer than the file": ({"nsymbt": 10_000_000}, "NSYMBT"),
    "an endless extended header": ({"nsymbt": LARGEST}, "NSYMBT"),
    "every word 0 but the mark": ({"n": repeated(0), "mode": 0, "axes": repeated(0)}, ""),
    "half-precision voxels of twice the sections": ({"mode": 12, "nz": 49}, "bytes"),
}

HARMLESS = {
    "space group 0": {"ispg": 0},
    "space group 4": {"ispg": 4},
    "space group 401 of one volume": {"ispg": 401},
    "space group -1": {"ispg": -1},
    "an endless space group": {"ispg": LARGEST},
    "version 0": {"nversion": 0},
    "version 99999": {"nversion": 99_999},
    "negative version": {"nversion": -1},
    "no mark": {"map_id": bytes(4)},
    "a mark that ends in 0": {"map_id": b"MAP\0"},
    "a mark in small letters": {"map_id": b"map "},
    "a machine stamp of zeros": {"stamp": bytes(4)},
    "the machine stamp of CCP4": {"stamp": b"\x44\x41\0\0"},
    "a machine stamp of noise": {"stamp": b"\x9a\x03\xff\x7f"},
    "the machine stamp of the other order": {"stamp": b"\x11\x11\0\0"},
    "blank axes": {"axes": repeated(0)},
    "blank angles": {"angles": repeated(0.0)},
    "angles that are nearly right": {"angles": repeated(90.004)},
    "cell all but cubic": {"cell": (CELL, CELL, 1.0004 * CELL)},
    "statistics 0": {"stats": repeated(0.0)},
    "statistics not known": {"stats": (0.0, -1.0, -2.0)},
    "statistics NaN": {"stats": repeated(NAN)},
    "statistics infinite": {"stats": (-INF, INF, INF)},
    "statistics of another map": {"stats": (1000.0, 1001.0, 1000.5)},
    "statistics in the wrong order": {"stats": (9.0, -9.0, 0.0)},
    "deviation NaN": {"rms": NAN},
    "deviation negative": {"rms": -5.0},
    "99 labels": {"nlabl": 99},
    "-1 labels": {"nlabl": -1},
    "labels that are not ASCII": {"nlabl": 10, "labels": bytes(range(256)) * 3 + bytes(32)},
    "labels that are full": {"nlabl": 10, "labels": b"x" * 800},
    "a label with a line break": {"nlabl": 1, "labels": b"one\ntwo\r\n\x1b[31m"},
    "extra words of noise": {"extra1": b"\xff\x7f\x01\x80abcd", "extra2": bytes(range(100, 184))},
    "an unknown type of extended header": {"exttyp": b"\xff\0\1\2"},
    "IMOD's stamp": {"imod": (IMOD, 0)},
    "starts beyond all": {"nstart": repeated(LARGEST)},
    "an origin NaN": {"origin": repeated(NAN)},
    "an origin infinite": {"origin": (0.0, INF, 0.0)},
    "an origin of 1e30 Å": {"origin": repeated(1e30)},
}

# What is in the file is longer than its header says, or far from any map.
CONTRADICTIONS = {
    "whole numbers of half the bytes": ({"mode": 1}, "bytes", PAIR),
    "bytes of a quarter": ({"mode": 0}, "bytes", ALL),
    "half-precision numbers": ({"mode": 12}, "bytes", ALL),
    "a column less": ({"nx": 23, "mx": 23, "cell": (23 * VOXEL, CELL, CELL)}, "bytes", ALL),
    "half of the sections": ({"nz": 12, "mz": 12, "cell": (CELL, CELL, CELL / 2)}, "bytes", ALL),
    "a cell of 1 Å": ({"cell": repeated(1.0)}, "voxel size", ALL),
    "a cell of 1e30 Å": ({"cell": repeated(1e30)}, "voxel size", ALL),
    "a cell of 1e-30 Å": ({"cell": repeated(1e-30)}, "voxel size", ALL),
}

MODES = {
    "mode 1": {"mode": 1},
    "mode 2": {"mode": 2},
    "mode 12": {"mode": 12},
    "mode 2 in big-endian order": {"mode": 2, "order": ">"},
    "mode 1 in big-endian order": {"mode": 1, "order": ">"},
    "mode 12 in big-endian order": {"mode": 12, "order": ">"},
    "mode 2 in big-endian order with the other stamp": {"mode": 2, "order": ">", "stamp": b"\x44\x44\0\0"},
    "mode 1 in big-endian order without stamp and mark": {
        "mode": 1,
        "order": ">",
        "stamp": bytes(4),
        "map_id": bytes(4),
    },
}


def quantized(**words):
    """Densities of a thousand steps, as the mode has them."""

    def change(inputs):
        scale = 1.0 if words["mode"] in (2, 12) else 100.0
        arrays = [scale * half for half in half_maps()]
        inputs.write(*arrays, **words)
        if words["mode"] == 1:
            inputs.arrays = tuple(np.rint(array) for array in arrays)
        elif words["mode"] == 12:
            inputs.arrays = tuple(array.astype("f2").astype("f4") for array in arrays)
        inputs.scale = scale

    return change


def byte_pair(unsigned, **fields):
    """Mode 0; IMOD's bytes are 0 to 255, those of the standard -128 to 127."""

    def change(inputs):
        steps = [np.clip(np.rint(20 * half), -60, 190) + 60 for half in half_maps()]
        arrays = steps if unsigned else [array - 128 for array in steps]
        for path, array in zip(inputs.halves, arrays, strict=True):
            write_map(path, array.astype("u1").view("i1") if unsigned else array, mode=0)
            known = (float(array.min()), float(array.max()), float(array.mean()))
            set_fields(path, **({"stats": known} | fields))
        inputs.arrays, inputs.scale = tuple(arrays), 20.0

    return change


def unsigned_words(inputs):
    """Mode 6: 0 to 65535, so that the level is in the middle of the range."""
    arrays = tuple(np.rint(2000 * half) + 32_767 for half in half_maps())
    inputs.write(*arrays, mode=6)
    inputs.scale = 2000.0


BYTES = {
    "unsigned bytes with IMOD's stamp": byte_pair(True, imod=(IMOD, 0)),
    "unsigned bytes by their statistics": byte_pair(True),
    "unsigned bytes with IMOD's stamp and no statistics": byte_pair(True, imod=(IMOD, 0), stats=repeated(0.0)),
    "signed bytes": byte_pair(False),
    "signed bytes with IMOD's flag": byte_pair(False, imod=(IMOD, 1)),
    "signed bytes without statistics": byte_pair(False, stats=repeated(0.0)),
    "unsigned 16-bit words": unsigned_words,
}

CONTRADICTED_BYTES = {
    "bytes that IMOD's flag and statistics tell otherwise": byte_pair(True, imod=(IMOD, 1)),
    "signed bytes that IMOD's flag calls unsigned": byte_pair(False, imod=(IMOD, 0)),
    "bytes that no statistics fit": byte_pair(True, stats=(300.0, 500.0, 400.0)),
}


def without_extended_header(count):
    """An extended header of 80 bytes follows, and NSYMBT has another number."""

    def change(inputs):
        inputs.write(*half_maps(), extended=b"X,  Y,  Z".ljust(80))
        for path in inputs.halves:
            set_fields(path, nsymbt=count)

    return change


def origin_and_starts(inputs):
    first, second = half_maps()
    write_map(inputs.half_map_1, first, origin=(3.0, 6.0, -4.5))
    write_map(inputs.half_map_2, second, nstart=(2, 4, -3))


def sized(**fields):
    """A cell that says nothing, and the voxel size on the command line."""

    def change(inputs):
        both(**fields)(inputs)
        inputs.options = ("--voxel-size", VOXEL)

    return change


def header_cases():
    yield from (Case(f"header: {name}", changed(**fields), refused(word)) for name, (fields, word) in REFUSED.items())
    yield from (Case(f"header: {name}", both(**fields), Accepted()) for name, fields in HARMLESS.items())
    for name, (fields, word, commands) in CONTRADICTIONS.items():
        yield Case(f"header of {name}", both(**fields), NotSilent((word,)), commands)
    yield from (Case(f"header: {name}", quantized(**words), Accepted()) for name, words in MODES.items())
    yield from (Case(f"header: {name}", change, Accepted()) for name, change in BYTES.items())
    yield from (Case(f"header: {name}", change, refused("bytes")) for name, change in CONTRADICTED_BYTES.items())
    for axes in itertools.permutations((1, 2, 3)):
        yield Case(f"header: axes {axes}", written(axes=axes), Accepted())
    for count in (0, 79, 4):
        change = without_extended_header(count)
        yield Case(f"header: {count} bytes of an extended header of 80", change, NotSilent(("bytes",)))
    yield Case("header: symmetry follows", written(extended=b"X,  Y,  Z".ljust(80)), Accepted())
    yield Case("header: FEI1 follows", written(extended=bytes(768), exttyp=b"FEI1"), Accepted())
    yield Case("header: an origin", written(origin=(3.0, -6.0, 4.5)), Accepted())
    yield Case("header: starts", written(nstart=(2, -4, 3)), Accepted())
    odd = written(origin=(30.0, 0.0, 0.0), nstart=(2, -4, 3))
    yield Case("header: an origin that contradicts the starts", odd, Accepted())
    yield Case("header: origin of one, starts of the other", origin_and_starts, Accepted(), PAIR)
    crop = written(m=(48, 48, 48), cell=repeated(48 * VOXEL))
    yield Case("header: a part of a larger cell", crop, Accepted())
    for name, fields in {"0": {"cell": repeated(0.0)}, "NaN": {"cell": repeated(NAN)}, "m": {"m": repeated(0)}}.items():
        yield Case(f"header: cell {name}, and --voxel-size", sized(**fields), Accepted(), PAIR + SINGLE[:1])
    for name, fields in {
        "origin": {"origin": (3.0, 0.0, 0.0)},
        "starts": {"nstart": (0, 0, 2)},
        "origin, by half a voxel": {"origin": (0.0, 0.75, 0.0)},
    }.items():
        yield Case(f"header: another {name} in one", changed(**fields), refused("origin"), PAIR)
    yield Case("header: a slightly other origin in one", changed(origin=(0.001, 0.0, 0.0)), Accepted(), PAIR)
    yield Case("header: all random", of_noise, Orderly())


def of_noise(inputs):
    raw = np.random.default_rng(5).bytes(1024)
    inputs.half_map_2.write_bytes(raw + inputs.half_map_2.read_bytes()[1024:])
