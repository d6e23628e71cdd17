"""The loss and the metrics of voxel classification against NumPy, and a network that learns to tell voxels apart."""

import dataclasses

import jax
import jax.numpy as jnp
import mrcfile
import numpy as np
import pytest

from crefjax.errors import UserError
from crefjax.models.conditioned_unet3d import ConditionedUNet3DConfig
from crefjax.models.unet3d import UNet3D, UNet3DConfig
from crefjax.training.config import default
from crefjax.training.task import NetworkTask
from crefjax.training.voxel_classification import VoxelClassificationTask, make_task
from crefjax.weights.store import load_weights

NETWORK = UNet3DConfig(depth=1, down_width=4, up_width=4, last_widths=(4,))


def batch_of(count=2, side=8, seed=0):
    random = np.random.default_rng(seed)
    structure = (random.random((count, side, side, side)) < 0.1).astype(np.float32)
    density = np.clip(structure * 0.6 + 0.2 * random.random(structure.shape), 0, 1).astype(np.float32)
    return {"map": density, "structure": structure}


def logits_of(parameters, batch):
    return np.asarray(UNet3D(NETWORK).apply({"params": parameters}, batch["map"][..., None])[..., 0], np.float64)


@pytest.mark.parametrize("weight", [1.0, 40.0])
def test_the_loss_is_the_cross_entropy_of_a_softmax_over_two_classes(weight):
    task = VoxelClassificationTask(NETWORK, structure_weight=weight)
    parameters, batch = task.init(jax.random.key(1)), batch_of()
    logits = logits_of(parameters, batch)
    both = np.stack([np.zeros_like(logits), logits], -1)  # noise, structure
    probability = np.exp(both) / np.exp(both).sum(-1, keepdims=True)
    entropy = -np.where(batch["structure"] == 1, weight * np.log(probability[..., 1]), np.log(probability[..., 0]))
    loss, more = task.loss(parameters, batch, jax.random.key(0))
    np.testing.assert_allclose(loss, entropy.mean((1, 2, 3)), rtol=1e-5)
    assert more == {}


def test_the_metrics_count_voxels():
    task = VoxelClassificationTask(NETWORK)
    parameters, batch = task.init(jax.random.key(1)), batch_of()
    above = logits_of(parameters, batch) > 0
    found = task.metrics(parameters, batch)
    for index in range(2):
        structure = batch["structure"][index] == 1
        kept = (1 + (above[index] & structure).sum()) / (1 + structure.sum())
        noise = (1 + (~above[index] & ~structure).sum()) / (1 + (~structure).sum())
        assert found["structure_kept"][index] == pytest.approx(kept, rel=1e-5)
        assert found["noise_found"][index] == pytest.approx(noise, rel=1e-5)


def test_training_starts_from_given_parameters():
    start = VoxelClassificationTask(NETWORK).init(jax.random.key(5))
    task = VoxelClassificationTask(NETWORK, start=jax.tree.map(np.asarray, start))
    for array, found in zip(jax.tree.leaves(start), jax.tree.leaves(task.init(jax.random.key(6))), strict=True):
        np.testing.assert_array_equal(array, found)


def test_exported_weights_give_the_same_logits(tmp_path):
    task = VoxelClassificationTask(NETWORK)
    parameters, batch = jax.tree.map(np.asarray, task.init(jax.random.key(2))), batch_of()
    task.export(tmp_path / "weights", parameters, {"training": "none"})
    weights = load_weights(tmp_path / "weights", "classification")
    assert weights.card["task"] == "classification"
    np.testing.assert_array_equal(logits_of(weights.parameters, batch), logits_of(parameters, batch))


def test_weights_to_start_from_keep_their_license(tmp_path):
    task = VoxelClassificationTask(NETWORK)
    parameters = jax.tree.map(np.asarray, task.init(jax.random.key(2)))
    task.export(tmp_path / "first", parameters, {"training": "none", "license": "CC BY 4.0"})
    assert load_weights(tmp_path / "first", "classification").card["source"] == "trained with crefjax"
    next_task = task.started_from(load_weights(tmp_path / "first", "classification"))
    next_task.export(tmp_path / "second", parameters, {"training": "none"})
    card = load_weights(tmp_path / "second", "classification").card
    assert card["license"] == "CC BY 4.0"
    assert card["source"] == "trained with crefjax from first: trained with crefjax"


