"""A small simulated set, and configs of two steps on it."""

import pytest

from crefjax.images.sets import write_set
from crefjax.images.simulate import ImageConfig, blurred_truth, simulate_images
from crefjax.images.specimen import specimen_of_atoms
from crefjax.simulate.phantom import phantom
from crefjax.training.config import check_config, default

PIXEL_SIZE = 4.0


@pytest.fixture(scope="session")
def image_set(tmp_path_factory):
    """A set of 8 particle images of 32 pixels, at a high dose."""
    config = ImageConfig(PIXEL_SIZE, 8, side=32, dose=1000.0, seed=5)
    specimen = specimen_of_atoms(phantom(300), PIXEL_SIZE, 24)
    folder = tmp_path_factory.mktemp("sets") / "particles"
    images = simulate_images(specimen, config)
    truth = blurred_truth(specimen, config)
    write_set(folder, images, config, specimen="phantom", diameter=specimen.diameter, truth=truth)
    return folder


@pytest.fixture
def tiny_config(image_set):
    """Return a function that gives the config of two steps of a method, with changed fields by their full names."""

    def make(name, **fields):
        c = default(network=name, task=name)
        c.batch, c.steps, c.epoch_steps = 2, 2, 1
        c.data.patch = 32
        c.data.images.folders = str(image_set)
        c.data.images.held_out, c.data.images.held_out_patches = 0.25, 2
        c.schedule.name, c.schedule.rate = "constant", 1e-3
        for field, value in fields.items():
            c.update_from_flattened_dict({field.replace("__", "."): value})
        check_config(c)
        return c

    return make
