"""Masks that are none, or odd."""

import gzip

import numpy as np
from corpus_material import (
    VOXEL,
    WITH_MASK,
    Accepted,
    Case,
    Orderly,
    half_maps,
    mask_array,
    particle,
    refused,
    set_fields,
)

NOT_PREPARE = tuple(command for command in WITH_MASK if command != "prepare")


def given(array, **words):
    return lambda inputs: inputs.add_mask(array() if callable(array) else array, **words)


def with_value(value):
    array = mask_array().copy()
    array[12, 12, 12] = value
    return array


def of_voxels(count):
    array = np.zeros((24,) * 3, "f4")
    array.reshape(-1)[12 * 24**2 : 12 * 24**2 + count] = 1
    return array


def soft():
    """A wide soft edge that goes on to the border of the box."""
    z, y, x = np.meshgrid(*[np.arange(24) - 11.5] * 3, indexing="ij")
    return np.clip(1.2 - np.sqrt(z**2 + y**2 + x**2) / 24, 0.01, 1).astype("f4")


def damaged(raw):
    def change(inputs):
        inputs.add_mask()
        inputs.mask.write_bytes(raw(inputs.mask.read_bytes()))

    return change


def with_fields(**fields):
    def change(inputs):
        inputs.add_mask()
        set_fields(inputs.mask, **fields)

    return change


def signed_bytes(inputs):
    """0 and 255, as programs write that take mode 0 for unsigned."""
    inputs.add_mask(-mask_array(), mode=0)


def unsigned_bytes(inputs):
    """The same, with the statistics that say so."""
    inputs.add_mask(-mask_array(), mode=0)
    set_fields(inputs.mask, stats=(0.0, 255.0, 255 * float(mask_array().mean())))


def half_map_itself(inputs):
    inputs.mask = inputs.half_map_1


def a_folder(inputs):
    inputs.mask = inputs.folder


def missing(inputs):
    inputs.mask = inputs.folder / "nowhere.mrc"


def packed(inputs):
    inputs.add_mask(name="mask.mrc.gz")
    inputs.mask.write_bytes(gzip.compress(inputs.mask.read_bytes()))


def elsewhere(inputs):
    """Half-maps that start elsewhere than the mask, which fits them otherwise."""
    inputs.write(*half_maps(), nstart=(4, 4, 4))
    inputs.add_mask()


REFUSED = {
    "zero": (given(np.zeros((24,) * 3)), "0 in every voxel"),
    "of one voxel": (given(of_voxels(1)), "voxels"),
    "of 26 voxels": (given(of_voxels(26)), "voxels"),
    "a value of -0.5": (given(with_value(-0.5)), "0 to 1"),
    "a value of 1.5": (given(with_value(1.5)), "0 to 1"),
    "NaN in a voxel": (given(with_value(np.nan)), "NaN"),
    "an infinite voxel": (given(with_value(np.inf)), "infinite"),
    "2 in every voxel": (given(np.full((24,) * 3, 2.0)), "0 to 1"),
    "0 and 255": (given(lambda: 255 * mask_array()), "0 to 1"),
    "0 and 255 in 16-bit words": (given(lambda: 255 * mask_array(), mode=6), "0 to 1"),
    "0 and 255 in signed bytes": (signed_bytes, "0 to 1"),
    "0 and 255 in unsigned bytes": (unsigned_bytes, "0 to 1"),
    "a density map": (given(lambda: particle()[0]), "0 to 1"),
    "another box": (given(np.ones((24, 24, 26))), "shape"),
    "a smaller box": (given(lambda: mask_array()[2:-2, 2:-2, 2:-2]), "shape"),
    "another voxel size": (with_fields(cell=(36.0 * 1.1,) * 3), "voxel size"),
    "no voxel size": (with_fields(cell=(0.0,) * 3), "voxel size"),
    "another origin": (with_fields(origin=(VOXEL, 0.0, 0.0)), "origin"),
    "other starts": (with_fields(nstart=(0, 0, -2)), "origin"),
    "half-maps elsewhere": (elsewhere, "origin"),
    "a text": (damaged(lambda raw: b"a mask\n" * 400), "text"),
    "cut": (damaged(lambda raw: raw[:9000]), "9000"),
    "empty": (damaged(lambda raw: b""), "empty"),
}

BY_PATH = {
    "a half-map": (half_map_itself, "0 to 1"),
    "a folder": (a_folder, "folder"),
    "missing": (missing, "no such file"),
}

SOUND = {
    "binary": given(mask_array),
    "binary in bytes": given(mask_array, mode=0),
    "binary in 16-bit words": given(mask_array, mode=6),
    "in half precision": given(lambda: 0.999 * mask_array(), mode=12),
    "big-endian": given(mask_array, order=">"),
    "other axes": given(mask_array, axes=(3, 1, 2)),
    "rounded beyond 1": given(lambda: 1.0005 * mask_array()),
    "rounded below 0": given(lambda: mask_array() - 5e-4 * (mask_array() == 0)),
    "compressed": packed,
    "of space group 0": with_fields(ispg=0),
    "a slightly other origin": with_fields(origin=(0.001, 0.0, 0.0)),
}

OTHER_REGION = {
    "one in every voxel": given(np.ones((24,) * 3)),
    "soft up to the border": given(soft),
    "half of the box": given(lambda: (np.arange(24) < 12)[:, None, None] * np.ones((24,) * 3)),
    "all but the particle": given(lambda: 1 - mask_array()),
    "0.5 at most": given(lambda: 0.5 * mask_array()),
    "of 27 voxels": given(of_voxels(27)),
    "a checkerboard": given(lambda: (np.indices((24,) * 3).sum(0) % 2).astype("f4")),
}


def mask_cases():
    for name, (change, word) in REFUSED.items():
        yield Case(f"mask: {name}", change, refused("mask", word), WITH_MASK)
    yield from (Case(f"mask: {name}", change, refused(word), NOT_PREPARE) for name, (change, word) in BY_PATH.items())
    yield from (Case(f"mask: {name}", change, Accepted(), WITH_MASK) for name, change in SOUND.items())
    for name, change in OTHER_REGION.items():
        yield Case(f"curve under a mask: {name}", change, Accepted(None, like_sound=False), ("fsc",))
        others = tuple(command for command in WITH_MASK if command != "fsc")
        yield Case(f"mask: {name}", change, Orderly(), others)