def test_gradient_steps_separate_structure_from_noise():
    task = VoxelClassificationTask(NETWORK, structure_weight=9.0)
    parameters = task.init(jax.random.key(3))

    @jax.jit
    def step(parameters, batch):
        gradient = jax.grad(lambda p: task.loss(p, batch, None)[0].mean())(parameters)
        return jax.tree.map(lambda value, slope: value - 0.05 * slope, parameters, gradient)

    for number in range(150):
        parameters = step(parameters, jax.tree.map(jnp.asarray, batch_of(4, seed=number)))
    found = task.metrics(parameters, batch_of(4, seed=1000))
    assert float(found["structure_kept"].mean()) > 0.97
    assert float(found["noise_found"].mean()) > 0.97


CONDITIONED = ConditionedUNet3DConfig(depth=1, down_width=4, up_width=4, last_widths=(4,), conditions=6)


def random_conditioned_parameters():
    random = np.random.default_rng(11)
    parameters = jax.tree.map(np.asarray, VoxelClassificationTask(CONDITIONED).init(jax.random.key(4)))
    for layer in parameters.values():
        layer["conditioning"] = random.normal(0, 0.3, layer["conditioning"].shape).astype(np.float32)
    return parameters


def test_every_sample_is_classified_by_the_features_of_its_own_map():
    task = VoxelClassificationTask(CONDITIONED)
    parameters, batch = random_conditioned_parameters(), batch_of(3)
    batch["features"] = np.random.default_rng(2).standard_normal((3, 6)).astype(np.float32)
    loss, _ = task.loss(parameters, batch, None)
    for index, features in enumerate(batch["features"]):
        plain = {
            name: {"kernel": layer["kernel"], "bias": layer["bias"] + features @ layer["conditioning"]}
            for name, layer in parameters.items()
        }
        alone = {name: array[index : index + 1] for name, array in batch.items() if name != "features"}
        expected, _ = VoxelClassificationTask(NETWORK).loss(plain, alone, None)
        np.testing.assert_allclose(loss[index], expected[0], rtol=1e-5)


def test_a_network_with_another_number_of_conditions_is_refused():
    with pytest.raises(UserError, match=r"network\.conditions: expected 6 for this task, found 2; correct it"):
        VoxelClassificationTask(dataclasses.replace(CONDITIONED, conditions=2))
    with pytest.raises(UserError, match=r"expected 0 for this task, found 6; choose a network without conditions"):
        NetworkTask(CONDITIONED)


def test_the_training_of_a_conditioned_network_starts_from_plain_weights_with_their_output(tmp_path):
    plain = jax.tree.map(np.asarray, VoxelClassificationTask(NETWORK).init(jax.random.key(7)))
    VoxelClassificationTask(NETWORK).export(tmp_path / "plain", plain, {"training": "for a while"})
    sample = batch_of(1, 20)
    (tmp_path / "maps_0").mkdir()
    for name in ("map", "structure"):
        with mrcfile.new(tmp_path / "maps_0" / f"{name}.mrc", sample[name][0]) as mrc:
            mrc.voxel_size = 1.0
    config = default("conditioned_unet3d", "classification")
    config.network.update({"depth": 1, "down_width": 4, "up_width": 4, "last_widths": (4,)})
    config.weights, config.data.labeled.folders = str(tmp_path / "plain"), str(tmp_path / "maps_*")
    config.data.patch, config.batch = 16, 2
    task, source = make_task(config)
    assert task.network == CONDITIONED
    assert task.pretraining == "for a while"
    batch = next(source.training()).batch
    assert batch["features"].shape == (2, 6)
    loss, _ = task.loss(task.init(jax.random.key(8)), batch, None)
    expected, _ = VoxelClassificationTask(NETWORK).loss(plain, batch, None)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    config.network.depth = 2
    with pytest.raises(UserError, match=r"expected weights for .*depth=2"):
        make_task(config)
