"""Voxels that are no densities, or on another level or scale."""

import numpy as np
from corpus_material import PAIR, WITH_MASK, Accepted, Case, NotSilent, Orderly, half_maps, refused, write_map

SHARED_SCALES = (1e-3, 1e-10, 1e3, 1e9, 1e13)
TINY_SCALES = (1e-20, 1e-30, 1e-40)  # whose squares float32 does not hold
DEVIATION = float(half_maps()[0].std())


def changed(change, **words):
    """Half-map 2 with other voxels."""

    def write(inputs):
        array = half_maps()[1].copy()
        with np.errstate(all="ignore"):
            array = change(array)
        inputs.arrays = inputs.arrays[0], array
        write_map(inputs.half_map_2, array, **words)

    return write


def both(change, scale=1.0):
    def write(inputs):
        inputs.write(*(change(half).astype("f4") for half in half_maps()))
        inputs.scale = scale

    return write


def put(value, *place):
    """The value in a part of the box, in one voxel if no other is given."""

    def change(array):
        array[place or (3, 4, 5)] = value
        return array

    return changed(change)


def filled(value):
    return changed(lambda array: np.full_like(array, value))


def hot(deviations, *places, first=False):
    """Single voxels so many deviations out, at (z, y, x)."""

    def change(inputs):
        arrays = [half.copy() for half in half_maps()]
        for place in places:
            arrays[0 if first else 1][place] = deviations * DEVIATION
        inputs.write(*arrays)

    return change


def scattered(array):
    random = np.random.default_rng(8)
    array[random.random(array.shape) < 0.1] = np.nan
    return array


REFUSED = {
    "one NaN": (put(np.nan), "NaN"),
    "a NaN in the corner": (put(np.nan, 23, 23, 23), "NaN"),
    "a section of NaN": (put(np.nan, 5), "NaN"),
    "a tenth NaN": (changed(scattered), "NaN"),
    "all NaN": (filled(np.nan), "NaN"),
    "one infinite": (put(np.inf), "infinite"),
    "one infinite below": (put(-np.inf), "infinite"),
    "infinite of either sign": (changed(lambda array: np.where(array > 0, np.inf, -np.inf)), "infinite"),
    "infinite by half precision": (changed(lambda array: 1e6 * array, mode=12), "infinite"),
    "all zero": (filled(0.0), "0 in every voxel"),
    "all minus zero": (filled(-0.0), "in every voxel"),
    "all one": (filled(1.0), "1 in every voxel"),
    "all -7.25": (filled(-7.25), "-7.25 in every voxel"),
    "all equal in whole numbers": (changed(lambda array: np.full_like(array, 3), mode=1), "3 in every voxel"),
    "one of 1e37": (put(1e37), "1e+37"),
    "one of -1e37": (put(-1e37), "1e+37"),
    "all up to 1e37": (changed(lambda array: 1e36 * array), "magnitude"),
    "all up to 1e17": (changed(lambda array: 1e16 * array), "magnitude"),
    "one of 1e20": (put(1e20), "1e+20"),
    "the largest of float32": (put(3.4028235e38), "3.4e+38"),
}

HOT = {
    "a hot voxel": (hot(1e4, (3, 5, 4)), "4, 5, 3"),
    "a hot voxel in the corner": (hot(1e4, (0, 0, 0)), "0, 0, 0"),
    "a hot voxel in the last corner": (hot(1e4, (23, 23, 23)), "23, 23, 23"),
    "a hot voxel below": (hot(-1e4, (3, 5, 4)), "4, 5, 3"),
    "a hot voxel of 50 deviations": (hot(50, (3, 5, 4)), "4, 5, 3"),
    "a hot voxel of 1e14": (hot(1e14, (3, 5, 4)), "4, 5, 3"),
    "a hot voxel in the particle": (hot(1e4, (13, 12, 11)), "11, 12, 13"),
    "two hot voxels": (hot(1e4, (3, 5, 4), (19, 2, 8)), "2 hot voxels"),
    "two hot voxels side by side": (hot(1e4, (3, 5, 4), (3, 5, 5)), "2 hot voxels"),
    "a hot voxel in half-map 1": (hot(1e4, (3, 5, 4), first=True), "alf-map 1 has a hot voxel"),
}


def in_sphere(array):
    """As a refinement that sets all outside its sphere to 0."""
    z, y, x = np.meshgrid(*[np.arange(24) - 11.5] * 3, indexing="ij")
    return array * (z**2 + y**2 + x**2 < 11.9**2)


def quantized(step):
    return lambda array: np.rint(array / step) * step


def without_a_section(array):
    array = array.copy()
    array[20] = 0
    return array


