"""The density of an atomic model on the grid of a map, where the model stands: nothing is fitted, turned or moved.

The place of a map's first voxel is given by its header's ORIGIN, in Å, or by its NSTART, in voxels; programs write one,
the other, both or none, and not all read both. Every meaning that a header can have is tried (ORIGIN, NSTART, their
sum), and the one taken at which map and model agree most: the correlation of the two, each blurred, in the voxels
around the atoms. If both words are 0, the model's coordinates are in the box itself. A model that agrees at none of
them is refused: it lies elsewhere, or belongs to another map.
"""

import dataclasses
import math

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from analysis.framework.resample import correlation
from crefjax.errors import UserError, path_error
from crefjax.io.maps import ORIGIN_TOLERANCE, Map
from crefjax.masking import taper_at_border
from crefjax.simulate.atoms import B_FACTORS, Atoms, read_atoms
from crefjax.simulate.density import density, next_fast_len, scatterers
from crefjax.spectral.windows import raised_cosine

NEAR, SOFT_EDGE = 3.0, 3.0  # Å, of the mask: all of the density within NEAR of an atom, none beyond both
LEAST_INSIDE = 0.5  # of the atoms, in the box
LEAST_AGREEMENT = 0.25  # correlation of the blurred map and model
_BLUR = 2.0  # Å, standard deviation, for that correlation
_MARGIN = 10.0  # Å around the atoms, in which their density is computed


@dataclasses.dataclass(frozen=True, eq=False)
class ModelDensity:
    """A model on the grid of a map.

    Attributes:
        density: `(z, y, x)`, float32, Å of scattering length per Å³.
        mask: `(z, y, x)`, float32 in [0, 1], around the atoms.
        origin: Å, (x, y, z), of the first voxel among the model's coordinates.
        how: in a phrase, which word of the header the place is from, and how many atoms are outside the box.
        agreement: correlation of map and model there, both blurred, around the atoms.
        atoms: number of atoms of the model.
        inside: number of those in the box.
    """

    density: np.ndarray
    mask: np.ndarray
    origin: tuple[float, float, float]
    how: str
    agreement: float
    atoms: int
    inside: int


def model_density(
    model, like: Map, *, b_factor: float | None = None, near: float = NEAR, soft_edge: float = SOFT_EDGE
) -> ModelDensity:
    """Return the density of a model where it stands in a map, and the mask around it.

    Hydrogens and waters are left out, and the B-factors are the model's, as `crefjax.simulate.atoms.read_atoms` has it.

    Args:
        model: path of a PDB or mmCIF file, or `Atoms`.
        like: the map, which also decides between the meanings of its header.
        b_factor: Å², one for all atoms; None for the model's own.
        near: Å from an atom within which the mask is 1.
        soft_edge: Å over which it falls to 0.

    Raises:
        UserError: the model cannot be read, is not in the map's box, or does not agree with it anywhere in it; a
            number is out of range.
    """
    atoms = with_b_factor(model if isinstance(model, Atoms) else read_atoms(model), b_factor)
    if not (near > 0 and soft_edge >= 0 and math.isfinite(near + soft_edge)):
        raise UserError(
            f"mask: expected `near` above 0 Å and `soft_edge` of 0 Å or more, found {near:g} and {soft_edge:g}; "
            "correct them"
        )
    source = atoms.source if isinstance(model, Atoms) else model
    origin, how, agreement = _place(atoms, source, like)
    inside = int(in_box(atoms.positions, like, origin).sum())
    mask = mask_around(atoms.positions, like.array.shape, like.voxel_size, origin, near=near, soft_edge=soft_edge)
    if inside < len(atoms):
        how += f"; {len(atoms) - inside} of {len(atoms)} atoms outside the box"
    grid = density_at(atoms, like.array.shape, like.voxel_size, origin)
    return ModelDensity(grid, mask, origin, how, agreement, len(atoms), inside)


