"""A soft mask around the particle in two half-maps: low-pass, threshold, parts, extension, edge.

The steps and their names are those of RELION's `relion_mask_create`, but every setting has an automatic value, and
the noise of the low-passed density is estimated from the half-maps.

1. The full map, the mean of the half-maps, is low-passed.
2. The voxels above the threshold are the body. Of its connected parts (by faces, edges or corners), those of at least
   `min_part` times the volume of the largest one are kept. Closed cavities of less than a tenth of that volume are
   filled, which RELION does not do; larger ones, such as the inside of a capsid, stay open.
3. The body is extended by all voxels whose Euclidean distance `d` to it is at most `extend`.
4. Beyond, the mask is `0.5 (1 + cos(pi (d - extend) / soft_edge))`, and 0 from `extend + soft_edge` on.
5. Towards the border of the box it falls off over the width of the soft edge, so that a filament or a crop is
   not cut off sharply there: such cuts correlate between half-maps and inflate an FSC.

The automatic threshold is `solvent + max(4 sigma, 0.2 (particle - solvent))`, with the noise `sigma` estimated
from the difference of the half-maps; see `particle_level`. It is independent of the scale of the maps and of an
offset. If the particle is clearly the dark part of the map, it bounds the dark part.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

from crefjax.errors import UserError
from crefjax.masking.threshold import NO_PARTICLE, is_inverted, low_passed_full_map, noise_sigma, particle_level
from crefjax.spectral.windows import border_window, raised_cosine

LOWPASS = 15.0  # Å
EXTEND = 3.0  # voxels
SOFT_EDGE = 6.0  # voxels
MIN_PART = 0.1  # of the volume of the largest part
HIGH_THRESHOLD = 0.6  # of the particle's density; above it weak parts are lost
SMALLEST_SIDE = 8  # voxels; a smaller box is not enough for a mask
MAX_CAVITY = 0.1  # of the volume of the largest part
_SLAB = 64  # z planes whose distances are computed at once
_ALL_NEIGHBORS = np.ones((3, 3, 3), bool)

Auto = Literal["auto"]


@dataclass(frozen=True)
class MaskInfo:
    """Settings and results of a mask that was made.

    Attributes:
        lowpass: resolution to which the full map was low-passed, Å.
        threshold: level of the low-passed full map that bounds the particle, in the map's units.
        extend: extension of the thresholded body, voxels.
        soft_edge: width of the raised-cosine edge, voxels.
        inverted: whether the particle appears darker than the solvent.
        parts_found: number of connected parts on the particle's side of the threshold.
        parts_kept: number of those that were large enough to be in the mask.
        volume: volume in which the mask is at least 0.5, Å³.
        fraction: that volume as a fraction of the box.
        notes: one line for each thing that the user should know: a setting adapted to the box, or a doubt.
    """

    lowpass: float
    threshold: float
    extend: float
    soft_edge: float
    inverted: bool
    parts_found: int
    parts_kept: int
    volume: float
    fraction: float
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class MeasurementMask:
    """A mask to measure within.

    Attributes:
        array: `(z, y, x)`, 0 to 1; None for the whole box, if no particle stands out of the noise.
        info: settings of a mask that was made; None if it was given, or could not be made.
        error: reason why it could not be made, or None.
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
        """One line for each thing that the user should know."""
        if self.error is not None:
            return (
                f"no mask could be made to measure the scale of the signal in; the whole box is used ({self.error})",
            )
        return () if self.info is None else tuple(f"mask to measure within: {note}" for note in self.info.notes)

    def require(self) -> np.ndarray:
        """Return the array.

        Raises:
            UserError: no mask could be made.
        """
        if self.error is not None:
            raise self.error
        return self.array


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
    """Make a soft mask around the particle in two half-maps, by the steps in the docstring of this module.

    Args:
        half_map_1: `(z, y, x)`, finite.
        half_map_2: the same shape.
        voxel_size: Å, the same along all axes.
        lowpass: Å. Automatic: 15, but at most a fifth of the longest side and at least 3 voxels.
        threshold: level in the low-passed full map, in the map's units; the body is above it.
        extend: voxels. Automatic: 3, or a thirtieth of the longest side if that is less.
        soft_edge: voxels; 0 makes a binary mask. Automatic: 6, or a tenth of the longest side if that is less.
        min_part: smallest volume of a part over that of the largest, 0 to 1; 1 keeps the largest alone.

    Returns:
        The mask, float32 `(z, y, x)`, 0 to 1, and its settings.

    Raises:
        UserError: the maps are not 3D, differ in shape, are constant or not finite; a setting is out of
            range; a given threshold leaves no voxel or all voxels; or no particle stands out of the noise.
    """
    _check_maps(half_map_1, half_map_2, voxel_size)
    if not 0 <= min_part <= 1:
        raise UserError(f"mask: expected the smallest part to keep to be 0 to 1 times the largest, found {min_part}")
    notes: list[str] = []
    sides = half_map_1.shape
    lowpass = _choose_lowpass(lowpass, sides, voxel_size, notes)
    extend = _choose_width("extension", extend, EXTEND, sides, 30, notes)
    soft_edge = _choose_width("soft edge", soft_edge, SOFT_EDGE, sides, 10, notes)

    body, level, inverted = _find_body(half_map_1, half_map_2, voxel_size, lowpass, threshold, notes)
    # Peaks of noise above the automatic threshold are smaller than any detail that the low-pass preserves.
    smallest = 0.5 * (lowpass / voxel_size) ** 3 if threshold == "auto" else 0
    parts_found, parts_kept = remove_small_components(body, min_part, smallest)
    mask = dilate_with_soft_edge(body, extend, soft_edge)
    cut = taper_at_border(mask, soft_edge)
    inside = int(np.count_nonzero(mask >= 0.5))
    if not inside:
        raise UserError(
            "mask: nothing is left of the particle, which lies at the border of the box, where the mask falls off; "
            "use a smaller soft edge, or a box that holds the particle"
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


def _check_maps(half_map_1, half_map_2, voxel_size):
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


def _choose_lowpass(lowpass, sides, voxel_size, notes):
    """Return the given low-pass in Å, if it suits the box, or 15 Å adapted to the box."""
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
            f"longest side), found {lowpass:g} Å; omit it to have one chosen"
        )
    return float(lowpass)


