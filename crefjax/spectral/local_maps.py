"""Local maps of trust: agreement of a denoised map with the half-maps, and how much was changed, at every voxel.

Raw maps cannot be compared in a moving window: nearly all their power is at low frequency, where false or smeared
density agrees with anything. So every map is first divided, shell by shell, by the root of the half-maps' signal power
`cov(M1, M2)`, up to their FSC-0.143 resolution, so that every frequency has the same weight. `<>` is a
Gaussian window's mean of such maps `M1`, `M2` (half-maps) and `D1`, `D2` (denoised, each from its own half alone), all
times the mask. Only products between the halves, whose noise is independent, measure signal.

Agreement, in a band of frequencies, is the correlation of each denoised half-map with the other noisy one,

    c = <D1 M2 + D2 M1> / sqrt(<D1² + D2²> <M1² + M2²>),

over the most that noise allows, the value of a noise-free `D` where the signal is: the root of
`sum p <M1 M2> / sum p <M1² + M2²>/2`, weighted by the signal's power `p = <M1 M2>` where that is above 0. It is clipped
to the range from 0 to 1 and averaged over two bands, the coarse and the fine half of the frequencies up to the
resolution. So

    1      the half-maps confirm the denoised ones, coarse and fine, as far as their noise allows
    0.5    they confirm the coarse half alone: smeared density, as of a flexible part
    0      they do not confirm it: false density, or no density at all.

Change compares `M` with `D` brought to its scale, `E = g D` with the gain `g` of each shell that fits best where they
agree (`cov(D, M) / cov(D1, D2)`, across the halves, of the maps times the agreement), so that blurring or sharpening of
the whole map does not count. The noise of the removed part, `R = M - E`, is that of its own half alone, and

    change = <R1 R2> / (<M1 M2> + <E1 E2> + 5 e),    with <R1 R2> = <M1 M2> + <E1 E2> - <E1 M2> - <E2 M1>,

clipped to the range from 0 to 1, counts structure that was added or removed, not noise: 0 for no change, 1 for no
structure in common. `e` is the standard deviation that noise alone gives a window's product: structure below that does
not count as changed.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.fft
from scipy import ndimage

from crefjax.errors import UserError
from crefjax.spectral.curves import THRESHOLD, resolution_at
from crefjax.spectral.shells import box_shells
from crefjax.spectral.windows import raised_cosine

WINDOW = 3.0  # times the resolution: full width at half maximum
LEAST_WINDOW = 7.0  # voxels
_FEWEST_SHELLS = 4  # up to the resolution, to separate coarse from fine
_LEAST_FSC = 0.05  # a shell with less is amplified no further
_LEAST_POWER = 0.01  # of a denoised map's mean power within the mask; a place with less is empty
_SURE = 5.0  # standard deviations of noise above which structure counts in full as changed
_TRUNCATE = 3.0  # standard deviations, where the window ends
_OUTSIDE = 0.01  # mask below which the maps are 0
_WORKERS = 2


@dataclass(frozen=True)
class LocalMaps:
    """Agreement and change at every voxel of a denoised map; 0 outside the mask.

    Attributes:
        agreement: `(z, y, x)`, float32, 0 to 1: agreement of the denoised half-maps with the noisy ones.
        change: `(z, y, x)`, float32, 0 to 1: share of the structure that was added or removed.
        window: Å, full width at half maximum of the moving window.
        resolution: Å, up to which the maps were compared; None if the half-maps agree too little for that (their FSC
            falls below 0.143 within the first shells, or maps or mask are empty); both maps are then 0.
    """

    agreement: np.ndarray
    change: np.ndarray
    window: float
    resolution: float | None


def local_maps(
    half_map_1: np.ndarray,
    half_map_2: np.ndarray,
    denoised_1: np.ndarray,
    denoised_2: np.ndarray,
    voxel_size: float,
    mask: np.ndarray,
    *,
    window: float | None = None,
) -> LocalMaps:
    """Compute how well denoised half-maps agree with the noisy ones, and how much was changed, in a moving window.

    The result does not depend on the order of the halves, or on scale (above 0) and offset of the denoised or the noisy
    pair. Structures closer than about a window's width are mixed.

    Args:
        half_map_1: `(z, y, x)`, finite, on one scale with `half_map_2`; not masked, or masked more widely than `mask`.
        half_map_2: the same shape, as are all that follow.
        denoised_1: made from `half_map_1` alone.
        denoised_2: made from `half_map_2` alone, in the same way.
        voxel_size: Å.
        mask: 0 to 1.
        window: Å, full width at half maximum; 3 times the FSC-0.143 resolution, at least 7 voxels, if None.

    Raises:
        UserError: the window is not a length above 0 Å.
        ValueError: the shapes differ.
    """
    shapes = {array.shape for array in (half_map_1, half_map_2, denoised_1, denoised_2, mask)}
    if len(shapes) != 1 or len(mask.shape) != 3:
        raise ValueError(f"expected maps and a mask of one shape, found the shapes {sorted(shapes)}")
    if window is not None and not (math.isfinite(window) and window > 0):
        raise UserError(f"local map: expected a window above 0 Å, found {window:g}; omit it to have it chosen")
    noisy = [_ScaledMap.of(half_map, half_map_1, half_map_2) for half_map in (half_map_1, half_map_2)]
    denoised = [_ScaledMap.of(output, denoised_1, denoised_2) for output in (denoised_1, denoised_2)]
    filters = _filters(noisy, mask, voxel_size)
    resolution = filters.resolution if filters else None
    window = window or max(WINDOW * (resolution or 0.0), LEAST_WINDOW * voxel_size)
    agreement, change = np.zeros(mask.shape, np.float32), np.zeros(mask.shape, np.float32)
    if filters:
        view = _View(filters, mask, window / voxel_size / math.sqrt(8 * math.log(2)))
        for band in filters.bands:
            agreement[view.where] += _agreement(view, noisy, denoised, band) / np.float32(len(filters.bands))
        agreement[mask < _OUTSIDE] = 0
        change[view.where] = _change(view, noisy, denoised, _gain(noisy, denoised, agreement))
        change[mask < _OUTSIDE] = 0
    return LocalMaps(agreement, change, float(window), resolution)


class _ScaledMap(NamedTuple):
    """A map with mean 0 on a scale common to its pair, computed when it is needed."""

    array: np.ndarray
    mean: float
    scale: float

    @classmethod
    def of(cls, array, *pair):
        """Find the mean and the scale; a pair that is constant but for rounding has the scale 0."""
        scales = []
        for member in pair:
            low, high = float(member.min()), float(member.max())
            scales.append(high - low if high - low > 1e-6 * max(abs(low), abs(high)) else 0.0)
        return cls(array, float(array.mean(dtype=np.float64)), max(scales))

    def spectrum(self, mask=None):
        """Return the half-spectrum, complex64, of the map times the mask."""
        if not self.scale:
            return np.zeros((*self.array.shape[:2], self.array.shape[2] // 2 + 1), np.complex64)
        array = (self.array - np.float32(self.mean)).astype(np.float32, copy=False)
        array /= np.float32(self.scale)
        if mask is not None:
            array *= mask
        return scipy.fft.rfftn(array, workers=_WORKERS, overwrite_x=True)


class _Filters(NamedTuple):
    """Factors for every shell; the last, 0, is for voxels without a shell.

    Attributes:
        bands: two that flatten the signal, for agreement.
        flat: flattens it up to the resolution, for change.
        dof: independent values of the noise in the box after `flat`.
        resolution: Å.
    """

    bands: list[np.ndarray]
    flat: np.ndarray
    dof: float
    resolution: float


def _filters(noisy, mask, voxel_size):
    """Return the filters from the masked half-maps; None if these agree too little."""
    m1, m2 = (half_map.spectrum(mask) for half_map in noisy)
    signal, power = _sums(m1, m2, mask.shape), np.sqrt(_sums(m1, m1, mask.shape) * _sums(m2, m2, mask.shape))
    fsc = np.divide(signal, power, out=np.zeros_like(signal), where=power > 0)[:-1]
    length = max(mask.shape) * voxel_size
    resolution = resolution_at(fsc, THRESHOLD, length, 2 * voxel_size).angstrom
    last = length / resolution
    if not power[1:-1].any() or last < _FEWEST_SHELLS:
        return None
    flatten = np.divide(1.0, np.sqrt(np.maximum(signal, _LEAST_FSC * power)), out=np.zeros_like(power), where=power > 0)
    flatten[[0, -1]] = 0
    shell = np.arange(len(flatten))
    upto, upto_half = (
        raised_cosine((shell / last - start) / (end - start)) for start, end in ((0.85, 1.15), (0.25, 0.75))
    )
    bands = [flatten * np.sqrt(share) for share in (upto_half, upto * (1 - upto_half))]
    flat = flatten * np.sqrt(upto)
    noise = np.maximum(power - signal, 0) * flat**2
    voxels = _sums(*[np.broadcast_to(np.complex64(1), m1.shape)] * 2, mask.shape)
    squares = np.divide(noise**2, voxels, out=np.zeros_like(noise), where=voxels > 0).sum()
    dof = noise.sum() ** 2 / squares if squares > 0 else voxels[:-1].sum()
    return _Filters(bands, flat, float(dof), float(resolution))


def _gain(noisy, denoised, agreement):
    """Return the gain of every shell that brings the denoised maps to the scale of the noisy ones where they agree."""
    (m1, m2), (d1, d2) = ([scaled.spectrum(agreement) for scaled in pair] for pair in (noisy, denoised))
    common = _sums(d1, d2, agreement.shape)
    fit = (_sums(d1, m2, agreement.shape) + _sums(d2, m1, agreement.shape)) / 2
    usable = common > 1e-12 * common.max(initial=0)
    return np.maximum(np.divide(fit, common, out=np.zeros_like(fit), where=usable), 0)


def _sums(a, b, shape):
    """Return sums over shells of `Re a conj(b)`, plane by plane, in float64; the last is of voxels without a shell."""
    shells = box_shells(shape)
    total = np.zeros(shells.count + 1)
    for index, first, second in zip(shells.index, a, b, strict=True):
        product = (first.real * second.real + first.imag * second.imag) * shells.weight
        total += np.bincount(index.ravel(), product.ravel(), minlength=shells.count + 1)
    return total


class _View:
    """Filtered maps in the box around the mask, and their means in windows."""

    def __init__(self, filters: _Filters, mask: np.ndarray, sigma: float):
        self.filters, self.sigma, self.shape = filters, sigma, mask.shape
        self.index = box_shells(mask.shape).index
        # Everything is 0 outside the mask, so only the smallest box around it is processed.
        spans = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
        self.where = tuple(slice(span[0], span[-1] + 1) for span in spans)
        self.mask = mask[self.where].astype(np.float32, copy=False)

    def filtered(self, *parts):
        """Return a sum of maps, each with a factor for every shell, times the mask."""
        total = 0
        for scaled, factors in parts:
            spectrum = scaled.spectrum()
            spectrum *= factors.astype(np.float32)[self.index]
            total = np.add(total, spectrum, out=spectrum)
        array = scipy.fft.irfftn(total, s=self.shape, workers=_WORKERS, overwrite_x=True)
        return array[self.where] * self.mask

    def mean(self, values):
        """Return the window's mean at every voxel; overwrite the values, half of them in each of two threads."""
        with ThreadPoolExecutor(_WORKERS) as pool:
            for axis in range(3):
                halves = np.array_split(values, _WORKERS, axis=(axis + 1) % 3)
                list(pool.map(lambda half, axis=axis: self._blur(half, axis), halves))
        return values

    def _blur(self, part, axis):
        if part.size:
            ndimage.gaussian_filter1d(part, self.sigma, axis, output=part, mode="constant", truncate=_TRUNCATE)


