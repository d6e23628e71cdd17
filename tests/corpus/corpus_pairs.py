"""Two maps that are each sound, and what is between them."""

import gzip
import os
import shutil

import numpy as np
from corpus_material import (
    PAIR,
    VOXEL,
    Accepted,
    Case,
    NotAPair,
    Orderly,
    half_maps,
    particle,
    refused,
    write_map,
)
from scipy import ndimage

BY_PATH = tuple(command for command in PAIR if command != "prepare")


def second(change):
    """Half-map 2 made of itself."""

    def write(inputs):
        array = np.ascontiguousarray(change(half_maps()[1]), "f4")
        inputs.arrays = inputs.arrays[0], array
        write_map(inputs.half_map_2, array)

    return write


def of_first(change):
    """Half-map 2 made of half-map 1."""

    def write(inputs):
        array = np.ascontiguousarray(change(half_maps()[0]), "f4")
        inputs.arrays = inputs.arrays[0], array
        write_map(inputs.half_map_2, array)

    return write


def both(change):
    return lambda inputs: inputs.write(*(np.ascontiguousarray(change(half), "f4") for half in half_maps()))


def radius():
    """Frequency of every Fourier voxel of the whole spectrum, 1/Å."""
    lines = np.meshgrid(*[np.fft.fftfreq(24, VOXEL)] * 3, indexing="ij")
    return np.sqrt(sum(line**2 for line in lines))


def filtered(gain):
    """Amplitudes times what a function of frequency gives."""
    return lambda array: np.fft.ifftn(np.fft.fftn(array.astype("f8")) * gain(radius())).real


def b_factor(value):
    """The same beyond Nyquist as there: corners of the box must not outgrow all the rest."""
    return filtered(lambda frequency: np.exp(-value / 4 * np.minimum(frequency, 0.5 / VOXEL) ** 2))


def soft_mask(array):
    """1 in the particle, with an edge of two voxels to either side."""
    return array * ndimage.gaussian_filter(particle()[1].astype("f4"), 0.8, truncate=2)


def soft_cube(array):
    """All but the rim of the box, with an edge of a few voxels."""
    distance = np.maximum(np.abs(np.indices(array.shape) - 11.5).max(0) - 7, 0)
    return array * np.clip(1 - distance / 3, 0, 1)


MOVED = {
    "shifted along x": (lambda array: np.roll(array, 2, 2), "shifted by 3, 0, 0 Å"),
    "shifted along y": (lambda array: np.roll(array, -2, 1), "shifted by 0, -3, 0 Å"),
    "shifted along z": (lambda array: np.roll(array, 3, 0), "shifted by 0, 0, 4.5 Å"),
    "shifted along all": (lambda array: np.roll(array, (1, 2, 3), (0, 1, 2)), "shifted by 4.5, 3, 1.5 Å"),
    "shifted by half of the box": (lambda array: np.roll(array, (12, 12, 12), (0, 1, 2)), "shifted by"),
    "mirrored along x": (lambda array: array[:, :, ::-1], "mirrored along x"),
    "mirrored along y": (lambda array: array[:, ::-1], "mirrored along y"),
    "mirrored along z": (lambda array: array[::-1], "mirrored along z"),
    "inverted through the middle": (lambda array: array[::-1, ::-1, ::-1], "mirrored along x and y and z"),
    "turned about z": (lambda array: array[:, ::-1, ::-1], "mirrored along x and y"),
    "of exchanged axes": (lambda array: array.transpose(1, 0, 2), "of other axes"),
    "of axes in turn": (lambda array: array.transpose(2, 0, 1), "of other axes"),
    "turned by 90 degrees": (lambda array: np.rot90(array, 1, (1, 2)), "of other axes"),
    "mirrored and shifted": (lambda array: np.roll(array[::-1], 2, 2), "mirrored along z"),
    "mirrored and on another scale": (lambda array: 37 * array[::-1] + 5, "mirrored along z"),
}

SAME_NOISE = {
    "half-map 1 twice as large": of_first(lambda array: 2 * array),
    "half-map 1 on another level": of_first(lambda array: array + 3),
    "half-map 1 rounded": of_first(lambda array: np.rint(100 * array) / 100),
    "half-map 1 in half precision": of_first(lambda array: array.astype("f2")),
    "half-map 1 but for one voxel": of_first(lambda array: array + one_other()),
    "half-map 1 of inverted contrast": of_first(lambda array: -array),
    "the full map of both": of_first(lambda array: (array + half_maps()[1]) / 2),
    "the sum of both": of_first(lambda array: array + half_maps()[1]),
}


def one_other():
    out = np.zeros((24,) * 3)
    out[12, 12, 12] = 0.5
    return out


def same_path(inputs):
    inputs.half_map_2 = inputs.half_map_1


def other_spelling(inputs):
    inputs.half_map_2 = inputs.folder / ".." / inputs.folder.name / "half_map_1.mrc"


def linked(make):
    def change(inputs):
        inputs.half_map_2.unlink()
        make(inputs.half_map_1, inputs.half_map_2)

    return change


def compressed(inputs):
    inputs.rename("half_map_2.mrc.gz")
    inputs.half_map_2.write_bytes(gzip.compress(inputs.half_map_1.read_bytes()))


def with_other_header(inputs):
    write_map(inputs.half_map_2, half_maps()[0], order=">", axes=(3, 1, 2), labels=(b"another",))


