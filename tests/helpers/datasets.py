"""Small entry folders, written with NumPy and mrcfile alone, and the expected content of their patches."""

import hashlib
import itertools
from pathlib import Path

import mrcfile
import numpy as np

VOXEL = 1.5


def random_map(shape, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def write_map(path, array, voxel=VOXEL):
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(array)
        mrc.set_volume()
        mrc.voxel_size = voxel
    return path


def write_entry(folder, shape=(20, 24, 36), seed=0, *, truth=False):
    """Write an entry of random maps with a mask: 1 in a block, 0 in the first 2 and the last 3 voxels of x."""
    folder = Path(folder)
    folder.mkdir(parents=True)
    signal = random_map(shape, [seed, 0])
    for number in (1, 2):
        write_map(folder / f"half_map_{number}.mrc", 5 + 2 * signal + random_map(shape, [seed, number]))
    mask = np.zeros(shape, np.float32)
    mask[..., 2:-3] = 1
    write_map(folder / "mask.mrc", mask)
    if truth:
        write_map(folder / "truth.mrc", 5 + 2 * signal)
    return folder


def read_float64(path):
    with mrcfile.open(path) as mrc:
        return mrc.data.astype(np.float64)


def standardized(folder):
    """Return half-maps, standardized by the full map and masked, and the truth, if present, scaled alike; float64."""
    first, second, mask = (read_float64(folder / f"{name}.mrc") for name in ("half_map_1", "half_map_2", "mask"))
    full = (first + second) / 2
    maps = [first - full.mean(), second - full.mean()]
    maps += [read_float64(folder / "truth.mrc")] if (folder / "truth.mrc").exists() else []
    return [array / full.std() * mask for array in maps]


def axis_starts(side, patch, stride):
    """Return the first voxels of patches along an axis: each as far as the stride allows, the last at the border."""
    if side <= patch:
        return [-((patch - side) // 2)]
    found = [0]
    while found[-1] + patch < side:
        found.append(min(found[-1] + stride, side - patch))
    return found


def padded_slice(array, start, patch):
    """Return the patch at `start` of the array padded with zeros."""
    padded = np.pad(array, patch)
    return padded[tuple(slice(first + patch, first + 2 * patch) for first in start)]


def patch_grid(shape, patch, stride):
    return list(itertools.product(*(axis_starts(side, patch, stride) for side in shape)))


def tree(folder):
    """Return the checksum of every file under a folder, including hidden ones."""
    files = (path for path in sorted(Path(folder).rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def list_patches(batches, count=None):
    """Return the patches of batches one by one: (entry, half_map_1, half_map_2[, truth])."""
    out = []
    for batch in itertools.islice(batches, count):
        names = [name for name in ("half_map_1", "half_map_2", "truth") if name in batch]
        out += [(int(batch["entry"][k]), *(batch[name][k] for name in names)) for k in range(len(batch["entry"]))]
    return out


def batches_equal(batch, other):
    return batch.keys() == other.keys() and all(np.array_equal(batch[name], other[name]) for name in batch)
