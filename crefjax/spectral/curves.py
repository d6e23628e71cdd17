"""FSC curves, their resolutions, and shell sums of maps in host memory: NumPy and SciPy alone, no JAX.

For worker processes, and for measurements for which the precision of a float32 Fourier transform suffices. The
shells are those of `crefjax.spectral.shells`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.fft

_PART = 2**15  # voxels of a half-spectrum whose products are summed at once
THRESHOLD = 0.143  # of the FSC of two half-maps, at their resolution (Rosenthal & Henderson 2003)


class Resolution(NamedTuple):
    """The resolution at which a curve falls below a threshold.

    Attributes:
        angstrom: the resolution in Å; the Nyquist limit if the curve never falls below the threshold, the
            longest side of the box if shell 1 is already below it.
        crossed: whether the curve falls below the threshold at all.
    """

    angstrom: float
    crossed: bool


def first_shell_below(curve: np.ndarray, threshold: float) -> int | None:
    """Return the first shell, other than shell 0, in which a curve is below a threshold; None if there is none."""
    below = np.flatnonzero(curve[1:] < threshold)
    return int(below[0]) + 1 if len(below) else None


def resolution_at(curve: np.ndarray, threshold: float, length: float, nyquist: float) -> Resolution:
    """Return the resolution at which a curve first falls below a threshold, interpolated in shell index.

    Args:
        curve: `(shells,)` from shell 0 on; shell 0, the mean, is ignored.
        threshold: for example 0.143 or 0.5.
        length: longest side of the box in Å.
        nyquist: the Nyquist limit in Å, twice the voxel size.
    """
    curve = np.asarray(curve, np.float64)
    shell = first_shell_below(curve, threshold)
    if shell is None:
        return Resolution(float(nyquist), False)
    if shell == 1:
        return Resolution(float(length), True)
    before, after = curve[shell - 1], curve[shell]
    return Resolution(float(length / (shell - 1 + (before - threshold) / (before - after))), True)


@dataclass(frozen=True)
class FscCurve:
    """The FSC of two maps, with its frequency axis, from shell 0 to `N // 2`.

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
        """Frequency of every shell, 1/Å."""
        return shell_frequencies(self.box, self.voxel_size)

    @property
    def cref(self) -> np.ndarray:
        """C_ref, if the two maps are half-maps with independent noise; see `crefjax.spectral.fsc.c_ref`."""
        h = np.maximum(self.fsc, 0)
        return np.sqrt(2 * h / (1 + h))

    def resolution(self, threshold: float) -> Resolution:
        """Return where the curve falls below the threshold."""
        return resolution_at(self.fsc, threshold, max(self.box) * self.voxel_size, 2 * self.voxel_size)

    def last_shell(self) -> int:
        """Return the last shell before a curve of half-maps falls below 0.143."""
        return int(max(self.box) * self.voxel_size / self.resolution(THRESHOLD).angstrom)

    def signal_shells(self) -> np.ndarray:
        """Return the numbers of the shells from 1 to the resolution of half-maps and the next; at least shell 1."""
        return np.arange(1, max(min(self.last_shell() + 1, len(self.fsc) - 1), 2))


