"""Spectrum and solvent of a map, and signal and noise of a pair of half-maps.

The solvent is found in every map in the same way: outside the particle, which is above a threshold in the map
low-passed to 15 Å, and a margin, and not where the map has one and the same value. The radial power is the mean of
`|F|²` over a shell, divided by the sum of the squared weights of the voxels that were taken, so that white noise has
its variance at every frequency; every map is first scaled so that its solvent has a deviation of 1. Of a pair, the
signal is the covariance of the masked half-maps per shell and the noise their mean power less this; both are divided by
the mean noise.
"""

import numpy as np
from scipy import ndimage

from crefjax.errors import UserError
from crefjax.io.maps import Map
from crefjax.simulate.noise import solvent_distance
from crefjax.spectral.curves import shell_frequencies
from crefjax.spectral.shells import box_shells, half_spectrum, shell_means

BINS = np.linspace(-6, 6, 61)  # of the solvent's histogram, deviations
_ANGSTROM = (40.0, 20.0, 10.0)  # at which the power of the solvent is told
_BLOCK = 8  # voxels, in which the local deviation of the solvent is taken


def solvent(map_: Map) -> np.ndarray:
    """The voxels outside the particle and a margin, bool `(z, y, x)`.

    Raises:
        UserError: less than 5 % of the box is solvent, or the map is masked.
    """
    distance, lowpass = solvent_distance(map_.array, map_.voxel_size)
    found = distance > lowpass / 2
    if found.mean() < 0.05:
        raise UserError(
            f"{map_.path or 'the simulated map'}: expected unmasked solvent in at least 5% of the box, found "
            f"{found.mean():.1%}; give a map that was not masked"
        )
    return found


def radial_power(array: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """Mean of `|F|²` in every shell over the sum of squared weights, `(shells,)`; the variance of white noise."""
    weight = np.ones(array.shape, np.float32) if weight is None else weight
    mean = np.average(array, weights=weight) if weight.any() else 0
    spectrum = half_spectrum(np.asarray((array - mean) * weight, np.float32))
    power = shell_means(abs(spectrum) ** 2, box_shells(array.shape))
    return np.asarray(power, np.float64) / np.sum(np.square(weight, dtype=np.float64))


def measure_map(map_: Map) -> dict:
    """Radial power and solvent of one map, as told above; lists, ready for JSON."""
    where = solvent(map_)
    values = map_.array[where].astype(np.float64)
    mean, deviation = values.mean(), values.std()
    scaled = ((map_.array - mean) / deviation).astype(np.float32)
    edge = np.clip(ndimage.distance_transform_edt(where) / 4, 0, 1).astype(np.float32)
    power = radial_power(scaled, edge)
    frequency = shell_frequencies(scaled.shape, map_.voxel_size)
    inside = scaled[where].astype(np.float64)
    counts = np.histogram(inside, BINS)[0]
    distance, spread = _outwards(scaled, where, map_.voxel_size)
    return {
        "box": list(scaled.shape),
        "voxel_size": map_.voxel_size,
        "frequency": _plain(frequency),
        "power": _plain(radial_power(scaled)),
        "solvent_power": _plain(power),
        "solvent_fraction": float(where.mean()),
        "solvent_skewness": float(np.mean(inside**3)),
        "solvent_excess_kurtosis": float(np.mean(inside**4) - 3),
        "solvent_density": _plain(counts / inside.size / np.diff(BINS)),
        "solvent_distance": _plain(distance),
        "solvent_deviation": _plain(spread),
        "solvent_unevenness": _unevenness(scaled, where),
        "solvent_power_at": {
            f"{at:g} Å": float(np.interp(1 / at, frequency, power)) for at in _ANGSTROM if 1 / at <= frequency[-1]
        },
        "solvent_power_at_half_nyquist": float(np.interp(frequency[-1] / 2, frequency, power)),
        "solvent_power_at_0.9_nyquist": float(np.interp(0.9 * frequency[-1], frequency, power)),
    }


def measure_pair(half_map_1: np.ndarray, half_map_2: np.ndarray, mask: np.ndarray) -> dict:
    """Signal and noise per shell of two half-maps under a mask, over the mean noise."""
    shells = box_shells(half_map_1.shape)
    f1, f2 = (half_spectrum(one * mask) for one in (half_map_1, half_map_2))
    cross, p1, p2 = (
        np.asarray(shell_means(one, shells), np.float64)
        for one in (f1.real * f2.real + f1.imag * f2.imag, abs(f1) ** 2, abs(f2) ** 2)
    )
    noise = np.sqrt(p1 * p2) - cross
    scale = noise[1:-1].mean()
    return {
        "of_nyquist": _plain(np.linspace(0, 1, len(noise))),
        "signal": _plain(cross / scale),
        "noise": _plain(noise / scale),
        "fsc": _plain(cross / np.sqrt(p1 * p2)),
    }


def _outwards(scaled, where, voxel_size):
    """Deviation of the solvent in bins of distance from the middle of the box, where there are enough voxels."""
    grid = np.meshgrid(*((np.arange(side) - side // 2) * voxel_size for side in scaled.shape), indexing="ij")
    distance = np.sqrt(sum(one**2 for one in grid))[where]
    bins = np.minimum((distance / distance.max() * 20).astype(int), 19)
    count = np.bincount(bins, minlength=20)
    squares = np.bincount(bins, scaled[where].astype(np.float64) ** 2, minlength=20)
    kept = count > 500
    return (np.arange(20)[kept] + 0.5) / 20 * distance.max(), np.sqrt(squares[kept] / count[kept])


def _unevenness(scaled, where):
    """Deviation over mean of the local deviation, in blocks that are all solvent; None where there are few."""
    blocks = [side // _BLOCK for side in scaled.shape]
    cut = tuple(slice(0, number * _BLOCK) for number in blocks)
    shape = [part for number in blocks for part in (number, _BLOCK)]
    inside = where[cut].reshape(shape).all(axis=(1, 3, 5))
    local = scaled[cut].reshape(shape).std(axis=(1, 3, 5))[inside]
    return float(local.std() / local.mean()) if len(local) >= 8 else None


def _plain(values):
    return [float(f"{value:.6g}") for value in values]
