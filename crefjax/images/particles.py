"""Images of single particles: one projection in the middle of each, in smooth ice."""

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
from crefjax.images.specimen import amorphous_phase
from crefjax.simulate.density import next_fast_len
from crefjax.simulate.imaging import sample_rotations


def simulate_particles(spectrum: jax.Array, side: int, config: ImageConfig) -> Iterator[SimulatedImage]:
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
