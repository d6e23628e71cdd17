"""A Fourier shell correlation as a curve over shells, with its scales, and where it crosses a threshold."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from crefjax.spectral.host import frequencies


class Resolution(NamedTuple):
    """Where a curve falls below a threshold.

    Attributes:
        angstrom: the resolution in Å; the Nyquist limit if the curve never falls below the threshold, the
            longest side of the box if already shell 1 is below it.
        crossed: whether the curve falls below the threshold at all.
    """

    angstrom: float
    crossed: bool


def resolution_at(curve: np.ndarray, threshold: float, length: float, nyquist: float) -> Resolution:
    """The resolution at which a curve over shells first falls below a threshold, interpolated in shell index.

    Args:
        curve: `(shells,)` from shell 0 on; shell 0, the mean, is not looked at.
        threshold: 0.143 or 0.5, say.
        length: longest side of the box in Å.
        nyquist: the Nyquist limit in Å, twice the voxel size.
    """
    curve = np.asarray(curve, np.float64)
    below = np.flatnonzero(curve[1:] < threshold) + 1
    if len(below) == 0:
        return Resolution(float(nyquist), False)
    shell = int(below[0])
    if shell == 1:
        return Resolution(float(length), True)
    before, after = curve[shell - 1], curve[shell]
    return Resolution(float(length / (shell - 1 + (before - threshold) / (before - after))), True)


@dataclass(frozen=True)
class FscCurve:
    """The FSC of two maps with its scales; lists run over shells 0 to `N // 2`.

    Attributes:
        box: `(z, y, x)` in voxels.
        voxel_size: Å.
        fsc: `(shells,)`, float64.
    """

    box: tuple[int, int, int]
    voxel_size: float
    fsc: np.ndarray

    @property
    def frequency(self) -> np.ndarray:
        """1/Å, of every shell."""
        return frequencies(self.box, self.voxel_size)

    @property
    def cref(self) -> np.ndarray:
        """C_ref, if the two maps are half-maps with independent noise; see `crefjax.spectral.fsc.c_ref`."""
        h = np.maximum(self.fsc, 0)
        return np.sqrt(2 * h / (1 + h))

    def resolution(self, threshold: float) -> Resolution:
        """Where the curve falls below the threshold."""
        return resolution_at(self.fsc, threshold, max(self.box) * self.voxel_size, 2 * self.voxel_size)


def hardly_correlate(fsc: np.ndarray) -> bool:
    """Whether an FSC of half-maps falls below 0.143 within the first tenth of the shells, or three.

    Args:
        fsc: `(shells,)` from shell 0 on, which is not looked at.
    """
    return bool(np.any(fsc[1 : max(4, len(fsc) // 10)] < 0.143))
