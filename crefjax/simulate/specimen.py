"""The density of a specimen: the model, a part of it that moves, a disordered belt; and the mask around it."""

import math
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from scipy import fft, ndimage
from scipy.spatial.transform import Rotation

from crefjax.errors import UserError
from crefjax.simulate.atoms import Atoms, with_least_b_factor
from crefjax.simulate.density import Scatterers, density, scatterers
from crefjax.simulate.noise import low_passed_noise
from crefjax.spectral.windows import raised_cosine

EXTEND, SOFT_EDGE = 3.0, 6.0  # voxels, of the mask; less in a small box
BODY_FRACTION = 0.15  # of the largest density of the low-passed map; the body is above it
_POSES = 12  # over which a flexible part is averaged


@dataclass(frozen=True)
class BulkSolvent:
    """The solvent that a particle displaces, which lowers its contrast at low frequencies.

    By Babinet's principle, the particle's amplitudes are multiplied by `1 - scale exp(-B s²/4)` (Moews & Kretsinger
    1975, J. Mol. Biol. 91, 201; Glykos & Kokkinidis 2000, Acta Cryst. D56, 1070).

    Attributes:
        scale: the mean density of the solvent over that of the particle, 0 to 1; 0 for a particle in a vacuum.
        b_factor: Å², how smooth the border between both is.
    """

    scale: float = 0.8
    b_factor: float = 100.0

    def factor(self, frequency, xp=np):
        """Return the factor of the particle's amplitudes at frequencies in 1/Å; the same shape."""
        return 1 - self.scale * xp.exp(-self.b_factor * xp.square(frequency) / 4)


@dataclass(frozen=True)
class Flexible:
    """A part of the model that moves as a rigid body about its atom nearest to the other atoms, and is blurred.

    Attributes:
        chains: names of the chains that move; if empty, the `fraction` of all atoms that lie farthest along the
            model's longest principal axis.
        fraction: above 0, below 1.
        angle: degrees, root mean square of the rotations that are averaged.
        b_factor: Å², added to the part's own.
    """

    chains: tuple[str, ...] = ()
    fraction: float = 0.3
    angle: float = 4.0
    b_factor: float = 50.0


@dataclass(frozen=True)
class Belt:
    """Disordered density, as of detergent or lipid, around the middle of the model.

    It lies across the model's longest principal axis, at the height of its center.

    Attributes:
        thickness: Å, along the axis.
        width: Å, outwards from the surface of the model.
        strength: its mean density over the model's own.
        roughness: standard deviation of its density over its mean.
        resolution: Å, of its random structure.
    """

    thickness: float = 30.0
    width: float = 20.0
    strength: float = 0.6
    roughness: float = 0.5
    resolution: float = 10.0


@dataclass(frozen=True)
class Conformations:
    """The positions of a model's atoms: the `moving` ones in all `rotations` about the `hinge`, the others fixed.

    Attributes:
        moving: `(n,)`, bool.
        hinge: `(3,)`, Å, (x, y, z).
        rotations: `(poses, 3, 3)`.
    """

    moving: np.ndarray
    hinge: np.ndarray
    rotations: np.ndarray

    def positions(self, atoms: Atoms) -> np.ndarray:
        """Return all positions of the atoms' centers, `(m, 3)`, Å."""
        arms = atoms.positions[self.moving] - self.hinge
        rotated = np.einsum("pij,nj->pni", self.rotations, arms).reshape(-1, 3) + self.hinge
        return np.concatenate([atoms.positions[~self.moving], rotated])


def sample_conformations(atoms: Atoms, flexible: Flexible | None, seed: int) -> Conformations:
    """Draw the conformations of a model's flexible part from a seed.

    Raises:
        UserError: there is no such chain, the part is empty or the whole model, or a number is out of range.
    """
    if flexible is None:
        return Conformations(np.zeros(len(atoms), bool), np.zeros(3), np.eye(3)[np.newaxis])
    if not (0 <= flexible.angle <= 45 and 0 <= flexible.b_factor <= 1000):
        raise UserError(
            "flexible part: expected an angle of 0 to 45 degrees and a B-factor of 0 to 1000 Å², found "
            f"{flexible.angle:g} and {flexible.b_factor:g}; correct them"
        )
    moving = _moving(atoms, flexible)
    distance = np.linalg.norm(atoms.positions[moving] - atoms.positions[~moving].mean(0), axis=1)
    hinge = atoms.positions[moving][distance.argmin()].astype(np.float64)
    vectors = np.random.default_rng(seed).normal(size=(_POSES, 3))
    vectors -= vectors.mean(0)  # the mean pose is the model's
    vectors *= math.radians(flexible.angle) / np.sqrt(np.mean(np.sum(vectors**2, axis=1)))
    return Conformations(moving, hinge, Rotation.from_rotvec(vectors).as_matrix())


def specimen_density(
    atoms: Atoms, conformations: Conformations, shape, voxel_size: float, *, b_factor: float, extra_b_factor: float
) -> np.ndarray:
    """Compute the density of a model, its moving part averaged over the conformations.

    Atoms whose own and the global B-factor add up to less than `atoms.LEAST_B` are raised to it, before the moving part
    is given its extra B-factor.

    Args:
        atoms: the model, at the box's coordinates.
        conformations: of its atoms.
        shape: `(z, y, x)` of the box in voxels.
        voxel_size: Å.
        b_factor: Å², global blur.
        extra_b_factor: Å², further blur of the moving part.

    Returns:
        `(z, y, x)`, float32.
    """
    all_atoms = scatterers(with_least_b_factor(atoms, b_factor), voxel_size)

    def part(selected):
        return Scatterers(all_atoms.positions, all_atoms.weights * selected[:, np.newaxis], all_atoms.widths)

    total = density(part(~conformations.moving), shape, voxel_size, b_factor=b_factor)
    if conformations.moving.any():
        moving, blur = part(conformations.moving), b_factor + extra_b_factor
        for rotation in conformations.rotations:
            pose = density(moving, shape, voxel_size, rotation=rotation, center=conformations.hinge, b_factor=blur)
            total += pose / len(conformations.rotations)
    return np.asarray(total)


