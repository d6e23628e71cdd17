"""A soft mask around the particle in two half-maps: low-pass, threshold, parts, extension, edge.

The steps and their words are those of RELION's `relion_mask_create`; what differs is that every setting has
an automatic value, and that the half-maps tell how much of the low-passed density is noise.

1. The full map, the mean of the half-maps, is low-passed.
2. The voxels above the threshold are the body. Of its connected parts (by faces, edges or corners) those
   of at least `min_part` times the largest one's volume stay. Closed cavities of less than a tenth of it
   are filled, which RELION does not do; larger ones, such as the inside of a capsid, stay open.
3. The body is extended by all voxels whose Euclidean distance `d` to it is at most `extend`.
4. Beyond, the mask is `0.5 (1 + cos(pi (d - extend) / soft_edge))`, and 0 from `extend + soft_edge` on.
5. Towards the border of the box it falls off over the width of the soft edge, so that a filament or a crop is
   not cut off sharply there: such cuts correlate between half-maps and inflate an FSC.

The automatic threshold is `solvent + max(4 sigma, 0.2 (particle - solvent))`, with the noise `sigma` read
off the difference of the half-maps; see `particle_level.py`. It is independent of the scale of the maps
and of an offset. Where the particle is clearly the dark part of the map, it bounds the dark part.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.fft
from scipy import ndimage

from crefjax.errors import UserError
from crefjax.spectral.windows import raised_cosine

LOWPASS = 15.0  # Å
EXTEND = 3.0  # voxels
SOFT_EDGE = 6.0  # voxels
MIN_PART = 0.1  # of the volume of the largest part
HIGH_THRESHOLD = 0.6  # of the particle's density; there weak parts go missing
SMALLEST_SIDE = 8  # voxels; nothing can be told of a smaller box

MAX_CAVITY = 0.1  # of the volume of the largest part

_SLAB = 64  # z planes whose distances are computed at once
_ALL_NEIGHBOURS = np.ones((3, 3, 3), bool)
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

Auto = Literal["auto"]


@dataclass(frozen=True)
class MaskInfo:
    """How a mask was made, and what came out."""

    lowpass: float
    """Resolution to which the full map was low-passed, Å."""
    threshold: float
    """Level of the low-passed full map that bounds the particle, in the map's own units."""
    extend: float
    """Extension of the thresholded body, voxels."""
    soft_edge: float
    """Width of the raised-cosine edge, voxels."""
    inverted: bool
    """Whether the particle seems to be darker than the solvent."""
    parts_found: int
    """Connected parts on the particle's side of the threshold."""
    parts_kept: int
    """Those of them that were large enough to be in the mask."""
    volume: float
    """Volume in which the mask is at least 0.5, Å³."""
    fraction: float
    """That volume as a fraction of the box."""
    notes: tuple[str, ...]
    """One line for each thing the user should know: a setting adapted to the box, or a doubt."""


@dataclass(frozen=True, eq=False)
class MeasurementMask:
    """A mask to measure within.

    Attributes:
        array: `(z, y, x)`, 0 to 1; None for the whole box, where no particle stands out of the noise.
        info: how it was made; None for one that was given, or could not be made.
        error: why it could not be made, or None.
    """

    array: np.ndarray | None
    info: MaskInfo | None = None
    error: UserError | None = None

    @property
    def inverted(self) -> bool:
        """Whether the notes report inverted contrast."""
        return self.info is not None and self.info.inverted

    @property
    def notes(self) -> tuple[str, ...]:
        """One line for each thing to know."""
        if self.error is not None:
            return (
                f"no mask could be made to measure the scale of the signal in, the whole box is taken ({self.error})",
            )
        return () if self.info is None else tuple(f"mask to measure within: {note}" for note in self.info.notes)