def _choose_width(name, width, usual, sides, parts, notes):
    """Return the given width in voxels, or the usual one, at most a part of the longest side."""
    most = max(sides) / parts
    if width == "auto":
        if most < usual:
            notes.append(f"{name} of {most:.2g} voxels instead of {usual:g}, since the box is small")
        return min(usual, most)
    if not (math.isfinite(width) and width >= 0):
        raise UserError(f"mask: expected the {name} to be 0 voxels or more, found {width:g}")
    if width > max(sides) / 4:
        raise UserError(
            f"mask: expected the {name} to be at most {max(sides) / 4:g} voxels, a quarter of the longest side, found "
            f"{width:g}; the usual width is {usual:g}"
        )
    return float(width)


def _find_body(half_map_1, half_map_2, voxel_size, lowpass, threshold, notes) -> tuple[np.ndarray, float, bool]:
    """Return the voxels of the particle, bool; the threshold in the map's units; whether the particle is dark."""
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


def _above(full, threshold, mean):
    lowest, highest = mean + float(full.min()), mean + float(full.max())
    body = full > threshold - mean
    if body.all() or not body.any():
        raise UserError(
            f"mask: expected a threshold between {lowest:.4g} and {highest:.4g}, the lowest and the highest "
            f"density of the low-passed full map, found {threshold:g}; omit it to have one chosen"
        )
    return body


def _doubts(cut, fraction, inverted, automatic):
    """Return one line for each feature of a mask that may be right or wrong."""
    doubts = []
    if inverted:
        where = "dark" if automatic else "above the given threshold"
        doubts.append(
            "the particle appears darker than the solvent (inverted contrast), and the mask is around "
            f"the density that is {where}; multiply the half-maps by -1 before any other use"
        )
    if cut:
        doubts.append(
            "the mask reaches the border of the box, right for a filament or a crop only; it falls off to 0 there"
        )
    if fraction > 0.7:
        doubts.append(f"the mask fills {fraction:.0%} of the box: a higher threshold may be wanted")
    return doubts


