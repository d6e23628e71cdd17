"""Where the density of a particle begins: the low-passed full map, its noise, and the level between."""

import math

import numpy as np
import scipy.fft

from crefjax.errors import UserError

# The automatic level stands this far above the solvent: NOISE_SIGMAS standard deviations of the low-passed
# noise (so that hardly any voxel of noise is above it), or PARTICLE_FRACTION of the particle's mean density
# (so that where there is little noise, ringing and traces of neighbours are below it), whichever is more.
NOISE_SIGMAS = 4.0
PARTICLE_FRACTION = 0.2

FILTER_EDGE = 0.3  # the low-pass falls from 1 to 0 between 0.7 and 1.3 times the cutoff
INVERTED_SKEWNESS = -1.0  # particles in light solvent have +1 to +5 in a low-passed map
SAMPLES = 4_000_000  # voxels that statistics are taken from
WORKERS = 2
_COARSE = 8.0  # Å, of the blocks over which noise is averaged out, or a sixteenth of the box


def low_pass(volume: np.ndarray, voxel_size: float, resolution: float) -> np.ndarray:
    """Low-pass a float32 volume `(z, y, x)`, whose memory may be overwritten.

    A raised cosine in amplitude: 1 up to 0.7 / resolution, 0.5 at 1 / resolution, 0 from 1.3 / resolution on
    (1/Å). The edge is wider than RELION's two Fourier voxels, because a steep one rings around the particle.
    """
    spectrum = scipy.fft.rfftn(volume, workers=WORKERS, overwrite_x=True)
    z, y = (np.square(scipy.fft.fftfreq(n, voxel_size)) for n in volume.shape[:2])
    x = np.square(scipy.fft.rfftfreq(volume.shape[2], voxel_size))
    for plane, z_square in zip(spectrum, z, strict=True):
        distance = np.sqrt(z_square + y[:, None] + x) * resolution
        ramp = np.clip((distance - 1 + FILTER_EDGE) / (2 * FILTER_EDGE), 0, 1)
        plane *= (0.5 + 0.5 * np.cos(np.pi * ramp)).astype(np.float32)
    return scipy.fft.irfftn(spectrum, s=volume.shape, workers=WORKERS, overwrite_x=True)


def low_passed_full_map(
    half_map_1: np.ndarray, half_map_2: np.ndarray, voxel_size: float, resolution: float
) -> tuple[np.ndarray, float]:
    """The low-passed full map less its mean, float32, and the mean: an offset would cost float32 its digits.

    Raises:
        UserError: the full map is constant.
    """
    means = [float(half_map.mean(dtype=np.float64)) for half_map in (half_map_1, half_map_2)]
    full = _centred(half_map_1, means[0])
    full += _centred(half_map_2, means[1])
    full *= 0.5
    mean = sum(means) / 2
    if np.abs(full).max() <= 1e-6 * abs(mean):
        raise UserError("mask: the mean of the half-maps is constant; expected a map with a particle in it")
    return low_pass(full, voxel_size, resolution), mean


def noise_sigma(half_map_1: np.ndarray, half_map_2: np.ndarray, voxel_size: float, resolution: float) -> float:
    """Standard deviation of the noise in the low-passed full map, in the map's units.

    The half-difference `(half_map_1 - half_map_2) / 2` has the noise of the full map and no signal. Its
    median absolute deviation is taken, times 1.4826, so that a flexible or badly scaled region counts for
    little, and only where the half-maps differ: outside an earlier mask both are 0. It is 0 for equal maps.
    """
    difference = _centred(half_map_1, float(half_map_1.mean(dtype=np.float64)))
    difference -= _centred(half_map_2, float(half_map_2.mean(dtype=np.float64)))
    difference *= 0.5
    counts = sample(half_map_1) != sample(half_map_2)
    noise = sample(low_pass(difference, voxel_size, resolution))[counts]
    return 1.4826 * float(np.median(np.abs(noise))) if noise.size else 0.0


