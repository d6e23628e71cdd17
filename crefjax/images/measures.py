"""Measures of denoised images: error against the signal; signal, noise, and bias per ring; and particles found.

An image is a map of one section, so covariances and variances per ring, and ring correlations, are those of
`crefjax.spectral`, summed over images. All functions take NumPy arrays `(y, x)` or stacks `(images, y, x)`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage, signal
from scipy.optimize import linear_sum_assignment

from crefjax.errors import UserError
from crefjax.spectral.covariances import Covariances, shell_covariances
from crefjax.utils.statistics import robust_std

_COVERED = 0.0125, 0.6  # share of a circle of a particle's diameter as radius that its bright pixels cover
_SSIM_WINDOW = 7  # pixels, as scikit-image's default


def ring_covariances(images: Iterable[Sequence[np.ndarray]], mask: np.ndarray | None = None) -> Covariances:
    """Return the covariances per ring of several kinds of images, averaged over all images.

    Args:
        images: for each image its kinds, such as both halves and both denoised halves, each `(y, x)`.
        mask: `(y, x)`, 0 to 1; None for none.

    Returns:
        covariances whose degrees of freedom are those of all images together; `variances_from` takes those of halves
        and denoised halves.

    Raises:
        ValueError: there are no images, or shapes differ.
    """
    mask = None if mask is None else np.asarray(mask, np.float32)[np.newaxis]
    total, count = None, 0
    for kinds in images:
        found = shell_covariances([np.asarray(kind, np.float32)[np.newaxis] for kind in kinds], mask)
        total = found if total is None else replace(total, matrix=total.matrix + found.matrix)
        count += 1
    if total is None:
        raise ValueError("expected at least one image")
    return replace(total, matrix=total.matrix / count, voxels=total.voxels * count, dof=total.dof * count)


def ring_correlation(images: Iterable[np.ndarray], others: Iterable[np.ndarray]) -> np.ndarray:
    """Return the Fourier ring correlation of two stacks, `(rings,)`: a quotient of sums over rings and images."""
    return ring_covariances(zip(images, others, strict=True)).fsc(0, 1)


def least_squares_scale(image: np.ndarray, clean: np.ndarray) -> tuple[float, float]:
    """Return the factor and the level that bring an image nearest to the clean one.

    Denoisers differ in the scale of their output; after this match, an error is one of shape.
    """
    x, y = (np.asarray(array, np.float64).ravel() for array in (image, clean))
    deviation = x - x.mean()
    power = float(deviation @ deviation)
    factor = float(deviation @ (y - y.mean())) / power if power > 0 else 0.0
    return factor, float(y.mean() - factor * x.mean())


def mse(image: np.ndarray, clean: np.ndarray) -> float:
    """Return the mean squared error."""
    return float(np.mean(np.square(np.subtract(image, clean, dtype=np.float64))))


def mae(image: np.ndarray, clean: np.ndarray) -> float:
    """Return the mean absolute error."""
    return float(np.mean(np.abs(np.subtract(image, clean, dtype=np.float64))))


def psnr(image: np.ndarray, clean: np.ndarray, value_range: float) -> float:
    """Return the peak signal-to-noise ratio, `10 log10(range² / MSE)`, dB; infinite for equal images.

    Args:
        image: `(y, x)`.
        clean: the same shape.
        value_range: of the values, on which the number depends: 1 or 255 for images scaled to it, or the clean
            image's own range.
    """
    error = mse(image, clean)
    return float("inf") if error == 0 else float(10 * np.log10(value_range**2 / error))


def ssim(image: np.ndarray, other: np.ndarray, value_range: float, *, k1: float = 0.01, k2: float = 0.03) -> float:
    """Return the structural similarity of two images (Wang et al. 2004).

    Mean over all windows of 7x7 pixels within the image of

        (2 m1 m2 + c1) (2 s12 + c2) / ((m1² + m2² + c1) (s1² + s2² + c2)),    c1 = (k1 L)²,  c2 = (k2 L)²,

    with means m, variances s² and covariance s12 with the divisor 48, as scikit-image has it.

    Args:
        image: `(y, x)`, at least 7 pixels a side.
        other: the same shape.
        value_range: L, of the values.
        k1: of the means.
        k2: of the variances.

    Raises:
        ValueError: the shapes differ, or are too small.
    """
    if np.shape(image) != np.shape(other) or min(np.shape(image)) < _SSIM_WINDOW:
        raise ValueError(
            f"expected images of one shape of at least 7 pixels, found {np.shape(image)}, {np.shape(other)}"
        )
    a, b = (np.asarray(array, np.float64) for array in (image, other))
    count = _SSIM_WINDOW**2
    edge = _SSIM_WINDOW // 2
    inner = (slice(edge, -edge),) * 2

    def mean(values):
        return ndimage.uniform_filter(values, _SSIM_WINDOW)[inner]

    m1, m2 = mean(a), mean(b)
    sample = count / (count - 1)
    v1, v2, v12 = (sample * (mean(x * y) - m * n) for x, y, m, n in ((a, a, m1, m1), (b, b, m2, m2), (a, b, m1, m2)))
    c1, c2 = (k1 * value_range) ** 2, (k2 * value_range) ** 2
    return float(np.mean((2 * m1 * m2 + c1) * (2 * v12 + c2) / ((m1**2 + m2**2 + c1) * (v1 + v2 + c2))))


def region_snr(image: np.ndarray, pairs: Sequence[tuple[tuple[slice, slice], tuple[slice, slice]]]) -> float:
    """Return the signal-to-noise ratio of pairs of regions, dB.

    `10 / N sum log10(s_i / v_i)`, with the variance `v_i` of a region of background, and the mean square `s_i` of a
    region of signal about that background's mean. Bepler et al. 2020 (Topaz-Denoise) use it with regions marked by
    hand, and Li et al. 2022 (NT2C, equation 5) compare with their numbers. It needs no truth, and any filter that
    flattens the background raises it.

    Args:
        image: `(y, x)`; neither scale nor sign matter.
        pairs: of regions of signal and of background, rows and columns.

    Raises:
        UserError: there are no pairs, or a background is constant.
    """
    if not pairs:
        raise UserError("images: expected at least one pair of signal and background, found none")
    ratios = []
    for inner, background in pairs:
        around = np.asarray(image[background], np.float64)
        if not around.var() > 0:
            raise UserError("images: expected noise in the background, found a constant region; choose another")
        inside = np.asarray(image[inner], np.float64)
        ratios.append(np.log10(np.mean(np.square(inside - around.mean())) / around.var()))
    return float(10 * np.mean(ratios))


def known_regions(
    places: np.ndarray, shape: tuple[int, int], side: int, clean: np.ndarray, count: int = 10
) -> list[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Return pairs of regions of a simulated micrograph: particles, and for each the nearest square without signal.

    Args:
        places: `(particles, 2)`, `(y, x)`, pixels.
        shape: `(y, x)` of the micrograph.
        side: of the squares, pixels.
        clean: `(y, x)`, the signal.
        count: largest number of pairs.
    """
    power = ndimage.uniform_filter(np.square(np.asarray(clean, np.float64)), side)
    half = side // 2
    inside = np.zeros(shape, bool)
    inside[half : shape[0] - half, half : shape[1] - half] = True
    quiet = inside & (power <= np.quantile(power[inside], 0.2))
    candidates = np.argwhere(quiet)[:: max(1, int(quiet.sum()) // 2000)]
    pairs = []
    for place in np.round(places).astype(int):
        if len(pairs) == count or not inside[tuple(np.clip(place, 0, np.array(shape) - 1))] or not len(candidates):
            continue
        near = candidates[np.linalg.norm(candidates - place, axis=1).argmin()]
        pairs.append(tuple(tuple(slice(at - half, at - half + side) for at in middle) for middle in (place, near)))
    return pairs


@dataclass(frozen=True)
class Found:
    """Particles found in a micrograph, compared with the known places.

    Attributes:
        precision: share of the found places that are particles; 0 if none are found.
        recall: share of the particles that are found; 0 if there are none.
        threshold: see `find_particles`.
        places: `(n, 2)`, `(y, x)`, pixels.
    """

    precision: float
    recall: float
    threshold: float
    places: np.ndarray

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


def find_particles(image: np.ndarray, diameter: float, threshold: float, *, most: int = 4000) -> np.ndarray:
    """Find bright particles by the mean shift (Comaniciu & Meer 2002) of the bright pixels, as scikit-learn has it.

    The image is blurred by an eighth of the diameter less a blur by all of it, so that slow changes of the ice do not
    count, and the pixels above the threshold are moved to the modes of their density. A mode counts if the bright
    pixels within a diameter of it cover 1.25 % to 60 % of that circle: neither specks nor the edges of large things.

    Args:
        image: `(y, x)`, particles bright.
        diameter: of the particles, pixels.
        threshold: above the median, in standard deviations estimated by the median absolute deviation: carbon and
            crystals are outliers.
        most: largest number of pixels to use, evenly spread; mean shift is slow.

    Returns:
        `(n, 2)`, `(y, x)`.

    Raises:
        UserError: scikit-learn is not installed.
    """
    try:
        from sklearn.cluster import MeanShift
    except ImportError as error:
        raise UserError("images: finding particles needs scikit-learn; pip install 'crefjax[images]'") from error
    image = np.asarray(image, np.float32)
    band = ndimage.gaussian_filter(image, diameter / 8) - ndimage.gaussian_filter(image, diameter)
    bright = band > np.median(band) + threshold * robust_std(band)
    if not bright.any():
        return np.zeros((0, 2))
    pixels = np.argwhere(bright)
    pixels = pixels[:: -(-len(pixels) // most)]
    shift = MeanShift(bandwidth=diameter / 2, bin_seeding=True, min_bin_freq=2, cluster_all=True)
    try:
        shift.fit(pixels)
    except ValueError:  # no bin holds enough pixels
        return np.zeros((0, 2))
    y, x = np.indices((2 * round(diameter) + 1,) * 2) - round(diameter)
    circle = (np.hypot(y, x) <= diameter).astype(np.float32)
    covered = signal.fftconvolve(bright.astype(np.float32), circle / circle.sum(), mode="same")
    at = covered[tuple(np.round(shift.cluster_centers_).astype(int).T)]
    return shift.cluster_centers_[(at >= _COVERED[0]) & (at <= _COVERED[1])]


def compare_places(found: np.ndarray, known: np.ndarray, distance: float) -> tuple[float, float]:
    """Return precision and recall of places, each matched to at most one known place within a distance, pixels."""
    if not len(found) or not len(known):
        return 0.0, 0.0
    apart = np.linalg.norm(np.asarray(found)[:, np.newaxis] - np.asarray(known)[np.newaxis], axis=-1)
    near = apart <= distance
    rows, columns = linear_sum_assignment(np.where(near, apart, 1e6))
    matched = int(near[rows, columns].sum())
    return matched / len(found), matched / len(known)


def best_found(
    image: np.ndarray, known: np.ndarray, diameter: float, thresholds: Sequence[float] = (2.0, 2.5, 3.0, 4.0, 5.0, 6.0)
) -> Found:
    """Find particles at several thresholds, and return the comparison with the largest F1.

    Args:
        image: `(y, x)`, particles bright.
        known: `(n, 2)`, `(y, x)`, pixels; a place within half a diameter is the same particle.
        diameter: pixels.
        thresholds: see `find_particles`.
    """
    results = []
    for threshold in thresholds:
        places = find_particles(image, diameter, threshold)
        results.append(Found(*compare_places(places, known, diameter / 2), threshold, places))
    return max(results, key=lambda result: result.f1)
