"""Point groups of symmetric particles, with RELION's names and axes; rotation of maps, and their average over a group.

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

A rotation that maps the grid onto itself is a permutation of voxels and exact. Any other is composed of rotations about
the axes of the grid, plane by plane: each plane is sampled twice as finely by padding its spectrum, which is divided by
the transform of the cubic B-spline, `sinc⁴`, so that the spline through the finer samples has the amplitudes of the
plane itself (Unser 1999, IEEE Signal Process. Mag. 16, 22). What remains are its images at other frequencies,
`(f / (2 - f))⁴` of the amplitude at the share f / 2 of the finer grid's Nyquist frequency: 1.2 % at the Nyquist
frequency of the map itself, 0.7 % at nine tenths of it.

Density that a rotation takes out of the box is lost, and 0 comes in: a map is right within the largest sphere around
the center that fits into the box.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
from scipy import ndimage

from crefjax.errors import UserError
from crefjax.spectral.curves import count_shell_voxels, fsc_from_products, shell_products, solvent_level
from crefjax.spectral.shells import filter_shells

_EXACT = 1e-9  # of a matrix element, from a whole number
_FINER = 2
_PHI = (1 + np.sqrt(5)) / 2
_X, _Y, _Z = np.eye(3)
NAMES = "C1 to C99, D1 to D99, T, O, I, I1, I2, I3, I4"
_TILT = np.arctan(1 / _PHI)  # of the 5-fold axis from z
# Share of the signal that an axis leaves in place, below which there is no such axis, and below which it is doubted.
NONE_SHARED, DOUBTFUL = 0.1, 0.7
_FEWEST_SHELLS = 3


def rotation_matrix(axis: Sequence[float], angle: float) -> np.ndarray:
    """Return the matrix, for vectors `(x, y, z)`, of the right-handed rotation by an angle in radians about an axis."""
    x, y, z = np.asarray(axis, np.float64) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def is_exact(matrix: np.ndarray, center: Sequence[float]) -> bool:
    """Return whether a rotation maps the voxels of a cubic box onto one another.

    Args:
        matrix: `(3, 3)`.
        center: `(z, y, x)` in voxels.
    """
    doubled = 2 * np.asarray(center, np.float64)
    return bool(np.abs(matrix - np.round(matrix)).max() < _EXACT and np.abs(doubled - np.round(doubled)).max() < _EXACT)


def rotate_map(array: np.ndarray, matrix: np.ndarray, center: Sequence[float]) -> np.ndarray:
    """Return a map whose density at p was at `matrix⁻¹ p`, p being `(x, y, z)` from the center.

    Args:
        array: `(z, y, x)`, a cube, float32, about 0 in the solvent, without power beyond its shells unless the rotation
            is exact.
        matrix: `(3, 3)`, a rotation.
        center: `(z, y, x)` in voxels.
    """
    if is_exact(matrix, center):
        return _permuted(array, matrix, center)
    # Euler angles: the rotations about z, the new y, and the new z are those about z, y, z in the opposite order.
    about_y = np.arccos(np.clip(matrix[2, 2], -1, 1))
    if np.hypot(matrix[0, 2], matrix[1, 2]) < _EXACT:
        sign = np.sign(matrix[2, 2])
        first, last = sign * np.arctan2(matrix[1, 0], sign * matrix[0, 0] if sign > 0 else matrix[1, 1]), 0.0
    else:
        first, last = np.arctan2(matrix[2, 1], -matrix[2, 0]), np.arctan2(matrix[1, 2], matrix[0, 2])
    for axis, angle in (("z", first), ("y", about_y), ("z", last)):
        array = rotate_about_axis(array, axis, angle, center)
    return array


def rotate_about_axis(array: np.ndarray, axis: str, angle: float, center: Sequence[float]) -> np.ndarray:
    """Return a map rotated about `x`, `y`, or `z` by an angle in radians; the rest as in `rotate_map`."""
    matrix = rotation_matrix(np.eye(3)["xyz".index(axis)], angle)
    if is_exact(matrix, center):
        return _permuted(array, matrix, center)
    return sum_of_rotated(array, axis, [angle], center)


def sum_of_rotated(array: np.ndarray, axis: str, angles: Sequence[float], center: Sequence[float]) -> np.ndarray:
    """Return the sum of a map's copies rotated about `x`, `y`, or `z` by each of the angles; see `rotate_map`."""
    number = "zyx".index(axis)
    planes = np.moveaxis(array, number, 0)
    middle = np.delete(np.asarray(center, np.float64), number)
    # The plane's axes are (y, x), (z, x), (z, y); a rotation about y takes z to x, the first to the second.
    sign = -1.0 if axis == "y" else 1.0
    matrices = []
    for angle in angles:
        cos, sin = np.cos(angle), sign * np.sin(angle)
        matrices.append(np.array([[cos, -sin], [sin, cos]]))
    out = np.empty(planes.shape, np.float32)
    for plane, total in zip(planes, out, strict=True):
        coefficients = _spline_coefficients(plane)
        total[:] = 0
        for matrix in matrices:
            total += ndimage.affine_transform(
                coefficients,
                _FINER * matrix,
                _FINER * (middle - matrix @ middle),
                output_shape=plane.shape,
                output=np.float32,
                order=3,
                mode="grid-constant",
                prefilter=False,
            )
    return np.ascontiguousarray(np.moveaxis(out, 0, number))


