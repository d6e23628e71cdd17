"""Half-maps as they are to be used: found to be a pair, hot voxels mended, on one scale and level."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crefjax.data.hot_voxels import find_hot_voxels, mended
from crefjax.data.pair_check import PairCheck, check_pair, hot_findings
from crefjax.io.files import path_error
from crefjax.io.maps import Map


@dataclass(frozen=True)
class Usable:
    """Two half-maps, or one full map.

    Attributes:
        pair: as they are to be used; the maps that were given where nothing had to be changed.
        check: what was found of two half-maps; None for one map.
        notes: one line for each thing that the user should know.
    """

    pair: tuple[Map, ...]
    check: PairCheck | None
    notes: tuple[str, ...]


def usable(
    pair: tuple[Map, ...],
    mask: np.ndarray | None = None,
    *,
    insist: bool | None = False,
    fall_off: bool = False,
    without: Sequence[str] = (),
) -> Usable:
    """Check half-maps before work, and mend what can be mended.

    Args:
        pair: two half-maps on one grid, or one full map.
        mask: `(z, y, x)`, 0 to 1, to measure within; None to have one made.
        insist: whether to go on where they are no pair; None where the user has no way to say so.
        fall_off: see `check_pair`.
        without: kinds of findings that the caller tells by itself.

    Raises:
        UserError: they are no pair, and the user does not insist.
    """
    if len(pair) == 1:
        places = find_hot_voxels(pair[0].array)
        if not places:
            return Usable(pair, None, ())
        notes = tuple(one.text for one in hot_findings(pair[0].array, places, "the map"))
        return Usable((pair[0].replace_array(mended(pair[0].array, places)),), None, notes)
    check = check_pair(*(one.array for one in pair), pair[0].voxel_size, mask, fall_off=fall_off)
    if check.serious and not insist:
        names = [str(one.path or f"half-map {number}") for number, one in enumerate(pair, 1)]
        text = "; ".join(one.text for one in check.findings if one.serious)
        raise path_error(" and ".join(names), text + ("" if insist is None else ", or --insist on these"))
    maps = (
        one if array is one.array else one.replace_array(array) for one, array in zip(pair, check.halves, strict=True)
    )
    return Usable(tuple(maps), check, tuple(one.text for one in check.findings if one.kind not in without))
