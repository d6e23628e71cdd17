"""Batches of crops for training."""

import numpy as np
import pytest

from crefjax.errors import UserError
from crefjax.images.batches import image_batches
from crefjax.images.sets import CLEAN, EVEN, ODD


def test_a_batch_has_standardized_crops_of_one_image(particles):
    """A crop of the whole image is that image, whichever it is."""
    batches = image_batches([particles], patch=32, batch=5, turns=False, threads=0)
    batch = next(batches)
    assert batches.names == ("particles",)
    for name in ("half_map_1", "half_map_2", "truth"):
        assert batch[name].shape == (5, 1, 32, 32)
    even, odd, clean = (particles.stack(name).read(slice(None)) for name in (EVEN, ODD, CLEAN))
    noisy = (even + odd) / 2
    level, deviation = (values[:, None, None] for values in (noisy.mean((1, 2)), noisy.std((1, 2))))
    expected = {
        "half_map_1": (even - level) / deviation,
        "half_map_2": (odd - level) / deviation,
        "truth": (clean - clean.mean((1, 2), keepdims=True)) / deviation,
    }
    for sample in range(5):
        index = np.abs(expected["half_map_1"] - batch["half_map_1"][sample]).max((1, 2)).argmin()
        for name, images in expected.items():
            np.testing.assert_allclose(batch[name][sample, 0], images[index], atol=1e-3)


def test_particles_of_micrographs_are_made_bright(micrographs):
    batch = next(image_batches([micrographs], patch=192, batch=2, turns=False, threads=0))
    clean = micrographs.stack(CLEAN).read(slice(None))
    for sample in batch["truth"][:, 0]:
        correlations = [np.corrcoef(sample.ravel(), image.ravel())[0, 1] for image in clean]
        assert min(correlations) < -0.999


def test_a_position_is_resumed_exactly(particles):
    settings = {"patch": 24, "batch": 4, "seed": 2, "threads": 0}
    batches = image_batches([particles], **settings)
    next(batches)
    state, expected = batches.get_state(), next(batches)
    again = image_batches([particles], **settings)
    again.set_state(state)
    for name, value in next(again).items():
        np.testing.assert_array_equal(value, expected[name])
    with pytest.raises(UserError, match="belongs to other patches"):
        image_batches([particles], **settings | {"seed": 3}).set_state(state)


def test_processes_have_the_parts_of_the_batches_of_one(particles):
    settings = {"patch": 24, "batch": 4, "seed": 2, "threads": 0}
    parts = [next(image_batches([particles], process=(index, 2), **settings)) for index in range(2)]
    for name, value in next(image_batches([particles], **settings)).items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), value)


def test_parts_of_a_set_do_not_overlap(particles):
    """Each image is recognized by its brightest pixel, which a turned crop of the whole image keeps."""
    clean = particles.stack(CLEAN).read(slice(None))
    noisy = (particles.stack(EVEN).read(slice(None)) + particles.stack(ODD).read(slice(None))) / 2
    peaks = (clean.max((1, 2)) - clean.mean((1, 2))) / noisy.std((1, 2))
    for first, last, allowed in ((0.0, 0.75, peaks[:30]), (0.75, 1.0, peaks[30:])):
        batches = image_batches([particles], patch=32, batch=20, first=first, last=last, count=40, threads=0)
        found = np.concatenate([batch["truth"].max((1, 2, 3)) for batch in batches])
        assert len(found) == 40
        assert np.abs(found[:, None] - allowed[None]).min(1).max() < 1e-4


def test_mistakes_are_refused(particles):
    with pytest.raises(UserError, match="at least 64 pixels"):
        image_batches([particles], patch=64, batch=1)
    with pytest.raises(UserError, match="at least one set"):
        image_batches([], patch=16, batch=1)
    with pytest.raises(UserError, match="expected images in this part"):
        image_batches([particles], patch=16, batch=1, first=1.0)
