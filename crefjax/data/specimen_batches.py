"""Batches of patches cut from specimens in memory, for fine-tuning on one or a few; a part can be held out.

The held-out part is the end of the particle, beyond a plane across its longest axis. No voxel has a nonzero weight in
both the training and the held-out patches: both are multiplied by a weight along that axis that falls to 0 before the
plane.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from crefjax.data.dataset_batches import ENDLESS, THREADS, Batches, batches_of_process, check_common, random_rotation
from crefjax.data.patches import (
    MIN_MASK,
    SMALLEST_PATCH,
    Specimen,
    check_patch,
    cut,
    cut_positions,
    first_voxel,
    load_entry,
    load_specimen,
    mask_fraction,
)
from crefjax.errors import UserError
from crefjax.spectral.windows import raised_cosine

__all__ = ["Specimen", "load_entry", "load_specimen", "specimen_batches"]

REGIONS = ("training", "held_out", "all")
GAP = 2  # voxels between the two parts: the noise of neighbors is often correlated
EDGE = 4  # voxels over which a part falls off
_TRIES = 20


@dataclass(frozen=True, eq=False)
class _Part:
    """A specimen with the weight of one region along one axis.

    Attributes:
        specimen: the specimen.
        axis: the axis.
        weight: `(side of the axis,)`, 0 to 1.
        voxels: flat indices of the voxels at which `mask` is at least 0.5.
        mask: that of the specimen times the weight.
    """

    specimen: Specimen
    axis: int
    weight: np.ndarray
    voxels: np.ndarray
    mask: np.ndarray

    def cut(self, array, position, patch):
        """Return a patch of a map, times the weight."""
        out = cut(array, position, patch)
        first, side = position[self.axis], len(self.weight)
        weight = np.zeros(patch, np.float32)
        low, high = max(first, 0), min(first + patch, side)
        weight[low - first : high - first] = self.weight[low:high]
        return out * weight.reshape([-1 if axis == self.axis else 1 for axis in range(3)])


def split_weights(mask: np.ndarray, held_out: float) -> tuple[int, np.ndarray, np.ndarray]:
    """Return weights that divide a particle in two along its longest axis.

    That axis is the one with the largest standard deviation of the mask. The plane is placed so that the mask beyond it
    is closest to `held_out` of its sum. With `d` the distance of a voxel's plane of its axis to it, both weights are
    0 for `d < GAP / 2`, then rise as `0.5 (1 - cos(pi (d - GAP / 2) / EDGE))` to 1 within `EDGE` voxels, each on
    its own side.

    Args:
        mask: `(z, y, x)`, 0 to 1.
        held_out: share of the mask, from 0 to below 1; 0 gives all to training.

    Returns:
        The axis, and for each index along it the weight in training and in the held-out part, float32.
    """
    profiles = [mask.sum(axis=tuple({0, 1, 2} - {axis}), dtype=np.float64) for axis in range(3)]
    spreads = [_spread(profile) for profile in profiles]
    axis = int(np.argmax(spreads))
    profile = profiles[axis]
    if held_out == 0:
        return axis, np.ones(len(profile), np.float32), np.zeros(len(profile), np.float32)
    beyond = np.append(profile[::-1].cumsum()[::-1], 0.0)  # beyond[c]: the sum from index c on
    plane = int(np.argmin(np.abs(beyond - held_out * profile.sum())))
    distance = np.arange(len(profile)) + 0.5 - plane
    return axis, _rise(-distance), _rise(distance)


def _spread(profile):
    index = np.arange(len(profile))
    mean = (index * profile).sum() / profile.sum()
    return float(np.sqrt((np.square(index - mean) * profile).sum() / profile.sum()))


def _rise(distance):
    return raised_cosine((distance - GAP / 2) / EDGE, rising=True).astype(np.float32)


def split_off(specimen: Specimen, share: float) -> tuple[Specimen, Specimen]:
    """Return a specimen without a share of its mask, and that share, by `split_weights`; no voxel is in both."""
    axis, *weights = split_weights(specimen.mask, share)
    parts = []
    for weight in weights:
        along = weight.reshape([-1 if number == axis else 1 for number in range(3)])
        maps = {name: array * along for name, array in specimen.maps(truth=specimen.truth is not None).items()}
        parts.append(replace(specimen, mask=specimen.mask * along, **maps))
    return parts[0], parts[1]


def specimen_batches(
    specimens: Sequence[Specimen],
    *,
    patch: int,
    batch: int,
    seed: int = 0,
    rotations: bool = True,
    held_out: float = 0.2,
    region: str = "training",
    count: int | None = None,
    process: tuple[int, int] = (0, 1),
    threads: int = THREADS,
) -> Batches:
    """Return batches of patches cut from specimens in memory, with the content of those of `dataset_batches`.

    In training, patch `k` depends on seed and `k` alone: a random voxel within mask and region and its random place in
    the patch are chosen, until the mask fills at least `MIN_MASK` of the patch. Held-out patches lie at fixed places
    that cover the held-out part, are not rotated, and come once. A box that is smaller than the patch is padded with
    zeros.

    Args:
        specimens: from `load_specimen` or `load_entry`; batches have the truth if all specimens do.
        patch: side, voxels; even, at least 16.
        batch: number of patches per batch; the last batch of a finite number may be shorter.
        seed: random seed of the patches.
        rotations: whether random patches are rotated to one of the cube's 24 orientations; no mirror images.
        held_out: share of each mask that is held out; 0 to train on everything.
        region: `training`, `held_out`, or `all`: fixed patches over the whole mask.
        count: number of patches; None for training without end, or for all that cover the part. Fewer are chosen
            evenly among those; for more, the patches overlap.
        process: index of this process and number of processes, each of which makes its part of every batch alone;
            patch `k` and the position are the same for any number of them.
        threads: number of threads that prepare batches in advance.

    Raises:
        UserError: a setting is out of range; or a region of a specimen is too small for any patch.
    """
    check_patch(patch)
    check_common(batch=batch, seed=seed, threads=threads, process=process, count=count)
    _check(specimens, held_out, region)
    parts = [_part(specimen, held_out, region, patch) for specimen in specimens]
    truth = all(specimen.truth is not None for specimen in specimens)
    if region == "training":
        source = _Random(parts, patch, seed, rotations, truth, count or ENDLESS)
    else:
        source = _Fixed(parts, patch, truth, count)
    settings = {"patch": patch, "batch": batch, "seed": seed, "rotations": rotations, "held_out": held_out}
    # Few digits: an entry that is simulated again on another machine agrees to rounding.
    data = [[each.name, each.mask.shape, f"{each.mean:.3g}", f"{each.std:.3g}"] for each in specimens]
    return Batches(
        batches_of_process(source, batch, process),
        names=[specimen.name for specimen in specimens],
        size=0 if len(source) == ENDLESS else len(source),
        threads=threads,
        fingerprint={**settings, "region": region, "count": count, "specimens": data},
    )


def _check(specimens, held_out, region):
    if not specimens:
        raise UserError("specimens: expected at least one, found none; give an entry or two half-maps")
    if region not in REGIONS:
        raise UserError(f"region: expected one of {', '.join(REGIONS)}, found {region}; choose one")
    if not 0 <= held_out < 1:
        raise UserError(f"held_out: expected a share from 0 to below 1, found {held_out:g}; change it")
    if region == "held_out" and held_out == 0:
        raise UserError("held_out: expected a share above 0 for held-out patches, found 0; change it")


def _part(specimen, held_out, region, patch):
    axis, *weights = split_weights(specimen.mask, 0.0 if region == "all" else held_out)
    weight = weights[REGIONS.index(region)] if region != "all" else weights[0]
    mask = specimen.mask * weight.reshape([-1 if number == axis else 1 for number in range(3)])
    part = _Part(specimen, axis, weight, np.flatnonzero(mask >= 0.5), mask)
    if not part.voxels.size or not _covering(part, patch, patch // 2):
        what = "the part for training" if region == "training" else "a held-out part"
        advice = "change held_out" if patch <= SMALLEST_PATCH else "use smaller patches, or change held_out"
        raise UserError(
            f"{specimen.name}: expected a patch of {patch} voxels a side with at least {MIN_MASK:.0%} of it in "
            f"{what}, found none; {advice}"
        )
    return part


def _covering(part, patch, stride):
    """Return the first voxels of patches over the part of the mask, `stride` apart, that hold enough of it."""
    box, per_axis = part.mask.shape, []
    where = np.nonzero(part.mask > 0)
    for side, indices in zip(box, where, strict=True):
        low, high = int(indices.min()), int(indices.max()) + 1
        inside = cut_positions(side, patch, stride)
        if side <= patch:
            per_axis.append(inside)
        else:
            firsts = (low + first for first in cut_positions(high - low, patch, stride))
            per_axis.append(sorted({min(max(first, 0), side - patch) for first in firsts}))
    grid = ((z, y, x) for z in per_axis[0] for y in per_axis[1] for x in per_axis[2])
    return [position for position in grid if mask_fraction(part.mask, position, patch) >= MIN_MASK]


def _sample(parts, number, position, patch, truth):
    part = parts[number]
    maps = part.specimen.maps(truth=truth)
    return {name: part.cut(array, position, patch) for name, array in maps.items()} | {"entry": number}


class _Random:
    """Random access to random patches."""

    def __init__(self, parts, patch, seed, rotations, truth, length):
        self._parts, self._patch, self._seed, self._rotations = parts, patch, seed, rotations
        self._truth, self._length = truth, length
        sizes = np.array([part.voxels.size for part in parts], np.float64)
        self._shares = np.cumsum(sizes / sizes.sum())

    def __len__(self):
        return self._length

    def __getitem__(self, index):
        random = np.random.default_rng([self._seed, index])
        number = min(int(np.searchsorted(self._shares, random.random(), side="right")), len(self._parts) - 1)
        position = self._position(self._parts[number], random)
        sample = _sample(self._parts, number, position, self._patch, self._truth)
        return random_rotation(sample, random) if self._rotations else sample

    def _position(self, part, random):
        best, most = None, -math.inf
        for _ in range(_TRIES):
            voxel = np.unravel_index(part.voxels[random.integers(part.voxels.size)], part.mask.shape)
            position = tuple(
                first_voxel(int(at), int(random.integers(self._patch)), side, self._patch)
                for at, side in zip(voxel, part.mask.shape, strict=True)
            )
            fraction = mask_fraction(part.mask, position, self._patch)
            if fraction >= MIN_MASK:
                return position
            if fraction > most:
                best, most = position, fraction
        return best


class _Fixed:
    """Random access to patches that cover the parts."""

    def __init__(self, parts, patch, truth, count):
        self._parts, self._patch, self._truth = parts, patch, truth
        for stride in (patch, patch // 2, patch // 4):
            places = [(number, at) for number, part in enumerate(parts) for at in _covering(part, patch, stride)]
            if len(places) >= (count or 1):
                break
        if count is not None and len(places) > count:
            places = [places[index] for index in np.linspace(0, len(places) - 1, count).round().astype(int)]
        self._places = places

    def __len__(self):
        return len(self._places)

    def __getitem__(self, index):
        number, position = self._places[index]
        return _sample(self._parts, number, position, self._patch, self._truth)
