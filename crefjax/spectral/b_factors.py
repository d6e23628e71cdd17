"""B-factors of maps: their fall-off relative to that of a protein, blurring, and sharpening by the Guinier plot.

**Fall-off** of signal and noise. The power of a protein's density is not that of atoms at random places (Wilson 1949):
its shape and its secondary structure make it larger at low frequencies and at about 4.8 Å, much the same in one protein
as in another. Measured power is therefore divided by that of a typical specimen at B = 0, and the quotient is fitted by
`exp(-B s² / 2)`, as in a Guinier plot (Rosenthal & Henderson 2003) but from lower frequencies on.

**Guinier plot** of two half-maps, as in RELION's post-processing (Rosenthal & Henderson 2003): the logarithm of the
amplitudes of the full map, weighted by C_ref, is fitted by a straight line over the squared frequency between 10 Å and
the resolution. Its slope is a quarter of the B-factor, which is below 0, and the map is multiplied by
`C_ref exp(-B s² / 4)`. Unlike in RELION the amplitudes are those within the mask, so that solvent noise does not
flatten the line.
"""

from dataclasses import dataclass

import numpy as np
import scipy.fft

from crefjax.errors import UserError
from crefjax.spectral.curves import THRESHOLD, FscCurve, fsc_from_products, shell_frequencies, shell_products
from crefjax.spectral.windows import raised_cosine

# Power over that of atoms at random places, every 1/100 Å from 1/50 Å on: medians of 41 cryo-EM structures.
_SHAPE_STEP, _SHAPE_FIRST = 0.01, 2
_SHAPE = (
    *(147, 37, 13, 6.2, 4.5, 3.5, 3.1, 2.6, 2.2, 1.7, 1.3, 1.1),
    *(1.05, 1.0, 1.02, 1.1, 1.3, 1.53, 1.82, 1.98, 1.94, 1.73, 1.53, 1.35, 1.15),
)
# Electron form factor of carbon, sum of a exp(-b s² / 4) (International Tables C, 4.3.2.2), a in Å, b in Å².
_CARBON = np.array([[0.0893, 0.2563, 0.7570, 1.0487, 0.3575], [0.2465, 1.7100, 6.4094, 18.6113, 50.2523]])
_LEAST_FSC = 0.3  # of the half-maps in the shells that are fitted
_COARSEST = 25.0  # Å; shells from here on are compared with those of a protein
_LEAST_SHELLS = 5
_SPECIMEN = 0.5  # of the logarithm, by which one specimen's power is taken to tilt against the median's
# The signal's B-factor with which networks work best, over the squared resolution, and the most in Å².
BEST_B, MOST_B = 6.0, 250.0
_KNOWN = 2.5  # over the squared resolution, error of a B-factor up to which it is worth following
_CHANCE = 3.0  # standard errors that a B-factor may be off
# A low-pass is where the power falls most steeply, over a window of this part of the frequency on either side, if its
# exponent is at least the first number and the second number times that of the median.
_WINDOW, _STEEP, _STEEPER = 0.07, 8.0, 2.5
# Of the Guinier plot and of sharpening.
GUINIER_FROM = 10.0  # Å; shells from here on are fitted
STRONGEST = 1000.0  # Å², of a given B-factor
_LEAST_FITTED = 4  # shells
_EDGE = 2.0  # shells, of the low-pass


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


def best_blur(b_factor: float, error: float, resolution: float) -> float:
    """Return the blur in Å² (below 0: sharpening) that brings a signal to the fall-off with which networks work best.

    The best fall-off is a broad optimum. Following a measurement that is less certain than that, as at low resolution,
    would do more harm than good: of what may be chance, up to three errors e, one part in
    `1 + (e / (2.5 resolution²))⁴` is followed.

    Args:
        b_factor: of the signal, Å²; see `signal_b_factor`.
        error: its standard error, Å².
        resolution: Å, where the FSC of the half-maps crosses 0.143.
    """
    missing = min(BEST_B * resolution**2, MOST_B) - b_factor
    chance = min(max(missing, -_CHANCE * error), _CHANCE * error)
    return float(missing - chance + chance / (1 + (error / (_KNOWN * resolution**2)) ** 4))


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


