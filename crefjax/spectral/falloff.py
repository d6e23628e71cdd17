"""The fall-off of a map's amplitudes towards high frequencies, as B-factors of signal and noise, and its low-pass.

The power of a protein's density is not that of atoms at random places (Wilson 1949): its shape and its secondary
structure make it larger at low frequencies and at about 4.8 Å, much the same in one protein as in another. Measured
power is therefore divided by that of a typical specimen at B = 0, and the quotient is fitted by
`exp(-B s² / 2)`, as in a Guinier plot (Rosenthal & Henderson 2003) but from lower frequencies on.
"""

import numpy as np

from crefjax.spectral.curves import fsc_from_products, shell_frequencies, shell_products

# Power over that of atoms at random places, every 1/100 Å from 1/50 Å on: medians of 41 cryo-EM structures.
_SHAPE_STEP, _SHAPE_FIRST = 0.01, 2
_SHAPE = (
    *(147, 37, 13, 6.2, 4.5, 3.5, 3.1, 2.6, 2.2, 1.7, 1.3, 1.1),
    *(1.05, 1.0, 1.02, 1.1, 1.3, 1.53, 1.82, 1.98, 1.94, 1.73, 1.53, 1.35, 1.15),
)
# Electron form factor of carbon, sum of a exp(-b s² / 4) (International Tables C, 4.3.2.2), a in Å, b in Å².
_CARBON = np.array([[0.0893, 0.2563, 0.7570, 1.0487, 0.3575], [0.2465, 1.7100, 6.4094, 18.6113, 50.2523]])
_LEAST_FSC = 0.3  # of the half-maps in the shells that are fitted
_COARSEST = 25.0  # Å, from which on shells are fitted
_LEAST_SHELLS = 5
_SPECIMEN = 0.5  # of the logarithm, by which one specimen's power is taken to tilt against the median's
# A low-pass is where the power falls most steeply, over a window of this part of the frequency on either side, if its
# exponent is at least the first number and the second number times that of the median.
_WINDOW, _STEEP, _STEEPER = 0.07, 8.0, 2.5


def specimen_power(frequency: np.ndarray) -> np.ndarray:
    """Return the power of a protein's density at B = 0, in arbitrary units.

    Args:
        frequency: 1/Å, any shape.
    """
    s = np.asarray(frequency, np.float64)
    a, b = _CARBON
    atoms = np.sum(a * np.exp(-b * s[..., np.newaxis] ** 2 / 4), axis=-1) ** 2
    where = _SHAPE_STEP * (_SHAPE_FIRST + np.arange(len(_SHAPE) + 1))
    return atoms * np.exp(np.interp(s, where, np.log([*_SHAPE, 1.0])))


def signal_b_factor(products: np.ndarray, frequency: np.ndarray) -> tuple[float, float] | None:
    """Return the B-factor of two half-maps' common signal and its standard error, Å²; None if too few shells show it.

    The fit is weighted by the FSC, and goes up to the first shell whose FSC is below 0.3.

    Args:
        products: `(shells, 2, 2)`, of the half-maps, leveled and masked; see `curves.shell_products`.
        frequency: `(shells,)`, 1/Å.
    """
    signal, fsc = products[:, 0, 1], fsc_from_products(products)
    first = max(2, int(np.searchsorted(frequency, 1 / _COARSEST)))
    seen = (fsc > _LEAST_FSC) & (signal > 0)
    seen[:first] = True
    chosen = slice(first, int(np.argmin(seen)) if not seen.all() else len(seen))
    s = frequency[chosen]
    if len(s) < _LEAST_SHELLS:
        return None
    # One error is the scatter of the shells about the line. The other is a specimen whose structure differs from the
    # median over all fitted shells: it matters where these are few and far from the resolution.
    (slope, _), errors = np.polyfit(s**2 / 2, np.log(signal[chosen] / specimen_power(s)), 1, w=fsc[chosen], cov=True)
    return float(-slope), float(np.hypot(np.sqrt(errors[0, 0]), _SPECIMEN / np.ptp(s**2 / 2)))


def noise_b_factor(half_map_1: np.ndarray, half_map_2: np.ndarray, voxel_size: float) -> float | None:
    """Return the B-factor of the noise in two half-maps, Å², from the power of their difference in the whole box.

    Without a mask, which would mix shells, noise that rises steeply with frequency is measured correctly.

    Args:
        half_map_1: `(z, y, x)`, float32.
        half_map_2: the same shape.
        voxel_size: Å.

    Returns:
        the B-factor, below 0 if the noise rises with frequency; None if the half-maps are alike.
    """
    frequency = shell_frequencies(half_map_1.shape, voxel_size)
    power = shell_products([half_map_1 - half_map_2])[:, 0, 0]
    first = max(2, int(np.searchsorted(frequency, 1 / _COARSEST)))
    power, s = power[first:], frequency[first:]
    if len(power) < _LEAST_SHELLS or not power.max() > 0:
        return None
    slope, _ = np.polyfit(s**2 / 2, np.log(np.maximum(power, 1e-12 * power.max())), 1)
    return float(-slope)


def low_pass_end(power: np.ndarray, frequency: np.ndarray) -> float | None:
    """Return the frequency of a map's low-pass in 1/Å, where its power falls by far most steeply; None without one.

    Maps are deposited with a low-pass at about their resolution.

    Args:
        power: `(shells,)`, of the map, leveled and masked.
        frequency: `(shells,)`, 1/Å.
    """
    s, first = frequency[1:], max(1 / _COARSEST, 4 * frequency[1])
    at = np.arange(first, s[-2], s[0] / 4)
    if len(at) < 4 * _LEAST_SHELLS or not power[1:].min() > 0:
        return None
    log_power = np.log(power[1:] / specimen_power(s))
    width = np.maximum(_WINDOW * at, s[0])
    before, after = (np.interp(at + sign * width, s, log_power) for sign in (-1, 1))
    slope = (before - after) / np.log((at + width) / (at - width))
    steepest = int(np.argmax(slope))
    # A map whose power falls more and more steeply up to its end is blurred, not low-passed.
    if slope[steepest] < max(_STEEP, _STEEPER * np.median(slope)) or slope[steepest:].min() > slope[steepest] / 2:
        return None
    return float(at[steepest])
