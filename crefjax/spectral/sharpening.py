"""The Guinier plot of two half-maps, the B-factor that it gives, and sharpening by it.

As in RELION's post-processing (Rosenthal & Henderson 2003): the logarithm of the amplitudes of the full map, weighted
by C_ref, is fitted by a straight line over the squared frequency between 10 Å and the resolution. Its slope is a
quarter of the B-factor, which is below 0, and the map is multiplied by `C_ref exp(-B s² / 4)`. Unlike in RELION the
amplitudes are those within the mask, so that solvent noise does not flatten the line. `crefjax.spectral.falloff`
estimates something else: the fall-off against that of a protein at B = 0.
"""

from dataclasses import dataclass

import numpy as np

from crefjax.errors import UserError
from crefjax.spectral.curves import FscCurve
from crefjax.spectral.shells import filter_shells
from crefjax.spectral.windows import raised_cosine

COARSEST = 10.0  # Å, from which on shells are fitted
STRONGEST = 1000.0  # Å², of a given B-factor
_LEAST_SHELLS = 4
_EDGE = 2.0  # shells, of the low-pass


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
        source = "as given" if self.given else f"by the Guinier plot from {COARSEST:g} Å"
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
    frequency, resolution = curve.frequency, curve.resolution(0.143).angstrom
    power = (products[:, 0, 0] + products[:, 1, 1] + 2 * products[:, 0, 1]) / 4
    with np.errstate(divide="ignore", invalid="ignore"):
        log_amplitude = np.where(power > 0, np.log(power) / 2, np.nan)
        log_weighted = np.where(curve.cref > 0, log_amplitude + np.log(curve.cref), np.nan)
    usable = (frequency >= 1 / COARSEST) & (frequency <= 1 / resolution) & np.isfinite(log_weighted)
    fit = None
    if usable.sum() >= _LEAST_SHELLS:
        slope, start = np.polyfit(frequency[usable] ** 2, log_weighted[usable], 1)
        fit = (float(start), float(slope))
    elif b_factor is None:
        raise UserError(
            f"`sharpen` auto: expected at least {_LEAST_SHELLS} shells between {COARSEST:g} Å and the resolution of "
            f"{resolution:.2f} Å, found {usable.sum()}; give a B-factor, such as -100"
        )
    b = 4 * fit[1] if b_factor is None else float(b_factor)
    shells = np.arange(len(frequency))
    edge = 1 / (resolution * frequency[1]) - _EDGE / 2
    factors = curve.cref * np.exp(-b / 4 * frequency**2) * raised_cosine((shells - edge) / _EDGE)
    factors[0] = 1.0
    return Sharpening(b, b_factor is not None, float(resolution), log_amplitude, log_weighted, fit, factors)


def sharpen(array: np.ndarray, sharpening: Sharpening) -> np.ndarray:
    """Return a map, `(z, y, x)`, float32, whose shells are weighted, sharpened, and low-passed; its mean is kept."""
    return filter_shells(array, sharpening.factors)
