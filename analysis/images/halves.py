"""Reconstructions of two halves of a set's particles, compared with each other and with the truth."""

from collections.abc import Iterator

import numpy as np

from crefjax.images.reconstruct import reconstruct
from crefjax.images.sets import ImageSet
from crefjax.spectral.curves import FscCurve, resolution_at
from crefjax.spectral.fsc import fsc_curve


def reconstruct_halves(
    particles: ImageSet, stacks: tuple[np.ndarray, np.ndarray], numbers: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield for each of two stacks the maps of every other particle and of the others.

    Args:
        particles: the set, whose angles, shifts, and defoci are used.
        stacks: two versions of its images, `(len(numbers), side, side)`.
        numbers: of the images in the set, from 0.

    Yields:
        two maps `(side, side, side)`.
    """
    parts = [np.arange(len(numbers))[half::2] for half in (0, 1)]
    maps = [reconstruct(particles, tuple(stack[part] for stack in stacks), numbers[part]) for part in parts]
    yield from zip(*maps, strict=True)


def compare_halves(particles: ImageSet, halves: tuple[np.ndarray, np.ndarray]) -> dict:
    """Return numbers and curves of two reconstructions.

    Args:
        particles: the set, for the truth.
        halves: two maps `(side, side, side)`, of independent particles.

    Returns:
        `fsc_truth`, the mean FSC of their mean to the truth over shells; `cref`, the mean of what their own FSC makes
        one expect of it, `C_ref`, which is too high where both share a bias; `resolution_halves`, Å at 0.143;
        `resolution_truth`, Å at 0.5; and the curves `fsc_truth_curve` and `fsc_halves_curve`.
    """
    voxel, whole = particles.pixel_size, (halves[0] + halves[1]) / 2
    to_truth = fsc_curve(whole, in_box(particles.truth().array, len(whole)), voxel)
    between: FscCurve = fsc_curve(*halves, voxel)
    side = len(whole) * voxel
    return {
        "fsc_truth": float(to_truth.fsc[1:-1].mean()),
        "cref": float(between.cref[1:-1].mean()),
        "fsc_truth_curve": to_truth.fsc.tolist(),
        "fsc_halves_curve": between.fsc.tolist(),
        "resolution_truth": resolution_at(to_truth.fsc, 0.5, side, 2 * voxel).angstrom,
        "resolution_halves": resolution_at(between.fsc, 0.143, side, 2 * voxel).angstrom,
    }


def in_box(array: np.ndarray, side: int) -> np.ndarray:
    """Return a map with an even side, padded or cropped about its middle."""
    before = side // 2 - len(array) // 2
    if before >= 0:
        return np.pad(array, (before, side - len(array) - before))
    return array[-before : -before + side, -before : -before + side, -before : -before + side]
