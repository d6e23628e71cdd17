"""How far maps have the symmetry over which their denoised versions are averaged."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crefjax.errors import UserError
from crefjax.spectral.curves import count_shell_voxels, fsc_from_products, shell_products, solvent_level
from crefjax.spectral.point_groups import PointGroup, prepare_rotation
from crefjax.spectral.rotation import rotate_map

# Share of the signal that an axis leaves in place, below which there is no such axis, and below which it is doubted.
NONE_SHARED, DOUBTFUL = 0.1, 0.7
_FEWEST_SHELLS = 3


@dataclass(frozen=True)
class SymmetryMatch:
    """How symmetric maps are.

    Attributes:
        group: name of the point group.
        order: number of its rotations.
        axis: of the group, in words, the one that fits the input least.
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
    """Return the correlation that the rotation about each axis leaves, for the least axis, and that axis in words.

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