def _agreement(view, noisy, denoised, band):
    """Return the agreement in a band; see the module's docstring."""
    first, d = view.filtered((noisy[0], band)), view.filtered((denoised[1], band))
    cross, noisy_power, denoised_power = first * d, first * first, d * d
    second, d = view.filtered((noisy[1], band)), view.filtered((denoised[0], band))
    cross += second * d
    noisy_power += second * second
    denoised_power += np.multiply(d, d, out=d)
    del d
    signal = np.multiply(first, second, out=first)
    del first, second
    floor = _LEAST_POWER * denoised_power.sum(dtype=np.float64) / np.square(view.mask, dtype=np.float64).sum()
    for product in (cross, noisy_power, denoised_power, signal):
        view.mean(product)
    allowed = _allowed(signal, noisy_power)
    denoised_power += np.float32(floor)
    denoised_power *= noisy_power
    return _quotient(cross, np.sqrt(denoised_power, out=denoised_power), 1 / allowed)


def _allowed(signal, noisy_power):
    """Return the correlation that noise allows where the signal is; the power is that of both half-maps."""
    strength = np.maximum(signal, 0).ravel()
    whole = float(np.vdot(strength, noisy_power)) / 2
    return math.sqrt(max(float(np.vdot(strength, strength)) / whole if whole > 0 else 0.0, _LEAST_FSC))