def make_mask(
    half_map_1: np.ndarray,
    half_map_2: np.ndarray,
    voxel_size: float,
    *,
    lowpass: float | Auto = "auto",
    threshold: float | Auto = "auto",
    extend: float | Auto = "auto",
    soft_edge: float | Auto = "auto",
    min_part: float = MIN_PART,
) -> tuple[np.ndarray, MaskInfo]:
    """Make a soft mask, float32 `(z, y, x)` in [0, 1], around the particle in two half-maps; its steps are told above.

    Args:
        half_map_1: `(z, y, x)`, finite.
        half_map_2: The same shape.
        voxel_size: Å, the same along all axes.
        lowpass: Å. Automatic: 15, but at most a fifth of the longest side and at least 3 voxels.
        threshold: Level in the low-passed full map, in the map's units; the body is what is above it.
        extend: Voxels. Automatic: 3, or a thirtieth of the longest side where that is less.
        soft_edge: Voxels; 0 makes a binary mask. Automatic: 6, or a tenth of the longest side where that is
            less.
        min_part: From 0 to 1; 1 keeps the largest part alone.

    Raises:
        UserError: the maps are not 3D, differ in shape, are constant or not finite; a setting is out of
            range; a given threshold leaves no voxel or all of them; or no particle stands out of the noise.
    """
    _check_maps(half_map_1, half_map_2, voxel_size)
    if not 0 <= min_part <= 1:
        raise UserError(f"mask: expected a smallest part from 0 to 1 of the largest, found {min_part}")
    notes: list[str] = []
    sides = half_map_1.shape
    lowpass = _choose_lowpass(lowpass, sides, voxel_size, notes)
    extend = _choose_width("extension", extend, EXTEND, sides, 30, notes)
    soft_edge = _choose_width("soft edge", soft_edge, SOFT_EDGE, sides, 10, notes)

    body, level, inverted = _find_body(half_map_1, half_map_2, voxel_size, lowpass, threshold, notes)
    # Peaks of noise above the automatic threshold are smaller than anything that the low-pass can show.
    smallest = 0.5 * (lowpass / voxel_size) ** 3 if threshold == "auto" else 0
    parts_found, parts_kept = remove_small_components(body, min_part, smallest)
    mask = dilate_with_soft_edge(body, extend, soft_edge)
    cut = taper_at_border(mask, soft_edge)
    inside = int(np.count_nonzero(mask >= 0.5))
    if not inside:
        raise UserError(
            "mask: nothing is left of the particle, which lies at the border of the box, where the mask falls off; "
            "take a smaller soft edge, or a box that holds the particle"
        )
    fraction = inside / mask.size
    notes += _doubts(cut, fraction, inverted, threshold == "auto")
    settings = lowpass, level, extend, soft_edge
    volume = inside * voxel_size**3
    return mask, MaskInfo(*settings, inverted, parts_found, parts_kept, volume, fraction, tuple(notes))


def auto_mask(half_map_1: np.ndarray, half_map_2: np.ndarray, voxel_size: float) -> MeasurementMask:
    """Make a mask to measure within, with automatic settings.

    Args:
        half_map_1: `(z, y, x)`, finite.
        half_map_2: the same shape.
        voxel_size: Å.
    """
    try:
        return MeasurementMask(*make_mask(half_map_1, half_map_2, voxel_size))
    except UserError as error:
        return MeasurementMask(None, error=error)


def _check_maps(half_map_1: np.ndarray, half_map_2: np.ndarray, voxel_size: float) -> None:
    if half_map_1.ndim != 3 or min(half_map_1.shape) < SMALLEST_SIDE:
        raise UserError(
            f"mask: expected half-maps of at least {SMALLEST_SIDE} voxels along each of three axes, found "
            f"the shape {half_map_1.shape}; give maps that hold a whole particle"
        )
    if half_map_1.shape != half_map_2.shape:
        raise UserError(
            f"mask: expected half-maps of one shape, found {half_map_1.shape} and {half_map_2.shape}; "
            "give the two half-maps of one reconstruction"
        )
    if not (math.isfinite(voxel_size) and voxel_size > 0):
        raise UserError(f"mask: expected a voxel size above 0 Å, found {voxel_size}; correct the map's header")
    for number, half_map in enumerate((half_map_1, half_map_2), start=1):
        if not np.isfinite(half_map).all():
            raise UserError(f"mask: half-map {number} has NaN or infinite voxels, expected finite ones; replace them")