def with_b_factor(atoms: Atoms, b_factor: float | None) -> Atoms:
    """Return the model with one B-factor (Å²) for all atoms, or as it is if None.

    Raises:
        UserError: it is out of range.
    """
    if b_factor is None:
        return atoms
    low, high = B_FACTORS
    if not low <= b_factor <= high:
        raise UserError(f"B-factor: expected {low:g} to {high:g} Å², found {b_factor:g}")
    return dataclasses.replace(atoms, b_factor=np.full_like(atoms.b_factor, b_factor))


def possible_origins(map_: Map) -> dict[str, tuple[float, float, float]]:
    """Return every place that a map's header can mean for its first voxel, Å, (x, y, z), by a phrase that names it.

    The first is that of `Map.origin`.
    """
    fields, header = map_.header.fields, map_.header
    origin = np.nan_to_num([float(fields.origin[axis]) for axis in "xyz"], posinf=0, neginf=0)
    starts = [int(fields[name]) for name in ("nxstart", "nystart", "nzstart")]  # of columns, rows and sections
    start = np.array([starts[header.axes.index(axis)] for axis in (1, 2, 3)]) * np.array(header.voxel_sizes)
    if not origin.any() and not start.any():
        return {"in the box itself: the header's ORIGIN and NSTART are 0": map_.origin}
    if not start.any():
        named = {"by the header's ORIGIN": origin, "in the box itself, the header's ORIGIN not counted": start}
    elif not origin.any():
        named = {"by the header's NSTART": start, "in the box itself, the header's NSTART not counted": origin}
    else:
        named = {
            "by the header's ORIGIN": origin,
            "by the header's NSTART, its ORIGIN not counted": start,
            "by the header's ORIGIN plus NSTART": origin + start,
        }
    different: dict[str, tuple[float, float, float]] = {}
    for how, place in named.items():
        if all(np.abs(place - other).max() > ORIGIN_TOLERANCE * map_.voxel_size for other in different.values()):
            different[how] = tuple(place.tolist())
    return different


def density_at(atoms: Atoms, shape, voxel_size: float, origin, *, b_factor: float = 0.0) -> np.ndarray:
    """Return a model's density on a grid, `(z, y, x)`, float32; see `crefjax.simulate.density.density`.

    The model may reach out of the grid: the density is computed in a box around the atoms, so that nothing wraps
    around. It is 0 at 10 Å from all atoms.

    Args:
        atoms: the model.
        shape: `(z, y, x)` of the grid.
        voxel_size: Å.
        origin: Å, (x, y, z), of the grid's first voxel.
        b_factor: Å², of a blur of the whole density.
    """
    grid = np.zeros(shape, np.float32)
    block = _block(atoms.positions, shape, voxel_size, origin, _MARGIN, beyond=math.ceil(_MARGIN / voxel_size))
    if any(side.stop <= side.start for side in block):
        return grid
    sides = tuple(next_fast_len(max(side.stop - side.start, 8)) for side in block)
    corner = np.array(origin) + voxel_size * np.array([side.start for side in block[::-1]])
    part = np.asarray(
        density(scatterers(atoms, voxel_size), sides, voxel_size, origin=corner.astype(np.float32), b_factor=b_factor)
    )
    inside = tuple(slice(max(a.start, 0), min(a.stop, side)) for a, side in zip(block, shape, strict=True))
    grid[inside] = part[tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip(inside, block, strict=True))]
    return grid