def has_no_signal(fsc: np.ndarray) -> bool:
    """Return whether an FSC of half-maps falls below 0.143 within the first tenth of the shells, at least three.

    Args:
        fsc: `(shells,)` from shell 0 on; shell 0 is ignored.
    """
    return bool(np.any(fsc[1 : max(4, len(fsc) // 10)] < THRESHOLD))


def solvent_level(array: np.ndarray, mask: np.ndarray | None) -> float:
    """Return the mean outside the mask, where there is no particle; of the whole box if nothing is outside.

    Args:
        array: `(z, y, x)`.
        mask: the same shape, 0 to 1, or None.
    """
    if mask is None:
        return float(array.mean(dtype=np.float64))
    outside = float(mask.size) - float(mask.sum(dtype=np.float64))
    if outside < 1e-3 * mask.size:
        return float(array.mean(dtype=np.float64))
    inside = sum(float(np.vdot(a, b)) for a, b in zip(array, mask, strict=True))
    return (float(array.sum(dtype=np.float64)) - inside) / outside


def shell_frequencies(shape: tuple[int, int, int], voxel_size: float) -> np.ndarray:
    """Return the frequency of every shell in 1/Å, float64, shells 0 to `N // 2` of the longest side `N`."""
    longest = max(shape)
    return np.arange(longest // 2 + 1) / (longest * voxel_size)


def shell_products(
    maps: Sequence[np.ndarray], mask: np.ndarray | None = None, *, levels: Sequence[float] | None = None
) -> np.ndarray:
    """Return the means over shells of `Re F1 conj(F2)` for every pair of maps.

    Args:
        maps: each `(z, y, x)`, float32, of one shape.
        mask: the same shape, by which every map is multiplied; None for none.
        levels: subtracted from each map first; None for 0.

    Returns:
        `(shells, n, n)`, float64.
    """
    shape = maps[0].shape
    spectra = []
    for array, level in zip(maps, levels or [0.0] * len(maps), strict=True):
        array = array - np.float32(level)
        if mask is not None:
            array *= mask
        spectra.append(scipy.fft.rfftn(array, workers=-1))
    count = max(shape) // 2 + 1
    total = np.zeros((count + 1, len(maps), len(maps)))
    voxels = np.zeros(count + 1)
    for planes, shell, weight in shells_of_half_spectrum(shape):
        voxels += np.bincount(shell, weight, count + 1)
        for i, first in enumerate(spectra):
            for j, second in enumerate(spectra[: i + 1]):
                a, b = first[planes].ravel(), second[planes].ravel()
                product = a.real.astype(np.float64) * b.real + a.imag.astype(np.float64) * b.imag
                total[:, i, j] += np.bincount(shell, product * weight, count + 1)
    total = total[:-1] / np.maximum(voxels[:-1], 1)[:, None, None]
    return np.maximum(total, 0) if len(maps) == 1 else total + np.tril(total, -1).transpose(0, 2, 1)


def count_shell_voxels(shape: tuple[int, int, int]) -> np.ndarray:
    """Return the number of voxels of the whole spectrum of a box in every shell, `(shells,)`."""
    count = max(shape) // 2 + 1
    return sum(np.bincount(shell, weight, count + 1) for _, shell, weight in shells_of_half_spectrum(shape))[:-1]


def shells_of_half_spectrum(shape: tuple[int, int, int]) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Yield the shells of a half-spectrum in parts that stay in the processor's cache.

    Args:
        shape: `(z, y, x)` of the box, voxels.

    Yields:
        The planes of the part, and for each of its voxels, flat, the index of the shell, `longest side // 2 + 1` if it
        has none, and the weight in the whole spectrum, 1 or 2.
    """
    longest = max(shape)
    count = longest // 2 + 1
    z, y = (np.square(np.fft.fftfreq(side) * longest) for side in shape[:2])
    x = np.square(np.fft.rfftfreq(shape[2]) * longest)
    weight = np.full(len(x), 2.0)
    weight[0] = 1.0
    if shape[2] % 2 == 0:
        weight[-1] = 1.0
    in_plane = y[:, None] + x
    step = max(1, _PART // in_plane.size)
    for start in range(0, shape[0], step):
        planes = slice(start, min(start + step, shape[0]))
        shell = np.floor(np.sqrt(z[planes, None, None] + in_plane) + 0.5).astype(np.intp)
        yield planes, np.minimum(shell, count).ravel(), np.tile(weight, shell.size // len(x))


def fsc_from_products(products: np.ndarray) -> np.ndarray:
    """Return the FSC of two maps, `(shells,)`, from their `shell_products`; 0 where a map has no power."""
    power = np.sqrt(np.maximum(products[:, 0, 0] * products[:, 1, 1], 0))
    return np.where(power > 0, products[:, 0, 1] / np.where(power > 0, power, 1), 0)
