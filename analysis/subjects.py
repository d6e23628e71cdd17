"""An entry's maps method by method, on one grid, with its mask."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from analysis.grids import read_on_grid
from crefjax.io.entries import Entry, load_mask, load_pair
from crefjax.io.maps import Map
from crefjax.masking import make_mask
from crefjax.report.measure import Measurements
from crefjax.report.measure import ReportInputs as Account
from crefjax.report.measure import measure as measure_account

FULL = "full map"  # the method that does nothing: the mean of the half-maps


@dataclass(frozen=True, eq=False)
class Subject:
    """One method's maps of one entry, on the grid of its half-maps.

    Attributes:
        entry: its files.
        pair: the half-maps.
        mask: `(z, y, x)`, 0 to 1.
        mask_from: its file's name, or that it was made.
        method: of `outputs`, or `FULL`.
        full: the method's map.
        halves: its half-maps, or None.
        how: each was brought to the grid.
    """

    entry: Entry
    pair: tuple[Map, Map]
    mask: np.ndarray
    mask_from: str
    method: str
    full: Map
    halves: tuple[Map, Map] | None
    how: str

    @property
    def voxel_size(self) -> float:
        """Å."""
        return self.pair[0].voxel_size

    @cached_property
    def measured(self) -> Measurements:
        """Covariances, FSC and variances of the maps, shared by the studies."""
        return measure_account(
            Account(*self.pair, self.full, *(self.halves or (None, None)), self.mask, self.mask_from, {})
        )


def subjects(entry: Entry, methods: Sequence[str] | None) -> Iterator[Subject]:
    """The full map and the methods' maps of an entry, one after the other, so that few are in memory.

    Args:
        entry: its files.
        methods: those to take, or None for all; the full map always comes, first.

    Raises:
        UserError: maps cannot be read or matched.
    """
    pair = load_pair(entry.half_map_1, entry.half_map_2)
    if entry.mask is not None:
        mask, mask_from = load_mask(entry.mask, pair[0]).array, entry.mask.name
    else:
        mask, mask_from = make_mask(pair[0].array, pair[1].array, pair[0].voxel_size)[0], "made from the half-maps"
    mean = pair[0].replace_array((pair[0].array + pair[1].array) * np.float32(0.5))
    yield Subject(entry, pair, mask, mask_from, FULL, mean, pair, "mean of the half-maps")
    for method, output in entry.outputs.items():
        if output.full is None or (methods is not None and method not in methods):
            continue
        full = read_on_grid(output.full, pair[0], mask=mask)
        halves = None
        if output.half_map_1 is not None and output.half_map_2 is not None:
            halves = tuple(read_on_grid(one, pair[0], mask=mask).map for one in (output.half_map_1, output.half_map_2))
        yield Subject(entry, pair, mask, mask_from, method, full.map, halves, full.how)