def belt_density(key, model: np.ndarray, atoms: Atoms, belt: Belt, voxel_size: float) -> np.ndarray:
    """Draw the density of a belt around a model's.

    Args:
        key: of `jax.random`.
        model: `(z, y, x)`, the model's density.
        atoms: at the box's coordinates; their longest principal axis is the belt's.
        belt: its parameters.
        voxel_size: Å.

    Returns:
        `(z, y, x)`, float32.

    Raises:
        UserError: a number is out of range.
    """
    lengths = belt.thickness, belt.width, belt.resolution
    if not (min(lengths) > 0 and belt.strength >= 0 and belt.roughness >= 0):
        raise UserError(f"belt: expected lengths above 0 Å, strength and roughness of 0 or more, found {belt}")
    body, smooth = particle_body(model, voxel_size)
    axis = _principal_axis(atoms)
    grid = np.meshgrid(*(np.arange(side, dtype=np.float32) * voxel_size for side in model.shape), indexing="ij")
    middle = atoms.positions.mean(0)
    height = sum(axis[i] * (grid[2 - i] - middle[i]) for i in range(3))
    outward = ndimage.distance_transform_edt(~body) * voxel_size
    # Edges of about 3 Å, as smooth as the density that they are multiplied with.
    shape = _fall(np.abs(height) - belt.thickness / 2) * _fall(outward - belt.width) * (1 - _fall(outward - 1.5))
    random = np.asarray(low_passed_noise(key, model.shape, voxel_size, jnp.float32(belt.resolution)))
    level = belt.strength * float(smooth[body].mean())
    return (level * shape * (1 + belt.roughness * random)).astype(np.float32)


def with_bulk_solvent(truth: np.ndarray, voxel_size: float, solvent: BulkSolvent) -> np.ndarray:
    """Return the density, `(z, y, x)`, float32, of a specimen in a solvent, from that of the specimen in a vacuum.

    Raises:
        UserError: a number is out of range.
    """
    if not (0 <= solvent.scale < 1 and 0 <= solvent.b_factor <= 10000):
        raise UserError(
            "bulk solvent: expected a scale of 0 or more, below 1, and a B-factor of 0 to 10000 Å², found "
            f"{solvent.scale:g} and {solvent.b_factor:g}; correct them"
        )
    axes = [
        *(np.fft.fftfreq(side, voxel_size) for side in truth.shape[:2]),
        np.fft.rfftfreq(truth.shape[2], voxel_size),
    ]
    frequency = np.sqrt(sum(np.square(axis) for axis in np.meshgrid(*axes, indexing="ij", sparse=True)))
    spectrum = fft.rfftn(truth, workers=-1)
    spectrum *= solvent.factor(frequency.astype(np.float32))
    return fft.irfftn(spectrum, truth.shape, workers=-1).astype(np.float32)


def truth_mask(truth: np.ndarray, voxel_size: float) -> np.ndarray:
    """Return a soft mask, float32 in [0, 1], around noise-free density: its body, extended, with a soft edge."""
    body, _ = particle_body(truth, voxel_size)
    longest = max(truth.shape)
    extend, edge = min(EXTEND, longest / 30), min(SOFT_EDGE, longest / 10)
    beyond = ndimage.distance_transform_edt(~body) - extend
    return raised_cosine(beyond / edge).astype(np.float32)


def particle_body(truth: np.ndarray, voxel_size: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the voxels of a noise-free particle, bool, and its density low-passed to about 10 Å."""
    smooth = ndimage.gaussian_filter(truth, max(10 / (math.pi * voxel_size), 0.7), mode="constant")
    return smooth > BODY_FRACTION * smooth.max(), smooth


def _moving(atoms, flexible):
    if flexible.chains:
        chains = sorted(set(atoms.chain.tolist()))
        for chain in flexible.chains:
            if chain not in chains:
                raise UserError(f"{atoms.source}: expected a flexible chain among {', '.join(chains)}, found {chain!r}")
        moving = np.isin(atoms.chain, flexible.chains)
        if moving.all():
            raise UserError(f"{atoms.source}: expected chains that do not move, found all to be flexible; name fewer")
        return moving
    if not 0 < flexible.fraction < 1:
        raise UserError(f"flexible part: expected a fraction between 0 and 1, found {flexible.fraction:g}; correct it")
    along = (atoms.positions - atoms.positions.mean(0)) @ _principal_axis(atoms)
    count = min(max(round(flexible.fraction * len(atoms)), 1), len(atoms) - 1)
    moving = np.zeros(len(atoms), bool)
    moving[np.argsort(along, kind="stable")[-count:]] = True
    return moving


def _principal_axis(atoms):
    """Return the unit vector (x, y, z) along which the atoms spread most, with its largest component positive."""
    centered = atoms.positions.astype(np.float64) - atoms.positions.mean(0)
    axis = np.linalg.eigh(centered.T @ centered)[1][:, -1]
    return axis * np.sign(axis[np.abs(axis).argmax()])


def _fall(distance):
    """Return 1 where the distance in Å is well below 0, 0 where it is well above."""
    return 0.5 - 0.5 * np.tanh(distance / 1.5)
