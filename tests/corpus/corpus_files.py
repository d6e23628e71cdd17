"""Files that are none, foreign ones, cut ones, packed ones, and names: half-map 2 is changed."""

import bz2
import gzip
import os
import random

from corpus_material import ALL, PAIR, Accepted, Case, refused

DATA = 4 * 24**3
BY_PATH = tuple(command for command in ALL if command != "prepare")  # which finds maps by their names


def content(raw):
    """Something else in place of the map."""
    return lambda inputs: inputs.half_map_2.write_bytes(raw)


def cut(size):
    def change(inputs):
        raw = inputs.half_map_2.read_bytes()
        inputs.half_map_2.write_bytes(raw[:size])

    return change


def replaced(make):
    """Another kind of file at the place of the map."""

    def change(inputs):
        inputs.half_map_2.unlink()
        make(inputs.half_map_2)

    return change


def packed(pack, name, damage=lambda raw: raw):
    """The map compressed under another name."""

    def change(inputs):
        raw = pack(inputs.half_map_2.read_bytes())
        inputs.rename(name)
        inputs.half_map_2.write_bytes(damage(raw))

    return change


def renamed(name):
    return lambda inputs: inputs.rename(name)


def longer(count):
    return lambda inputs: inputs.half_map_2.write_bytes(inputs.half_map_2.read_bytes() + bytes(count))


def flipped(at):
    def damage(raw):
        changed = bytearray(raw)
        changed[at] ^= 0xFF
        return bytes(changed)

    return damage


def two_members(raw):
    """As `bgzip` and `cat a.gz b.gz` write."""
    return gzip.compress(raw[:5000]) + gzip.compress(raw[5000:])


def noise_bytes(count):
    return random.Random(3).randbytes(count)


KINDS = {
    "missing": (lambda path: None, "no such file"),
    "a folder": (os.mkdir, "folder"),
    "a link to nothing": (lambda path: path.symlink_to("nowhere.mrc"), "no such file"),
    "a link to itself": (lambda path: path.symlink_to(path.name), ""),
    "a pipe": (os.mkfifo, "pipe"),
    "the device null": (lambda path: path.symlink_to(os.devnull), "device"),
    "the device zero": (lambda path: path.symlink_to("/dev/zero"), "device"),
    "a link to a folder": (lambda path: path.symlink_to("."), "folder"),
}

CONTENTS = {
    "an empty file": (b"", "empty"),
    "one byte": (b"\0", "1024"),
    "a text": (b"half-map two\n" * 500, "text"),
    "a page that tells of an error": (b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n" * 40, "text"),
    "a pointer of git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 5\n", "text"),
    "JSON": (b'{"message": "forbidden"}', "text"),
    "a PNG image": (b"\x89PNG\r\n\x1a\n" + noise_bytes(3000), "PNG"),
    "a PDF file": (b"%PDF-1.7\n" + noise_bytes(3000), "PDF"),
    "a TIFF image": (b"II*\0" + noise_bytes(3000), "TIFF"),
    "a TIFF image of other order": (b"MM\0*" + noise_bytes(3000), "TIFF"),
    "an HDF5 file": (b"\x89HDF\r\n\x1a\n" + noise_bytes(3000), "HDF5"),
    "a zip archive": (b"PK\x03\x04" + noise_bytes(3000), "zip"),
    "an xz file": (b"\xfd7zXZ\0" + noise_bytes(3000), "xz"),
    "a zstd file": (b"\x28\xb5\x2f\xfd" + noise_bytes(3000), "zstd"),
    "a NumPy array": (b"\x93NUMPY\x01\0v\0" + noise_bytes(3000), "not an MRC/CCP4 map"),
    "a tar archive": (b"half_map_2.mrc".ljust(257, b"\0") + b"ustar\0" + bytes(5000), "not an MRC/CCP4 map"),
    "random bytes": (noise_bytes(5000), "not an MRC/CCP4 map"),
    "zeros": (bytes(60_000), "not an MRC/CCP4 map"),
    "bytes of one": (b"\xff" * 60_000, "not an MRC/CCP4 map"),
    "a gzip file of nothing": (gzip.compress(b""), ""),
    "a gzip file of a text": (gzip.compress(b"half-map two\n" * 500), "text"),
    "a gzip file twice": (gzip.compress(gzip.compress(bytes(5000))), "compressed twice"),
    "a bzip2 file of nothing": (bz2.compress(b""), ""),
    "a bzip2 file of a text": (bz2.compress(b"half-map two\n" * 500), "text"),
    "the start of a gzip file": (b"\x1f\x8b", ""),
}

