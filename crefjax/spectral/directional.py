"""The FSC of two maps by direction, and directions without any power: NumPy and SciPy alone, no JAX.

For each of many directions over a hemisphere, the sums of the FSC run over those Fourier voxels of a shell that lie
within a cone around it (Tan et al. 2017, Nature Methods 14, 793), and over the two neighboring shells, as a cone holds
few voxels.

A direction counts as worse than another only if both their resolutions and their FSC differ by more than those of pairs
without a preferred direction. Of 30 such simulated pairs (32 to 64 voxels, resolutions of 2.3 to 4.3 voxels, masks of a
ball and of a flat ellipsoid, five seeds each), the resolutions of the worst and the best twentieth of the directions
had a ratio of up to 1.5, and the FSC of the worst and the best direction differed by up to 9.8 standard errors, but
never by more than 9 with a ratio above 1.3. Pairs with two and four times as much noise along one axis as across it
had ratios of 1.37 and 1.71, and differences of 13 and 14.
"""

from dataclasses import dataclass

import numpy as np
import scipy.fft

from crefjax.spectral.curves import THRESHOLD, Resolution, first_shell_below, resolution_at, solvent_level

HALF_ANGLE = 20.0  # degrees, of a cone
COUNT = 100  # directions over a hemisphere
RATIO, STRONG, ERRORS = 1.3, 1.7, 11.0  # see above
_EMPTY_CONES = ((8.0, 400), (HALF_ANGLE, COUNT))  # half angle in degrees and number of cones, for empty directions
_FEWEST_NUMBERS = 60  # least number of independent values in a cone whose power is judged
_EMPTY = 0.1  # power of a direction, over the mean of all, below which nothing was measured there
_POWER = 1e-5  # of a map's strongest shell, below which a shell holds nothing
_HIGHEST_SHELL, _LOWEST_LAST = 32, 12  # bounds of the last shell that is searched for such directions
_BEYOND = 1.4  # shells are measured up to this many times the resolution's


@dataclass(frozen=True)
class DirectionalFsc:
    """FSC of two maps by direction.

    Attributes:
        directions: `(directions, 3)`, unit vectors `(x, y, z)` with z of 0 or more.
        frequency: `(shells,)`, 1/Å, from shell 0 on; not necessarily up to Nyquist.
        fsc: `(directions, shells)`, 0 where a cone holds no voxels.
        box: longest side, Å.
        voxel_size: Å.
        half_angle: of the cones, degrees.
    """

    directions: np.ndarray
    frequency: np.ndarray
    fsc: np.ndarray
    box: float
    voxel_size: float
    half_angle: float

    @property
    def cone(self) -> float:
        """Share of a shell's voxels that a cone holds."""
        return float(1 - np.cos(np.radians(self.half_angle)))

    def resolutions(self, threshold: float = THRESHOLD) -> list[Resolution]:
        """Return where the FSC of each direction falls below a threshold."""
        nyquist = max(1 / self.frequency[-1], 2 * self.voxel_size)
        return [resolution_at(curve, threshold, self.box, nyquist) for curve in self.fsc]


def hemisphere(count: int = COUNT) -> np.ndarray:
    """Return directions that are spread evenly over a hemisphere, `(count, 3)`, by the golden angle; the first is z."""
    z = 1 - np.arange(count) / count
    angle = np.arange(count) * np.pi * (3 - np.sqrt(5))
    radius = np.sqrt(1 - z**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=1)


def directional_fsc(
    map_1: np.ndarray,
    map_2: np.ndarray,
    voxel_size: float,
    mask: np.ndarray | None = None,
    *,
    resolution: float | None = None,
    half_angle: float = HALF_ANGLE,
    directions: np.ndarray | None = None,
) -> DirectionalFsc:
    """Measure the FSC of two maps by direction.

    Args:
        map_1: `(z, y, x)`, float32.
        map_2: the same shape.
        voxel_size: Å.
        mask: the same shape, by which both maps, less their solvent levels, are multiplied; None for none.
        resolution: Å, somewhat beyond which nothing is measured, to save time; None for Nyquist.
        half_angle: half-angle of the cones, degrees.
        directions: `(directions, 3)`, unit vectors; None for 100 over a hemisphere.
    """
    directions = hemisphere() if directions is None else directions
    length, last = max(map_1.shape) * voxel_size, max(map_1.shape) // 2
    if resolution is not None:
        last = min(last, int(np.ceil(_BEYOND * length / resolution)))
    position, shell, sums = _products(map_1, map_2, mask, last)
    cos = np.float32(np.cos(np.radians(half_angle)))
    totals = np.empty((len(directions), 3, last + 1))
    for total, direction in zip(totals, directions.astype(np.float32), strict=True):
        inside = np.flatnonzero(_cosine(position, direction) >= cos)
        for row, values in zip(total, sums[:3], strict=True):
            row[:] = np.bincount(shell[inside], values[inside], last + 1)
    cross, power_1, power_2 = (_with_neighbors(totals[:, row]) for row in range(3))
    power = np.sqrt(power_1 * power_2)
    fsc = np.where(power > 0, cross / np.where(power > 0, power, 1), 0)
    frequency = np.arange(last + 1) / length
    return DirectionalFsc(directions, frequency, fsc, length, voxel_size, half_angle)


