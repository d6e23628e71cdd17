"""Where in a pair of half-maps to measure, and whether there is anything to be measured."""

import numpy as np

from crefjax.data.pair_check import made_region
from crefjax.io.maps import Map
from crefjax.spectral.calibrate import solvent_level
from crefjax.spectral.covariances import shell_covariances
from crefjax.spectral.curve import hardly_correlate


def half_maps_disagree(pair: tuple[Map, Map], region: np.ndarray | None) -> bool:
    """Whether the half-maps are nearly noise, by their FSC: see `hardly_correlate`.

    Args:
        pair: two half-maps.
        region: mask, or None.
    """
    levels = [solvent_level(one.array, region) for one in pair]
    found = shell_covariances([one.array for one in pair], region, levels=levels)
    power = np.sqrt(found.of(0, 0) * found.of(1, 1))
    curve = np.where(power > 0, found.of(0, 1) / np.where(power > 0, power, 1), 0)
    return hardly_correlate(curve)


def automatic_region(pair: tuple[Map, Map]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """A mask to measure within, and what there is to say of it.

    Args:
        pair: two half-maps.

    Returns:
        `(z, y, x)`, 0 to 1, or None where no particle stands out of the noise; one line for each thing to know.
    """
    return made_region(pair[0].array, pair[1].array, pair[0].voxel_size)
