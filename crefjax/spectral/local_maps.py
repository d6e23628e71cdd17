"""Where a denoised map can be trusted: how far it agrees with the half-maps, and how much was changed, voxel by voxel.

Raw maps cannot be compared in a moving window: nearly all their power is at low frequency, where false or smeared
density agrees with anything. So every map is first divided, shell by shell, by the root of the half-maps' signal power
`cov(M1, M2)`, up to their FSC-0.143 resolution: in what is left, every frequency has the same say. `<>` is a
Gaussian window's mean of such maps `M1`, `M2` (half-maps) and `D1`, `D2` (denoised, each from its own half alone), all
times the mask. Only products between the halves, whose noise is independent, say what is true.

Agreement, in a band of frequencies, is the correlation of each denoised half-map with the other noisy one,

    c = <D1 M2 + D2 M1> / sqrt(<D1² + D2²> <M1² + M2²>),

over the most that noise allows, what a noise-free `D` would reach where the signal is: the root of
`sum p <M1 M2> / sum p <M1² + M2²>/2`, weighted by the signal's power `p = <M1 M2>` where that is above 0. It is cut to
0 to 1 and averaged over two bands, the coarse and the fine half of the frequencies up to the resolution. So

    1      the half-maps confirm what the denoised ones show, coarse and fine, as far as their noise lets them
    0.5    they confirm the coarse half alone: smeared density, as of a flexible part
    0      they confirm nothing of it: false density, or nothing at all.

Change compares `M` with `D` brought to its scale, `E = g D` with the gain `g` of each shell that fits best where they
agree (`cov(D, M) / cov(D1, D2)`, across the halves, of the maps times the agreement), so that blurring or sharpening of
the whole map counts as none. The noise of what went, `R = M - E`, is that of its own half alone, and

    change = <R1 R2> / (<M1 M2> + <E1 E2> + 5 e),    with <R1 R2> = <M1 M2> + <E1 E2> - <E1 M2> - <E2 M1>,

cut to 0 to 1, counts structure that was added or removed, not noise: 0 nothing of it, 1 all (there is no structure in
common). `e` is the deviation that noise alone gives a window's product: where there is no more than that to be seen,
nothing is said to have changed.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.fft
from scipy import ndimage

from crefjax.errors import UserError
from crefjax.spectral.curves import resolution_at
from crefjax.spectral.shells import box_shells
from crefjax.spectral.windows import raised_cosine

THRESHOLD = 0.143
WINDOW = 3.0  # times the resolution: full width at half maximum
LEAST_WINDOW = 7.0  # voxels
_FEWEST_SHELLS = 4  # up to the resolution, to tell coarse from fine
_LEAST_FSC = 0.05  # below it a shell is not amplified any more
_LEAST_POWER = 0.01  # of a denoised map's mean power within the mask; with less it shows nothing there
_SURE = 5.0  # deviations of noise that structure must have to count in full as changed
_TRUNCATE = 3.0  # deviations, where the window ends
_OUTSIDE = 0.01  # mask below which nothing is said
_WORKERS = 2


@dataclass(frozen=True)
class LocalMaps:
    """What can be said of every place of a denoised map; 0 outside the mask.

    Attributes:
        agreement: `(z, y, x)`, float32, 0 to 1: how well the denoised half-maps agree with the noisy ones.
        change: `(z, y, x)`, float32, 0 to 1: how much of the structure was added or removed.
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
    """How well denoised half-maps agree with the noisy ones, and how much was changed, in a moving window.

    Exchanging the halves, and any scale above 0 or offset of the denoised or of the noisy pair, change nothing. What
    is within about a window's width of something else is seen mixed with it.

    Args:
        half_map_1: `(z, y, x)`, finite, on one scale with `half_map_2`; not masked, or masked more widely than `mask`.
        half_map_2: the same shape, as are all that follow.
        denoised_1: made from `half_map_1` alone.
        denoised_2: made from `half_map_2` alone, in the same way.
        voxel_size: Å.
        mask: 0 to 1.
        window: Å, full width at half maximum; 3 times the FSC-0.143 resolution, at least 7 voxels, if None.

    Raises:
        UserError: the window is no length above 0 Å.
        ValueError: the shapes differ.
    """
    shapes = {one.shape for one in (half_map_1, half_map_2, denoised_1, denoised_2, mask)}
    if len(shapes) != 1 or len(mask.shape) != 3:
        raise ValueError(f"maps of one box and its mask are compared, found the shapes {sorted(shapes)}")
    if window is not None and not (math.isfinite(window) and window > 0):
        raise UserError(f"local map: expected a window above 0 Å, found {window:g}; leave it out to have it chosen")
    noisy = [_Standard.of(one, half_map_1, half_map_2) for one in (half_map_1, half_map_2)]
    denoised = [_Standard.of(one, denoised_1, denoised_2) for one in (denoised_1, denoised_2)]
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


