"""Whether the content of a denoised map lies elsewhere than that of the map that it was made from."""

import numpy as np
import scipy.fft

from crefjax.spectral.calibrate import solvent_level
from crefjax.spectral.shells import box_shells, shell_voxels

# Deviations of the correlation under chance that a shift has to beat no shift by: it is the best of very many places.
_DEVIATIONS = 7.0
# Share of what a true shift would gain over no shift; less is a shift by a part of a voxel, or a filter's doing.
_GAIN = 0.5


def shift_between(
    before: np.ndarray, denoised: np.ndarray, mask: np.ndarray, voxel_size: float, *, independent: np.ndarray
) -> tuple[float, float, float]:
    """How far the content of a denoised map lies from that of the map before.

    Phases are correlated, voxels of the given shells alike, so that the peak is sharp: its height is the mean of
    `cos(phase difference)`, whose deviation under chance is one over the root of the independent numbers. A shift by r
    that is none would have, at 0, a height lower by the factor `b(r)`, the mean of `cos(2π k r)` over the shells. It is
    told where the peak beats the height at 0 by half of that and by several deviations of the difference.

    Args:
        before: `(z, y, x)`.
        denoised: the same shape; its sign does not matter.
        mask: the same shape, 0 to 1.
        voxel_size: Å.
        independent: `(shells,)`, independent numbers in the shells to look at, 0 in others.

    Returns:
        `(x, y, z)` in Å, whole voxels; zeros where no shift is certain.
    """
    chosen = independent > 0
    chosen[0] = False
    if not np.any(chosen):
        return (0.0, 0.0, 0.0)
    shells = box_shells(tuple(before.shape))
    band = np.append(chosen, False)[np.asarray(shells.index)]
    cross = _spectrum(before, mask)
    cross *= np.conj(_spectrum(denoised, None))
    size = np.abs(cross)
    # What is far below the largest is rounding, not a phase.
    usable = band & (size > 1e-14 * float(size.max(initial=0, where=band)))
    cross = np.divide(cross, size, out=np.zeros_like(cross), where=usable)
    height = scipy.fft.irfftn(cross, s=before.shape, workers=-1, overwrite_x=True)
    counts = np.asarray(shell_voxels(shells), np.float64) * chosen
    height *= before.size / np.sum(counts)
    np.abs(height, out=height)
    place = np.unravel_index(int(np.argmax(height)), height.shape)
    voxels = [-(p if p <= n // 2 else p - n) for p, n in zip(place, height.shape, strict=True)]
    turns = 2 * np.linalg.norm(voxels) * np.arange(len(counts)) / max(before.shape)
    lower = 1 - np.sum(counts * np.sinc(turns)) / np.sum(counts)
    best, at_0 = float(height[place]), float(height[0, 0, 0])
    deviation = np.sqrt(2 * max(lower, 0.0) / np.sum(independent[chosen]))
    if best - at_0 <= max(_GAIN * lower * best, _DEVIATIONS * deviation):
        return (0.0, 0.0, 0.0)
    return tuple(float(v) * voxel_size + 0.0 for v in voxels[::-1])


def _spectrum(one, mask):
    """Of a map relative to its solvent level, its largest value made 1 so that products stay in float32's range."""
    centred = one - np.float32(solvent_level(one, mask))
    largest = float(np.max(np.abs(centred)))
    centred /= np.float32(largest if largest > 0 else 1)
    if mask is not None:
        centred *= mask
    return scipy.fft.rfftn(centred, workers=-1)
