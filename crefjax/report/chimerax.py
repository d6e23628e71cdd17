"""A script for ChimeraX: full map, denoised map, and local maps, at contours that enclose the same volume."""

from typing import NamedTuple

import numpy as np

from crefjax.masking.threshold import otsu_threshold

# viridis at 0, 0.25, 0.5, 0.75 and 1: low agreement is dark, high is bright
_PALETTE = "0,#440154:0.25,#3b528b:0.5,#21918c:0.75,#5ec962:1,#fde725"


class Levels(NamedTuple):
    """Contours of two maps that enclose the same number of voxels.

    Attributes:
        full, denoised: densities.
        voxels: above the level, in each.
    """

    full: float
    denoised: float
    voxels: int


def matched_levels(full: np.ndarray, denoised: np.ndarray, mask: np.ndarray) -> Levels:
    """Choose a contour for the denoised map, and the one at which the full map encloses the same volume.

    The level of the denoised map is that which best separates its voxels within the mask into solvent and particle
    (Otsu's threshold). Voxels above it are counted in the whole box, as a surface encloses them.

    Args:
        full: `(z, y, x)`.
        denoised: the same shape.
        mask: the same shape, 0 to 1.
    """
    inside = mask > 0.5
    level = otsu_threshold(denoised[inside] if inside.any() else denoised.ravel())
    voxels = sum(int(np.count_nonzero(slab > level)) for slab in denoised)
    return Levels(level_of_volume(full, voxels), level, voxels)


def level_of_volume(array: np.ndarray, voxels: int) -> float:
    """Return a level above which a map has a number of voxels, or, if many are equal, as nearly as possible.

    Args:
        array: `(z, y, x)`.
        voxels: the number, at most that of all voxels.
    """
    below = array.size - voxels
    if below <= 0:
        return float(np.nextafter(array.min(), -np.inf, dtype=array.dtype))
    if voxels <= 0:
        return float(array.max())
    values = np.partition(array, (below - 1, below), axis=None)
    return (float(values[below - 1]) + float(values[below])) / 2


def script(
    levels: Levels,
    *,
    full: str,
    denoised: str,
    agreement: str | None = None,
    change: str | None = None,
    voxel_size: float,
) -> str:
    """Return the text of a `.cxc` file.

    Args:
        levels: of full and denoised map.
        full: path of the full map, from the script's folder.
        denoised: path of the denoised map.
        agreement: path of the local map of agreement, or None.
        change: path of the local map of change, or None.
        voxel_size: Å.
    """
    volume = levels.voxels * voxel_size**3
    # No semicolon in a comment: it ends a command.
    lines = [
        "# ChimeraX: open this file in an empty session. The maps are found from its folder.",
        "# #1 is the full map (mean of the half-maps), #2 the denoised map.",
        f"# Both contours enclose the same volume: {levels.voxels} voxels, {volume:.0f} cubic Angstrom. The level of",
        "# the denoised map best separates its voxels within the mask into particle and solvent (Otsu 1979). As many",
        "# voxels of the full map are above its own level.",
        f"open {quoted(full)}",
        f"open {quoted(denoised)}",
        'rename #1 "full map"',
        'rename #2 "denoised map"',
        f"volume #1 style surface step 1 level {levels.full:.9g} color #9a9a9a transparency 0.6",
        f"volume #2 style surface step 1 level {levels.denoised:.9g} color #4c9fd6",
    ]
    if agreement is not None:
        lines += _local_lines(agreement, change)
    lines += [
        "set bgColor white",
        "lighting soft",
        "view",
        "# One map alone: hide #1 models",
    ]
    return "\n".join(lines) + "\n"


def _local_lines(agreement, change):
    lines = [
        "# #3 is the local agreement: 1 (bright) where the half-maps confirm what the denoised ones show, 0 (dark)",
        "# where they confirm nothing of it.",
        f"open {quoted(agreement)}",
        'rename #3 "local agreement"',
        "volume #3 hide",
    ]
    if change is not None:
        lines += [
            "# #4 is the local change: 0 where no structure was added or removed, 1 where all of it was.",
            f"# To color by it instead: color sample #2 map #4 palette {_PALETTE} key true",
            f"open {quoted(change)}",
            'rename #4 "local change"',
            "volume #4 hide",
        ]
    return [*lines, f"color sample #2 map #3 palette {_PALETTE} key true"]


def is_plain(path: str) -> bool:
    """Return whether ChimeraX's command line can take a path between quotation marks."""
    return path.isprintable() and not set(path) & set('"\\')


def quoted(path: str) -> str:
    """Return a path as one word of a ChimeraX command."""
    return f'"{path}"'
