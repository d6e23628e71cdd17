"""Point groups and rotations of maps against RELION's operators and sums of Gaussians."""

import numpy as np
import pytest

from crefjax.errors import UserError
from crefjax.spectral.symmetry import point_group, rotate_map, rotation_matrix, symmetrize

SIDE = 32
HALF, THIRD, SEVENTH = (2 * np.pi / n for n in (2, 3, 7))
# Two operators that generate each group, as `relion_refine --sym G --print_symmetry_ops` of RELION 3.1.3 prints them.
GENERATORS = {
    "C4": [[[0, 1, 0], [-1, 0, 0], [0, 0, 1]]],
    "D7": [
        [[0.6234898, 0.7818315, 0], [-0.7818315, 0.6234898, 0], [0, 0, 1]],
        [[1, 0, 0], [0, -1, 0], [0, 0, -1]],
    ],
    "T": [
        [[-0.5, 0.86602539, 0], [-0.86602539, -0.5, 0], [0, 0, 1]],
        [[-1, 0, 0], [0, 0.33333, 0.94281], [0, 0.94281, -0.33333]],
    ],
    "O": [[[0, 1, 0], [0, 0, 1], [1, 0, 0]], [[0, 1, 0], [-1, 0, 0], [0, 0, 1]]],
    "I1": [
        [[1, 0, 0], [0, -1, 0], [0, 0, -1]],
        [[0.80902, -0.5, -0.30902], [0.5, 0.30902, 0.80902], [-0.30902, -0.80902, 0.5]],
    ],
    "I2": [
        [[-1, 0, 0], [0, -1, 0], [0, 0, 1]],
        [[0.5, 0.80902, 0.30902], [-0.80902, 0.30902, 0.5], [0.30902, -0.5, 0.80902]],
    ],
    "I3": [
        [[-0.44721, 0, -0.89443], [0, -1, 0], [-0.89443, 0, 0.44721]],
        [[0.309017, 0.95105654, 0], [-0.95105654, 0.309017, 0], [0, 0, 1]],
    ],
    "I4": [
        [[-0.44721, 0, 0.89443], [0, -1, 0], [0.89443, 0, 0.44721]],
        [[0.8618, 0.42533, 0.27639], [-0.42533, 0.30902, 0.85065], [0.27639, -0.85065, 0.44721]],
    ],
}
GENERATORS["I"] = GENERATORS["I2"]
ORDERS = {"C4": 4, "D7": 14, "T": 12, "O": 24, "I": 60, "I1": 60, "I2": 60, "I3": 60, "I4": 60}


def generated(generators):
    """All products of the generators."""
    elements = [np.eye(3)]
    for element in elements:
        for generator in np.array(generators, float):
            product = generator @ element
            if all(np.abs(product - other).max() > 1e-3 for other in elements):
                elements.append(product)
    return np.array(elements)


def products(group):
    """All products of one rotation about each axis."""
    elements = [np.eye(3)]
    for axis in group.axes:
        elements = [element @ np.linalg.matrix_power(axis.matrix, k) for element in elements for k in range(axis.fold)]
    return np.array(elements)


def gaussians(places, side=SIDE, width=1.3):
    """Sum of Gaussians at (x, y, z) in voxels from the voxel N/2."""
    z, y, x = np.indices((side, side, side)) - side // 2
    density = np.zeros((side, side, side))
    for px, py, pz in places:
        density += np.exp(-((x - px) ** 2 + (y - py) ** 2 + (z - pz) ** 2) / (2 * width**2))
    return density.astype(np.float32)


