"""Compare a finished refinement with the truth: poses, and FSC curves in the frame that the refinement drifted to."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from crefjax.io.maps import read_map
from crefjax.io.star import find_column, find_numbers, read_star
from crefjax.relion.external import read_volume
from crefjax.simulate.atoms import read_atoms
from crefjax.simulate.half_maps import SimulationConfig
from crefjax.simulate.specimen import sample_conformations, specimen_density, truth_mask
from crefjax.spectral.curves import resolution_at
from crefjax.spectral.fsc import fsc_curve

_CLOSE = 15.0  # degrees; particles within are used to find the common shift


@dataclass(frozen=True)
class Frame:
    """How a refinement's frame lies in that of the truth: x goes to `rotation @ x + shift`, (x, y, z) from the middle.

    Attributes:
        rotation: `(3, 3)`.
        shift: `(3,)`, Å.
        angles: `(particles,)`, errors of orientation in degrees, in the common frame.
        offsets: `(particles,)`, errors of position in Å, in the common frame.
    """

    rotation: np.ndarray
    shift: np.ndarray
    angles: np.ndarray
    offsets: np.ndarray


def matrices(block: dict, path: Path) -> np.ndarray:
    """Return the rotations of a table of particles, `(particles, 3, 3)`, of density into image, on (x, y, z)."""
    angles = [find_numbers(block, f"rlnAngle{name}", path) for name in ("Rot", "Tilt", "Psi")]
    return Rotation.from_euler("ZYZ", np.stack(angles, -1), degrees=True).inv().as_matrix()


def find_frame(true: Path, refined: Path) -> Frame:
    """Find the rotation and shift common to all particles, and what remains as errors.

    Args:
        true: STAR file with the true poses.
        refined: STAR file with the refined ones, in any order.
    """
    paths = true, refined
    tables = [read_star(path)["particles"] for path in paths]
    names = [find_column(table, "rlnImageName", path) for table, path in zip(tables, paths, strict=True)]
    order = {name: row for row, name in enumerate(names[0])}
    rows = [order[name] for name in names[1]]
    known, found = (matrices(table, path) for table, path in zip(tables, paths, strict=True))
    known = known[rows]
    each = found.transpose(0, 2, 1) @ known
    common = _robust_mean(each)
    angles = _angles(common.T @ each)
    origins = [
        np.stack([find_numbers(table, f"rlnOrigin{axis}Angst", path) for axis in "XY"], -1)
        for table, path in zip(tables, paths, strict=True)
    ]
    moved = origins[1] - origins[0][rows]
    close = angles <= max(_CLOSE, np.median(angles))
    shift = np.linalg.lstsq(found[close, :2].reshape(-1, 3), moved[close].ravel(), rcond=None)[0]
    return Frame(common, shift, angles, np.linalg.norm(moved - found[:, :2] @ shift, axis=1))


def _robust_mean(rotations):
    """Return the rotation about which most of the given ones lie."""
    weights = np.ones(len(rotations))
    for _ in range(30):
        u, _, v = np.linalg.svd(np.einsum("n,nij->ij", weights, rotations))
        mean = u @ np.diag([1, 1, np.sign(np.linalg.det(u @ v))]) @ v
        weights = 1 / (np.square(_angles(mean.T @ rotations)) + 1)
    return mean


def _angles(rotations):
    cosine = (np.trace(rotations, axis1=1, axis2=2) - 1) / 2
    return np.rad2deg(np.arccos(np.clip(cosine, -1, 1)))


def aligned_truth(particles: Path, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Return truth and mask in the frame of a refinement, computed from the model: nothing is interpolated."""
    truth = read_map(particles / "truth.mrc")
    atoms = read_atoms(particles / "model.cif")
    middle = len(truth.array) / 2 * truth.voxel_size

    def density(positions):
        placed = replace(atoms, positions=positions.astype(np.float32))
        fixed = sample_conformations(placed, None, 0)
        options = {"b_factor": SimulationConfig.b_factor, "extra_b_factor": 0.0}
        return specimen_density(placed, fixed, truth.array.shape, truth.voxel_size, **options)

    here = density(atoms.positions)
    moved = density((atoms.positions - middle) @ frame.rotation.T + middle + frame.shift)
    moved = moved * np.float32(np.vdot(here, truth.array) / np.vdot(here, here))
    return moved, truth_mask(moved, truth.voxel_size)


def measure(particles: Path, run: str) -> tuple[dict, dict]:
    """Measure a refinement.

    Its half-maps without prior are compared: whatever the regularizer changed, it changed by the poses. An FSC between
    regularized half-maps would mean nothing.

    Args:
        particles: folder of the set.
        run: name of the folder of the run in it.

    Returns:
        numbers, and curves by name, each `(shells,)`.
    """
    folder = particles / run
    frame = find_frame(particles / "poses.star", folder / "run_data.star")
    truth, mask = aligned_truth(particles, frame)
    voxel_size = read_map(particles / "truth.mrc").voxel_size
    halves = [read_volume(folder / f"run_half{half}_class001_unfil.mrc", truth.shape) for half in (1, 2)]
    full = (halves[0] + halves[1]) / 2
    half_curve = fsc_curve(*halves, voxel_size, mask, leveled=True)
    to_truth = fsc_curve(full, truth, voxel_size, mask, leveled=True).fsc
    frequency = half_curve.frequency
    curves = {"frequency": frequency, "half_fsc": half_curve.fsc, "cref": half_curve.cref, "truth_fsc": to_truth}
    length, nyquist = len(truth) * voxel_size, 2 * voxel_size
    denoised = next(iter(sorted(folder.glob("*_external_reconstruct_denoised.mrc"))), None)
    numbers = {
        "truth_fsc_mean": float(to_truth[1:-1].mean()),
        "truth_0.5": resolution_at(to_truth, 0.5, length, nyquist).angstrom,
        "half_0.143": half_curve.resolution(0.143).angstrom,
        "cref_excess_mean": float((half_curve.cref - to_truth)[1:-1].mean()),
        "cref_excess_max": float((half_curve.cref - to_truth)[1:-1].max()),
        "angle_median": float(np.median(frame.angles)),
        "angle_within_10": float(np.mean(frame.angles < 10)),
        "offset_median": float(np.median(frame.offsets)),
        "drift_angle": float(_angles(frame.rotation[np.newaxis])[0]),
        "drift_shift": float(np.linalg.norm(frame.shift)),
    }
    if denoised is not None:
        array = read_volume(denoised, truth.shape)
        curves["denoised_truth_fsc"] = fsc_curve(array, truth, voxel_size, mask, leveled=True).fsc
        numbers["denoised_truth_fsc_mean"] = float(curves["denoised_truth_fsc"][1:-1].mean())
    return numbers, curves
