"""Simulated sets of images whose signal is known: single particles, or micrographs with particles at known places.

A set is a folder:

    set.json          every parameter, the seed, and what the other files hold
    images.mrcs       the noisy images: the whole exposure, which is the mean of the two halves
    even.mrcs         half of the exposure, over its own number of electrons
    odd.mrcs          the other half: the same specimen, independent electrons
    clean.mrcs        the signal: what the particles alone add to the image, CTF and detector included
    background.mrcs   micrographs only: expected intensity without particles, with ice, carbon, and contamination
    images.star       a row for each image: `000001@images.mrcs`, defocus, and for particles angles, shift, and half-set
    particles.star    micrographs only: a row for each particle: micrograph, coordinates, and angles
    truth.mrc         the density of the particle at the same pixel size, with the envelope; missing in empty sets

All stacks are float32 `(image, y, x)` of one shape. Values are contrast, not counts: 1 is the mean intensity of the
ice, a noise-free image of single particles is `clean` (particles bright, mean about 0, as RELION extracts them with
inverted contrast), and a noise-free micrograph is `background + clean` (particles dark, mean about 1, as detectors
record them). `set.json` says which, as `contrast`: `bright` or `dark`. Ice is in both halves alike: it is structure,
which averaging does not remove.

`crefjax.images.sets` reads a set, and `crefjax.images.batches` cuts it into batches for training.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft

from crefjax.errors import UserError
from crefjax.images.formation import contrast, detected, half_exposures, image_transfer, phase_per_density
from crefjax.images.specimen import (
    CARBON_PATH,
    CARBON_STRUCTURE,
    ICE_PATH,
    ImagedSpecimen,
    Structure,
    amorphous_phase,
    carbon_edge,
    contamination,
    uneven_thickness,
)
from crefjax.io.star import euler_angles
from crefjax.simulate.density import next_fast_len
from crefjax.simulate.imaging import CtfParameters, images_of_slices, sample_rotations, shift_phases
from crefjax.simulate.reconstruction import oversampled_spectrum, project

MICROGRAPH_SIDE = 1024  # pixels, unless a side is chosen
CARBON_THICKNESS = 120.0  # Å
_MARGIN = 300.0  # Å around a micrograph, from where contrast is transferred into it
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


def simulate_images(specimen: ImagedSpecimen, config: ImageConfig) -> Iterator[SimulatedImage]:
    """Simulate images one by one; image `i` depends on the seed and `i` alone, not on their number.

    Args:
        specimen: on voxels of the config's pixel size.
        config: parameters.

    Raises:
        UserError: a parameter is out of range, or the images are smaller than the particle.
    """
    config.check()
    side = config.side or (MICROGRAPH_SIDE if config.micrographs else len(specimen.density))
    if side % 2 and not config.micrographs:
        raise UserError(f"images: expected particles with an even side, found {side} pixels; use another side")
    if side < specimen.diameter / config.pixel_size:
        least = int(np.ceil(specimen.diameter / config.pixel_size))
        raise UserError(f"{specimen.name}: expected images of at least {least} pixels, found {side}; use larger ones")
    density = jnp.asarray(specimen.density * (0 if config.empty else config.pixel_size), jnp.float32)
    spectrum = jax.jit(oversampled_spectrum)(density)
    if config.micrographs:
        return _micrographs(spectrum, specimen.diameter, side, config)
    return _particle_images(spectrum, side, config)


def blurred_truth(specimen: ImagedSpecimen, config: ImageConfig) -> np.ndarray:
    """Return the density of a specimen with the images' envelope, `(z, y, x)`, float32: what they can show at best."""
    squared = sum(
        np.square(axis)
        for axis in np.meshgrid(
            *(np.fft.fftfreq(side, config.pixel_size) for side in specimen.density.shape[:2]),
            np.fft.rfftfreq(specimen.density.shape[2], config.pixel_size),
            indexing="ij",
            sparse=True,
        )
    )
    spectrum = scipy.fft.rfftn(specimen.density) * np.exp(-0.25 * config.b_factor * squared)
    return scipy.fft.irfftn(spectrum, s=specimen.density.shape).astype(np.float32)


def _particle_images(spectrum: jax.Array, side: int, config: ImageConfig) -> Iterator[SimulatedImage]:
    """Simulate images of `(side, side)` from the spectrum of a density times the pixel size, 1/Å."""
    box, pad = len(spectrum) // 2, next_fast_len(2 * side)
    rotations = np.asarray(sample_rotations(random_key(config, 0), config.count, config.preferred))
    for first in range(0, config.count, BATCH):
        numbers = np.arange(first, min(first + BATCH, config.count))
        random = [host_random(config, number) for number in numbers]
        shifts = np.float32([config.shift * each.normal(size=2) for each in random])
        defoci = np.stack([draw_defocus(config, each) for each in random])
        filled = np.resize(np.arange(len(numbers)), BATCH)  # so that the last batch is compiled for too
        projected = projections(spectrum, rotations[numbers[filled]], shifts[filled], config.pixel_size)
        clean, background = _imaged_particles(
            projected, jnp.asarray(defoci[filled]), numbers[filled], box, pad, side, config
        )
        for index, number in enumerate(numbers):
            halves = half_exposures(background[index] - clean[index], config.electrons, random[index])
            row = ctf_row(defoci[index]) | pose_row(rotations[number])
            row |= {"rlnOriginXAngst": -float(shifts[index, 1]), "rlnOriginYAngst": -float(shifts[index, 0])}
            row["rlnRandomSubset"] = 1 + int(number) % 2
            yield SimulatedImage(*(1 - half for half in halves), clean[index], None, row, [])