CUTS = {
    "within the first word": 3,
    "after the sides": 12,
    "after the mode": 16,
    "before the mark": 208,
    "after the mark": 212,
    "within the labels": 700,
    "within the last label": 1023,
    "after the header": 1024,
    "within the first voxel": 1025,
    "after a section": 1024 + 4 * 24**2,
    "in the middle": 1024 + DATA // 2,
    "before the last section": 1024 + DATA - 4 * 24**2,
    "before the last voxel": 1024 + DATA - 4,
    "before the last byte": 1024 + DATA - 1,
}

PACKED_DAMAGES = {
    "cut at 5 bytes": lambda raw: raw[:5],
    "cut at 11 bytes": lambda raw: raw[:11],
    "cut within the header": lambda raw: raw[:400],
    "cut in the middle": lambda raw: raw[: len(raw) // 2],
    "without its last 9 bytes": lambda raw: raw[:-9],
    "without its last byte": lambda raw: raw[:-1],
    "with a wrong byte in the middle": lambda raw: flipped(len(raw) // 2)(raw),
    "with a wrong byte near the end": lambda raw: flipped(-6)(raw),
}

SOUND = {
    "gzip": packed(gzip.compress, "half_map_2.mrc.gz"),
    "bzip2": packed(bz2.compress, "half_map_2.map.bz2"),
    "gzip under a plain name": packed(gzip.compress, "half_map_2.mrc"),
    "bzip2 under the name of gzip": packed(bz2.compress, "half_map_2.mrc.gz"),
    "a plain map under the name of gzip": renamed("half_map_2.mrc.gz"),
    "gzip of two members": packed(two_members, "half_map_2.mrc.gz"),
    "gzip with zeros after it": packed(gzip.compress, "half_map_2.mrc.gz", lambda raw: raw + bytes(600)),
    "the suffix ccp4": renamed("half_map_2.ccp4"),
    "a suffix in capitals": renamed("half_map_2.MRC"),
    "names of EMDB": renamed("emd_1234_half_map_2.map"),
    "a byte after the voxels": longer(1),
    "512 bytes after the voxels": longer(512),
}

NAMES = {
    "no suffix": "half_map_2",
    "the suffix of a text": "half_map_2.txt",
    "blanks": "half map 2 .mrc",
    "a quote": "half'map\"2.mrc",
    "a line break": "half\nmap.mrc",
    "letters that are not ASCII": "Hälfte_2_半.mrc",
    "bytes that are no UTF-8": os.fsdecode(b"h\xe9lice.mrc"),
    "markup": "<b>half_map_2&amp;.mrc",
    "a format": "half_{0}%s_map.mrc",
}


def broken_under_a_name(name):
    def change(inputs):
        inputs.rename(name)
        inputs.half_map_2.write_bytes(b"half-map two\n" * 500)

    return change


def both_under_one_link(inputs):
    """Two links to one folder: other paths, but other files too."""
    (inputs.folder / "again").symlink_to(".")
    inputs.half_map_2 = inputs.folder / "again" / "half_map_2.mrc"


def without_first(inputs):
    """Half-map 1 is the broken one."""
    inputs.half_map_1.write_bytes(inputs.half_map_1.read_bytes()[:2000])


def file_cases():
    for name, (make, word) in KINDS.items():
        yield Case(f"instead of a map {name}", replaced(make), refused(word), BY_PATH)
        yield Case(f"in an entry instead of a map {name}", replaced(make), refused("half_map_2"), ("prepare",))
    yield from (Case(f"instead of a map {name}", content(raw), refused(word)) for name, (raw, word) in CONTENTS.items())
    for name, size in CUTS.items():
        words = (str(size), str(1024 + DATA)) if size >= 1024 else ()
        yield Case(f"cut {name}", cut(size), refused(*words))
    for kind, pack, name in (("gzip", gzip.compress, "half_map_2.mrc.gz"), ("bzip2", bz2.compress, "half_map_2.mrc")):
        for damage, change in PACKED_DAMAGES.items():
            yield Case(f"{kind} {damage}", packed(pack, name, change), refused())
    yield from (Case(f"sound: {name}", change, Accepted()) for name, change in SOUND.items())
    yield from (Case(f"a name with {what}", renamed(name), Accepted(), BY_PATH) for what, name in NAMES.items())
    yield from (
        Case(f"a text under a name with {what}", broken_under_a_name(name), refused("text"), BY_PATH)
        for what, name in NAMES.items()
    )
    yield Case("the name of a stack", renamed("half_map_2.mrcs"), refused("stack"), BY_PATH)
    yield Case("another name of a stack", renamed("half_map_2.st"), refused("stack"), BY_PATH)
    yield Case("a pair through a link to its folder", both_under_one_link, Accepted(), BY_PATH)
    yield Case("half-map 1 cut", without_first, refused("2000"), PAIR)
    yield Case("no read permission", unreadable, refused("half_map_2"), () if os.geteuid() == 0 else ALL)


def unreadable(inputs):
    inputs.half_map_2.chmod(0)
