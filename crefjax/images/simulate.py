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

import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft

from crefjax.errors import UserError
from crefjax.images.config import ImageConfig, SimulatedImage
from crefjax.images.micrographs import simulate_micrographs
from crefjax.images.particles import simulate_particles
from crefjax.images.specimen import Specimen
from crefjax.simulate.reconstruction import oversampled_spectrum

MICROGRAPH_SIDE = 1024  # pixels, unless a side is chosen


def simulate_images(specimen: Specimen, config: ImageConfig) -> Iterator[SimulatedImage]:
    """Simulate images one after the other; image `i` depends on seed and `i`, not on their number.

    Args:
        specimen: on voxels of the config's pixel size.
        config: parameters.

    Raises:
        UserError: a parameter is out of range, or the images are smaller than the particle.
    """
    config.check()
    side = config.side or (MICROGRAPH_SIDE if config.micrographs else len(specimen.density))
    if side % 2 and not config.micrographs:
        raise UserError(f"images: expected particles with an even side, found {side} pixels; take another")
    if side < specimen.diameter / config.pixel_size:
        least = int(np.ceil(specimen.diameter / config.pixel_size))
        raise UserError(f"{specimen.name}: expected images of at least {least} pixels, found {side}; take larger ones")
    density = jnp.asarray(specimen.density * (0 if config.empty else config.pixel_size), jnp.float32)
    spectrum = jax.jit(oversampled_spectrum)(density)
    if config.micrographs:
        return simulate_micrographs(spectrum, specimen.diameter, side, config)
    return simulate_particles(spectrum, side, config)


def blurred_truth(specimen: Specimen, config: ImageConfig) -> np.ndarray:
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
