"""Where in a pair of half-maps to measure, and whether there is anything to be measured."""

import numpy as np

from crefjax.data.masks import make_mask
from crefjax.data.particle_level import is_inverted
from crefjax.errors import UserError
from crefjax.io.maps import Map
from crefjax.spectral.calibrate import solvent_level
from crefjax.spectral.covariances import shell_covariances

_COARSE = 8.0  # Å, of the blocks over which noise is averaged out, or a sixteenth of the box


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


def hardly_correlate(fsc: np.ndarray) -> bool:
    """Whether an FSC of half-maps falls below 0.143 within the first tenth of the shells, or three.

    Args:
        fsc: `(shells,)` from shell 0 on, which is not looked at.
    """
    return bool(np.any(fsc[1 : max(4, len(fsc) // 10)] < 0.143))


def automatic_region(pair: tuple[Map, Map]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """A mask to measure within, and what there is to say of it.

    Args:
        pair: two half-maps.

    Returns:
        `(z, y, x)`, 0 to 1, or None where no particle stands out of the noise; one line for each thing to know.
    """
    try:
        array, info = make_mask(pair[0].array, pair[1].array, pair[0].voxel_size)
    except UserError as error:
        note = f"no mask could be made to measure the scale of the signal in, the whole box is taken ({error})"
        return None, (note,)
    return array, tuple(f"mask to measure within: {note}" for note in info.notes)