@dataclass(frozen=True)
class Sharpening:
    """How a map is sharpened, and the Guinier plot.

    Attributes:
        b_factor: Å²; below 0 sharpens.
        given: whether it was given, not fitted.
        resolution: Å, at which the map is low-passed.
        log_amplitude: `(shells,)`, natural logarithm of the full map's amplitude within the mask; NaN where it is 0.
        log_weighted: the same, of the amplitude times C_ref.
        fit: value at 0 and slope (Å²), over the squared frequency, of the fitted line; None if it was not fitted.
        factors: `(shells,)`, by which the shells of a map are multiplied.
    """

    b_factor: float
    given: bool
    resolution: float
    log_amplitude: np.ndarray
    log_weighted: np.ndarray
    fit: tuple[float, float] | None
    factors: np.ndarray

    def describe(self) -> str:
        """Return one line on the B-factor and the low-pass."""
        source = "as given" if self.given else f"by the Guinier plot from {GUINIER_FROM:g} Å"
        return (
            f"sharpened by a B-factor of {self.b_factor:.0f} Å², {source}, weighted by C_ref, and low-passed at "
            f"{self.resolution:.2f} Å"
        )


def plan_sharpening(products: np.ndarray, curve: FscCurve, b_factor: float | None) -> Sharpening:
    """Measure how a map is sharpened.

    Args:
        products: `(shells, 2, 2)`, of the half-maps, leveled and masked; see `curves.shell_products`.
        curve: their FSC under the mask.
        b_factor: Å², or None to have it fitted.

    Raises:
        UserError: the B-factor is out of range, or too few shells lie between 10 Å and the resolution.
    """
    if b_factor is not None and not abs(b_factor) <= STRONGEST:
        raise UserError(
            f"`sharpen`: expected a B-factor of -{STRONGEST:g} to {STRONGEST:g} Å² (below 0 sharpens), found "
            f"{b_factor:g} Å²; correct it"
        )
    frequency, resolution = curve.frequency, curve.resolution(THRESHOLD).angstrom
    power = (products[:, 0, 0] + products[:, 1, 1] + 2 * products[:, 0, 1]) / 4
    with np.errstate(divide="ignore", invalid="ignore"):
        log_amplitude = np.where(power > 0, np.log(power) / 2, np.nan)
        log_weighted = np.where(curve.cref > 0, log_amplitude + np.log(curve.cref), np.nan)
    usable = (frequency >= 1 / GUINIER_FROM) & (frequency <= 1 / resolution) & np.isfinite(log_weighted)
    fit = None
    if usable.sum() >= _LEAST_FITTED:
        slope, start = np.polyfit(frequency[usable] ** 2, log_weighted[usable], 1)
        fit = (float(start), float(slope))
    elif b_factor is None:
        raise UserError(
            f"`sharpen` auto: expected at least {_LEAST_FITTED} shells between {GUINIER_FROM:g} Å and the resolution "
            f"of {resolution:.2f} Å, found {usable.sum()}; give a B-factor, such as -100"
        )
    b = 4 * fit[1] if b_factor is None else float(b_factor)
    shells = np.arange(len(frequency))
    edge = 1 / (resolution * frequency[1]) - _EDGE / 2
    factors = curve.cref * np.exp(-b / 4 * frequency**2) * raised_cosine((shells - edge) / _EDGE)
    factors[0] = 1.0
    return Sharpening(b, b_factor is not None, float(resolution), log_amplitude, log_weighted, fit, factors)


def apply_b_factor(array: np.ndarray, voxel_size: float, b_factor: float, end: float | None = None) -> np.ndarray:
    """Multiply a map's amplitudes by `exp(-B s² / 4)`; beyond the frequency `end`, the factor is that at `end`.

    Args:
        array: `(z, y, x)`, float32.
        voxel_size: Å.
        b_factor: Å²; below 0 sharpens.
        end: 1/Å; None for Nyquist, which it never exceeds.
    """
    if not b_factor:
        return array
    spectrum = scipy.fft.rfftn(array, workers=-1)
    z, y = (np.square(scipy.fft.fftfreq(side, voxel_size)) for side in array.shape[:2])
    x = np.square(scipy.fft.rfftfreq(array.shape[2], voxel_size))
    # Sharpened corners of the spectrum, beyond Nyquist, would outgrow everything else.
    nyquist = 0.5 / voxel_size
    limit = (nyquist if end is None else min(end, nyquist)) ** 2
    for plane, z_squared in zip(spectrum, z, strict=True):
        plane *= np.exp(-b_factor / 4 * np.minimum(z_squared + y[:, None] + x, limit)).astype(np.float32)
    return scipy.fft.irfftn(spectrum, s=array.shape, workers=-1, overwrite_x=True)


def sharpen(array: np.ndarray, sharpening: Sharpening) -> np.ndarray:
    """Return a map, `(z, y, x)`, float32, whose shells are weighted, sharpened, and low-passed; its mean is kept."""
    from crefjax.spectral.shells import filter_shells  # loads JAX

    return filter_shells(array, sharpening.factors)
