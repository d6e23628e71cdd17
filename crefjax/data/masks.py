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

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from crefjax.data import bodies
from crefjax.data import particle_level as levels
from crefjax.errors import UserError

LOWPASS = 15.0  # Å
EXTEND = 3.0  # voxels
SOFT_EDGE = 6.0  # voxels
MIN_PART = 0.1  # of the volume of the largest part
HIGH_THRESHOLD = 0.6  # of the particle's density; there weak parts go missing
SMALLEST_SIDE = 8  # voxels; nothing can be told of a smaller box

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
    parts_found, parts_kept = bodies.remove_small_components(body, min_part, smallest)
    mask = bodies.dilate_with_soft_edge(body, extend, soft_edge)
    cut = bodies.taper_at_border(mask, soft_edge)
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
    full, mean = levels.low_passed_full_map(half_map_1, half_map_2, voxel_size, lowpass)
    inverted = levels.is_inverted(full)
    if threshold != "auto":
        return _above(full, float(threshold), mean), float(threshold), inverted
    sign = -1 if inverted else 1
    full *= sign
    sigma = levels.noise_sigma(half_map_1, half_map_2, voxel_size, lowpass)
    level, height = levels.particle_level(full, sigma)
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
