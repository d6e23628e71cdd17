"""The grid of the voxel classifier: 1 Å a voxel, negative density at 0, and the rest scaled to 0 to 1."""

import numpy as np

from crefjax.errors import UserError
from crefjax.spectral.resample import fourier_resample

VOXEL_SIZE = 1.0  # Å
BRIGHTEST = 1000  # Å³: the density that so much of a map exceeds is scaled to 1


def unit_grid(shape: tuple[int, int, int], voxel_size: float) -> tuple[int, int, int]:
    """Return the sides `(z, y, x)` of the same box on the classifier's grid.

    The voxels of the new grid differ from 1 Å by at most half a voxel over the length of the box.
    """
    return tuple(max(1, round(side * voxel_size / VOXEL_SIZE)) for side in shape)


def scale_density(array: np.ndarray, voxel_size: float) -> np.ndarray:
    """Scale a density to 0 to 1, with negative density set to 0.

    The density that is exceeded in `BRIGHTEST` Å³ becomes 1, and what lies above it too: the maximum of a map depends
    on a single voxel, and a quantile on how much solvent the box has.

    Args:
        array: `(z, y, x)`, with the solvent at 0.
        voxel_size: Å.

    Returns:
        float32, the shape of `array`.

    Raises:
        UserError: there is no positive density.
    """
    rank = min(array.size - 1, round(BRIGHTEST / voxel_size**3))
    top = float(np.partition(array, array.size - 1 - rank, axis=None)[array.size - 1 - rank])
    if not top > 0:
        top = float(array.max())
    if not top > 0:
        raise UserError("expected a map with positive density, found none above the solvent; multiply the map by -1")
    return np.clip(array / np.float32(top), 0, 1).astype(np.float32)


def on_unit_grid(array: np.ndarray, voxel_size: float, solvent: float) -> np.ndarray:
    """Bring a map to the classifier's grid, and scale it to 0 to 1.

    The map is resampled by cropping or padding its spectrum, so the first voxel stays in place.

    Args:
        array: `(z, y, x)`.
        voxel_size: Å.
        solvent: density of the solvent, which is subtracted.
    """
    resampled = fourier_resample(array - np.float32(solvent), unit_grid(array.shape, voxel_size))
    return scale_density(resampled, VOXEL_SIZE)