@dataclass(frozen=True)
class Anisotropy:
    """How far the FSC depends on the direction.

    Attributes:
        best: unit vector `(x, y, z)` of the direction with the highest FSC.
        worst: the same, with the lowest FSC.
        best_resolution: Å, where the FSC of that direction falls below 0.143.
        worst_resolution: the same for the worst direction.
        ratio: of the resolutions in Å of the worst and the best twentieth of the directions.
        spread: difference of the mean FSC of the best and the worst direction, in standard errors.
    """

    best: tuple[float, float, float]
    worst: tuple[float, float, float]
    best_resolution: float
    worst_resolution: float
    ratio: float
    spread: float

    @property
    def preferred(self) -> bool:
        """Whether directions differ by more than chance and the specimen explain."""
        return self.ratio > RATIO and self.spread > ERRORS

    def describe(self) -> str:
        """Return one sentence, without a full stop."""
        found = (
            f"resolution by direction: {self.best_resolution:.2f} Å along {_vector(self.best)}, "
            f"{self.worst_resolution:.2f} Å along {_vector(self.worst)} (x, y, z), ratio of the worst and the best "
            f"twentieth {self.ratio:.2f}"
        )
        if not self.preferred:
            return f"{found}; no sign of preferred orientation"
        strength = "strong " if self.ratio > STRONG else ""
        return f"{found}: a sign of {strength}preferred orientation, or of a missing wedge; density is smeared there"


def _vector(direction):
    return f"({', '.join(f'{value:.2f}' for value in direction)})"


