"""By what a half-map is known again among others, in another file, under another header, turned, cropped or masked."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_SAMPLE = 4096  # voxels
_SAME_NOISE = 0.999  # correlation of two samples
_MARKS = 2048
_DRAWN = 8 * _MARKS  # voxels that are looked at for them
_LEAST_VALUES = 1000  # different ones in a map that has marks: those of bytes are alike by chance
_SHARED, _FEWEST = 0.1, 20  # of the marks, and how many, that two maps do not share by chance
_NEIGHBOURS = np.array([(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)])[..., None]
_MULTIPLIERS = (2654435761, 2246822519, 3266489917)  # odd, and without a pattern


@dataclass(frozen=True)
class Trace:
    """What is kept of a map.

    Attributes:
        sample: voxels at places that depend on the box alone, less their mean, of length 1: `(4096,)`, float32.
        marks: `(2048,)` at most, uint64, sorted; see `marks_of`.
    """

    sample: np.ndarray
    marks: np.ndarray

    def is_copy_of(self, other: "Trace") -> bool:
        """Whether both are of one map, whatever its file, header, level, scale or sign.

        Noise is a map's own. Voxels stored as bytes still correlate by 0.9999 with what they were.
        """
        return abs(float(self.sample @ other.sample)) > _SAME_NOISE


def trace_of(array: np.ndarray) -> Trace:
    """The trace of a map `(z, y, x)`, float32."""
    random = np.random.default_rng(array.shape)
    places = tuple(random.integers(0, side, _SAMPLE) for side in array.shape)
    values = array[places].astype(np.float64)
    values -= values.mean()
    return Trace((values / (np.linalg.norm(values) or 1.0)).astype(np.float32), marks_of(array))


def marks_of(array: np.ndarray) -> np.ndarray:
    """Numbers that a map keeps when it is turned by 90°, mirrored, cropped or masked: the least of them, sorted.

    One for a voxel, of its value with the largest and the least of its six neighbours, to the last bit: two maps have
    next to none in common unless one was made of the other. The order is that of the value's hash, so the least numbers
    of a part of a map are among the least of that part in the whole one.
    """
    array = np.ascontiguousarray(array, np.float32)
    if len(np.unique(array.reshape(-1)[:: max(1, array.size // 2**16)])) < min(_LEAST_VALUES, array.size // 8):
        return np.zeros(0, np.uint64)
    inner = array[1:-1, 1:-1, 1:-1]
    hashes = _hash(inner, _MULTIPLIERS[0])
    bound = np.uint32(min(1.0, _DRAWN / max(1, inner.size)) * (2**32 - 1))
    places = np.array(np.nonzero((hashes <= bound) & (inner != 0)))
    around = np.stack([array[tuple(places + 1 + step)] for step in _NEIGHBOURS])
    high, low = around.max(0), around.min(0)
    sound = (high != low) & (around != 0).all(0)  # where a map is constant, or a mask ends, neighbours tell nothing
    beside = _hash(high, _MULTIPLIERS[1]) ^ _hash(low, _MULTIPLIERS[2])
    numbers = (hashes[tuple(places)].astype(np.uint64) << np.uint64(32)) | beside
    return np.unique(numbers[sound])[:_MARKS]


def _hash(values, multiplier):
    bits = np.ascontiguousarray(values).view(np.uint32)
    return (bits ^ (bits >> np.uint32(15))) * np.uint32(multiplier)


def alike(traces: Sequence[Sequence[Trace]]) -> list[tuple[int, int]]:
    """Pairs of entries, by their indices, that seem to have been made of one map, if not of one file.

    Args:
        traces: of the half-maps of every entry.
    """
    owners, shared = {}, Counter()
    for index, of_entry in enumerate(traces):
        for number in {int(mark) for one in of_entry for mark in one.marks}:
            owners.setdefault(number, []).append(index)
    for indices in owners.values():
        shared.update((a, b) for a in indices for b in indices if a < b)
    return sorted(
        pair
        for pair, count in shared.items()
        if count >= _FEWEST
        and any(_in_common(a.marks, b.marks) > _SHARED for a in traces[pair[0]] for b in traces[pair[1]])
    )


def _in_common(first, second):
    """How many marks of two maps are the same, over those of the one that has fewer, where both have theirs."""
    if not len(first) or not len(second):
        return 0.0
    highest = min(first[-1], second[-1])
    first, second = first[first <= highest], second[second <= highest]
    return len(np.intersect1d(first, second, assume_unique=True)) / max(1, min(len(first), len(second)))
