"""Regions of a simulated entry with a flexible part, and false density beside its particle."""

from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from crefjax.errors import UserError
from crefjax.simulate.atoms import read_atoms
from crefjax.simulate.half_maps import Flexible
from crefjax.simulate.specimen import sample_conformations

NEAR = 2.0  # Å, of an atom's centre: its density
RADIUS = 9.0  # Å, of a ball of false density: a helix is 10 Å wide
BALLS = 3
_SOFT = 2.0  # Å, of a ball's edge: no sharper than the map is
_ROOM = 4.0  # Å, by which the mask reaches beyond a ball


def atoms_regions(
    model: Path, flexible: Flexible, seed: int, shape: tuple[int, int, int], voxel_size: float
) -> dict[str, np.ndarray]:
    """Voxels near the atoms of a simulated entry's model, bool: `core`, those at rest, and `flexible`, those that move.

    Args:
        model: the entry's own, at the coordinates of its box.
        flexible: as it was simulated.
        seed: as it was simulated.
        shape: `(z, y, x)` of the box.
        voxel_size: Å.
    """
    atoms = read_atoms(model)
    moving = sample_conformations(atoms, flexible, seed).moving
    grid = np.indices(shape).reshape(3, -1).T * voxel_size
    nearest = cKDTree(atoms.positions[:, ::-1]).query(grid, distance_upper_bound=NEAR)[1]
    kind = np.append(np.where(moving, 2, 1), 0)[nearest].reshape(shape)
    return {"core": kind == 1, "flexible": kind == 2}


def false_density(denoised: np.ndarray, regions: dict, voxel_size: float, *, seed: int):
    """Balls of a map's core, to be added beside the particle where it is rigid.

    Args:
        denoised: `(z, y, x)`, from which the balls are copied.
        regions: `core` and `flexible`, bool.
        voxel_size: Å.
        seed: of places and pieces.

    Returns:
        what to add, the mask around it, and the centres of the balls in voxels.

    Raises:
        UserError: there is no room for it.
    """
    random, radius = np.random.default_rng(seed), RADIUS / voxel_size
    reach = int(np.ceil((RADIUS + _ROOM + 2 * _SOFT) / voxel_size))
    apart = np.sqrt(sum(one.astype(float) ** 2 for one in np.indices((2 * reach + 1,) * 3) - reach)) * voxel_size
    ball, room = (0.5 - 0.5 * np.tanh((apart - r) / _SOFT) for r in (RADIUS, RADIUS + _ROOM))
    to_core, to_flexible = (ndimage.distance_transform_edt(~regions[name]) for name in ("core", "flexible"))
    inner = ndimage.distance_transform_edt(ndimage.binary_closing(regions["core"], iterations=3))
    # Beside the particle: the ball's surface touches the density of atoms.
    beside = (np.abs(np.minimum(to_core, to_flexible) - radius) < 1) & (to_flexible > to_core + radius)
    places, sources = (_within(one, reach) for one in (beside, inner > 0.8 * min(inner.max(), radius)))
    added, mask, centers = np.zeros_like(denoised), np.zeros_like(denoised), []
    for place in random.permutation(places):
        if any(np.linalg.norm(place - other) < 4 * radius for other in centers):
            continue
        around = tuple(slice(one - reach, one + reach + 1) for one in place)
        source = tuple(slice(one - reach, one + reach + 1) for one in sources[random.integers(len(sources))])
        added[around] += denoised[source] * ball
        mask[around] = np.maximum(mask[around], room)
        centers.append(place)
        if len(centers) == BALLS:
            return added, mask, centers
    raise UserError(f"the box has no room for {BALLS} balls of false density; take another model or a larger margin")


def _within(voxels, reach):
    """Places `(n, 3)` of true voxels that are not near the border."""
    places = np.argwhere(voxels)
    return places[(places >= reach).all(1) & (places < np.array(voxels.shape) - reach).all(1)]
