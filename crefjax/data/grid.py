"""The grids of the networks: the working grid of the denoisers, and the unit grid of the voxel classifier.

A network of moderate size works best at one sampling. For weights that were trained on maps whose resolution spans
3.3 voxels, half-maps are resampled to that sampling, in training and in use, by cropping or padding their spectrum, and
the output of the network is resampled back to the map's own grid. The first voxel of both grids lies at the same place.

The classifier works on voxels of 1 Å, with negative density set to 0, and the rest scaled to 0 to 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crefjax.errors import UserError
from crefjax.spectral.b_factors import apply_b_factor, best_blur, low_pass_end, noise_b_factor, signal_b_factor
from crefjax.spectral.curves import (
    THRESHOLD,
    first_shell_below,
    fsc_from_products,
    resolution_at,
    shell_frequencies,
    shell_products,
    solvent_level,
)
from crefjax.spectral.resample import fourier_resample, working_shape
from crefjax.spectral.windows import border_window

VOXELS = 3.3  # per resolution on the working grid, for weights whose card does not say
B_RANGE = (1.0, 18.0)  # over the squared resolution in training; the user is told of maps outside
_RISING = -30.0  # Å²: noise that rises more steeply towards high frequencies is flattened before measuring
_ERRORS = 2.0  # standard errors by which a B-factor must lie outside that range
_MOST_BLUR = 6.0  # over the squared resolution, of one full map, whose fall-off is less well known than that of a pair
_FIRST_SHELL = 6  # a resolution in a lower shell is not a measurement
_LEAST_SOLVENT = 0.05  # of the box, for estimating the noise of a map without half-maps
KEPT = (0.9, 1.1)  # ratio of the two samplings within which the map's own grid is kept
UNIT_VOXEL = 1.0  # Å, of the unit grid
BRIGHTEST = 1000  # Å³ of a map whose density is scaled to 1 or more, and clipped there


@dataclass(frozen=True)
class WorkingGrid:
    """Grid of the network, and the resampling to it and back.

    Attributes:
        shape: `(z, y, x)` in voxels.
        voxel_size: Å, along the longest side.
        resolution: resolution in Å from which the grid was chosen; None if it is unknown, so that the map's own was
            kept.
        blur: Å², the B-factor by which maps are blurred (below 0: sharpened) for the network. Beyond the resolution the
            sharpening factor stays constant, because it would amplify noise alone.
        notes: one line for each thing that the user should know.
    """

    shape: tuple[int, int, int]
    voxel_size: float
    resolution: float | None = None
    blur: float = 0.0
    notes: tuple[str, ...] = ()

    def resample(self, array: np.ndarray) -> np.ndarray:
        """Return a map, `(z, y, x)` on its own grid, on this one, blurred for the network."""
        return self._with_b_factor(fourier_resample(array, self.shape), self.blur)

    def resample_mask(self, mask: np.ndarray) -> np.ndarray:
        """Return a mask, `(z, y, x)` on the map's own grid, on this one, within 0 to 1."""
        return np.clip(fourier_resample(mask, self.shape), 0, 1)

    def restore(self, array: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
        """Return a map on this grid, on one of `shape` voxels, with the blur undone."""
        return fourier_resample(self.undo_blur(array), shape)

    def undo_blur(self, array: np.ndarray) -> np.ndarray:
        """Return a map on this grid with the blur undone."""
        return self._with_b_factor(array, -self.blur)

    def _with_b_factor(self, array, b_factor):
        end = 1 / self.resolution if self.blur < 0 and self.resolution else None
        return apply_b_factor(array, self.voxel_size, b_factor, end)


def find_grid(
    maps: Sequence[np.ndarray],
    voxel_size: float,
    region: np.ndarray | None,
    *,
    voxels: float,
    resolution: float | None = None,
    keep: bool = False,
    products: np.ndarray | None = None,
) -> WorkingGrid:
    """Choose the working grid of two half-maps, or of one full map.

    Args:
        maps: two half-maps, or one full map, each `(z, y, x)`.
        voxel_size: Å.
        region: mask within which to measure; None for the whole box.
        voxels: number of voxels per resolution.
        resolution: Å; None to have it measured.
        keep: whether the map's own grid is kept, and only the fall-off of the amplitudes is measured.
        products: `shell_products` of the half-maps less their solvent levels under that mask, if already measured.
    """
    shape = maps[0].shape
    longest, frequency = max(shape) * voxel_size, shell_frequencies(shape, voxel_size)
    notes, blur = (), 0.0
    if len(maps) == 2:
        maps, flattened_by = _flattened(maps, voxel_size)
        if products is None or flattened_by:
            products = shell_products(maps, region, levels=[solvent_level(half, region) for half in maps])
        if resolution is None:
            resolution, notes = _resolution_of_halves(products, longest)
        if resolution is not None:
            blur, blur_notes = _blur(products, frequency, resolution, flattened_by=flattened_by)
            notes += blur_notes
    else:
        powers = _powers_of_one_map(maps[0], region)
        if resolution is None:
            resolution, notes = _resolution_of_one_map(*powers, shape, voxel_size)
        if resolution is not None and region is not None:
            products = _products_of_one_map(*powers, frequency, resolution)
            blur, blur_notes = _blur(products, frequency, resolution, one_map=True)
            notes += blur_notes
    file_grid = WorkingGrid(shape, voxel_size, resolution, blur, notes)
    if resolution is None or keep or KEPT[0] <= voxels * voxel_size / resolution <= KEPT[1]:
        return file_grid
    shape = working_shape(shape, voxel_size, resolution, voxels)
    return WorkingGrid(shape, longest / max(shape), resolution, blur, notes)


def level_and_rms(full: np.ndarray, region: np.ndarray | None) -> tuple[float, float]:
    """Return the solvent's level, and the root mean square of a full map relative to it within a mask.

    With weights for a working grid, maps are standardized by these two numbers, which do not depend on the size of the
    box.

    Args:
        full: `(z, y, x)`.
        region: mask, or None for the whole box.
    """
    level = solvent_level(full, region)
    weights = [None] * len(full) if region is None else region
    total = weight = 0.0
    for plane, inside in zip(full, weights, strict=True):
        squared = np.square(plane.astype(np.float64) - level)
        total += float(squared.sum() if inside is None else np.vdot(squared, inside))
        weight += plane.size if inside is None else float(inside.sum(dtype=np.float64))
    return level, float(np.sqrt(total / weight))


def _flattened(halves, voxel_size):
    """Return the half-maps without a steep rise of their noise, which would dominate under a mask; the blur in Å²."""
    rise = noise_b_factor(*halves, voxel_size)
    if rise is None or rise > _RISING:
        return halves, 0.0
    return [apply_b_factor(half, voxel_size, -rise) for half in halves], -rise


def _resolution_of_halves(products, longest):
    """Return the resolution in Å, or None if it is unknown; notes for the user."""
    fsc = fsc_from_products(products)
    shell = first_shell_below(fsc, THRESHOLD)
    if shell is not None and shell < _FIRST_SHELL:
        return None, ("the half-maps have too little in common to choose a grid by; the file's own is kept",)
    return resolution_at(fsc, THRESHOLD, longest, longest / (len(fsc) - 1)).angstrom, ()


def _powers_of_one_map(full, region):
    """Return the power of a map within a mask by shell, and that of its noise there; None for what is unknown.

    The noise is that of the solvent, which therefore has to be a part of the box.
    """
    if region is None:
        return None, None
    level = solvent_level(full, region)
    inside = shell_products([full], region, levels=[level])[:, 0, 0]
    outside = np.clip(1 - region, 0, 1) * _border(region.shape)
    if outside.sum() < _LEAST_SOLVENT * outside.size:
        return inside, None
    noise = shell_products([full], outside, levels=[level])[:, 0, 0]
    return inside, noise * np.square(region, dtype=np.float64).sum() / np.square(outside, dtype=np.float64).sum()


def _resolution_of_one_map(inside, noise, shape, voxel_size):
    """Return the resolution in Å, or None if it is unknown; notes for the user.

    If the map was clearly low-passed, it is that of the low-pass; else it follows from the contrast of the particle to
    its solvent. With the power `P` within the mask and `N` outside, a full map has the ratio `(P - N) / N` of signal to
    noise; if it is 1/3, half-maps would have an FSC of 0.143.
    """
    advice = "the map's own grid is kept; give the `resolution` to choose by it"
    if inside is None:
        return None, (f"no particle was found by which to estimate the resolution; {advice}",)
    end = low_pass_end(inside, shell_frequencies(shape, voxel_size))
    if end is None:
        if noise is None:
            return None, (f"there is too little solvent by which to estimate the resolution; {advice}",)
        ratio = inside / np.maximum(noise, 1e-12 * inside.max()) - 1
        smooth = np.convolve(np.pad(ratio, 1, "edge"), np.ones(3) / 3, "valid")
        shell = first_shell_below(smooth, 1 / 3)
        if shell is None:
            return None, (f"the solvent is empty, so the resolution cannot be estimated; {advice}",)
        if shell < _FIRST_SHELL:
            return None, (f"the particle hardly stands out of its solvent; {advice}",)
        end = shell / (max(shape) * voxel_size)
    note = f"resolution estimated from the map alone: {1 / end:.3g} Å; give a better `resolution` if it is known"
    return float(1 / end), (note,)


def _products_of_one_map(inside, noise, frequency, resolution):
    """Return what `shell_products` of a map's half-maps would be up to its resolution, by its signal and noise."""
    noise = np.zeros_like(inside) if noise is None else noise
    signal = np.where(frequency <= 1 / resolution, np.maximum(inside - noise, 0), 0)
    own = signal + 2 * np.minimum(noise, inside)
    return np.stack([np.stack([own, signal], -1), np.stack([signal, own], -1)], -1)


def _border(shape, edge=6):
    """Return 1, falling off to 0 at the borders of a box over `edge` voxels."""
    z, y, x = (border_window(side, edge).astype(np.float32) for side in shape)
    return z[:, None, None] * y[:, None] * x


def _blur(products, frequency, resolution, *, flattened_by=0.0, one_map=False):
    """Return the blur in Å² that brings the signal's fall-off to the best one; notes for the user."""
    estimate = signal_b_factor(products, frequency)
    if estimate is None:
        return 0.0, ()
    b_factor, error = estimate
    own = b_factor - flattened_by
    blur = best_blur(own, error, resolution)
    if one_map:
        blur = min(blur, _MOST_BLUR * resolution**2)
    outside = np.clip(own, *(bound * resolution**2 for bound in B_RANGE)) - own
    if abs(outside) <= _ERRORS * error:
        return blur, ()
    what = f"{'map is' if one_map else 'half-maps are'} strongly {'sharpened' if outside > 0 else 'blurred'}"
    change = f"{'it is' if one_map else 'they are'} {'blurred' if blur > 0 else 'sharpened'}"
    return blur, (f"the {what}: for the network, {change} by a B-factor of {abs(blur):.0f} Å²",)


def unit_grid(shape: tuple[int, int, int], voxel_size: float) -> tuple[int, int, int]:
    """Return the sides `(z, y, x)` of the same box on the classifier's grid.

    The voxels of the new grid differ from 1 Å by at most half a voxel over the length of the box.
    """
    return tuple(max(1, round(side * voxel_size / UNIT_VOXEL)) for side in shape)


def scale_density(array: np.ndarray, voxel_size: float) -> np.ndarray:
    """Scale a density to 0 to 1, with negative density set to 0.

    The density that is exceeded in `BRIGHTEST` Å³ becomes 1, as does any higher one: the maximum of a map depends on a
    single voxel, and a quantile on how much solvent the box has.

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
    return scale_density(resampled, UNIT_VOXEL)