def slow_fsc(first, second):
    a, b = np.fft.fftn(first), np.fft.fftn(second)
    k = np.fft.fftfreq(len(first)) * len(first)
    shell = np.round(np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)).astype(int)

    def total(values):
        return np.bincount(shell.ravel(), values.ravel())[: len(first) // 2 + 1]

    return total((a * b.conj()).real) / np.sqrt(total(abs(a) ** 2) * total(abs(b) ** 2))


@pytest.mark.parametrize("name", GENERATORS)
def test_rotations_are_those_of_relion(name):
    group, expected = point_group(name.lower()), generated(GENERATORS[name])
    found = products(group)
    assert len(expected) == len(found) == group.order == ORDERS[name]
    differences = np.abs(found[:, None] - expected[None]).max((2, 3))
    assert differences.min(0).max() < 2e-4
    assert differences.min(1).max() < 2e-4


@pytest.mark.parametrize("side", [32, 31])
@pytest.mark.parametrize("name", GENERATORS)
def test_mean_over_a_group_is_that_of_rotated_gaussians(name, side):
    places = np.random.default_rng(0).uniform(-5, 5, (4, 3))
    rotations = generated(GENERATORS[name])
    expected = sum(gaussians(places @ rotation.T, side) for rotation in rotations) / len(rotations)
    found = symmetrize(gaussians(places, side) + np.float32(3), point_group(name), level=3.0) - 3
    assert np.abs(found - expected).max() < 2e-3 * expected.max()


@pytest.mark.parametrize(
    ("axis", "angle"),
    [((0, 0, 1), SEVENTH), ((0, 1, 0), 0.4), ((1, 0, 0), 2.0), ((1, 2, 3), THIRD), ((1, 1, 0), HALF), ((0, 0.3, 1), 3)],
)
def test_rotated_map_is_that_of_rotated_gaussians(axis, angle):
    places = np.random.default_rng(1).uniform(-5, 5, (4, 3))
    matrix = rotation_matrix(axis, angle)
    # By Rodrigues' formula, written out for each place.
    unit = np.array(axis) / np.linalg.norm(axis)
    turned = [
        p * np.cos(angle) + np.cross(unit, p) * np.sin(angle) + unit * (unit @ p) * (1 - np.cos(angle)) for p in places
    ]
    found = rotate_map(gaussians(places), matrix, (SIDE // 2,) * 3)
    assert np.abs(found - gaussians(turned)).max() < 2e-3


def test_rotation_there_and_back_loses_nothing_measurable():
    """Noise in a ball, whose amplitudes fall to a tenth at Nyquist, as those of a map do at least."""
    noise = np.random.default_rng(2).standard_normal((SIDE,) * 3)
    z, y, x = np.indices((SIDE,) * 3) - SIDE // 2
    noise *= np.clip((10 - np.sqrt(x**2 + y**2 + z**2)) / 5, 0, 1)
    k = 2 * np.fft.fftfreq(SIDE)
    squared = k[:, None, None] ** 2 + k[:, None] ** 2 + k**2
    noise = np.fft.ifftn(np.fft.fftn(noise) * np.where(squared < 1, 0.1**squared, 0)).real.astype(np.float32)
    matrix = rotation_matrix((1, 2, 3), 1.0)
    center = (SIDE // 2,) * 3
    back = rotate_map(rotate_map(noise, matrix, center), matrix.T, center)
    assert slow_fsc(noise, back)[1 : int(0.9 * SIDE / 2) + 1].min() > 0.999


def test_rotations_of_the_cube_are_exact():
    array = np.random.default_rng(3).standard_normal((SIDE,) * 3).astype(np.float32)
    z, y, x = np.indices((SIDE,) * 3)
    quarter = rotate_map(array, rotation_matrix((0, 0, 1), np.pi / 2), (SIDE // 2,) * 3)
    # What was at (x, y) from the center comes to (-y, x); the box is periodic.
    assert np.array_equal(quarter[z, x, -y % SIDE], array[z, y, x])
    mean = symmetrize(array, point_group("O"))
    assert np.abs(mean - mean[z, -x % SIDE, y]).max() < 1e-6


@pytest.mark.parametrize("name", ["", "D0", "C100", "Ih", "I5", "C4v", "helical"])
def test_unknown_groups_are_refused(name):
    with pytest.raises(UserError, match=r"expected a point group in RELION's notation.*found"):
        point_group(name)
