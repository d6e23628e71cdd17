"""Maps on another grid: the same box in more or fewer voxels, by padding or cropping its spectrum.

Voxel `i` of `n` along an axis lies at `i / n` of the box before and after: the first voxel stays where it is, and there
is no shift by half a voxel, be the sides odd or even. It is the trigonometric interpolation of the periodic box, and
separates into the three axes, each of which is done by itself in real space.
"""

import math

import numpy as np
import scipy.fft

_LEAST_SIDE = 8
_FACTORS = (2, 3, 5, 7)


def fourier_resample(array: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """A periodic box brought to another number of voxels.

    Along an even axis the coefficient of Nyquist stands for both signs of its frequency. Where the axis is padded it is
    given to both in halves, and where it is cropped to an even side both are added up: a map that was padded and is
    cropped back is the same.

    Args:
        array: `(z, y, x)`, float32.
        shape: of the result; each axis may be padded or cropped.

    Returns:
        `shape`, float32; the array itself if it has that shape already.

    Raises:
        ValueError: the array or the shape does not have three axes, or a side is below 1.
    """
    if array.ndim != 3 or len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"expected a box (z, y, x) and three sides of at least 1 voxel, found {array.shape}, {shape}")
    out = np.asarray(array, np.float32)
    # Axes that are cropped go first: less is left for the others.
    for axis in sorted(range(3), key=lambda axis: shape[axis] / array.shape[axis]):
        if out.shape[axis] != shape[axis]:
            out = _resample_axis(out, axis, shape[axis])
    return np.ascontiguousarray(out)


def _resample_axis(array, axis, side):
    before = array.shape[axis]
    spectrum = scipy.fft.rfft(array, axis=axis, workers=-1)
    kept = min(before, side) // 2
    spectrum = np.moveaxis(spectrum, axis, 0)[: kept + 1]  # irfft pads with zeros
    if min(before, side) % 2 == 0:
        if side > before:
            spectrum[kept] *= np.float32(0.5)
        else:
            spectrum[kept] = 2 * spectrum[kept].real
    out = scipy.fft.irfft(np.moveaxis(spectrum, 0, axis), side, axis=axis, workers=-1)
    out *= np.float32(side / before)
    return out


def working_shape(
    shape: tuple[int, int, int], voxel_size: float, resolution: float, voxels: float
) -> tuple[int, int, int]:
    """The sides of a box on which a resolution takes about so many voxels.

    Each is the even product of 2, 3, 5 and 7, not below 8, that is nearest in its logarithm to what would be exact.
    From 48 voxels on that is within 4 %, which is also how unlike the voxels' sides may become; those of a cube stay
    alike.

    Args:
        shape: `(z, y, x)` in voxels.
        voxel_size: Å.
        resolution: Å.
        voxels: that it is to take.

    Raises:
        ValueError: a number is not above 0.
    """
    if not min(voxel_size, resolution, voxels) > 0:
        raise ValueError(f"expected numbers above 0, found {voxel_size}, {resolution} and {voxels}")
    return tuple(_good_side(side * voxel_size * voxels / resolution) for side in shape)


def _good_side(exact):
    """The even number of small factors that is nearest to a number."""
    below = above = max(_LEAST_SIDE, 2 * round(exact / 2))
    while not _is_product(below) and below > _LEAST_SIDE:
        below -= 2
    while not _is_product(above):
        above += 2
    if below < _LEAST_SIDE or not _is_product(below):
        return above
    return min(below, above, key=lambda side: abs(math.log(side / exact)))


def _is_product(number):
    for factor in _FACTORS:
        while number % factor == 0:
            number //= factor
    return number == 1
