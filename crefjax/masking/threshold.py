"""The density at which a particle begins: the low-passed full map, its noise, its contrast, and the level between."""

import math

import numpy as np
import scipy.fft

from crefjax.errors import UserError
from crefjax.spectral.windows import raised_cosine
from crefjax.utils.statistics import robust_std

# The automatic level stands this far above the solvent: NOISE_SIGMAS standard deviations of the low-passed
# noise (so that hardly any voxel of noise is above it), or PARTICLE_FRACTION of the particle's mean density
# (so that with little noise, ringing and traces of neighbors are below it), whichever is more.
NOISE_SIGMAS = 4.0
PARTICLE_FRACTION = 0.2

FILTER_EDGE = 0.3  # the low-pass falls from 1 to 0 between 0.7 and 1.3 times the cutoff
INVERTED_SKEWNESS = -1.0  # particles in light solvent have +1 to +5 in a low-passed map
SAMPLES = 4_000_000  # voxels that statistics are taken from
WORKERS = 2
INVERTED_CONTRAST = (
    "the particle appears darker than the solvent (inverted contrast), and the networks were trained on the opposite; "
    "multiply the input by -1"
)
NO_PARTICLE = (
    "mask: expected a particle, found nothing that stands out of the noise of these half-maps; check that they are a "
    "pair, or give a threshold or a coarser low-pass"
)
_COARSE = 8.0  # Å, size of the blocks over which noise is averaged, or a sixteenth of the box


def low_pass(volume: np.ndarray, voxel_size: float, resolution: float) -> np.ndarray:
    """Low-pass a float32 volume `(z, y, x)`, whose memory may be overwritten.

    The filter is a raised cosine in amplitude: 1 up to 0.7 / resolution, 0.5 at 1 / resolution, 0 from 1.3 / resolution
    on (1/Å). The edge is wider than RELION's two Fourier voxels, because a steep one rings around the particle.
    """
    spectrum = scipy.fft.rfftn(volume, workers=WORKERS, overwrite_x=True)
    z, y = (np.square(scipy.fft.fftfreq(n, voxel_size)) for n in volume.shape[:2])
    x = np.square(scipy.fft.rfftfreq(volume.shape[2], voxel_size))
    for plane, z_square in zip(spectrum, z, strict=True):
        distance = np.sqrt(z_square + y[:, None] + x) * resolution
        plane *= raised_cosine((distance - 1 + FILTER_EDGE) / (2 * FILTER_EDGE)).astype(np.float32)
    return scipy.fft.irfftn(spectrum, s=volume.shape, workers=WORKERS, overwrite_x=True)


def low_passed_full_map(
    half_map_1: np.ndarray, half_map_2: np.ndarray, voxel_size: float, resolution: float
) -> tuple[np.ndarray, float]:
    """Return the low-passed full map less its mean, float32, and the mean: an offset would cost float32 its digits.

    Raises:
        UserError: the full map is constant.
    """
    means = [float(half_map.mean(dtype=np.float64)) for half_map in (half_map_1, half_map_2)]
    full = _centered(half_map_1, means[0])
    full += _centered(half_map_2, means[1])
    full *= 0.5
    mean = sum(means) / 2
    if np.abs(full).max() <= 1e-6 * abs(mean):
        raise UserError("mask: expected a map with a particle in it, found the same value in every voxel")
    return low_pass(full, voxel_size, resolution), mean


def noise_sigma(half_map_1: np.ndarray, half_map_2: np.ndarray, voxel_size: float, resolution: float) -> float:
    """Return the standard deviation of the noise in the low-passed full map, in the map's units.

    The half-difference `(half_map_1 - half_map_2) / 2` has the noise of the full map and no signal. The result is its
    median absolute deviation times 1.4826, so that a flexible or badly scaled region has little weight. Only voxels
    where the half-maps differ count: outside an earlier mask both are 0. It is 0 for equal maps.
    """
    difference = _centered(half_map_1, float(half_map_1.mean(dtype=np.float64)))
    difference -= _centered(half_map_2, float(half_map_2.mean(dtype=np.float64)))
    difference *= 0.5
    counts = sample(half_map_1) != sample(half_map_2)
    noise = sample(low_pass(difference, voxel_size, resolution))[counts]
    return robust_std(noise, 0.0) if noise.size else 0.0


