"""Invalid map files, given to each command that reads maps."""

import bz2
import gzip
import struct

import numpy as np
import pytest
from helpers.cli import assert_refused, densities, write

COMMANDS = ["denoise", "fsc", "mask"]
PIXELS = 20 * 17 * 23


def set_words(path, **words):
    """Overwrite 4-byte integers of the header, by their number from 1."""
    raw = bytearray(path.read_bytes())
    for number, value in words.items():
        offset = 4 * (int(number[1:]) - 1)
        raw[offset : offset + 4] = struct.pack("<i", value)
    path.write_bytes(raw)


def missing(path):
    path.unlink()


def folder(path):
    path.unlink()
    path.mkdir()


def text(path):
    path.write_text("half map one\n" * 500)


def picture(path):
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40)


def empty(path):
    path.write_bytes(b"")


def cut(size):
    def damage(path):
        path.write_bytes(path.read_bytes()[:size])

    damage.__name__ = f"cut_at_{size}"
    return damage


def cut_last_byte(path):
    path.write_bytes(path.read_bytes()[:-1])


def cut_in_extended_header(path):
    write(path, densities()[0], extended=bytes(400))
    cut(1224)(path)


def voxels(value):
    def damage(path):
        data = densities()[0]
        data[3, 4, 5] = value
        write(path, data)

    damage.__name__ = f"one_voxel_{value}"
    return damage


def half_precision_infinite(path):
    data = densities()[0].astype("f2")
    data[0, 0, 0] = np.inf
    write(path, data)


def constant(path):
    write(path, np.full((20, 17, 23), 2.5, "f4"))


def zeros(path):
    write(path, np.zeros((20, 17, 23), "f4"))


def image_stack(path):
    write(path, densities()[0], ispg=0, mz=1)


def volume_stack(path):
    write(path, densities()[0], ispg=401, mz=5)


def complex_numbers(path):
    write(path, densities()[0].astype("c8"))


def unknown_mode(path):
    set_words(path, w4=77)


def negative_sides(path):
    set_words(path, w1=-23)


def endless_sides(path):
    set_words(path, w1=2**31 - 1, w2=2**31 - 1, w3=2**31 - 1)


def endless_extended_header(path):
    set_words(path, w24=2**31 - 1)


def repeated_axes(path):
    set_words(path, w17=1, w18=1, w19=1)


def anisotropic(path):
    write(path, densities()[0], voxel=(1.5, 1.5, 1.7))


DAMAGES = [
    *(missing, folder, text, picture, empty, *map(cut, (4, 300, 1023, 1024, 1025, 1024 + PIXELS * 2)), cut_last_byte),
    *(cut_in_extended_header, *map(voxels, (np.nan, np.inf, -np.inf)), half_precision_infinite, constant, zeros),
    *(image_stack, volume_stack, complex_numbers, unknown_mode, negative_sides, endless_sides),
    *(endless_extended_header, repeated_axes, anisotropic),
]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damaged_map_is_refused_as_either_half_map(command, damage, pair, commands, workdir):
    damage(pair[1])
    assert_refused(workdir, *commands(command, *pair), names="half_2.mrc")
    assert_refused(workdir, *commands(command, *reversed(pair)), names="half_2.mrc")


@pytest.mark.parametrize("damage", [missing, text, cut(1024), voxels(np.nan), constant, image_stack, anisotropic])
def test_damaged_full_map_is_refused(damage, pair, workdir, weights):
    damage(pair[0])
    assert_refused(
        workdir, "denoise", pair[0], "-o", workdir / "denoised.mrc", "--weights", weights, names="half_1.mrc"
    )


def broken_checksum(raw):
    raw[-6] ^= 0xFF
    return raw


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("pack", [gzip, bz2], ids=["gz", "bz2"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[: len(raw) // 2],
        lambda raw: raw[:-3],
        lambda raw: raw[:15],
        broken_checksum,
        lambda raw: b"",
    ],
    ids=["half", "end", "start", "checksum", "empty"],
)
def test_damaged_compressed_map_is_refused(command, pack, damage, pair, commands, workdir):
    name = workdir / f"half_2.mrc.{'gz' if pack is gzip else 'bz2'}"
    name.write_bytes(damage(bytearray(pack.compress(pair[1].read_bytes()))))
    assert_refused(workdir, *commands(command, pair[0], name), names=name.name)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("pack", [gzip, bz2], ids=["gz", "bz2"])
def test_text_that_was_compressed_is_refused(command, pack, pair, commands, workdir):
    name = workdir / f"half_2.map.{'gz' if pack is gzip else 'bz2'}"
    name.write_bytes(pack.compress(b"no map at all\n" * 300))
    assert_refused(workdir, *commands(command, pair[0], name), names=name.name)


@pytest.mark.parametrize("command", COMMANDS)
def test_message_of_a_missing_file_says_so(command, commands, pair, workdir):
    message = assert_refused(workdir, *commands(command, pair[0], workdir / "nowhere.mrc"), names="nowhere.mrc")
    assert "no such file" in message.lower() or "not found" in message.lower() or "not exist" in message.lower()


def test_message_of_a_cut_file_has_both_sizes(pair, workdir):
    cut(5000)(pair[1])
    message = assert_refused(workdir, "fsc", *pair).replace(",", "")
    assert "5000" in message
    assert str(1024 + 4 * PIXELS) in message


def test_message_of_a_bad_voxel_counts(pair, workdir):
    data = densities()[0]
    data[0, :2, 0] = np.nan, np.inf
    write(pair[0], data)
    message = assert_refused(workdir, "fsc", *pair)
    assert "NaN" in message or "infinite" in message


def test_message_of_anisotropic_voxels_has_the_sizes(pair, workdir, weights):
    anisotropic(pair[0])
    assert_refused(workdir, "denoise", *pair, "-o", "o.mrc", "--weights", weights, names=("1.5", "1.7"))
