"""Maps with a label for every voxel, structure or noise, and batches of patches that are cut out of them.

A labeled map is a folder with `map.mrc`, on the grid of `crefjax.data.grid`, and `structure.mrc`, 1 where there is
structure and 0 elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from crefjax.data.dataset_batches import ENDLESS, THREADS, Batches, batches_of_process, check_common, random_rotation
from crefjax.data.grid import UNIT_VOXEL
from crefjax.data.map_features import FEATURES, measure_features, standardize_features
from crefjax.data.patches import check_patch, cut, cut_positions, first_voxel
from crefjax.errors import UserError
from crefjax.io.maps import check_same_grid, read_map

MAP, STRUCTURE = "map.mrc", "structure.mrc"
AROUND_STRUCTURE = 0.75  # share of the random patches that are drawn around a voxel of structure
_TOLERANCE = 0.02  # of the voxel size: a box is not always a whole number of Å long


@dataclass(frozen=True, eq=False)
class LabeledMap:
    """A map with its labels.

    Attributes:
        name: name of its folder.
        density: `(z, y, x)`, float16, 0 to 1.
        structure: `(z, y, x)`, bool.
    """

    name: str
    density: np.ndarray
    structure: np.ndarray

    @cached_property
    def features(self) -> np.ndarray:
        """The features of the density, see `crefjax.data.map_features`."""
        return measure_features(self.density.astype(np.float32))


def load_labeled_map(folder: str | Path) -> LabeledMap:
    """Read a labeled map.

    Raises:
        UserError: a file cannot be read, the two are not on one grid of about 1 Å, a density is not within 0 to 1, a
            label is neither 0 nor 1, or there is no structure.
    """
    folder = Path(folder)
    density, structure = read_map(folder / MAP), read_map(folder / STRUCTURE)
    check_same_grid(density, structure, "labeled maps")
    if abs(density.voxel_size - UNIT_VOXEL) > _TOLERANCE:
        raise UserError(
            f"{folder / MAP}: expected voxels of {UNIT_VOXEL:g} Å, found {density.voxel_size:g} Å; resample the map"
        )
    if density.array.min() < 0 or density.array.max() > 1:
        raise UserError(
            f"{folder / MAP}: expected density from 0 to 1, found {density.array.min():g} to {density.array.max():g}; "
            "scale the map"
        )
    labels = structure.array != 0
    if not np.array_equal(labels, structure.array) or not labels.any():
        raise UserError(
            f"{folder / STRUCTURE}: expected a map of 0 and 1, with 1 for structure, found other values or no "
            "structure; create it again"
        )
    return LabeledMap(folder.name, density.array.astype(np.float16), labels)


def labeled_batches(
    maps: Sequence[LabeledMap],
    *,
    patch: int,
    batch: int,
    seed: int = 0,
    rotations: bool = True,
    gain: tuple[float, float] = (1.0, 1.0),
    features: bool = False,
    count: int | None = None,
    process: tuple[int, int] = (0, 1),
    threads: int = THREADS,
) -> Batches:
    """Return batches of patches: `map` and `structure`, float32 `(batch, p, p, p)`, and `entry`, as in `Batches`.

    Patch `k` depends on the seed and `k` alone. All maps are drawn equally often. Of the patches, `AROUND_STRUCTURE`
    hold a voxel of structure that is drawn at random, and the others lie anywhere in the box.

    Args:
        maps: from `load_labeled_map`.
        patch: side, voxels; even, at least 16.
        batch: number of patches per batch; the last one of a finite number may be shorter.
        seed: random seed of the patches.
        rotations: whether patches are turned to one of the 24 orientations of the cube; no mirror images.
        gain: range of the factor, uniform in its logarithm, by which a patch's density is multiplied before it is
            clipped at 1 again: how a map is scaled depends on its few brightest voxels.
        features: whether batches also have `features`, `(batch, features)`, those of the whole map of a patch.
        count: number of patches; None for patches without end.
        process: index of this process and number of processes, each of which makes its part of every batch alone;
            patch `k` and the position are the same for any number of them.
        threads: number of threads that prepare batches in advance.

    Raises:
        UserError: a setting is out of range, or there are no maps.
    """
    check_patch(patch)
    check_common(batch=batch, seed=seed, threads=threads, process=process, count=count)
    if not maps:
        raise UserError("labeled maps: expected at least one, found none; name their folders")
    if not 0 < gain[0] <= gain[1] < np.inf:
        raise UserError(f"gain: expected a range above 0, found {gain[0]:g} to {gain[1]:g}; correct it")
    source = _RandomPatches(maps, patch, seed, rotations, gain, features, count or ENDLESS)
    settings = {"patch": patch, "batch": batch, "seed": seed, "rotations": rotations}
    settings |= {"features": list(FEATURES)} if features else {}
    data = [[labeled.name, labeled.structure.shape, int(labeled.structure.sum())] for labeled in maps]
    return Batches(
        batches_of_process(source, batch, process),
        names=[labeled.name for labeled in maps],
        size=count or 0,
        threads=threads,
        fingerprint={**settings, "gain": list(gain), "count": count, "maps": data},
    )


class _RandomPatches:
    """Random access to random patches."""

    def __init__(self, maps, patch, seed, rotations, gain, features, length):
        self._maps, self._patch, self._seed, self._rotations = maps, patch, seed, rotations
        self._log_gain, self._length = np.log(gain), length
        self._features = [labeled.features for labeled in maps] if features else None
        self._structure = [np.flatnonzero(labeled.structure) for labeled in maps]

    def __len__(self):
        return self._length

    def __getitem__(self, index):
        random = np.random.default_rng([self._seed, index])
        number = int(random.integers(len(self._maps)))
        labeled = self._maps[number]
        position = self._position(labeled.density.shape, self._structure[number], random)
        sample = {
            "map": cut(labeled.density, position, self._patch),
            "structure": cut(labeled.structure, position, self._patch),
            "entry": number,
        }
        sample = random_rotation(sample, random) if self._rotations else sample
        factor = np.float32(np.exp(random.uniform(*self._log_gain)))
        sample |= {"map": np.minimum(sample["map"] * factor, np.float32(1))}
        if self._features is not None:
            sample["features"] = standardize_features(self._features[number], float(factor))
        return sample

    def _position(self, box, structure, random):
        """Return the first voxel of a patch, inside the box if the patch fits, else centered on the box."""
        anywhere = random.random() >= AROUND_STRUCTURE
        voxel = np.unravel_index(structure[random.integers(len(structure))], box)
        first = []
        for at, side in zip(voxel, box, strict=True):
            if side <= self._patch:
                first.append(cut_positions(side, self._patch, self._patch)[0])
            elif anywhere:
                first.append(int(random.integers(side - self._patch + 1)))
            else:
                first.append(first_voxel(int(at), int(random.integers(self._patch)), side, self._patch))
        return tuple(first)