class _Standard(NamedTuple):
    """A map with mean 0 on a scale common to its pair, which is made when it is needed."""

    array: np.ndarray
    mean: float
    scale: float

    @classmethod
    def of(cls, array, *pair):
        """A pair that is constant but for rounding counts as constant: it has the scale 0."""
        scales = []
        for one in pair:
            low, high = float(one.min()), float(one.max())
            scales.append(high - low if high - low > 1e-6 * max(abs(low), abs(high)) else 0.0)
        return cls(array, float(array.mean(dtype=np.float64)), max(scales))

    def spectrum(self, mask=None):
        """Half-spectrum, complex64, of the map times the mask."""
        if not self.scale:
            return np.zeros((*self.array.shape[:2], self.array.shape[2] // 2 + 1), np.complex64)
        one = (self.array - np.float32(self.mean)).astype(np.float32, copy=False)
        one /= np.float32(self.scale)
        if mask is not None:
            one *= mask
        return scipy.fft.rfftn(one, workers=_WORKERS, overwrite_x=True)


class _Filters(NamedTuple):
    """Factors for every shell, the last of them, 0, for what belongs to none.

    Attributes:
        bands: two, that flatten the signal, for agreement.
        flat: flattens it up to the resolution, for change.
        independent: how many independent values the noise has in the box after `flat`.
        resolution: Å.
    """

    bands: list[np.ndarray]
    flat: np.ndarray
    independent: float
    resolution: float


def _filters(noisy, mask, voxel_size):
    """The filters from the masked half-maps; None where these agree too little."""
    m1, m2 = (one.spectrum(mask) for one in noisy)
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
    bands = [flatten * np.sqrt(one) for one in (upto_half, upto * (1 - upto_half))]
    flat = flatten * np.sqrt(upto)
    noise = np.maximum(power - signal, 0) * flat**2
    voxels = _sums(*[np.broadcast_to(np.complex64(1), m1.shape)] * 2, mask.shape)
    squares = np.divide(noise**2, voxels, out=np.zeros_like(noise), where=voxels > 0).sum()
    independent = noise.sum() ** 2 / squares if squares > 0 else voxels[:-1].sum()
    return _Filters(bands, flat, float(independent), float(resolution))


def _gain(noisy, denoised, agreement):
    """For every shell, what brings the denoised maps to the scale of the noisy ones where they agree."""
    (m1, m2), (d1, d2) = ([one.spectrum(agreement) for one in pair] for pair in (noisy, denoised))
    common = _sums(d1, d2, agreement.shape)
    fit = (_sums(d1, m2, agreement.shape) + _sums(d2, m1, agreement.shape)) / 2
    there = common > 1e-12 * common.max(initial=0)
    return np.maximum(np.divide(fit, common, out=np.zeros_like(fit), where=there), 0)


def _sums(a, b, shape):
    """Sums over shells of `Re a conj(b)`, plane by plane, in float64; the last is what belongs to no shell."""
    shells = box_shells(shape)
    total = np.zeros(shells.count + 1)
    for index, one, other in zip(shells.index, a, b, strict=True):
        product = (one.real * other.real + one.imag * other.imag) * shells.weight
        total += np.bincount(index.ravel(), product.ravel(), minlength=shells.count + 1)
    return total


class _View:
    """Filtered maps where the mask is, and windows' means of them."""

    def __init__(self, filters: _Filters, mask: np.ndarray, sigma: float):
        self.filters, self.sigma, self.shape = filters, sigma, mask.shape
        self.index = box_shells(mask.shape).index
        # Outside the mask there is nothing to sum, so that only the smallest box around it is looked at.
        spans = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
        self.where = tuple(slice(span[0], span[-1] + 1) for span in spans)
        self.mask = mask[self.where].astype(np.float32, copy=False)

    def filtered(self, *parts):
        """A sum of maps, each with a factor for every shell, times the mask."""
        total = 0
        for one, factors in parts:
            spectrum = one.spectrum()
            spectrum *= factors.astype(np.float32)[self.index]
            total = np.add(total, spectrum, out=spectrum)
        array = scipy.fft.irfftn(total, s=self.shape, workers=_WORKERS, overwrite_x=True)
        return array[self.where] * self.mask

    def mean(self, values):
        """The window's mean at every voxel; overwrites the values, a half of them in each of two threads."""
        with ThreadPoolExecutor(_WORKERS) as pool:
            for axis in range(3):
                halves = np.array_split(values, _WORKERS, axis=(axis + 1) % 3)
                list(pool.map(lambda half, axis=axis: self._blur(half, axis), halves))
        return values

    def _blur(self, part, axis):
        if part.size:
            ndimage.gaussian_filter1d(part, self.sigma, axis, output=part, mode="constant", truncate=_TRUNCATE)


def _agreement(view, noisy, denoised, band):
    """Agreement in one band; see the top."""
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
    for one in (cross, noisy_power, denoised_power, signal):
        view.mean(one)
    allowed = _allowed(signal, noisy_power)
    denoised_power += np.float32(floor)
    denoised_power *= noisy_power
    return _quotient(cross, np.sqrt(denoised_power, out=denoised_power), 1 / allowed)


def _allowed(signal, noisy_power):
    """The correlation that noise allows where the signal is; see the top. The power is that of both."""
    strength = np.maximum(signal, 0).ravel()
    whole = float(np.vdot(strength, noisy_power)) / 2
    return math.sqrt(max(float(np.vdot(strength, strength)) / whole if whole > 0 else 0.0, _LEAST_FSC))


def _change(view, noisy, denoised, gain):
    """How much of the structure was changed; see the top."""
    flat, gain = view.filters.flat, view.filters.flat * gain
    # Of the noise's independent values, those in a window: a Gaussian one counts as (4 pi sigma²)^(3/2) voxels.
    independent = view.filters.independent * (4 * math.pi * view.sigma**2) ** 1.5 / math.prod(view.shape)
    first, second = (view.filtered((one, flat)) for one in noisy)
    structure = first * second
    noise = np.square(np.subtract(first, second, out=first), out=first)
    noise *= np.float32(_SURE / 2 / math.sqrt(independent))
    view.mean(noise)
    del first, second
    structure += np.multiply(*(view.filtered((one, gain)) for one in denoised))
    np.maximum(view.mean(structure), 0, out=structure)
    structure += noise
    del noise
    parts = (view.filtered((one, flat), (other, -gain)) for one, other in zip(noisy, denoised, strict=True))
    return _quotient(view.mean(np.multiply(*parts)), structure, 1.0)


def _quotient(part, whole, factor):
    """`factor * part / whole` within 0 to 1, and 0 where there is nothing to divide by; overwrites the part."""
    np.divide(part, whole, out=part, where=whole > 0)
    part[~(whole > 0)] = 0
    part *= np.float32(factor)
    return np.clip(part, 0, 1, out=part)
