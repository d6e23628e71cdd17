"""Filaments: a model repeated along a helix, whose maps are cut where a deposited map of a filament ends."""

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from crefjax.errors import UserError
from crefjax.simulate.atoms import Atoms, helical_copies, translate_atoms

LENGTH = 140.0  # Å, at least, before it is cut
MOST_ATOMS = 60_000
KEPT = (0.5, 0.75)  # share of the length that remains
_CONTACT = 3.0  # Å between the atoms of two subunits
_CLASHES = 0.002  # share of the atoms that may be nearer: loops interlock
_STEP = 1.0  # Å, by which the rise is searched


def build_filament(atoms: Atoms, random: np.random.Generator) -> Atoms:
    """Repeat a model along a helix around z, packed as closely as its atoms allow.

    The twist and the distance of the axis from the model's center are drawn; the rise follows from the packing.

    Args:
        atoms: the repeated unit.
        random: of the twist and the axis.

    Raises:
        UserError: the filament would have more than `MOST_ATOMS`.
    """
    twist = float(random.uniform(-180, 180))  # degrees
    radius = float(random.uniform(0, 0.5)) * float(min(atoms.extent[:2]))
    centered = atoms.positions - atoms.center + np.array([radius, 0, 0], np.float32)
    rise = _closest_rise(centered, twist)
    copies = int(np.ceil(LENGTH / rise)) + 1
    if copies * len(atoms) > MOST_ATOMS:
        raise UserError(
            f"{atoms.source}: expected a filament of {MOST_ATOMS} atoms or fewer, found {copies * len(atoms)}; take a "
            "smaller model"
        )
    unit = translate_atoms(atoms, np.array([radius, 0, 0]) - atoms.center)
    return helical_copies(unit, twist, rise, range(copies))


def _closest_rise(positions, twist):
    """Å between subunits at which none of the next few turns around an earlier one clashes with it."""
    tree = cKDTree(positions)
    rise = 4.0
    while any(_clashing(tree, positions, number * twist, number * rise) for number in range(1, 12)):
        rise += _STEP
    return rise


def _clashing(tree, positions, angle, shift):
    turn = Rotation.from_euler("z", angle, degrees=True)
    moved = turn.apply(positions) + np.array([0, 0, shift])
    distance, _ = tree.query(moved, distance_upper_bound=_CONTACT)
    return np.isfinite(distance).mean() > _CLASHES


def filament_box(mask: np.ndarray, margin: int, random: np.random.Generator) -> tuple[slice, slice, slice]:
    """Choose the box in which a filament along z enters and leaves through the faces.

    Args:
        mask: `(z, y, x)`, above 0 around the filament.
        margin: voxels of solvent beside it.
        random: of the length that is kept, and of where.
    """
    spans = []
    for axis in range(3):
        inside = np.flatnonzero(mask.max(tuple(other for other in range(3) if other != axis)) > 0)
        spans.append((int(inside[0]), int(inside[-1]) + 1))
    (first, last), *sides = spans
    length = int((last - first) * random.uniform(*KEPT))
    # The subunits at both ends lack a neighbor: the cut lies within.
    start = int(random.integers(first + (last - first) // 8, last - (last - first) // 8 - length + 1))
    across = [
        slice(max(a - margin, 0), min(b + margin, side)) for (a, b), side in zip(sides, mask.shape[1:], strict=True)
    ]
    return slice(start, start + length), *across
