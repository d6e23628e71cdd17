"""Plain filters to compare a denoiser with: functions of arrays `(z, y, x)`, float32, and of the half-maps' FSC.

Where the FSC is asked for, it is that of the two half-maps under the mask (`crefjax.spectral.fsc.fsc_curve`), and
"where it falls below 0.143" is the first shell at which it does. The mean of a map is kept.
"""

import numpy as np
import scipy.fft
from scipy.ndimage import fourier_gaussian
from scipy.special import erf

from crefjax.errors import UserError
from crefjax.masking.threshold import noise_sigma
from crefjax.spectral.curves import FscCurve, solvent_level
from crefjax.spectral.shells import filter_shells
from crefjax.spectral.windows import raised_cosine

CUT = 0.143
EDGE = 2.0  # shells over which a low-pass falls from 1 to 0
PATCH, DISTANCE, STRENGTH = 5, 3, 0.6  # of the non-local means: voxels, voxels, and in deviations of the noise


def wiener(one: np.ndarray, curve: FscCurve, *, half: bool = False) -> np.ndarray:
    """The Wiener filter, signal / (signal + noise) in every shell, 0 from where the FSC falls below 0.143.

    With the same signal S and noise of power N in each half-map their FSC is S / (S + N), which is the factor of a
    half-map. The full map has half of that noise: its factor is S / (S + N / 2) = 2 FSC / (1 + FSC), which is C_ref²
    (Rosenthal & Henderson 2003).

    Args:
        one: the full map, or a half-map.
        curve: FSC of the half-maps.
        half: whether `one` is a half-map.
    """
    return filter_shells(one, wiener_factors(curve.fsc, half=half))


def wiener_factors(fsc: np.ndarray, *, half: bool = False) -> np.ndarray:
    """The factors of `wiener`, `(shells,)`."""
    fsc = np.clip(np.asarray(fsc, np.float64), 0, 1)
    factors = fsc.copy() if half else 2 * fsc / (1 + fsc)
    below = np.flatnonzero(fsc[1:] < CUT) + 1
    if len(below):
        factors[below[0] :] = 0
    factors[0] = 1
    return factors


def lowpass(one: np.ndarray, curve: FscCurve) -> np.ndarray:
    """A low-pass at the resolution at which the FSC falls below 0.143; at the Nyquist limit if it never does.

    A raised cosine in amplitude over two shells, a half at the resolution.
    """
    return filter_shells(one, lowpass_factors(len(curve.fsc), _shell_of_cut(curve)))


def lowpass_factors(shells: int, shell: float, width: float = EDGE) -> np.ndarray:
    """The factors of a low-pass at a shell, which need be no whole number; `(shells,)`, that of shell 0 is 1."""
    factors = raised_cosine((np.arange(shells) - shell) / width + 0.5)
    factors[0] = 1
    return factors


def gaussian(one: np.ndarray, voxel_size: float, sigma: float) -> np.ndarray:
    """A Gaussian blur.

    Args:
        one: the map.
        voxel_size: Å.
        sigma: standard deviation in real space, Å; see `gaussian_sigma`.
    """
    spectrum = scipy.fft.rfftn(np.asarray(one, np.float32), workers=-1)
    fourier_gaussian(spectrum, sigma / voxel_size, n=one.shape[2], output=spectrum)
    return scipy.fft.irfftn(spectrum, s=one.shape, workers=-1, overwrite_x=True)


def gaussian_sigma(curve: FscCurve) -> float:
    """Å; its Gaussian in Fourier space, `exp(-2 (pi sigma f)²)`, is a half at the resolution of FSC 0.143."""
    return float(np.sqrt(np.log(2) / 2) / np.pi * curve.resolution(CUT).angstrom)


def nonlocal_means(
    one: np.ndarray, noise: float, *, patch: int = PATCH, distance: int = DISTANCE, strength: float = STRENGTH
) -> np.ndarray:
    """Non-local means (Buades, Coll & Morel 2005) in three dimensions, as scikit-image has them, in their fast mode.

    They take noise to be white and even; that of a reconstruction is neither. The fast mode compares cubes a voxel
    short of the patch's side, and divides by the patch's volume. The defaults served two simulated maps with white
    noise best, of the few that were tried.

    Args:
        one: the map.
        noise: standard deviation of its noise, in its units; see `noise_of`.
        patch: side of the patches that are compared, voxels.
        distance: how far they are looked for, voxels.
        strength: how unlike a patch may be, in deviations of the noise.

    Raises:
        UserError: scikit-image is not installed, or there is no noise.
    """
    try:
        from skimage.restoration import denoise_nl_means
    except ImportError as error:
        raise UserError(
            'nonlocal_means: needs scikit-image, which is not installed; `pip install "crefjax[analysis]"`, or leave '
            "this method out"
        ) from error
    if not noise > 0:
        raise UserError(f"nonlocal_means: expected half-maps with noise, found a deviation of {noise:g}; check them")
    mean = one.mean(dtype=np.float64)
    scaled = np.subtract(one, mean, dtype=np.float64).astype(np.float32) / np.float32(noise)
    out = denoise_nl_means(
        scaled, patch_size=patch, patch_distance=distance, h=strength, sigma=1.0, fast_mode=True, preserve_range=True
    )
    return (out * noise + mean).astype(np.float32)