def _imaged_particles(projected, defoci, numbers, box, pad, side, config):
    """Return the particles' contrast, and the intensity of the ice around them, both at the detector."""
    radians = phase_per_density(config.ctf.voltage)
    key = random_key(config, 1)
    ice = jax.vmap(
        lambda number: amorphous_phase(
            jax.random.fold_in(key, number),
            (pad, pad),
            config.pixel_size,
            jnp.float32(config.ice),
            config.structure_factor,
            "ice",
        )
    )(jnp.asarray(numbers))
    before = (pad - box) // 2
    particle = jnp.pad(projected, ((0, 0), (before, pad - box - before), (before, pad - box - before)))
    # The particle's middle, pixel box / 2, comes to pixel pad / 2, and that to pixel side / 2 when it is cut.
    transfer = image_transfer((pad, pad), config.pixel_size, defoci, config.ctf, config.b_factor)
    first = pad // 2 - side // 2
    images = []
    for phase in (particle, ice):
        image = detected(contrast(radians * phase, transfer), config.mtf)
        images.append(np.asarray(image[:, first : first + side, first : first + side]))
    return images[0], 1 - images[1]


def _micrographs(spectrum: jax.Array, diameter: float, side: int, config: ImageConfig) -> Iterator[SimulatedImage]:
    """Simulate micrographs of `(side, side)` from the spectrum of a density times the pixel size, 1/Å.

    Args:
        spectrum: of the particle.
        diameter: of the particle, Å.
        side: pixels.
        config: parameters.
    """
    margin = int(np.ceil(_MARGIN / config.pixel_size))
    padded = next_fast_len(side + 2 * margin)
    first = (padded - side) // 2
    inner = slice(first, first + side)
    for number in range(config.count):
        random, key = host_random(config, number), jax.random.fold_in(random_key(config, 1), number)
        structure = _structure(random, key, (padded, padded), config)
        centers = _place(random, structure.free[inner, inner], diameter, config) + first
        view_key = jax.random.fold_in(random_key(config, 0), number)
        rotations = np.asarray(sample_rotations(view_key, config.particles, config.preferred))
        density = _draw_particles(spectrum, rotations, centers, padded, config)
        defocus = draw_defocus(config, random)
        transfer = image_transfer(
            (padded, padded), config.pixel_size, jnp.asarray(defocus), config.ctf, config.b_factor
        )
        radians = phase_per_density(config.ctf.voltage)
        passed = jnp.asarray(structure.transmission)
        particle = passed * contrast(radians * jnp.asarray(density), transfer)
        around = passed * (1 - contrast(radians * jnp.asarray(structure.density), transfer))
        clean, background = (np.asarray(detected(image, config.mtf)[inner, inner]) for image in (-particle, around))
        halves = half_exposures(background + clean, config.electrons, random)
        rows = [
            pose_row(rotation)
            | {"rlnCoordinateX": float(x - first), "rlnCoordinateY": float(y - first)}
            | ctf_row(defocus)
            for (y, x), rotation in zip(centers, rotations, strict=False)
        ]
        yield SimulatedImage(*halves, clean, background, ctf_row(defocus), [] if config.empty else rows)


def _structure(random, key, shape, config):
    """Return density, transmission, and free places of a micrograph without particles."""
    thickness_key, ice_key, carbon_key = jax.random.split(key, 3)
    thickness = uneven_thickness(thickness_key, shape, config.pixel_size, config.ice, config.unevenness)
    density = amorphous_phase(ice_key, shape, config.pixel_size, thickness, config.structure_factor, "ice")
    carbon = np.zeros(shape, np.float32)
    if random.uniform() < config.carbon:
        carbon = carbon_edge(random, shape, config.pixel_size)
        film = jnp.asarray(CARBON_THICKNESS * carbon)
        density += amorphous_phase(carbon_key, shape, config.pixel_size, film, CARBON_STRUCTURE, "carbon")
    stopped = contamination(random, shape, config.pixel_size, int(random.poisson(config.crystals)))
    passed = np.exp(-(np.asarray(thickness) - config.ice) / ICE_PATH - CARBON_THICKNESS * carbon / CARBON_PATH)
    return Structure(density, (passed * (1 - stopped)).astype(np.float32), (carbon < 0.05) & (stopped < 0.02))


def _place(random, free, diameter, config):
    """Draw the middles of particles, `(n, 2)`, whole pixels, at least a diameter apart, whole and on plain ice."""
    diameter = diameter / config.pixel_size
    border = int(np.ceil(diameter / 2))
    if min(free.shape) <= 2 * border:
        return np.zeros((0, 2), int)
    places: list[np.ndarray] = []
    for _ in range(200 * config.particles):
        place = random.integers(border, np.array(free.shape) - border)
        if not free[tuple(place)] or any(np.hypot(*(place - other)) < 1.1 * diameter for other in places):
            continue
        places.append(place)
        if len(places) == config.particles:
            break
    return np.array(places, int).reshape(-1, 2)


def _draw_particles(spectrum, rotations, centers, padded, config):
    """Return the projected density of all particles of a micrograph, `(padded, padded)`."""
    box = len(spectrum) // 2
    canvas = np.zeros((padded + 2 * box,) * 2, np.float32)
    for first in range(0, len(centers), BATCH):
        numbers = np.resize(np.arange(first, min(first + BATCH, len(centers))), BATCH)
        images = np.asarray(projections(spectrum, rotations[numbers], jnp.zeros((BATCH, 2)), config.pixel_size))
        for image, (y, x) in zip(images, centers[first : first + BATCH], strict=False):
            top, left = y + box - box // 2, x + box - box // 2
            canvas[top : top + box, left : left + box] += image
    return canvas[box:-box, box:-box]
