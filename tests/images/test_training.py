"""Training on sets of images: the project's own task, loop, and weights."""

import json

import numpy as np
import pytest

from crefjax.errors import UserError
from crefjax.training.config import default
from crefjax.training.image_denoising import make_task
from crefjax.training.loop import train
from crefjax.weights.store import load_weights


def config_of(folder):
    c = default("unet2d")
    c.task = "images"
    c.batch, c.steps, c.epoch_steps = 4, 30, 15
    c.data.patch = 32
    c.data.images.folders = str(folder)
    c.data.images.held_out_patches = 8
    c.network.depth, c.network.down_width, c.network.up_width = 2, 8, 8
    c.losses.cref_l1, c.losses.n2n_l2 = 0.0, 1.0
    c.schedule.name, c.schedule.rate = "constant", 5e-3
    return c


def test_noise2noise_learns_and_writes_weights_for_images(tmp_path, particle_folder):
    config = config_of(particle_folder)
    task, source = make_task(config)
    result = train(config, tmp_path / "run", task, source, say=lambda line: None)
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    first, last = (row for row in rows if row["kind"] == "evaluation")
    assert last["n2n_l2"] < first["n2n_l2"]
    assert last["fsc_truth"] > first["fsc_truth"]
    weights = load_weights(result.weights, "images")
    assert weights.card["pixel_sizes"] == [4.0, 4.0]
    assert "reconstruction" in weights.card["not_good_for"]
    with pytest.raises(UserError, match="expected weights for denoising, found some for images"):
        load_weights(result.weights)


def test_loss_of_an_image_is_the_squared_difference_of_its_halves(particle_folder):
    """For a network that gives 0, the mean of the squares of both halves."""
    import jax

    task, source = make_task(config_of(particle_folder))
    parameters = jax.tree.map(np.zeros_like, task.init(jax.random.key(0)))
    batches = source.training()
    batch = next(batches).batch
    batches.close()
    loss, _ = task.loss(parameters, batch, jax.random.key(0))
    expected = (batch["half_map_1"] ** 2 + batch["half_map_2"] ** 2).mean((1, 2, 3)) / 2
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_mistakes_are_refused(tmp_path, particle_folder):
    config = config_of(particle_folder)
    config.data.images.folders = str(tmp_path / "none*")
    with pytest.raises(UserError, match="expected sets of images, found none matching"):
        make_task(config)
    config = config_of(particle_folder)
    config.data.images.held_out = 0.01  # of 40 images
    with pytest.raises(UserError, match="expected images in this part of the sets, found none"):
        make_task(config)
    config = config_of(particle_folder)
    config.data.patch = 64
    with pytest.raises(UserError, match="at least 64 pixels a side"):
        make_task(config)
    volumes = default()
    volumes.task = "images"
    volumes.data.images.folders = str(particle_folder)
    with pytest.raises(UserError, match="expected a network for images, such as unet2d, found 'unet3d'"):
        make_task(volumes)