def noise_of(half_map_1: np.ndarray, half_map_2: np.ndarray, *, half: bool = False) -> float:
    """Standard deviation of the noise in the full map, or in a half-map, where it has twice the power."""
    # Of voxels of 1, a low-pass at half a voxel lets all of the box's Fourier space through as it is.
    return noise_sigma(half_map_1, half_map_2, 1.0, 0.5) * (np.sqrt(2) if half else 1)


def lafter_like(half_map_1: np.ndarray, half_map_2: np.ndarray, mask: np.ndarray, curve: FscCurve) -> np.ndarray:
    """A filter by local agreement of half-maps after the description of LAFTER; for LAFTER itself, see `programs.py`.

    Ramlaul, Palmer & Aylett, J. Struct. Biol. 205, 30 (2019): two passes over the masked half-maps. The first goes
    through bands of frequency up to where the FSC falls below 0.143, and weighs every voxel of each half-map's band
    with the probability that noise would be smaller, the noise being Gaussian with the deviation that the difference of
    the half-maps shows within the mask. The second goes back from high to low resolution: a voxel takes the mean of the
    weighted half-maps, low-passed at the highest resolution at which it exceeds the largest noise seen in the mask. The
    result is low-passed at the resolution of FSC 0.143.

    Every band is divided by the deviation that its signal has in the mask, or its noise if that is larger: LAFTER's own
    maps have such a flat spectrum. So the result is not on the density's scale, and looks sharpened. Simpler than
    LAFTER, so that results differ: bands an eighth of their frequency wide, with cosine edges of a half of it, where
    LAFTER adapts its steps to the signal; the mean of the half-maps is what has to exceed the noise; no correction of
    overfitting, no upsampling. Edges and scale were chosen of eight ways by the FSC to the truth of two simulated
    entries, where LAFTER's own scores were known; the results correlate with LAFTER's maps by 0.95 and 0.91.

    Args:
        half_map_1: one half-map.
        half_map_2: the other.
        mask: 0 to 1.
        curve: their FSC under it.

    Returns:
        The denoised full map, masked; 0 where nothing exceeds the noise.
    """
    shells, edges = len(curve.fsc), _band_edges(_shell_of_cut(curve))
    lows = [_without_mean(lowpass_factors(shells, edge, max(EDGE, edge / 2))) for edge in edges]
    halves = [(one - np.float32(solvent_level(one, mask))) * mask for one in (half_map_1, half_map_2)]
    weighted = [np.zeros(mask.shape, np.float32) for _ in halves]
    for below, low in zip([np.zeros(shells), *lows], lows, strict=False):
        bands = [filter_shells(one, low - below) for one in halves]
        noise = np.average(np.square(bands[0] - bands[1], dtype=np.float64), weights=mask) / 2
        signal = np.average(np.multiply(*bands, dtype=np.float64), weights=mask)
        scale = np.float32(1 / np.sqrt(max(signal, noise) or 1.0))  # both are 0 in a band without power
        for total, band in zip(weighted, bands, strict=True):
            total += scale * band * _probability_smaller(band, np.sqrt(noise))
    halves = [one * mask for one in weighted]
    out, left = np.zeros(mask.shape, np.float32), mask > 0
    for low in reversed(lows):
        first, second = (filter_shells(one, low) for one in halves)
        mean, noise = (first + second) / 2, np.abs(first - second) / 2
        found = left & (np.abs(mean) > noise[mask > 0].max())
        out[found] = mean[found]
        left &= ~found
    return filter_shells(out * mask, lows[-1]) * mask


def _probability_smaller(band, deviation):
    """Of Gaussian noise of that deviation, the share that is smaller than each voxel."""
    if deviation == 0:
        return np.ones_like(band)
    return erf(np.abs(band) / np.float32(np.sqrt(2) * deviation))


def _band_edges(last):
    """Upper edges of the bands, in shells, up to the last; each an eighth above the one before, or a shell."""
    edges = [min(2.0, last)]
    while edges[-1] < last:
        following = edges[-1] + max(edges[-1] / 8, 1.0)
        edges.append(following if following < last - 0.5 else last)
    return edges


def _without_mean(factors):
    return np.concatenate([[0.0], factors[1:]])


def _shell_of_cut(curve):
    """Where the FSC falls below 0.143, in shells."""
    return max(curve.box) * curve.voxel_size / curve.resolution(CUT).angstrom
