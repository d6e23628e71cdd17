"""Single voxels far out of everything, as a bad pixel or a damaged file leaves them: they are no density.

One of a thousand deviations has more power than a small map, in every shell alike, and ruins whatever is measured.
"""

import numpy as np

_HOT = 30.0  # deviations of the voxel
_FAR = 8.0  # times what all but one of a hundred voxels are below: where most of a map is masked, deviations are small
_ALONE = 0.2  # of the voxel: what the mean of its neighbours has at most; one of them may be as hot
_MOST = 64  # of a map that is sound but for these; where more stand out, they are what the map shows
_SAMPLED = 64  # sections


def robust_moments(array: np.ndarray) -> tuple[float, float]:
    """Median, and deviation by the median absolute deviation, of evenly chosen sections of a map `(z, y, x)`."""
    sample = array[:: max(1, array.shape[0] // _SAMPLED)]
    middle = float(np.median(sample))
    return middle, 1.4826 * float(np.median(np.abs(sample - np.float32(middle))))


def find_hot_voxels(array: np.ndarray) -> list[tuple[int, int, int]]:
    """Places `(z, y, x)` of the voxels that stand far out of a map, and of their neighbours too; the farthest first.

    Args:
        array: `(z, y, x)`, float32, finite.
    """
    middle, deviation = robust_moments(array)
    if not deviation > 0:
        return []
    sample = np.abs(array[:: max(1, array.shape[0] // _SAMPLED)] - np.float32(middle))
    bound = np.float32(max(_HOT * deviation, _FAR * float(np.percentile(sample, 99))))
    found = []
    for z, plane in enumerate(array):
        far = np.argwhere(np.abs(plane - np.float32(middle)) > bound)
        if len(found) + len(far) > 27 * _MOST:
            return []
        found += [(z, int(y), int(x)) for y, x in far]
    alone = [place for place in found if _is_alone(array, place, middle)]
    if len(alone) > _MOST:
        return []
    return sorted(alone, key=lambda place: -abs(float(array[place]) - middle))


def _neighbourhood(array, place):
    """The voxel and the 26 around it, those of the other side of the box at its border."""
    return array[np.ix_(*(np.arange(at - 1, at + 2) % side for at, side in zip(place, array.shape, strict=True)))]


def _is_alone(array, place, middle):
    near = _neighbourhood(array, place)
    around = (float(near.sum(dtype=np.float64)) - float(array[place])) / (near.size - 1) - middle
    return abs(around) <= _ALONE * abs(float(array[place]) - middle)


def mended(array: np.ndarray, places: list[tuple[int, int, int]]) -> np.ndarray:
    """A map in which hot voxels have the mean of those neighbours that are not hot; the same array where none is.

    Args:
        array: `(z, y, x)`.
        places: from `find_hot_voxels`.
    """
    if not places:
        return array
    hot = np.zeros(array.shape, bool)
    hot[tuple(np.transpose(places))] = True
    out = array.copy()
    for place in places:
        sound = ~_neighbourhood(hot, place)
        out[place] = _neighbourhood(array, place)[sound].mean(dtype=np.float64) if sound.any() else np.median(array)
    return out