SAME_FILE = {"the same path": same_path, "the same path in other words": other_spelling}
SAME_VOXELS = {
    "a symbolic link": linked(lambda first, second: second.symlink_to(first.name)),
    "a hard link": linked(os.link),
    "a copy": linked(shutil.copy),
    "a compressed copy": compressed,
    "a copy with another header": with_other_header,
}

ON_ANOTHER_SCALE = {
    "times 37 plus 5": lambda array: 37 * array + 5,
    "times 3": lambda array: 3 * array,
    "times 0.01": lambda array: 0.01 * array,
    "times 1e6": lambda array: 1e6 * array,
    "times 1e-12": lambda array: 1e-12 * array,
    "plus 20 deviations": lambda array: array + 20 * array.std(),
    "minus 20 deviations": lambda array: array - 20 * array.std(),
    "of inverted contrast": lambda array: -array,
    "of inverted contrast, on a level": lambda array: 100 - 3 * array,
}

PROCESSED = {
    "low-passed at 6 Å": (filtered(lambda frequency: frequency < 1 / 6), ("filtered",), "low-passed"),
    "low-passed softly at 6 Å": (
        filtered(lambda frequency: 1 / (1 + np.exp(np.clip((frequency * 36 - 6) / 0.25, -50, 50)))),
        ("filtered",),
        "low-passed",
    ),
    "multiplied by the particle's mask": (lambda array: array * particle()[1], ("masked",), "multiplied by a mask"),
    "multiplied by a soft mask": (soft_mask, ("masked",), "multiplied by a mask"),
    "multiplied by a soft cube": (soft_cube, None, ""),
    "sharpened by 250 Å²": (b_factor(-250), ("fall_off",), "sharpen"),
    "blurred by 250 Å²": (b_factor(250), None, ""),
}


def sides(*shape, first=None):
    """Both half-maps in another box, or half-map 2 alone."""

    def change(inputs):
        inputs.write(half_maps(shape=first or shape)[0], half_maps(shape=shape)[1])

    return change


def crop(side):
    """So small that there is hardly anything in it."""
    return both(lambda array: array[:side, :side, :side])


def other_size(voxel_size):
    return lambda inputs: write_map(inputs.half_map_2, half_maps()[1], cell=(24 * voxel_size,) * 3)


def of_another_specimen(inputs):
    inputs.arrays = half_maps()[0], half_maps(seed=4)[1]
    write_map(inputs.half_map_2, inputs.arrays[1])


def pair_cases():
    for name, (change, text) in MOVED.items():
        yield Case(f"pair: one {name}", second(change), NotAPair((text,)), PAIR)
    for name, change in SAME_NOISE.items():
        yield Case(f"pair: {name}", change, NotAPair(("noise",)), PAIR)
    for name, change in SAME_FILE.items():
        yield Case(f"pair: {name}", change, refused("same map twice"), BY_PATH)
    for name, change in SAME_VOXELS.items():
        yield Case(f"pair: {name}", change, refused("same map twice"), PAIR)
    for name, change in ON_ANOTHER_SCALE.items():
        yield Case(f"pair: one {name}", second(change), Accepted(("scale",), ("not on the scale",)), PAIR)
    for name, (change, findings, word) in PROCESSED.items():
        yield Case(f"pair: both {name}", both(change), Accepted(findings, (word,), like_sound=False), ("check",))
        working = ("denoise", "report", "finetune")
        if findings in (("filtered",), ("masked",)):  # of which the working grid tells where it is used
            yield Case(f"work on both {name}", both(change), Accepted(None, (word,), like_sound=False), working)
        yield Case(f"curve of both {name}", both(change), Accepted(None, like_sound=False), ("fsc",))
    dark = Accepted(("contrast",), ("inverted contrast",), like_sound=False)
    yield Case("pair: both of inverted contrast", both(lambda array: -array), dark, PAIR)
    yield Case("pair: both dark on a level", both(lambda array: 500 - array), dark, PAIR)
    yield Case("pair: other specimens", of_another_specimen, Orderly(), PAIR)
    yield from box_cases()


def box_cases():
    odd = Accepted(None, like_sound=False)
    for shape in ((26, 26, 26), (22, 22, 22), (24, 24, 26), (48, 48, 48)):
        yield Case(f"boxes 24³ and {shape}", sides(*shape, first=(24,) * 3), refused("shape"), PAIR)
    for shape in ((23, 23, 23), (25, 25, 25), (20, 24, 28), (23, 24, 25), (15, 15, 15)):
        yield Case(f"boxes of {shape}", sides(*shape), odd, ("check", "fsc", "mask"))
        yield Case(f"work on boxes of {shape}", sides(*shape), Orderly(), ("denoise", "report", "prepare", "finetune"))
    yield Case("boxes of 1³", crop(1), refused("image"), PAIR)
    for side in (2, 3, 4, 7, 8):
        yield Case(f"boxes of {side}³", crop(side), Orderly())
    for size in (1.6, 1.503, 3.0, 0.15, 1e28, 1e-30):
        commands = (*PAIR, "report of it")
        yield Case(f"voxels of 1.5 and {size} Å", other_size(size), refused("voxel size"), commands)
    yield Case("voxels of 1.5 and 1.5007 Å", other_size(1.5007), Accepted(), PAIR)