def _choose_lowpass(lowpass: float | Auto, sides: tuple[int, ...], voxel_size: float, notes: list[str]) -> float:
    """The low-pass in Å: the one given, if it suits the box, or 15 Å adapted to the box."""
    longest = max(sides) * voxel_size
    if lowpass == "auto":
        chosen = max(min(LOWPASS, longest / 5), 3 * voxel_size)
        if chosen != LOWPASS:
            why = "a fifth of the longest side" if chosen > 3 * voxel_size else "3 voxels"
            notes.append(f"low-pass at {chosen:.3g} Å, {why}, since {LOWPASS:g} Å does not suit this box")
        return chosen
    if not 2 * voxel_size <= lowpass <= longest:
        raise UserError(
            f"mask: expected a low-pass from {2 * voxel_size:.4g} Å (two voxels) to {longest:.4g} Å (the "
            f"longest side), found {lowpass:g} Å; leave it out to have it chosen"
        )
    return float(lowpass)


def _choose_width(
    name: str, width: float | Auto, usual: float, sides: tuple[int, ...], parts: int, notes: list[str]
) -> float:
    """A width in voxels: the one given, or the usual one made smaller, a part of the longest side, for a small box."""
    most = max(sides) / parts
    if width == "auto":
        if most < usual:
            notes.append(f"{name} of {most:.2g} voxels, since the usual {usual:g} are much in so small a box")
        return min(usual, most)
    if not (math.isfinite(width) and width >= 0):
        raise UserError(f"mask: expected the {name} to be 0 voxels or more, found {width:g}")
    if width > max(sides) / 4:
        raise UserError(
            f"mask: expected the {name} to be at most {max(sides) / 4:g} voxels, a quarter of the longest side, found "
            f"{width:g}; the usual are {usual:g}"
        )
    return float(width)


def _find_body(
    half_map_1: np.ndarray,
    half_map_2: np.ndarray,
    voxel_size: float,
    lowpass: float,
    threshold: float | Auto,
    notes: list[str],
) -> tuple[np.ndarray, float, bool]:
    """The voxels of the particle, bool; the threshold in the map's units; whether the particle is dark."""
    full, mean = low_passed_full_map(half_map_1, half_map_2, voxel_size, lowpass)
    inverted = is_inverted(full)
    if threshold != "auto":
        return _above(full, float(threshold), mean), float(threshold), inverted
    sign = -1 if inverted else 1
    full *= sign
    sigma = noise_sigma(half_map_1, half_map_2, voxel_size, lowpass)
    level, height = particle_level(full, sigma)
    if height > HIGH_THRESHOLD:
        notes.append(
            f"the noise at {lowpass:.3g} Å puts the threshold at {height:.0%} of the particle's density: "
            "weak parts may be missing, and a coarser low-pass may show them"
        )
    return full > level, mean + sign * level, inverted


def _above(full: np.ndarray, threshold: float, mean: float) -> np.ndarray:
    lowest, highest = mean + float(full.min()), mean + float(full.max())
    body = full > threshold - mean
    if body.all() or not body.any():
        raise UserError(
            f"mask: expected a threshold between {lowest:.4g} and {highest:.4g}, the lowest and the highest "
            f"density of the low-passed full map, found {threshold:g}; leave it out to have it chosen"
        )
    return body


def _doubts(cut: bool, fraction: float, inverted: bool, automatic: bool) -> list[str]:
    """One line for each thing about a mask that may be right or may be wrong."""
    doubts = []
    if inverted:
        where = "dark" if automatic else "above the given threshold"
        doubts.append(
            "the particle seems to be darker than the solvent (inverted contrast), and the mask is around "
            f"what is {where}; multiply the half-maps by -1 before any other use"
        )
    if cut:
        doubts.append(
            "the mask reaches the border of the box, right for a filament or a crop only; it falls off to 0 there"
        )
    if fraction > 0.7:
        doubts.append(f"the mask fills {fraction:.0%} of the box: a higher threshold may be wanted")
    return doubts


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
        plane *= raised_cosine((distance - 1 + FILTER_EDGE) / (2 * FILTER_EDGE)).astype(np.float32)
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