def mask_around(
    positions: np.ndarray, shape, voxel_size: float, origin, *, near: float, soft_edge: float
) -> np.ndarray:
    """Return a soft mask around atoms, float32 `(z, y, x)` in [0, 1].

    At a distance `d` from the nearest atom it is `0.5 (1 + cos(pi (d - near) / soft_edge))`, 1 within `near` and 0
    beyond `near + soft_edge`; towards the border of the box it falls off over the width of the soft edge.

    Args:
        positions: `(n, 3)`, Å, (x, y, z), of the atoms; they may be outside the box.
        shape: `(z, y, x)`.
        voxel_size: Å.
        origin: Å, (x, y, z), of the first voxel.
        near: Å.
        soft_edge: Å.
    """
    mask = np.zeros(shape, np.float32)
    reach = near + soft_edge
    block = _block(positions, shape, voxel_size, origin, reach, beyond=0)
    if any(side.stop <= side.start for side in block):
        return mask
    voxels = np.rint((positions - np.asarray(origin)) / voxel_size).astype(int)[:, ::-1]
    first = np.array([side.start for side in block])
    around = math.ceil(reach / voxel_size + 0.5)  # voxels from an atom's own to the last that it can reach
    sides = [side.stop - side.start + 2 * around for side in block]
    close = np.zeros(sides, np.uint8)
    voxels = voxels - first + around
    voxels = voxels[np.all((voxels >= 0) & (voxels < sides), axis=1)]
    close[tuple(voxels.T)] = 1
    close = ndimage.maximum_filter(close, 2 * around + 1)[(slice(around, -around),) * 3]
    tree = KDTree(positions)
    for z in range(len(close)):
        where = np.argwhere(close[z]) + first[1:]
        if len(where):
            places = np.column_stack([where[:, ::-1], np.full(len(where), z + first[0])]) * voxel_size + origin
            distance = np.minimum(tree.query(places, distance_upper_bound=reach)[0], reach)
            mask[z + first[0], where[:, 0], where[:, 1]] = _edge(distance, near, soft_edge)
    taper_at_border(mask, soft_edge / voxel_size)
    return mask


def in_box(positions: np.ndarray, like: Map, origin) -> np.ndarray:
    """Return which atoms are in the box of a map, `(n,)` bool."""
    voxels = (positions - np.asarray(origin)) / like.voxel_size
    return np.all((voxels >= -0.5) & (voxels < np.array(like.array.shape[::-1]) - 0.5), axis=1)


def _edge(distance, near, soft_edge):
    if soft_edge == 0:
        return distance < near
    return raised_cosine((distance - near) / soft_edge)


def _block(positions, shape, voxel_size, origin, margin, *, beyond):
    """Return the voxels (z, y, x) within a margin (Å) of the atoms' extent, at most `beyond` voxels outside the box."""
    low = np.floor((positions.min(0) - origin - margin) / voxel_size).astype(int)[::-1]
    high = np.ceil((positions.max(0) - origin + margin) / voxel_size).astype(int)[::-1]
    return tuple(slice(max(a, -beyond), min(b + 1, side + beyond)) for a, b, side in zip(low, high, shape, strict=True))


def _place(atoms, source, like):
    """Return origin, phrase, and agreement for the possible place at which map and model agree most."""
    shares, candidates = [], []
    for how, origin in possible_origins(like).items():
        inside = float(in_box(atoms.positions, like, origin).mean())
        shares.append(f"{inside:.0%} {how.split(':')[0]}")
        if inside >= LEAST_INSIDE:
            candidates.append((agreement_at(atoms, like, origin), how, origin))
    names = f"{source} in {like.path or 'the map'}"
    if not candidates:
        raise path_error(
            names,
            f"expected a model within the map's box, found of its atoms {'; '.join(shares)}; give the map's own model, "
            "or correct the map's ORIGIN",
        )
    agreement, how, origin = max(candidates, key=lambda candidate: candidate[0])
    if agreement < LEAST_AGREEMENT:
        raise path_error(
            names,
            f"expected a model that lies in its density, found a correlation of {agreement:.2f} (needed "
            f"{LEAST_AGREEMENT:g}) {how}; fit the model to the map, or correct the map's ORIGIN",
        )
    return origin, how, agreement


def agreement_at(atoms: Atoms, like: Map, origin) -> float:
    """Return the correlation of map and model around the atoms, both blurred by a Gaussian of 2 Å; -1 to 1.

    It is taken within three times that distance of an atom, so that it also sees where the model ends.
    """
    shape, voxel_size = like.array.shape, like.voxel_size
    blurred = density_at(atoms, shape, voxel_size, origin, b_factor=8 * math.pi**2 * _BLUR**2)
    around = mask_around(atoms.positions, shape, voxel_size, origin, near=3 * _BLUR, soft_edge=0) > 0
    block = _block(atoms.positions, shape, voxel_size, origin, 6 * _BLUR, beyond=0)
    smooth = ndimage.gaussian_filter(like.array[block], _BLUR / voxel_size, mode="nearest")
    around = around[block]
    return correlation(smooth[around], blurred[block][around])
