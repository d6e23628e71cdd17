"""The parameters of simulated images, what an image consists of, and what particles and micrographs share."""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import numpy as np

from crefjax.errors import UserError
from crefjax.io.star import euler_angles
from crefjax.simulate.imaging import CtfParameters, images_of_slices, shift_phases
from crefjax.simulate.reconstruction import project

BATCH = 32  # particles projected together


@dataclass(frozen=True)
class ImageConfig:
    """The parameters of a simulated set, except its specimen.

    Attributes:
        pixel_size: Å.
        count: images, or micrographs.
        side: of the images, pixels; None for the box of the particle (particles) or 1024 (micrographs).
        micrographs: whether to simulate micrographs instead of single particles.
        seed: random seed of everything.
        dose: electrons per Å² of the whole exposure.
        efficiency: share of the electrons that the detector counts, its DQE at frequency 0.
        mtf: of the detector at Nyquist; see `formation.detected`.
        b_factor: Å², of the envelope: motion, partial coherence.
        ctf: optics; every image has its own defocus between the bounds.
        astigmatism: Å, largest difference of the two defoci, drawn uniformly from 0.
        ice: Å, mean thickness.
        structure_factor: power of the ice over that of independent molecules; 0 for smooth ice.
        shift: Å, standard deviation of a particle's place in its image along each axis (particles).
        preferred: concentration of the views around z; see `sample_rotations`.
        particles: in each micrograph, as many as fit (micrographs).
        unevenness: of the ice's thickness, standard deviation over mean (micrographs).
        carbon: share of the micrographs with a carbon edge (micrographs).
        crystals: mean number of ice crystals in a micrograph (micrographs).
        empty: whether the particles are left out, so that images have only noise.
    """

    pixel_size: float
    count: int
    side: int | None = None
    micrographs: bool = False
    seed: int = 0
    dose: float = 40.0
    efficiency: float = 0.85
    mtf: float = 0.5
    b_factor: float = 80.0
    ctf: CtfParameters = field(default_factory=CtfParameters)
    astigmatism: float = 300.0
    ice: float = 300.0
    structure_factor: float = 0.1
    shift: float = 3.0
    preferred: float = 0.0
    particles: int = 40
    unevenness: float = 0.1
    carbon: float = 0.3
    crystals: float = 2.0
    empty: bool = False

    def check(self) -> None:
        """Check that every parameter is within its range.

        Raises:
            UserError: one is not.
        """
        for name, least, most, unit in (
            ("pixel_size", 0.5, 100, " Å"),
            ("count", 1, 10**7, ""),
            ("seed", 0, 2**32 - 1, ""),
            ("dose", 0.1, 10000, " electrons per Å²"),
            ("efficiency", 0.01, 1, ""),
            ("mtf", 0.01, 1, ""),
            ("b_factor", 0, 2000, " Å²"),
            ("astigmatism", 0, 20000, " Å"),
            ("ice", 0, 5000, " Å"),
            ("structure_factor", 0, 2, ""),
            ("shift", 0, 100, " Å"),
            ("preferred", 0, 1000, ""),
            ("particles", 1, 10000, ""),
            ("unevenness", 0, 0.5, ""),
            ("carbon", 0, 1, ""),
            ("crystals", 0, 100, ""),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                raise UserError(f"images: expected {name} of {least:g} to {most:g}{unit}, found {value:g}; correct it")
        if self.side is not None and not 16 <= self.side <= 16384:
            raise UserError(f"images: expected a side of 16 to 16384 pixels, found {self.side}; correct it")
        self.ctf.check()

    @property
    def electrons(self) -> float:
        """Electrons that are counted in a pixel of the mean ice in the whole exposure."""
        return self.dose * self.pixel_size**2 * self.efficiency


class SimulatedImage(NamedTuple):
    """One image of a set.

    Attributes:
        even: `(y, x)`, float32, half of the exposure.
        odd: the other half.
        clean: the signal.
        background: expected intensity without particles; None for single particles.
        row: fields of its row in `images.star`, but for its name.
        particles: of a micrograph, a row of `particles.star` for each, but for its name.
    """

    even: np.ndarray
    odd: np.ndarray
    clean: np.ndarray
    background: np.ndarray | None
    row: dict[str, float | int]
    particles: list[dict[str, float | int]]

    @property
    def noisy(self) -> np.ndarray:
        """The whole exposure."""
        return (self.even + self.odd) / 2


def random_key(config: ImageConfig, purpose: int) -> jax.Array:
    """Return JAX's random key of a purpose: 0 for views, 1 for what surrounds the particles."""
    return jax.random.fold_in(jax.random.key(config.seed), purpose)


def host_random(config: ImageConfig, image: int) -> np.random.Generator:
    """Return NumPy's generator of an image."""
    return np.random.default_rng([config.seed, image])


def draw_defocus(config: ImageConfig, random: np.random.Generator) -> np.ndarray:
    """Draw defocus along and across a direction, Å, and that direction, degrees; float32 `(3,)`."""
    middle = random.uniform(config.ctf.defocus_min, config.ctf.defocus_max)
    half = random.uniform(0, config.astigmatism) / 2
    return np.array([middle + half, middle - half, random.uniform(-90, 90)], np.float32)


@jax.jit
def projections(spectrum: jax.Array, rotations: jax.Array, shifts: jax.Array, pixel_size: float) -> jax.Array:
    """Return projections in the box of the particle, shifted by `(y, x)` in Å.

    Args:
        spectrum: of the density, from `oversampled_spectrum`.
        rotations: `(images, 3, 3)`, acting on `(z, y, x)`.
        shifts: `(images, 2)`.
        pixel_size: Å.

    Returns:
        `(images, side, side)`, the sums along z.
    """
    side = len(spectrum) // 2
    return images_of_slices(project(spectrum, rotations) * shift_phases(shifts, side, pixel_size), side)


def ctf_row(defocus: np.ndarray) -> dict[str, float]:
    """Return the fields of a STAR file for a defocus from `draw_defocus`."""
    return {"rlnDefocusU": float(defocus[0]), "rlnDefocusV": float(defocus[1]), "rlnDefocusAngle": float(defocus[2])}


def pose_row(rotation: np.ndarray) -> dict[str, float]:
    """Return RELION's Euler angles of a rotation `(3, 3)` that acts on `(z, y, x)`."""
    rot, tilt, psi = euler_angles(rotation[np.newaxis])[0]
    return {"rlnAngleRot": float(rot), "rlnAngleTilt": float(tilt), "rlnAnglePsi": float(psi)}