def remove_small_components(body: np.ndarray, min_part: float, smallest: float) -> tuple[int, int]:
    """Clear the small parts of `body` and fill its small cavities, in place; parts found and kept.

    Raises:
        UserError: no part has `smallest` voxels.
    """
    if not body.any():
        raise no_particle()
    body = body[_bounding_box(body, 1)]
    labels, found = ndimage.label(body, _ALL_NEIGHBOURS)
    sizes = _label_sizes(labels, found)
    sizes[0] = 0
    largest = sizes.max()
    if largest < smallest:
        raise no_particle()
    keep = sizes >= max(min_part * largest, 1)
    _select(keep, labels, body)
    del labels

    # By faces alone, since the body is connected by corners too. What touches the block's border is open.
    labels, count = ndimage.label(~body)
    fill = _label_sizes(labels, count) < MAX_CAVITY * largest
    for axis, end in itertools.product(range(3), (0, -1)):
        fill[np.take(labels, end, axis)] = False
    fill[0] = True  # the body itself
    _select(fill, labels, body)
    return found, int(keep.sum())


def _label_sizes(labels: np.ndarray, count: int) -> np.ndarray:
    # Plane by plane: NumPy makes 8-byte copies of what it counts, and of indices below.
    return sum(np.bincount(plane.reshape(-1), minlength=count + 1) for plane in labels)


def _select(chosen: np.ndarray, labels: np.ndarray, out: np.ndarray) -> None:
    for plane, out_plane in zip(labels, out, strict=True):
        out_plane[:] = chosen[plane]


def _bounding_box(body: np.ndarray, margin: int) -> tuple[slice, ...]:
    """The smallest block that holds all True voxels, and `margin` voxels around, within the box."""
    slices = []
    for axis in range(3):
        other = tuple(a for a in range(3) if a != axis)
        where = np.flatnonzero(body.any(axis=other))
        slices.append(slice(max(where[0] - margin, 0), where[-1] + 1 + margin))
    return tuple(slices)


def dilate_with_soft_edge(body: np.ndarray, extend: float, soft_edge: float) -> np.ndarray:
    """The mask, float32, from the distance to the body; see `make_mask` for the formula.

    Distances matter only up to `extend + soft_edge`, so that they are exact when they are computed for slabs
    with that much around them; SciPy's transform takes some 50 bytes a voxel.
    """
    mask = np.zeros(body.shape, np.float32)
    reach = math.ceil(extend + soft_edge)
    z_range, y_range, x_range = _bounding_box(body, reach)
    for start in range(z_range.start, min(z_range.stop, len(body)), _SLAB):
        stop = min(start + _SLAB, len(body))
        first = max(start - reach, 0)
        near = body[first : stop + reach, y_range, x_range]
        if near.any():
            distance = ndimage.distance_transform_edt(~near)[start - first : stop - first]
            mask[start:stop, y_range, x_range] = _edge(distance, extend, soft_edge)
    return mask


def taper_at_border(mask: np.ndarray, soft_edge: float) -> bool:
    """Let a mask fall off towards the border of the box, in place; whether it reached the border.

    A raised cosine over `soft_edge` voxels from every face. The discrete Fourier transform joins opposite faces of the
    box: density cut off there correlates between any two half-maps, up to Nyquist, and an FSC would count it as signal.
    """
    reached = any(bool((np.take(mask, end, axis) >= 0.5).any()) for axis in range(3) for end in (0, -1))
    for axis, side in enumerate(mask.shape):
        distance = np.minimum(np.arange(side), np.arange(side)[::-1]) + 0.5
        window = 1 - _edge(distance, 0, soft_edge)
        mask *= window.astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
    return reached


def _edge(distance: np.ndarray, extend: float, soft_edge: float) -> np.ndarray:
    beyond = distance - extend
    if soft_edge == 0:
        return beyond <= 0
    return raised_cosine(beyond / soft_edge)