def anisotropy(directional: DirectionalFsc, fsc: np.ndarray, dof: np.ndarray) -> Anisotropy:
    """Compare the directions in the shells from half the resolution's frequency up to it.

    Args:
        directional: of two half-maps.
        fsc: `(shells,)`, FSC of all directions together.
        dof: `(shells,)`, independent numbers in each shell.
    """
    count = directional.fsc.shape[1]
    last = min(first_shell_below(fsc, THRESHOLD) or count - 1, count - 1)
    band = slice(min(max(3, last // 2), last), last + 1)
    weight = dof[band] * directional.cone
    difference = ((directional.fsc[:, band] - fsc[band]) * weight).sum(1) / weight.sum()
    error = np.sqrt(((1 - fsc[band] ** 2) ** 2 * weight).sum()) / weight.sum()
    found = np.array([resolution.angstrom for resolution in directional.resolutions()])
    best, worst = int(difference.argmax()), int(difference.argmin())
    return Anisotropy(
        *(tuple(float(value) for value in directional.directions[place]) for place in (best, worst)),
        *(float(found[place]) for place in (best, worst)),
        float(np.quantile(found, 0.95) / np.quantile(found, 0.05)),
        float((difference[best] - difference[worst]) / max(error, 1e-6)),
    )


def empty_directions(
    map_1: np.ndarray, map_2: np.ndarray | None = None, resolution_shell: int | None = None
) -> tuple[float, tuple[float, float, float]] | None:
    """Look for directions in which two half-maps have no noise, or a map has no power: a missing wedge or cone.

    The noise of half-maps reaches every direction in which anything was measured, whatever the specimen's shape. Noise
    is low too where preferred views sample best, but not the power of the half-maps, which is tested there as well. A
    map without its half-maps is judged by its power alone, and only if its density fills enough of the box for a cone
    to hold independent numbers.

    Args:
        map_1: `(z, y, x)`, float32, not masked if it is a half-map.
        map_2: the other half-map; None if `map_1` is a full map.
        resolution_shell: shell of the resolution; shells from half of it on are used. None for the last one in which
            the map has power.

    Returns:
        The share of directions that are empty, and the unit vector `(x, y, z)` in their middle; None if there are none.
    """
    halves = [map_1] if map_2 is None else [map_1 - map_2, map_1, map_2]
    filled = _filled(map_1) if map_2 is None else 1.0
    powers = {}
    for half_angle, count in _EMPTY_CONES:
        directions = hemisphere(count)
        empty = np.ones(count, bool)
        for number, array in enumerate(halves):
            if number not in powers:
                powers[number] = _relative_power(array, resolution_shell)
            empty &= _power_in_cones(*powers[number], directions, half_angle, filled) < _EMPTY
            if not empty.any():
                break
        else:
            return float(empty.mean()), _middle(directions[empty])
    return None


def _relative_power(array, resolution_shell):
    """Return unit vectors, power over the mean of the shell, and weights of the Fourier voxels that are used."""
    highest = min(_HIGHEST_SHELL, max(array.shape) // 2 - 1)
    position, shell, (_, power, _, weight) = _products(array, array, None, highest)
    means = np.bincount(shell, power, highest + 1) / np.maximum(np.bincount(shell, weight, highest + 1), 1)
    if resolution_shell is None:
        resolution_shell = int(np.flatnonzero(means >= _POWER * means.max())[-1])
    last = min(max(resolution_shell, _LOWEST_LAST), highest)
    used = (shell >= max(2, last // 2)) & (shell <= last) & (means[shell] > 0)
    return position[:, used], power[used] / means[shell[used]], weight[used]


def _power_in_cones(position, relative, weight, directions, half_angle, filled):
    """Return the mean relative power in each cone; 1 where it holds too few independent numbers to tell."""
    found, cos = np.ones(len(directions)), np.float32(np.cos(np.radians(half_angle)))
    for place, direction in enumerate(directions.astype(np.float32)):
        inside = np.flatnonzero(_cosine(position, direction) >= cos)
        voxels = weight[inside].sum()
        if voxels * filled >= _FEWEST_NUMBERS:
            found[place] = relative[inside].sum() / voxels
    return found


def _middle(directions):
    """Return the axis `(x, y, z)` in the middle of others: the first eigenvector of their second moments."""
    axis = np.linalg.eigh(directions.T @ directions)[1][:, -1]
    return tuple(float(value) for value in (axis if axis[2] >= 0 else -axis))


def _filled(array):
    """Return the share of the box that a map's density fills, by its kurtosis: 1 for noise everywhere."""
    squares = np.square(array - np.float32(np.median(array)), dtype=np.float64)
    return float(min(1.0, 3 * squares.mean() ** 2 / max(np.square(squares).mean(), 1e-300)))


def _cosine(position, direction):
    """Return the cosine of the angle to an axis; not as a matrix product, whose threads cost more than they save."""
    return np.abs(position[0] * direction[0] + position[1] * direction[1] + position[2] * direction[2])


def _with_neighbors(values):
    """Add to each shell its neighbors, but not shell 0, the mean."""
    padded = np.pad(values[:, 1:], ((0, 0), (1, 1)))
    return np.pad(padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:], ((0, 0), (1, 0)))


def _products(map_1, map_2, mask, last):
    """Return unit vectors, shells, and products of the Fourier voxels in shells 1 to `last` of the half-spectrum.

    The products are `Re F1 conj(F2)`, `|F1|²`, `|F2|²`, and 1, times the multiplicity of the voxel in the whole
    spectrum.
    """
    spectra = []
    for array in (map_1, map_2):
        array = array - np.float32(solvent_level(array, mask))
        largest = np.float32(np.abs(array).max())
        array /= largest if largest > 0 else np.float32(1)  # squares stay in float32's range
        spectra.append(scipy.fft.rfftn(array if mask is None else array * mask, workers=-1))
    longest = max(map_1.shape)
    axes = [
        longest * frequencies(side)
        for side, frequencies in zip(map_1.shape, (np.fft.fftfreq, np.fft.fftfreq, np.fft.rfftfreq), strict=True)
    ]
    kept = [np.flatnonzero(np.abs(axis) < last + 0.5) for axis in axes]  # before anything of the box's size is made
    spectra = [spectrum[np.ix_(*kept)] for spectrum in spectra]
    nyquist = longest / 2 if map_1.shape[2] % 2 == 0 else np.inf
    z, y, x = (axis[places] for axis, places in zip(axes, kept, strict=True))
    radius = np.sqrt(z[:, None, None] ** 2 + y[:, None] ** 2 + x**2).astype(np.float32)
    chosen = (radius >= 0.5) & (radius < last + 0.5)
    place = np.nonzero(chosen)
    radius = radius[chosen]
    position = np.stack([axis[index] for axis, index in zip((x, y, z), place[::-1], strict=True)])
    position = position.astype(np.float32) / radius
    shell = np.floor(radius + 0.5).astype(np.intp)
    own_mirror = (x[place[2]] == 0) | (x[place[2]] == nyquist)
    weight = np.where(own_mirror, np.float32(1), np.float32(2))
    first, second = (spectrum[chosen].astype(np.complex64) for spectrum in spectra)
    cross = (first.real * second.real + first.imag * second.imag) * weight
    powers = [(part.real**2 + part.imag**2) * weight for part in (first, second)]
    return position, shell, (cross, *powers, weight)
