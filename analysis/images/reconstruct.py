"""Reconstructions from particle images with known poses, and how two halves of a set compare with each other.

The Fourier inversion of `crefjax.simulate.reconstruction`, with the images of a set in place of simulated slices.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.transform import Rotation

from crefjax.images.formation import image_transfer
from crefjax.images.sets import IMAGES, ImageSet
from crefjax.io.star import find_block, find_numbers, read_star
from crefjax.simulate.imaging import CtfParameters, image_frequencies, shift_phases
from crefjax.simulate.reconstruction import frequency_weights, insert, maps_of_sums
from crefjax.spectral.curves import FscCurve, resolution_at
from crefjax.spectral.fsc import fsc_curve
from crefjax.spectral.shells import box_shells

_BATCH = 32


def reconstruct(
    particles: ImageSet, stacks: tuple[np.ndarray, np.ndarray], numbers: Sequence[int] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Reconstruct two maps from two versions of the same particles, such as raw and denoised ones.

    Args:
        particles: a set of single particles, whose angles, shifts, and defoci are used.
        stacks: two stacks `(len(numbers), side, side)`.
        numbers: of the images in the set, from 0.

    Returns:
        two maps `(side, side, side)`, float32.
    """
    rotations, shifts, defoci = _poses(particles.path / IMAGES)
    optics = CtfParameters(**particles.record["parameters"]["ctf"])
    side, numbers = particles.shape[0], np.asarray(numbers)
    sums = jnp.zeros((2 * side, 2 * side, side + 1, 5))
    for first in range(0, len(numbers), _BATCH):
        chosen = np.arange(first, min(first + _BATCH, len(numbers)))
        filled = np.resize(chosen, _BATCH)
        counts = (np.arange(_BATCH) < len(chosen)).astype(np.float32)
        images = jnp.asarray(np.stack([stack[filled] for stack in stacks], -1))
        at = numbers[filled]
        transfer = image_transfer((side, side), particles.pixel_size, jnp.asarray(defoci[at]), optics)
        sums = _add(sums, images, transfer, rotations[at], shifts[at], counts, particles.pixel_size)
    _, _, maps = maps_of_sums(sums, box_shells((2 * side,) * 3))
    return np.asarray(maps[0]), np.asarray(maps[1])


def _poses(path: Path):
    block = find_block(read_star(path), "particles", path)
    angles, shifts, defoci = (
        np.stack([find_numbers(block, label, path) for label in labels], -1)
        for labels in (
            ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"),
            ("rlnOriginYAngst", "rlnOriginXAngst"),
            ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"),
        )
    )
    matrices = Rotation.from_euler("ZYZ", angles, degrees=True).as_matrix().transpose(0, 2, 1)
    return matrices[:, ::-1, ::-1].astype(np.float32), shifts.astype(np.float32), defoci.astype(np.float32)


@jax.jit
def _add(sums, images, transfer, rotations, shifts, counts, pixel_size):
    """Add `(images, side, side, 2)` to the sums of a reconstruction, each shifted to its middle."""
    side = images.shape[1]
    y, x = image_frequencies(side).astype(int).T
    spectra = jnp.fft.rfft2(jnp.fft.ifftshift(images, axes=(1, 2)), axes=(1, 2))
    slices = spectra[:, y % side, x] * shift_phases(shifts, side, pixel_size)[..., None]
    ctf, weight = transfer[:, y % side, x], frequency_weights(side, counts)
    return insert(sums, (weight * ctf)[..., None] * slices, weight * jnp.square(ctf), rotations)


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
