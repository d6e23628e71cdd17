"""Small simulated sets, made once."""

import numpy as np
import pytest

from crefjax.images.sets import ImageSet, write_set
from crefjax.images.simulate import ImageConfig, blurred_truth, simulate_images
from crefjax.images.specimen import specimen_of_atoms
from crefjax.simulate.phantom import phantom

PIXEL_SIZE = 4.0


@pytest.fixture(scope="session")
def specimen():
    """A globule of 54 Å in a box of 24 voxels."""
    return specimen_of_atoms(phantom(300), PIXEL_SIZE, 24)


def write(folder, specimen, config):
    truth = None if config.empty else blurred_truth(specimen, config)
    images = simulate_images(specimen, config)
    write_set(folder, images, config, specimen="phantom", diameter=specimen.diameter, truth=truth)
    return folder


@pytest.fixture(scope="session")
def particle_folder(tmp_path_factory, specimen):
    """A set of 40 particle images of 32 pixels, at a high dose."""
    config = ImageConfig(PIXEL_SIZE, 40, side=32, dose=1000.0, seed=5)
    return write(tmp_path_factory.mktemp("sets") / "particles", specimen, config)


@pytest.fixture(scope="session")
def micrograph_folder(tmp_path_factory, specimen):
    """A set of two micrographs of 192 pixels with carbon and crystals."""
    config = ImageConfig(
        PIXEL_SIZE, 2, side=192, micrographs=True, seed=3, particles=12, carbon=1.0, crystals=3.0, dose=100.0
    )
    return write(tmp_path_factory.mktemp("sets") / "micrographs", specimen, config)


@pytest.fixture
def particles(particle_folder):
    with ImageSet(particle_folder) as opened:
        yield opened


@pytest.fixture
def micrographs(micrograph_folder):
    with ImageSet(micrograph_folder) as opened:
        yield opened


@pytest.fixture
def random():
    return np.random.default_rng(0)
