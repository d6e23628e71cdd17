"""Plain filters to compare a denoiser with: functions of arrays `(z, y, x)`, float32, and of the half-maps' FSC.

The FSC is that of the two half-maps under the mask (`crefjax.spectral.fsc.fsc_curve`), and "where it falls below
0.143" is the first shell at which it does. The mean of a map is kept.
"""

import numpy as np
import scipy.fft
from scipy.ndimage import fourier_gaussian
from scipy.special import erf

from crefjax.errors import UserError
from crefjax.masking.threshold import noise_sigma
from crefjax.spectral.curves import FscCurve, first_shell_below, solvent_level
from crefjax.spectral.shells import filter_shells
from crefjax.spectral.windows import raised_cosine

CUT = 0.143
EDGE = 2.0  # shells over which a low-pass falls from 1 to 0
PATCH, DISTANCE, STRENGTH = 5, 3, 0.6  # of the non-local means: voxels, voxels, and in standard deviations of the noise


def wiener(array: np.ndarray, curve: FscCurve, *, half: bool = False) -> np.ndarray:
    """Apply the Wiener filter, signal / (signal + noise) in every shell, 0 from where the FSC falls below 0.143.

    With the same signal S and noise of power N in each half-map their FSC is S / (S + N), which is the factor of a
    half-map. The full map has half of that noise: its factor is S / (S + N / 2) = 2 FSC / (1 + FSC), which is C_ref²
    (Rosenthal & Henderson 2003).

    Args:
        array: the full map, or a half-map.
        curve: FSC of the half-maps.
        half: whether `array` is a half-map.
    """
    return filter_shells(array, wiener_factors(curve.fsc, half=half))


def wiener_factors(fsc: np.ndarray, *, half: bool = False) -> np.ndarray:
    """Return the factors of `wiener`, `(shells,)`."""
    fsc = np.clip(np.asarray(fsc, np.float64), 0, 1)
    factors = fsc.copy() if half else 2 * fsc / (1 + fsc)
    if (shell := first_shell_below(fsc, CUT)) is not None:
        factors[shell:] = 0
    factors[0] = 1
    return factors


def lowpass(array: np.ndarray, curve: FscCurve) -> np.ndarray:
    """Low-pass a map at the resolution at which the FSC falls below 0.143; at the Nyquist limit if it never does.

    A raised cosine in amplitude over two shells, a half at the resolution.
    """
    return filter_shells(array, lowpass_factors(len(curve.fsc), _shell_of_cut(curve)))


def lowpass_factors(shells: int, shell: float, width: float = EDGE) -> np.ndarray:
    """Return the factors of a low-pass at a shell, not necessarily a whole number; `(shells,)`, 1 in shell 0."""
    factors = raised_cosine((np.arange(shells) - shell) / width + 0.5)
    factors[0] = 1
    return factors


def gaussian(array: np.ndarray, voxel_size: float, sigma: float) -> np.ndarray:
    """Blur a map with a Gaussian.

    Args:
        array: the map.
        voxel_size: Å.
        sigma: standard deviation in real space, Å; see `gaussian_sigma`.
    """
    spectrum = scipy.fft.rfftn(np.asarray(array, np.float32), workers=-1)
    fourier_gaussian(spectrum, sigma / voxel_size, n=array.shape[2], output=spectrum)
    return scipy.fft.irfftn(spectrum, s=array.shape, workers=-1, overwrite_x=True)


def gaussian_sigma(curve: FscCurve) -> float:
    """Return the sigma (Å) whose Gaussian in Fourier space, `exp(-2 (pi sigma f)²)`, is a half at FSC 0.143."""
    return float(np.sqrt(np.log(2) / 2) / np.pi * curve.resolution(CUT).angstrom)


def nonlocal_means(
    array: np.ndarray, noise: float, *, patch: int = PATCH, distance: int = DISTANCE, strength: float = STRENGTH
) -> np.ndarray:
    """Apply non-local means (Buades, Coll & Morel 2005) in three dimensions, in scikit-image's fast mode.

    They assume white and even noise; that of a reconstruction is neither. The fast mode compares cubes a voxel
    smaller than the patch, and divides by the patch's volume. Of the few settings that were tried, the defaults were
    best for two simulated maps with white noise.

    Args:
        array: the map.
        noise: standard deviation of its noise, in its units; see `noise_of`.
        patch: side of the patches that are compared, voxels.
        distance: to which they are searched, voxels.
        strength: allowed difference of patches, in standard deviations of the noise.

    Raises:
        UserError: scikit-image is not installed, or the noise is 0.
    """
    try:
        from skimage.restoration import denoise_nl_means
    except ImportError as error:
        raise UserError(
            'nonlocal_means: needs scikit-image, which is not installed; `pip install "crefjax[analysis]"`, or leave '
            "this method out"
        ) from error
    if not noise > 0:
        raise UserError(
            f"nonlocal_means: expected half-maps with noise, found a standard deviation of {noise:g}; check them"
        )
    mean = array.mean(dtype=np.float64)
    scaled = np.subtract(array, mean, dtype=np.float64).astype(np.float32) / np.float32(noise)
    out = denoise_nl_means(
        scaled, patch_size=patch, patch_distance=distance, h=strength, sigma=1.0, fast_mode=True, preserve_range=True
    )
    return (out * noise + mean).astype(np.float32)


