"""A sound pair of half-maps in a small box, what can be changed in its files, and what must happen then."""

import functools
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from helpers.mrc_bytes import mrc

SIDE, VOXEL = 24, 1.5  # voxels, Å

# Where the fields of a header are, and how they are packed.
FIELDS = {
    "nx": (0, "i"),
    "ny": (4, "i"),
    "nz": (8, "i"),
    "n": (0, "3i"),
    "mode": (12, "i"),
    "nstart": (16, "3i"),
    "mx": (28, "i"),
    "mz": (36, "i"),
    "m": (28, "3i"),
    "cell": (40, "3f"),
    "angles": (52, "3f"),
    "axes": (64, "3i"),
    "stats": (76, "3f"),
    "ispg": (88, "i"),
    "nsymbt": (92, "i"),
    "extra1": (96, "8s"),
    "exttyp": (104, "4s"),
    "nversion": (108, "i"),
    "extra2": (112, "84s"),
    "imod": (152, "2i"),
    "origin": (196, "3f"),
    "map_id": (208, "4s"),
    "stamp": (212, "4s"),
    "rms": (216, "f"),
    "nlabl": (220, "i"),
    "labels": (224, "800s"),
}


@functools.cache
def particle(seed=0, shape=(SIDE,) * 3):
    """Soft atoms in an ellipsoid off the middle of the box, (z, y, x), and the ellipsoid."""
    random = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing="ij")
    radius, atoms = 0.3 * min(shape), []
    while len(atoms) < 2 * min(shape):
        place = random.uniform(-radius, radius, 3)
        if np.sum((place / (1, 0.8, 0.6)) ** 2) < radius**2:
            atoms.append(place + np.array([1, 0, -0.5]))
    density = sum(np.exp(-((z - a) ** 2 + (y - b) ** 2 + (x - c) ** 2) / 2.4) for a, b, c in atoms)
    body = (z - 1) ** 2 + (y / 0.8) ** 2 + ((x + 0.5) / 0.6) ** 2 < (radius + 2) ** 2
    return density, body


@functools.cache
def half_maps(seed=0, shape=(SIDE,) * 3):
    """Two float32 half-maps (z, y, x): the particle, and in each as much noise of its own."""
    density, body = particle(seed, shape)
    random = np.random.default_rng([seed, 1])
    noise = density[body].std()
    return tuple((density + noise * random.standard_normal(shape)).astype("f4") for _ in range(2))


def mask_array(shape=(SIDE,) * 3):
    return particle(shape=shape)[1].astype("f4")


def write_map(path, array, order="<", **words):
    """A map file of an array (z, y, x), rounded where its mode has whole numbers; `words` as `mrc_bytes.mrc` has."""
    axes = words.get("axes", (1, 2, 3))
    axes = axes if sorted(axes) == [1, 2, 3] else (1, 2, 3)
    data = np.ascontiguousarray(array.transpose([3 - axis for axis in axes[::-1]]))
    if words.get("mode", 2) in (0, 1, 6):
        data = np.rint(data)
    words.setdefault("n", data.shape[::-1])
    with np.errstate(over="ignore", invalid="ignore"):
        path.write_bytes(mrc(order, data, **words))
    return path


def set_fields(path, order="<", **fields):
    """Changes fields of a header, and nothing else of the file."""
    raw = bytearray(path.read_bytes())
    for name, value in fields.items():
        offset, kind = FIELDS[name]
        values = value if isinstance(value, tuple) else (value,)
        struct.pack_into(order + kind, raw, offset, *values)
    path.write_bytes(raw)


@dataclass
class Inputs:
    """The files that a command is given, and what they mean.

    Attributes:
        folder: of `half_map_1.mrc`, `half_map_2.mrc` and, where there is one, `mask.mrc`.
        half_map_1, half_map_2: the pair.
        mask: that commands are given, or None.
        options: added to the command line.
        output: in place of the command's own output; relative to the folder above `folder`.
        stdout: a file in place of standard output.
        arrays: the half-maps as files hold them, (z, y, x).
        voxel_size: Å.
        scale: of the result, over that of the sound pair.
    """

    folder: Path
    half_map_1: Path
    half_map_2: Path
    mask: Path | None = None
    options: tuple = ()
    output: str | None = None
    stdout: Path | None = None
    arrays: tuple[np.ndarray, np.ndarray] = field(default_factory=half_maps)
    voxel_size: float = VOXEL
    scale: float = 1.0

    @property
    def halves(self):
        return self.half_map_1, self.half_map_2

    def write(self, first, second, **words):
        """Writes other half-maps in place of the sound ones."""
        self.arrays = first, second
        for path, array in zip(self.halves, self.arrays, strict=True):
            write_map(path, array, **words)

    def rename(self, name):
        """Gives the second half-map another name."""
        self.half_map_2 = self.half_map_2.rename(self.folder / name)

    def add_mask(self, array=None, name="mask.mrc", **words):
        """A mask, that of the particle if no other is given."""
        self.mask = write_map(self.folder / name, mask_array() if array is None else array, **words)


def write_inputs(folder):
    """The sound pair."""
    folder.mkdir()
    inputs = Inputs(folder, folder / "half_map_1.mrc", folder / "half_map_2.mrc")
    inputs.write(*half_maps())
    return inputs


SINGLE = ("denoise one map", "report of it", "simulate", "classify")  # each is given half-map 2 alone
PAIR = ("denoise", "report", "check", "fsc", "mask", "prepare", "finetune")
ALL = PAIR + SINGLE
WITH_MASK = ("denoise", "report", "check", "fsc", "prepare", "finetune")


@dataclass(frozen=True)
class Refused:
    """A mistake: one line with these words, exit status 2; `prepare` leaves the entry out with such a line."""

    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class NotAPair:
    """Maps that are sound, but no pair: `check` says so with these words, work is refused, `fsc` and `mask` warn."""

    words: tuple[str, ...]


@dataclass(frozen=True)
class Accepted:
    """The results of the sound pair, within what the change does to them.

    Attributes:
        findings: kinds that `check` must find, and no others; None for any.
        words: of which every command that works on the pair must warn.
        like_sound: whether the results are those of the sound pair, but for the scale.
        or_refused: whether a refusal does as well.
    """

    findings: tuple[str, ...] | None = ()
    words: tuple[str, ...] = ()
    like_sound: bool = True
    or_refused: bool = False


@dataclass(frozen=True)
class NotSilent:
    """What no program can put right: refused, or a warning; these words must be said."""

    words: tuple[str, ...]


@dataclass(frozen=True)
class Orderly:
    """Nothing is known of the result: it works or is refused in one line."""


@dataclass(frozen=True)
class Case:
    """An input that is broken or odd.

    Attributes:
        name: unique.
        change: made to the sound inputs.
        expected: what must happen.
        commands: by which it is read.
    """

    name: str
    change: Callable[[Inputs], None]
    expected: Refused | NotAPair | Accepted | NotSilent | Orderly
    commands: tuple[str, ...] = ALL


def refused(*words):
    return Refused(words)
