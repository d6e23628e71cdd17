"""Micrographs: particles at known places in uneven ice, beside the edge of a hole and ice crystals."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from crefjax.images.config import (
    BATCH,
    ImageConfig,
    SimulatedImage,
    ctf_row,
    draw_defocus,
    host_random,
    pose_row,
    projections,
    random_key,
)
from crefjax.images.formation import contrast, detected, half_exposures, image_transfer, phase_per_density
from crefjax.images.specimen import (
    CARBON_PATH,
    CARBON_STRUCTURE,
    ICE_PATH,
    Structure,
    amorphous_phase,
    carbon_edge,
    contamination,
    uneven_thickness,
)
from crefjax.simulate.density import next_fast_len
from crefjax.simulate.imaging import sample_rotations

CARBON_THICKNESS = 120.0  # Å
_MARGIN = 300.0  # Å around a micrograph, from where contrast is transferred into it


def simulate_micrographs(
    spectrum: jax.Array, diameter: float, side: int, config: ImageConfig
) -> Iterator[SimulatedImage]:
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