SAME_RESULT = {
    "a level of 5": both(lambda array: array + 5),
    "a level of 1000": both(lambda array: array + 1000),
    "a level of -32768": both(lambda array: array - 32_768),
    "a level of 1e5": both(lambda array: array + 1e5),
    "all negative": both(lambda array: array - 20),
    "rounded to a tenth of the deviation": both(quantized(0.1 * DEVIATION)),
    **{f"a scale of {scale:g}": both(lambda array, s=scale: s * array.astype("f8"), scale) for scale in SHARED_SCALES},
}

CONTENTS = {
    "binary": (both(lambda array: array > array.mean() + array.std()), Orderly()),
    "whole numbers 0 to 3": (both(lambda array: np.clip(np.rint(array), 0, 3)), Orderly()),
    "a level that leaves no digits": (both(lambda array: array + 1e9), NotSilent(("half_map",))),
    "one voxel that is not 0": (both(lambda array: one_voxel(array)), Orderly()),
    "a plane wave": (both(lambda array: wave(array)), Orderly()),
    "half of the box": (both(lambda array: half_box(array)), Orderly()),
    "a checkerboard": (both(lambda array: checkerboard(array)), Orderly()),
}


def one_voxel(array):
    out = np.zeros_like(array)
    out[12, 12, 12] = array[12, 12, 12]
    return out


def wave(array):
    return np.sin(2 * np.pi * 3 * np.arange(24) / 24) + np.zeros_like(array) + 1e-3 * array


def half_box(array):
    out = array.copy()
    out[:12] = 0
    return out


def checkerboard(array):
    return (-1.0) ** np.indices(array.shape).sum(0) + 1e-3 * array


def noise(level, *, masked):
    """White noise alone, that does not correlate by chance, and a level: no resolution, under the mask neither."""

    def change(inputs):
        random = np.random.default_rng(13)
        inputs.write(*((random.standard_normal((24,) * 3) + level).astype("f4") for _ in range(2)))
        if masked:
            inputs.add_mask()

    return change


def leveled(level_1, level_2, mode=2, scale=1.0):
    """Under a mask, with a level on each half-map."""

    def change(inputs):
        levels = (level_1, level_2)
        arrays = [scale * half + level for half, level in zip(half_maps(), levels, strict=True)]
        arrays = [np.rint(array) for array in arrays] if mode == 6 else [array.astype("f4") for array in arrays]
        inputs.write(*arrays, mode=mode)
        inputs.add_mask()
        inputs.scale = scale

    return change


UNDER_MASK = {
    "no level": (leveled(0, 0), ()),
    "a level of 5": (leveled(5, 5), ()),
    "a level of 1000": (leveled(1000, 1000), ()),
    "a level of 32767 in 16-bit words": (leveled(32_767, 32_767, mode=6, scale=2000.0), ()),
    "a level of 20 deviations on one": (leveled(0, 20 * DEVIATION), ("scale",)),
    "levels of either sign": (leveled(-500, 500), ("scale",)),
}


def voxel_cases():
    yield from (Case(f"voxels: {name}", change, refused(word)) for name, (change, word) in REFUSED.items())
    for name, (change, word) in HOT.items():
        yield Case(f"voxels: {name}", change, Accepted(("hot_voxel",), ("hot voxel", word)), PAIR)
    yield from (Case(f"voxels: {name}", change, Accepted()) for name, change in SAME_RESULT.items())
    partly = Accepted(like_sound=False)
    yield Case("voxels: zero outside the sphere", both(in_sphere), partly, PAIR)
    yield Case("voxels: zero in a section", both(without_a_section), partly)
    for scale in TINY_SCALES:
        change = both(lambda array, s=scale: s * array.astype("f8"), scale)
        yield Case(f"voxels: a scale of {scale:g}", change, Accepted(or_refused=True))
    yield from (Case(f"voxels: {name}", change, expected) for name, (change, expected) in CONTENTS.items())
    for name, (change, findings) in UNDER_MASK.items():
        words = ("not on the scale",) if findings else ()
        yield Case(f"voxels under a mask: {name}", change, Accepted(findings, words), WITH_MASK)
    for level in (0, 5, 1000):
        expected = NotSilent(("hardly",))
        yield Case(f"noise on a level of {level}", noise(level, masked=False), expected, ("denoise", "check"))
        yield Case(f"masked noise on a level of {level}", noise(level, masked=True), expected, ("denoise", "check"))
        curve = Accepted(None, like_sound=False)
        yield Case(f"curve of noise on a level of {level}", noise(level, masked=False), curve, ("fsc",))
        yield Case(f"curve of masked noise on a level of {level}", noise(level, masked=True), curve, ("fsc",))
        particle = refused("particle")
        others = ("mask", "prepare", "finetune")
        yield Case(f"no mask of noise on a level of {level}", noise(level, masked=False), particle, others)
    yield Case("a report on noise", noise(0, masked=False), Orderly(), ("report",))