def particle_level(full: np.ndarray, sigma: float) -> tuple[float, float]:
    """Return the level of a low-passed full map above which the particle lies, and the height of that level.

    The height is 0 at the density of the solvent and 1 at that of the particle.

    The level is `solvent + max(4 sigma, 0.2 (particle - solvent))`. Otsu's threshold, raised if it lies within 4 sigma
    of the solvent, divides the voxels in two; `solvent` is the median of the lower ones, `particle` the mean of the
    upper ones. Nothing depends on the scale of the map or on an offset of the solvent.

    Raises:
        UserError: no voxel stands out of the noise.
    """
    values = sample(full)
    split = otsu_threshold(values)
    split = max(split, float(np.median(values[values <= split])) + NOISE_SIGMAS * sigma)
    solvent = float(np.median(values[values <= split]))
    above = values[values > split]
    if not above.size:
        raise UserError(NO_PARTICLE)
    contrast = float(above.mean(dtype=np.float64)) - solvent
    height = max(NOISE_SIGMAS * sigma / contrast, PARTICLE_FRACTION)
    return solvent + height * contrast, height


def otsu_threshold(values: np.ndarray) -> float:
    """Return the threshold that makes two classes with the least variance within them.

    N. Otsu, IEEE Trans. Syst. Man Cybern. 9, 62 (1979), on 1024 bins. The outermost 1e-4 of the values on either side
    are clipped, so that a few extreme voxels do not take all the bins.
    """
    low, high = np.quantile(values, (1e-4, 1 - 1e-4))
    if high <= low:
        low, high = float(values.min()), float(values.max())
    if high <= low:
        return float(high)
    counts, edges = np.histogram(np.clip(values, low, high), bins=1024)
    centers = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)[:-1].astype(np.float64)
    sum_below = np.cumsum(counts * centers)[:-1]
    total, sum_total = counts.sum(), (counts * centers).sum()
    between = (sum_total * below / total - sum_below) ** 2 / (below * (total - below))
    # Every bin of a gap between the classes does equally well; its middle is the threshold.
    best = np.flatnonzero(between >= between.max() * (1 - 1e-9))
    return float(edges[1:-1][best].mean())


def is_inverted(full: np.ndarray) -> bool:
    """Return whether the particle is clearly the dark part of a low-passed full map.

    Both must hold: the densities have a long tail on the dark side (skewness below -1), and the middle of the
    box is darker than its corners. The first alone would also hold for a particle that fills its box.
    """
    values = sample(full).astype(np.float64)
    deviations = values - values.mean()
    skewness = np.mean(deviations**3) / max(np.mean(deviations**2) ** 1.5, math.ulp(0.0))
    if skewness > INVERTED_SKEWNESS:
        return False
    where = np.unravel_index(np.arange(0, full.size, _step(full)), full.shape)
    radius_squared = sum(((index - (n - 1) / 2) / (n / 2)) ** 2 for index, n in zip(where, full.shape, strict=True))
    return bool(values[radius_squared < 0.7**2].mean() < np.median(values[radius_squared > 1]))


def has_inverted_contrast(full: np.ndarray, voxel_size: float) -> bool:
    """Return whether the particle is clearly darker than the solvent, averaged over blocks that hide the noise.

    Args:
        full: the full map, `(z, y, x)`.
        voxel_size: Å.
    """
    width = max(round(_COARSE / voxel_size), max(full.shape) // 16)
    width = max(1, min(width, *(side // 8 for side in full.shape)))
    blocks = [side // width for side in full.shape]
    z, y, x = (count * width for count in blocks)
    return is_inverted(full[:z, :y, :x].reshape(blocks[0], width, blocks[1], width, blocks[2], width).mean((1, 3, 5)))


def sample(volume: np.ndarray) -> np.ndarray:
    """Return every n-th voxel of a volume, at most four million, as a line; the same voxels for the same shape."""
    return volume.reshape(-1)[:: _step(volume)]


def _step(volume):
    # Odd, so that it runs through all the columns of a box whose sides are powers of two.
    return math.ceil(volume.size / SAMPLES) | 1


def _centered(volume, mean):
    """Return a volume less its mean, float32; the difference is taken in float64, block by block."""
    out = np.empty(volume.shape, np.float32)
    return np.subtract(volume, mean, out=out, dtype=np.float64, casting="unsafe")


def estimate_contour(array: np.ndarray) -> float:
    """Estimate the density above which a map shows its particle, where no contour is known.

    It is the level of the automatic mask (`crefjax.masking.mask`) on the map as it is: four standard deviations
    of the noise above the solvent, measured by the median absolute deviation, or a fifth of the particle's density.
    """
    values = sample(array)
    return particle_level(array, robust_std(values))[0]