def _spline_coefficients(plane):
    """Return coefficients of cubic B-splines on a grid twice as fine, whose sum has the plane's own spectrum."""
    rows, columns = plane.shape
    spectrum = scipy.fft.rfft2(plane)
    y, x = np.abs(scipy.fft.fftfreq(rows)), scipy.fft.rfftfreq(columns)
    spectrum /= (np.sinc(y / _FINER)[:, None] * np.sinc(x / _FINER)).astype(np.float32) ** 4
    padded = np.zeros((_FINER * rows, _FINER * columns // 2 + 1), spectrum.dtype)
    half = (rows + 1) // 2
    kept = spectrum.shape[1]
    padded[:half, :kept] = spectrum[:half]
    padded[-(rows - half) :, :kept] = spectrum[half:]
    # The coefficient of Nyquist stands for both signs of its frequency.
    if rows % 2 == 0:
        padded[-half] *= np.float32(0.5)
        padded[half] = padded[-half]
    if columns % 2 == 0:
        padded[:, columns // 2] *= np.float32(0.5)
    return scipy.fft.irfft2(padded, (_FINER * rows, _FINER * columns)) * np.float32(_FINER**2)


def _permuted(array, matrix, center):
    """Rotate by a permutation of voxels; the first plane of an even side is its own mirror image."""
    inverse = np.round(matrix.T[::-1, ::-1]).astype(int)  # of (z, y, x): from the place in the result to that before
    source = np.argmax(np.abs(inverse), axis=0)  # axis of the map that becomes each axis of the result
    out = array.transpose(source)
    for axis, before in enumerate(source):
        if inverse[before, axis] < 0:
            side = out.shape[axis]
            out = np.roll(np.flip(out, axis), round(2 * center[axis]) + 1 - side, axis)
    return np.ascontiguousarray(out)


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
        axes: axes such that every rotation of the group is a unique product of one rotation about each of them.
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
        level: of the solvent, which fills voxels that are rotated in from outside the box.

    Returns:
        `(z, y, x)`, float32. Takes memory for two further maps of that size.
    """
    center = center or group_center(array.shape)
    out = prepare_rotation(array - np.float32(level), [axis.matrix for axis in group.axes], center)
    for axis in group.axes:
        out = _mean_about(out, axis, center)
    return out + np.float32(level)


def prepare_rotation(array: np.ndarray, matrices: list[np.ndarray], center: tuple[float, ...]) -> np.ndarray:
    """Remove from a map, before `rotate_map`, what a rotation of a sampled box cannot preserve."""
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


@dataclass(frozen=True)
class SymmetryMatch:
    """How symmetric maps are.

    Attributes:
        group: name of the point group.
        order: number of its rotations.
        axis: the axis of the group that fits the input least, in words.
        input: correlation of the half-maps after a rotation about that axis, over that without one; 1 for a symmetric
            signal whatever the noise. Of one map, its correlation with its rotated copy.
        output: correlation of the network's output with its rotated copy, for the axis that fits least; None before
            the network has run.
        resolution: Å, up to which all Fourier voxels were compared.
    """

    group: str
    order: int
    axis: str
    input: float
    output: float | None
    resolution: float

    @property
    def warning(self) -> str | None:
        """One line if the group is doubtful, else None."""
        if self.input >= DOUBTFUL:
            return None
        return (
            f"only {self.input:.2f} of the input's signal up to {self.resolution:.3g} Å has the {self.axis} of "
            f"{self.group}: the average blurs what differs; check the point group, its axes, and the center, which is "
            "the voxel N/2"
        )

    def describe(self) -> str:
        """Return one line on input and output."""
        output = "" if self.output is None else f", {self.output:.2f} of the network's output"
        return (
            f"symmetry {self.group}, averaged over {self.order} rotations: {self.input:.2f} of the input's signal up "
            f"to {self.resolution:.3g} Å is symmetric{output}"
        )


def check_cube(shape: tuple[int, int, int]) -> None:
    """Raise UserError unless a box is a cube, as a symmetric reconstruction's is."""
    if len(set(shape)) > 1:
        z, y, x = shape
        raise UserError(f"`symmetry`: expected a cubic box, found {x}x{y}x{z} voxels; crop or pad the half-maps")


def input_match(
    maps: Sequence[np.ndarray],
    group: PointGroup,
    region: np.ndarray | None,
    *,
    voxel_size: float,
    center: tuple[float, ...],
    resolution: float | None,
    insist: bool = False,
) -> SymmetryMatch:
    """Measure how symmetric the input is.

    Args:
        maps: two half-maps, or one map; `(z, y, x)`, cubes.
        group: the point group.
        region: mask to compare within; None for the whole box.
        voxel_size: Å.
        center: `(z, y, x)` in voxels.
        resolution: Å, up to which to compare; None for Nyquist.
        insist: whether maps are accepted that have nothing in common with their copies about an axis.

    Raises:
        UserError: they have nothing in common, and the user does not insist.
    """
    share, axis = shared_signal(maps, group, region, voxel_size=voxel_size, center=center, resolution=resolution)
    if share < NONE_SHARED and not insist:
        raise UserError(
            f"`symmetry` {group.name}: expected maps with this symmetry, found {share:.2f} of their signal with its "
            f"{axis}; check the point group, its axes, and the center, which is the voxel N/2, or `insist` on it"
        )
    return SymmetryMatch(group.name, group.order, axis, share, None, max(resolution or 0, 2 * voxel_size))


def shared_signal(
    maps: Sequence[np.ndarray],
    group: PointGroup,
    region: np.ndarray | None,
    *,
    voxel_size: float,
    center: tuple[float, ...],
    resolution: float | None,
) -> tuple[float, str]:
    """Return the correlation that is left after a rotation about the axis that fits least, and that axis in words.

    Correlations are means over Fourier voxels, so that the strong low frequencies, in which all compact particles are
    alike, do not decide. See `input_match`.
    """
    first, second = maps[0], maps[-1]
    levels = [solvent_level(array, region) for array in (first, second)]
    matrices = [axis.matrix for axis in group.axes]
    turned = prepare_rotation(second - np.float32(levels[1]), matrices, center)
    last = len(first) // 2 if resolution is None else int(len(first) * voxel_size / resolution)
    shells = slice(1, max(last, _FEWEST_SHELLS) + 1)
    voxels = count_shell_voxels(first.shape)[shells]

    def mean_fsc(other, level):
        products = shell_products([first, other], region, levels=[levels[0], level])
        return float(np.average(fsc_from_products(products)[shells], weights=voxels))

    whole = mean_fsc(second, levels[1])
    found = [
        (mean_fsc(rotate_map(turned, matrix, center), 0.0), str(axis))
        for axis, matrix in zip(group.axes, matrices, strict=True)
    ]
    least, axis = min(found, default=(whole, ""))
    return least / max(whole, 1e-6), axis
