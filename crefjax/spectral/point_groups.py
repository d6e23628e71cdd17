"""Point groups of symmetric particles, with RELION's names and axes, and the average of a map over one.

| name | axes |
|---|---|
| Cn | n-fold along z |
| Dn | n-fold along z, 2-fold along x |
| T | 3-fold along z, 2-fold in the plane of y and z |
| O | 4-folds along x, y, and z |
| I, I2 | 2-folds along x, y, and z, 5-fold in the plane of x and z |
| I1 | 2-folds along x, y, and z, 5-fold in the plane of y and z |
| I3, I4 | 5-fold along z, 2-fold along y; the next 5-fold towards -x (I3) or +x (I4) |

Except for T these are the conventions of Heymann, Chagoyen & Belnap (2005, J. Struct. Biol. 151, 196). The center is
the voxel N/2, rounded down, of each side.
"""

import re
from dataclasses import dataclass

import numpy as np

from crefjax.errors import UserError
from crefjax.spectral.rotation import is_exact, rotate_map, rotation_matrix, sum_of_rotated
from crefjax.spectral.shells import filter_shells

_MOST = 99  # order of a cyclic or dihedral group
_PHI = (1 + np.sqrt(5)) / 2
_X, _Y, _Z = np.eye(3)
NAMES = "C1 to C99, D1 to D99, T, O, I, I1, I2, I3, I4"


@dataclass(frozen=True)
class RotationAxis:
    """A rotation axis of a group.

    Attributes:
        fold: number of rotations about it.
        direction: `(x, y, z)`, of length 1.
    """

    fold: int
    direction: tuple[float, float, float]

    @property
    def matrix(self) -> np.ndarray:
        """The smallest rotation about it, `(3, 3)`, for vectors `(x, y, z)`."""
        return rotation_matrix(self.direction, 2 * np.pi / self.fold)

    def __str__(self):
        """Return it in words: `7-fold axis along z`."""
        for name, direction in zip("xyz", np.eye(3), strict=True):
            if np.allclose(self.direction, direction):
                return f"{self.fold}-fold axis along {name}"
        return f"{self.fold}-fold axis along ({', '.join(f'{value:.3f}' for value in self.direction)})"


@dataclass(frozen=True)
class PointGroup:
    """A group of rotations.

    Attributes:
        name: in RELION's notation, upper case.
        axes: such that every rotation of the group is, in one way, a product of one rotation about each of them.
    """

    name: str
    axes: tuple[RotationAxis, ...]

    @property
    def order(self) -> int:
        """Number of rotations, with the identity."""
        return int(np.prod([axis.fold for axis in self.axes], dtype=int))


def point_group(name: str) -> PointGroup:
    """Return a point group by its name, in upper or lower case.

    Raises:
        UserError: there is no such group; those with mirrors are not groups of rotations.
    """
    name = name.strip().upper()
    found = re.fullmatch(r"([CD])([1-9]\d?)|T|O|I[1-4]?", name)
    if not found:
        raise UserError(
            f"`symmetry`: expected a point group in RELION's notation ({NAMES}), found {name or 'nothing'}; correct it"
        )
    if found[1]:
        folds = [(int(found[2]), _Z)] + ([(2, _X)] if found[1] == "D" else [])
    elif name == "T":
        twofold = np.array([0, np.sqrt(2 / 3), np.sqrt(1 / 3)])
        folds = [(3, _Z), (2, twofold), (2, rotation_matrix(_Z, 2 * np.pi / 3) @ twofold)]
    elif name == "O":
        folds = [(3, np.ones(3)), (4, _Z), (2, _X)]
    else:
        turn = _ICOSAHEDRAL[name]
        axes = [(5, (1, 0, _PHI)), (3, (1, 1, 1)), (2, _Z), (2, _X)]
        folds = [(fold, turn @ np.asarray(direction, np.float64)) for fold, direction in axes]
    return PointGroup(name, tuple(_axis(fold, direction) for fold, direction in folds if fold > 1))


# Rotations from the axes of I2 to those of each setting.
_TILT = np.arctan(1 / _PHI)  # of the 5-fold axis from z
_ICOSAHEDRAL = {
    "I": np.eye(3),
    "I2": np.eye(3),
    "I1": rotation_matrix(_Z, np.pi / 2),
    "I3": rotation_matrix(_Y, -_TILT),
    "I4": rotation_matrix(_Y, _TILT),
}


def _axis(fold, direction):
    direction = np.asarray(direction, np.float64) / np.linalg.norm(direction)
    return RotationAxis(fold, tuple(float(value) + 0.0 for value in direction))


def group_center(shape: tuple[int, int, int], file_shape: tuple[int, int, int] | None = None) -> tuple[float, ...]:
    """Return the center of rotation, `(z, y, x)` in voxels.

    Args:
        shape: of the grid to rotate on.
        file_shape: of the grid whose voxel N/2 is the center, of the same box; None for the same.
    """
    return tuple(n * (m // 2) / m for n, m in zip(shape, file_shape or shape, strict=True))


def symmetrize(
    array: np.ndarray, group: PointGroup, *, center: tuple[float, ...] | None = None, level: float = 0.0
) -> np.ndarray:
    """Return the mean of a map's copies rotated by all elements of a group.

    It is symmetric within the largest sphere around the center that fits into the box. Voxels in the corners of Fourier
    space that belong to no shell are dropped, unless all rotations are permutations of voxels.

    Args:
        array: `(z, y, x)`, a cube, float32.
        group: of the rotations.
        center: `(z, y, x)` in voxels; None for the voxel N/2.
        level: of the solvent, which comes in where the box ends.

    Returns:
        `(z, y, x)`, float32; two maps of that size are in memory besides the given one.
    """
    center = center or group_center(array.shape)
    out = prepare_rotation(array - np.float32(level), [axis.matrix for axis in group.axes], center)
    for axis in group.axes:
        out = _mean_about(out, axis, center)
    return out + np.float32(level)


def prepare_rotation(array: np.ndarray, matrices: list[np.ndarray], center: tuple[float, ...]) -> np.ndarray:
    """Return a map without what a rotation of a sampled box cannot keep, for `rotate_map`."""
    if all(is_exact(matrix, center) for matrix in matrices):
        return array
    return filter_shells(array, np.ones(max(array.shape) // 2 + 1))


def _mean_about(array, axis, center):
    """Return the mean of the rotations about one axis."""
    matrix, fold = axis.matrix, axis.fold
    if is_exact(matrix, center):
        total, copy = array.copy(), array
        for _ in range(fold - 1):
            copy = rotate_map(copy, matrix, center)
            total += copy
        return total / np.float32(fold)
    tilt = _to_z(axis.direction)
    array = rotate_map(array, tilt, center)
    total = array + sum_of_rotated(array, "z", [2 * np.pi * k / fold for k in range(1, fold)], center)
    total /= np.float32(fold)
    return rotate_map(total, tilt.T, center)


def _to_z(direction):
    """Return the rotation that takes a direction to z by turns about z and y."""
    x, y, z = direction
    return rotation_matrix(_Y, -np.arccos(np.clip(z, -1, 1))) @ rotation_matrix(_Z, -np.arctan2(y, x))
