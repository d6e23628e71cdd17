"""Recognition of copies of a half-map: in another file, under another header, rotated, cropped, or masked."""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_SAMPLE = 4096  # voxels
_SAME_NOISE = 0.999  # correlation of two samples
_MARKS = 2048
_CANDIDATES = 8 * _MARKS  # voxels that are examined for them
_LEAST_VALUES = 1000  # different ones in a map with marks: bytes are equal by chance
_SHARED, _FEWEST = 0.1, 20  # share and number of marks that two maps do not have in common by chance
_NEIGHBORS = np.array([(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)])[..., None]
_MULTIPLIERS = (2654435761, 2246822519, 3266489917)  # odd, without a pattern


@dataclass(frozen=True)
class Trace:
    """Short description of a map by which copies of it are recognized.

    Attributes:
        sample: voxels at places that depend on the box alone, less their mean, of length 1: `(4096,)`, float32.
        marks: at most `(2048,)`, uint64, sorted; see `marks_of`.
    """

    sample: np.ndarray
    marks: np.ndarray

    def is_copy_of(self, other: "Trace") -> bool:
        """Return whether both are of one map, in any file, with any header, level, scale, or sign.

        The noise identifies a map. Voxels that were stored as bytes still have a correlation of 0.9999.
        """
        return abs(float(self.sample @ other.sample)) > _SAME_NOISE


def trace_of(array: np.ndarray) -> Trace:
    """Return the trace of a map `(z, y, x)`, float32."""
    random = np.random.default_rng(array.shape)
    places = tuple(random.integers(0, side, _SAMPLE) for side in array.shape)
    values = array[places].astype(np.float64)
    values -= values.mean()
    return Trace((values / (np.linalg.norm(values) or 1.0)).astype(np.float32), marks_of(array))


def marks_of(array: np.ndarray) -> np.ndarray:
    """Return the least of the numbers that a map keeps when it is rotated by 90°, mirrored, cropped, or masked; sorted.

    There is one for each voxel, a hash of its value and of the largest and the least of its six neighbors, to the last
    bit: two maps share hardly any unless one was made from the other. They are ordered by the hash of the voxel's
    value, so the least numbers of a part of a map are among the least of that part in the whole map.
    """
    array = np.ascontiguousarray(array, np.float32)
    if len(np.unique(array.reshape(-1)[:: max(1, array.size // 2**16)])) < min(_LEAST_VALUES, array.size // 8):
        return np.zeros(0, np.uint64)
    inner = array[1:-1, 1:-1, 1:-1]
    hashes = _hash(inner, _MULTIPLIERS[0])
    bound = np.uint32(min(1.0, _CANDIDATES / max(1, inner.size)) * (2**32 - 1))
    places = np.array(np.nonzero((hashes <= bound) & (inner != 0)))
    around = np.stack([array[tuple(places + 1 + step)] for step in _NEIGHBORS])
    high, low = around.max(0), around.min(0)
    sound = (high != low) & (around != 0).all(0)  # neighbors in a constant region or beyond a mask are meaningless
    beside = _hash(high, _MULTIPLIERS[1]) ^ _hash(low, _MULTIPLIERS[2])
    numbers = (hashes[tuple(places)].astype(np.uint64) << np.uint64(32)) | beside
    return np.unique(numbers[sound])[:_MARKS]


def _hash(values, multiplier):
    bits = np.ascontiguousarray(values).view(np.uint32)
    return (bits ^ (bits >> np.uint32(15))) * np.uint32(multiplier)


def similar_entries(traces: Sequence[Sequence[Trace]]) -> list[tuple[int, int]]:
    """Return the pairs of entries that were probably made from one map, by their indices.

    Args:
        traces: those of the half-maps of every entry.
    """
    marks = [np.unique(np.concatenate([trace.marks for trace in each])) for each in traces]
    owners = np.repeat(np.arange(len(marks)), [len(each) for each in marks])
    joined = np.concatenate(marks) if marks else np.zeros(0, np.uint64)
    order = np.argsort(joined, kind="stable")
    joined, owners = joined[order], owners[order]
    # Nearly all marks belong to one entry: those of several are the runs of equal ones.
    starts = np.flatnonzero(np.diff(joined, prepend=joined[:1] ^ np.uint64(1)) != 0)
    lengths = np.diff(starts, append=len(joined))
    shared = Counter()
    for start, length in zip(starts[lengths > 1], lengths[lengths > 1], strict=True):
        shared.update(itertools.combinations(owners[start : start + length].tolist(), 2))
    return sorted(
        pair
        for pair, count in shared.items()
        if count >= _FEWEST
        and any(_shared_fraction(a.marks, b.marks) > _SHARED for a in traces[pair[0]] for b in traces[pair[1]])
    )


def _shared_fraction(first, second):
    """Return the number of marks in common, over those of the map with fewer, within the range of both."""
    if not len(first) or not len(second):
        return 0.0
    highest = min(first[-1], second[-1])
    first, second = first[first <= highest], second[second <= highest]
    return len(np.intersect1d(first, second, assume_unique=True)) / max(1, min(len(first), len(second)))