def noise_of(half_map_1: np.ndarray, half_map_2: np.ndarray, *, half: bool = False) -> float:
    """Return the standard deviation of the noise in the full map, or in a half-map, where it has twice the power."""
    # With voxels of 1, a low-pass at half a voxel changes nothing in the box's Fourier space.
    return noise_sigma(half_map_1, half_map_2, 1.0, 0.5) * (np.sqrt(2) if half else 1)


def lafter_like(half_map_1: np.ndarray, half_map_2: np.ndarray, mask: np.ndarray, curve: FscCurve) -> np.ndarray:
    """Filter by local agreement of half-maps after the description of LAFTER; for LAFTER itself, see `external.py`.

    Ramlaul, Palmer & Aylett, J. Struct. Biol. 205, 30 (2019): two passes over the masked half-maps. The first goes
    through bands of frequency up to where the FSC falls below 0.143, and weighs every voxel of each half-map's band
    with the probability that noise would be smaller, the noise being Gaussian with the standard deviation that the
    difference of the half-maps shows within the mask. The second goes back from high to low resolution: a voxel takes
    the mean of the weighted half-maps, low-passed at the highest resolution at which it exceeds the largest noise seen
    in the mask. The result is low-passed at the resolution of FSC 0.143.

    Every band is divided by the standard deviation of its signal in the mask, or of its noise if that is larger:
    LAFTER's own maps have such a flat spectrum. So the result is not on the density's scale, and looks sharpened.
    Simpler than LAFTER, so that results differ: bands an eighth of their frequency wide, with cosine edges of a half of
    it, where LAFTER adapts its steps to the signal; the mean of the half-maps has to exceed the noise; no correction of
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
    halves = [(array - np.float32(solvent_level(array, mask))) * mask for array in (half_map_1, half_map_2)]
    weighted = [np.zeros(mask.shape, np.float32) for _ in halves]
    for below, low in zip([np.zeros(shells), *lows], lows, strict=False):
        bands = [filter_shells(array, low - below) for array in halves]
        noise = np.average(np.square(bands[0] - bands[1], dtype=np.float64), weights=mask) / 2
        signal = np.average(np.multiply(*bands, dtype=np.float64), weights=mask)
        scale = np.float32(1 / np.sqrt(max(signal, noise) or 1.0))  # both are 0 in a band without power
        for total, band in zip(weighted, bands, strict=True):
            total += scale * band * _probability_smaller(band, np.sqrt(noise))
    halves = [array * mask for array in weighted]
    out, left = np.zeros(mask.shape, np.float32), mask > 0
    for low in reversed(lows):
        first, second = (filter_shells(array, low) for array in halves)
        mean, noise = (first + second) / 2, np.abs(first - second) / 2
        reached = left & (np.abs(mean) > noise[mask > 0].max())
        out[reached] = mean[reached]
        left &= ~reached
    return filter_shells(out * mask, lows[-1]) * mask


def _probability_smaller(band, std):
    """Return the share of Gaussian noise of a standard deviation that is smaller than each voxel."""
    if std == 0:
        return np.ones_like(band)
    return erf(np.abs(band) / np.float32(np.sqrt(2) * std))


def _band_edges(last):
    """Return upper edges of the bands, in shells, up to the last; each an eighth above the one before, or a shell."""
    edges = [min(2.0, last)]
    while edges[-1] < last:
        following = edges[-1] + max(edges[-1] / 8, 1.0)
        edges.append(following if following < last - 0.5 else last)
    return edges


def _without_mean(factors):
    return np.concatenate([[0.0], factors[1:]])


def _shell_of_cut(curve):
    """Return where the FSC falls below 0.143, in shells."""
    return max(curve.box) * curve.voxel_size / curve.resolution(CUT).angstrom