def _change(view, noisy, denoised, gain):
    """Return the share of the structure that was changed; see the module's docstring."""
    flat, gain = view.filters.flat, view.filters.flat * gain
    # Of the noise's independent values, those in a window: a Gaussian one counts as (4 pi sigma²)^(3/2) voxels.
    dof = view.filters.dof * (4 * math.pi * view.sigma**2) ** 1.5 / math.prod(view.shape)
    first, second = (view.filtered((half_map, flat)) for half_map in noisy)
    structure = first * second
    noise = np.square(np.subtract(first, second, out=first), out=first)
    noise *= np.float32(_SURE / 2 / math.sqrt(dof))
    view.mean(noise)
    del first, second
    structure += np.multiply(*(view.filtered((output, gain)) for output in denoised))
    np.maximum(view.mean(structure), 0, out=structure)
    structure += noise
    del noise
    removed = (
        view.filtered((half_map, flat), (output, -gain)) for half_map, output in zip(noisy, denoised, strict=True)
    )
    return _quotient(view.mean(np.multiply(*removed)), structure, 1.0)


def _quotient(part, whole, factor):
    """Return `factor * part / whole` clipped to 0 to 1, and 0 where the whole is not above 0; overwrite the part."""
    np.divide(part, whole, out=part, where=whole > 0)
    part[~(whole > 0)] = 0
    part *= np.float32(factor)
    return np.clip(part, 0, 1, out=part)
