"""Entries of a ball in noise, and readers of the outputs that baselines write to them."""

import json

import mrcfile
import numpy as np

SIDE, VOXEL = 32, 2.0


def ball():
    """Return the distance from the center of a soft ball, in voxels, and the ball, `(z, y, x)`."""
    apart = np.linalg.norm(np.indices((SIDE,) * 3) - np.array([15, 17, 16])[:, None, None, None], axis=0)
    return apart, 0.5 * (1 + np.cos(np.pi * np.clip((apart - 5) / 4, 0, 1)))


def write(path, array, origin=(3.0, -4.0, 5.0)):
    """Write a map with an origin and a label."""
    with mrcfile.new(path) as mrc:
        mrc.set_data(array.astype("f4"))
        mrc.voxel_size = VOXEL
        mrc.header.origin = origin
        mrc.add_label("of the reconstruction")


def make_entry(folder, *, seed=0, mask=True):
    """Write an entry of the ball, with or without a mask, and return its folder."""
    random, (apart, truth) = np.random.default_rng(seed), ball()
    folder.mkdir()
    for number in (1, 2):
        write(folder / f"half_map_{number}.mrc", truth + 0.4 * random.standard_normal(truth.shape))
    if mask:
        write(folder / "mask.mrc", 0.5 * (1 + np.cos(np.pi * np.clip((apart - 10) / 4, 0, 1))))
    return folder


def read(entry, method, name="full"):
    """Return a map of a method's output."""
    return mrcfile.read(entry / "outputs" / method / f"{name}.mrc")


def halves_of(entry):
    """Return the half-maps of an entry."""
    return [mrcfile.read(entry / f"half_map_{number}.mrc") for number in (1, 2)]


def about(entry, method):
    """Return the record beside a method's output."""
    return json.loads((entry / "outputs" / method / "about.json").read_text(encoding="utf-8"))
