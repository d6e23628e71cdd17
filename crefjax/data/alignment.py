"""Where half-map 2 lies against half-map 1: shifted, mirrored or of other axes, or as it should be."""

import functools
import itertools
from collections.abc import Sequence

import numpy as np
import scipy.fft

from crefjax.spectral.curves import count_shell_voxels, fsc_from_products, shell_products, solvent_level
from crefjax.spectral.resample import fourier_resample

_COARSE = 48  # voxels of the longest side, on which orientations are tried
# What must speak for another orientation: in all, more than for none, and as many times as much. Half-maps of noise
# come to 5, and to 3.5 more than for none (80 pairs of 32³).
_LEAST, _BETTER, _RATIO = 8.0, 4.0, 1.3
_LEAST_SHIFTED, _BETTER_SHIFTED = (
    25.0,
    10.0,
)  # where a shift is sought in each orientation: noise comes to 11 (36 pairs of 24³ to 48³)


_voxels = functools.lru_cache(maxsize=4)(count_shell_voxels)


def _evidence(one, two, region):
    """What speaks for two maps of one specimen in one place.

    The log-likelihood ratio of two Gaussian maps whose shells correlate by the FSC to two that do not: the sum of
    `-1/2 n log(1 - FSC²)` over shells of `n` independent numbers.
    """
    numbers = _voxels(one.shape)[1:] / 2 * float(np.square(region, dtype=np.float64).mean())
    fsc = np.clip(fsc_from_products(shell_products([one, two], region))[1:], 0, 0.9999)
    return float(-0.5 * np.sum(numbers * np.log1p(-np.square(fsc))))


def _speaks_for(best, same):
    """Whether what speaks for another place or orientation is enough."""
    return best >= max(_LEAST, _RATIO * same, same + _BETTER)


def find_shift(first: np.ndarray, second: np.ndarray, mask: np.ndarray | None) -> tuple[int, int, int]:
    """By how many voxels half-map 2 is shifted against half-map 1.

    Phases are correlated over several bands, as nothing says yet where signal ends; the evidence chooses among peaks.

    Args:
        first: `(z, y, x)`, float32.
        second: the same shape.
        mask: the same shape, 0 to 1, or None.

    Returns:
        along z, y, x, zeros where it is not.
    """
    region = _sphere(first.shape) if mask is None else mask
    one, two = (half - np.float32(solvent_level(half, mask)) for half in (first, second))
    places = {tuple(-at for at in place) for place in _peaks(one, two, region, (1, 2, 4, 8))}
    places.discard((0, 0, 0))
    if not places:
        return 0, 0, 0
    evidence = {place: _evidence(one, np.roll(two, [-each for each in place], (0, 1, 2)), region) for place in places}
    best = max(evidence, key=evidence.get)
    return best if _speaks_for(evidence[best], _evidence(one, two, region)) else (0, 0, 0)


def _peaks(one, two, region, parts):
    """By how many voxels the second map is to be rolled to fit best, from its phases within parts of the spectrum."""
    cross = scipy.fft.rfftn(one * region, workers=-1) * np.conj(scipy.fft.rfftn(two, workers=-1))
    size = np.abs(cross)
    cross = np.divide(cross, size, out=np.zeros_like(cross), where=size > 1e-12 * size.max())
    radius = _radius(one.shape)  # over Nyquist of the longest side
    places = set()
    for part in parts:
        band = (radius > 0) & (radius <= 1 / part)
        peak = np.unravel_index(int(np.argmax(scipy.fft.irfftn(cross * band, s=one.shape, workers=-1))), one.shape)
        places.add(tuple(int(p) if p <= side // 2 else int(p - side) for p, side in zip(peak, one.shape, strict=True)))
    return places


def find_orientation(first: np.ndarray, second: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, str]:
    """In which of the 48 orientations of a cube half-map 2 fits half-map 1 best.

    Args:
        first: `(z, y, x)`, float32.
        second: the same shape; axes are exchanged where their sides are alike.
        mask: the same shape, 0 to 1, or None.

    Returns:
        half-map 2 so turned; how it was turned before, in words, none where it was not.
    """
    side = max(first.shape)
    shape = tuple(max(8, round(one * min(_COARSE, side) / side)) for one in first.shape)
    one, two = (fourier_resample(half - np.float32(solvent_level(half, mask)), shape) for half in (first, second))
    region = _sphere(shape) if mask is None else np.clip(fourier_resample(mask, shape), 0, 1)
    evidence, shifted = {}, {}
    for axes in itertools.permutations(range(3)):
        if any(tuple(box[axis] for axis in axes) != box for box in (shape, second.shape)):
            continue
        for flips in itertools.product((1, -1), repeat=3):
            turned = _turned(two, axes, flips)
            evidence[axes, flips] = _evidence(one, turned, region)
            shifted[axes, flips] = max(
                _evidence(one, np.roll(turned, place, (0, 1, 2)), region)
                for place in _peaks(one, turned, region, (2, 4))
            )
    same = ((0, 1, 2), (1, 1, 1))
    # Turned and shifted; a shift alone is `find_shift`'s.
    best = max(shifted, key=shifted.get)
    least = max(_LEAST_SHIFTED, _RATIO * max(shifted[same], evidence[same]), max(evidence.values()) + _BETTER_SHIFTED)
    if best != same and shifted[best] >= least:
        return _turned(second, *best), _in_words(*best)
    best = max(evidence, key=evidence.get)
    enough = _speaks_for(evidence[best], evidence[same])
    return (_turned(second, *best), _in_words(*best)) if enough else (second, "")


def _turned(array, axes, flips):
    return np.ascontiguousarray(array.transpose(axes)[tuple(slice(None, None, step) for step in flips)])


def _radius(shape):
    lines = [2 * np.fft.fftfreq(side).astype(np.float32) for side in shape[:2]]
    lines = np.ix_(*lines, 2 * np.fft.rfftfreq(shape[2]).astype(np.float32))
    return np.sqrt(sum(line**2 for line in lines))


def _sphere(shape):
    """1 in the sphere that fills the box, falling off to 0 outside: no orientation takes anything out of it."""
    lines = np.ix_(*((np.arange(side) - (side - 1) / 2) / (side / 2) for side in shape))
    radius = np.sqrt(sum(line**2 for line in lines))
    return np.clip((1 - radius) / 0.15, 0, 1).astype(np.float32)


def _in_words(axes: Sequence[int], flips: Sequence[int]) -> str:
    names = "zyx"
    parity = np.linalg.det(np.eye(3)[list(axes)]) * np.prod(flips)
    mirrored = [names[axis] for axis, step in enumerate(flips) if step < 0]
    if tuple(axes) == (0, 1, 2):
        text = f"mirrored along {' and '.join(mirrored[::-1])}"
    else:
        text = (
            "of other axes ("
            + ", ".join(
                f"{names[axis]} is its {'-' if flips[axis] < 0 else ''}{names[axes[axis]]}" for axis in (2, 1, 0)
            )
            + ")"
        )
    return text + (", which changes its hand," if parity < 0 else "")
