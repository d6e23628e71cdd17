"""Shift and orientation of half-map 2 relative to half-map 1."""

import functools
import itertools

import numpy as np
import scipy.fft

from crefjax.spectral.curves import count_shell_voxels, shells_of_half_spectrum, solvent_level
from crefjax.spectral.resample import fourier_resample

_KEPT = 64**3  # voxels of the largest box whose shells are kept in memory
_COARSE = 48  # voxels of the longest side, on which orientations are tried
# Evidence that is enough for another orientation: in all, more than for the present one, and as a multiple of it.
# Half-maps of noise reach 5, and 3.5 more than for the present one (80 pairs of 32³).
_LEAST, _BETTER, _RATIO = 8.0, 4.0, 1.3
# The same if a shift is searched in each orientation: noise reaches 11 (36 pairs of 24³ to 48³).
_LEAST_SHIFTED, _BETTER_SHIFTED = 25.0, 10.0


class Evidence:
    """The evidence that a map shows the same specimen in the same place as one that many are compared with.

    It is the log-likelihood ratio of two Gaussian maps whose shells correlate by the FSC to two that do not: the sum of
    `-1/2 n log(1 - FSC²)` over shells of `n` independent numbers.
    """

    def __init__(self, first: np.ndarray, mask: np.ndarray):
        """Transform the map that others are compared with, `(z, y, x)`, within a mask of the same shape."""
        self._mask = mask
        self._spectrum = scipy.fft.rfftn(first * mask, workers=-1)
        self._shells = _shells(first.shape) if first.size <= _KEPT else None
        self._power = self._sum(self._spectrum, self._spectrum)
        voxels = count_shell_voxels(first.shape)[1:]
        self._numbers = voxels / 2 * float(np.square(mask, dtype=np.float64).mean())

    def __call__(self, second: np.ndarray) -> float:
        """Return the evidence for a second map, which is masked as the first one is."""
        spectrum = scipy.fft.rfftn(second * self._mask, workers=-1)
        power = np.sqrt(self._power * self._sum(spectrum, spectrum))
        cross = self._sum(self._spectrum, spectrum)
        fsc = np.clip(np.divide(cross, power, out=np.zeros_like(cross), where=power > 0), 0, 0.9999)
        return float(-0.5 * np.sum(self._numbers * np.log1p(-np.square(fsc))))

    def _sum(self, first, second):
        """Return the sums of `Re F1 conj(F2)` over shells 1 and above."""
        count = max(self._mask.shape) // 2 + 1
        total = np.zeros(count + 1)
        for planes, shell, weight in self._shells or shells_of_half_spectrum(self._mask.shape):
            a, b = first[planes].ravel(), second[planes].ravel()
            product = np.multiply(a.real, b.real, dtype=np.float64) + np.multiply(a.imag, b.imag, dtype=np.float64)
            total += np.bincount(shell, product * weight, count + 1)
        return total[1:-1]


@functools.lru_cache(maxsize=4)
def _shells(shape):
    return tuple(shells_of_half_spectrum(shape))


def _is_enough(best, present):
    """Return whether the evidence for another place or orientation suffices, given that for the current one."""
    return best >= max(_LEAST, _RATIO * present, present + _BETTER)


def find_shift(first: np.ndarray, second: np.ndarray, mask: np.ndarray | None) -> tuple[int, int, int]:
    """Return by how many voxels half-map 2 is shifted relative to half-map 1.

    Phases are correlated over several bands, because it is not yet known where the signal ends; the evidence selects
    one of the peaks.

    Args:
        first: `(z, y, x)`, float32.
        second: the same shape.
        mask: the same shape, 0 to 1, or None.

    Returns:
        Voxels along z, y, x; zeros if it is not shifted.
    """
    window = _sphere(first.shape) if mask is None else mask
    first, second = (half_map - np.float32(solvent_level(half_map, mask)) for half_map in (first, second))
    shifts = {tuple(-axis for axis in peak) for peak in _Peaks(first, window, (1, 2, 4, 8))(second)}
    shifts.discard((0, 0, 0))
    if not shifts:
        return 0, 0, 0
    measure = Evidence(first, window)
    evidence = {shift: measure(np.roll(second, [-axis for axis in shift], (0, 1, 2))) for shift in shifts}
    best = max(evidence, key=evidence.get)
    return best if _is_enough(evidence[best], measure(second)) else (0, 0, 0)