def particle_level(full: np.ndarray, sigma: float) -> tuple[float, float]:
    """The level of the low-passed full map `full` above which there is particle, given its noise.

    Also its height: where it lies between the density of the solvent, 0, and that of the particle, 1.

    `solvent + max(4 sigma, 0.2 (particle - solvent))`. Otsu's threshold, raised where it lies within 4 sigma
    of the solvent, divides the voxels in two; `solvent` is the median of the lower ones, `particle` the mean
    of the upper ones. Nothing here depends on the scale of the map or on an offset of the solvent.

    Raises:
        UserError: no voxel stands out of the noise.
    """
    values = sample(full)
    split = otsu_threshold(values)
    split = max(split, float(np.median(values[values <= split])) + NOISE_SIGMAS * sigma)
    solvent = float(np.median(values[values <= split]))
    above = values[values > split]
    if not above.size:
        raise no_particle()
    contrast = float(above.mean(dtype=np.float64)) - solvent
    height = max(NOISE_SIGMAS * sigma / contrast, PARTICLE_FRACTION)
    return solvent + height * contrast, height


def otsu_threshold(values: np.ndarray) -> float:
    """The threshold that leaves the least variance within the two classes it makes.

    N. Otsu, IEEE Trans. Syst. Man Cybern. 9, 62 (1979), on 1024 bins. The outermost 1e-4 of the values on
    either side count as their neighbours do, so that a few extreme voxels do not take all the bins.
    """
    low, high = np.quantile(values, (1e-4, 1 - 1e-4))
    if high <= low:
        low, high = float(values.min()), float(values.max())
    if high <= low:
        return float(high)
    counts, edges = np.histogram(np.clip(values, low, high), bins=1024)
    centres = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)[:-1].astype(np.float64)
    sum_below = np.cumsum(counts * centres)[:-1]
    total, sum_total = counts.sum(), (counts * centres).sum()
    between = (sum_total * below / total - sum_below) ** 2 / (below * (total - below))
    # Every bin of a gap between the classes does equally well; its middle is the threshold.
    best = np.flatnonzero(between >= between.max() * (1 - 1e-9))
    return float(edges[1:-1][best].mean())


def is_inverted(full: np.ndarray) -> bool:
    """Whether the particle is clearly the dark part of the low-passed full map.

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


def sample(volume: np.ndarray) -> np.ndarray:
    """Every n-th voxel, at most four million, of the volume as a line; always the same ones for one shape."""
    return volume.reshape(-1)[:: _step(volume)]


def no_particle() -> UserError:
    """The error for half-maps in which nothing can be told from noise."""
    return UserError(
        "mask: expected a particle, found nothing that stands out of the noise of these half-maps; check "
        "that they are a pair, or give a threshold or a coarser low-pass yourself"
    )


def _step(volume: np.ndarray) -> int:
    # Odd, so that it runs through all the columns of a box whose sides are powers of two.
    return math.ceil(volume.size / SAMPLES) | 1


def _centred(volume: np.ndarray, mean: float) -> np.ndarray:
    """Less its mean, as float32; the difference itself is taken in float64, block by block."""
    out = np.empty(volume.shape, np.float32)
    return np.subtract(volume, mean, out=out, dtype=np.float64, casting="unsafe")


def inverted_contrast(full: np.ndarray, voxel_size: float) -> tuple[str, ...]:
    """A line where the particle is clearly darker than the solvent, for which no network is made; else none.

    Args:
        full: the full map, `(z, y, x)`.
        voxel_size: Å.
    """
    width = max(round(_COARSE / voxel_size), max(full.shape) // 16)
    width = max(1, min(width, *(side // 8 for side in full.shape)))
    blocks = [side // width for side in full.shape]
    z, y, x = (count * width for count in blocks)
    coarse = full[:z, :y, :x].reshape(blocks[0], width, blocks[1], width, blocks[2], width).mean((1, 3, 5))
    if not is_inverted(coarse):
        return ()
    return (
        "warning: the particle seems to be darker than the solvent (inverted contrast), and networks are made for the "
        "opposite; multiply the input by -1",
    )