def bounding_box(mask: np.ndarray, margin: int = 0) -> tuple[slice, slice, slice]:
    """Return the smallest block that holds all nonzero voxels, and a margin around it within the box.

    Args:
        mask: `(z, y, x)`, with at least one nonzero voxel.
        margin: voxels.
    """
    block = []
    for axis, side in enumerate(mask.shape):
        inside = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
        block.append(slice(max(inside[0] - margin, 0), min(inside[-1] + 1 + margin, side)))
    return tuple(block)


def remove_small_components(body: np.ndarray, min_part: float, smallest: float) -> tuple[int, int]:
    """Clear the small parts of `body` and fill its small cavities, in place.

    Args:
        body: bool, `(z, y, x)`.
        min_part: smallest volume of a part over that of the largest.
        smallest: voxels that the largest part must have.

    Returns:
        The numbers of parts found and kept.

    Raises:
        UserError: no part has `smallest` voxels.
    """
    if not body.any():
        raise UserError(NO_PARTICLE)
    body = body[bounding_box(body, 1)]
    labels, found = ndimage.label(body, _ALL_NEIGHBORS)
    sizes = _label_sizes(labels, found)
    sizes[0] = 0
    largest = sizes.max()
    if largest < smallest:
        raise UserError(NO_PARTICLE)
    keep = sizes >= max(min_part * largest, 1)
    _select(keep, labels, body)
    del labels

    # By faces alone, since the body is connected by corners too. Cavities that touch the block's border are open.
    labels, count = ndimage.label(~body)
    fill = _label_sizes(labels, count) < MAX_CAVITY * largest
    for axis, end in itertools.product(range(3), (0, -1)):
        fill[np.take(labels, end, axis)] = False
    fill[0] = True  # label 0 is the body
    _select(fill, labels, body)
    return found, int(keep.sum())


def _label_sizes(labels, count):
    # Plane by plane: NumPy makes 8-byte copies of the counted labels, and of the indices below.
    return sum(np.bincount(plane.reshape(-1), minlength=count + 1) for plane in labels)


def _select(chosen, labels, out):
    for plane, out_plane in zip(labels, out, strict=True):
        out_plane[:] = chosen[plane]


def dilate_with_soft_edge(body: np.ndarray, extend: float, soft_edge: float) -> np.ndarray:
    """Return a mask, float32, from the distance to a body; the formula is in the docstring of this module.

    Distances matter only up to `extend + soft_edge`, so they are exact for slabs with that margin; SciPy's transform
    takes some 50 bytes per voxel.
    """
    mask = np.zeros(body.shape, np.float32)
    reach = math.ceil(extend + soft_edge)
    z_range, y_range, x_range = bounding_box(body, reach)
    for start in range(z_range.start, z_range.stop, _SLAB):
        stop = min(start + _SLAB, len(body))
        first = max(start - reach, 0)
        near = body[first : stop + reach, y_range, x_range]
        if near.any():
            distance = ndimage.distance_transform_edt(~near)[start - first : stop - first]
            mask[start:stop, y_range, x_range] = _edge(distance, extend, soft_edge)
    return mask


def taper_at_border(mask: np.ndarray, soft_edge: float) -> bool:
    """Let a mask fall off towards the border of the box, in place; return whether it reached the border.

    The window is a raised cosine over `soft_edge` voxels from every face. The discrete Fourier transform joins opposite
    faces of the box: density cut off there correlates between any two half-maps, up to Nyquist, and an FSC would count
    it as signal.
    """
    reached = any(bool((np.take(mask, end, axis) >= 0.5).any()) for axis in range(3) for end in (0, -1))
    for axis, side in enumerate(mask.shape):
        window = border_window(side, soft_edge).astype(np.float32)
        mask *= window.reshape([-1 if a == axis else 1 for a in range(3)])
    return reached


def _edge(distance, extend, soft_edge):
    beyond = distance - extend
    if soft_edge == 0:
        return beyond <= 0
    return raised_cosine(beyond / soft_edge)