class _Peaks:
    """By how many voxels to roll a map to fit a fixed one best, by the phases up to Nyquist over each divisor."""

    def __init__(self, first: np.ndarray, window: np.ndarray, divisors: tuple[int, ...]):
        self._shape = first.shape
        self._spectrum = scipy.fft.rfftn(first * window, workers=-1)
        radius = _radius(first.shape)  # over Nyquist of the longest side
        self._bands = [(radius > 0) & (radius <= 1 / divisor) for divisor in divisors]

    def __call__(self, second: np.ndarray) -> set[tuple[int, ...]]:
        cross = self._spectrum * np.conj(scipy.fft.rfftn(second, workers=-1))
        size = np.abs(cross)
        cross = np.divide(cross, size, out=np.zeros_like(cross), where=size > 1e-12 * size.max())
        peaks = set()
        for band in self._bands:
            correlation = scipy.fft.irfftn(cross * band, s=self._shape, workers=-1)
            peak = np.unravel_index(int(np.argmax(correlation)), self._shape)
            sides = zip(peak, self._shape, strict=True)
            peaks.add(tuple(int(at) if at <= side // 2 else int(at - side) for at, side in sides))
        return peaks


def find_orientation(first: np.ndarray, second: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, str]:
    """Find the one of the 48 orientations of a cube in which half-map 2 fits half-map 1 best.

    Args:
        first: `(z, y, x)`, float32.
        second: the same shape; axes are exchanged if their sides are equal.
        mask: the same shape, 0 to 1, or None.

    Returns:
        Half-map 2 in that orientation; its orientation before, in words, empty if it is the same.
    """
    side = max(first.shape)
    shape = tuple(max(8, round(length * min(_COARSE, side) / side)) for length in first.shape)
    small_1, small_2 = (
        fourier_resample(half_map - np.float32(solvent_level(half_map, mask)), shape) for half_map in (first, second)
    )
    window = _sphere(shape) if mask is None else np.clip(fourier_resample(mask, shape), 0, 1)
    measure, peaks = Evidence(small_1, window), _Peaks(small_1, window, (2, 4))
    evidence, shifted = {}, {}
    for axes in itertools.permutations(range(3)):
        if any(tuple(box[axis] for axis in axes) != box for box in (shape, second.shape)):
            continue
        for flips in itertools.product((1, -1), repeat=3):
            oriented = _orient(small_2, axes, flips)
            evidence[axes, flips] = measure(oriented)
            shifted[axes, flips] = max(measure(np.roll(oriented, peak, (0, 1, 2))) for peak in peaks(oriented))
    present = ((0, 1, 2), (1, 1, 1))
    # Another orientation and a shift; a shift alone is left to `find_shift`.
    best = max(shifted, key=shifted.get)
    least = max(
        _LEAST_SHIFTED, _RATIO * max(shifted[present], evidence[present]), max(evidence.values()) + _BETTER_SHIFTED
    )
    if best != present and shifted[best] >= least:
        return _orient(second, *best), _in_words(*best)
    best = max(evidence, key=evidence.get)
    enough = _is_enough(evidence[best], evidence[present])
    return (_orient(second, *best), _in_words(*best)) if enough else (second, "")


def _orient(array, axes, flips):
    return np.ascontiguousarray(array.transpose(axes)[tuple(slice(None, None, step) for step in flips)])


def _radius(shape):
    lines = [2 * np.fft.fftfreq(side).astype(np.float32) for side in shape[:2]]
    lines = np.ix_(*lines, 2 * np.fft.rfftfreq(shape[2]).astype(np.float32))
    return np.sqrt(sum(line**2 for line in lines))


def _sphere(shape):
    """Return 1 in the sphere that fills the box, falling off to 0 outside: every orientation keeps what is in it."""
    lines = np.ix_(*((np.arange(side) - (side - 1) / 2) / (side / 2) for side in shape))
    radius = np.sqrt(sum(line**2 for line in lines))
    return np.clip((1 - radius) / 0.15, 0, 1).astype(np.float32)


def _in_words(axes, flips):
    names = "zyx"
    parity = np.linalg.det(np.eye(3)[list(axes)]) * np.prod(flips)
    mirrored = [names[axis] for axis, step in enumerate(flips) if step < 0]
    if tuple(axes) == (0, 1, 2):
        text = f"mirrored along {' and '.join(mirrored[::-1])}"
    else:
        exchanged = (f"{names[axis]} is its {'-' if flips[axis] < 0 else ''}{names[axes[axis]]}" for axis in (2, 1, 0))
        text = f"of other axes ({', '.join(exchanged)})"
    return text + (", which changes its hand," if parity < 0 else "")
