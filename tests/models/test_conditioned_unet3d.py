"""A conditioned network against a plain U-Net whose biases are computed by hand."""

import dataclasses

import jax
import numpy as np
import pytest

from crefjax.models import load_model
from crefjax.models.conditioned_unet3d import ConditionedUNet3DConfig, add_conditioning, condition
from crefjax.models.unet3d import UNet3D
from crefjax.models.unet3d_config import UNet3DConfig
from crefjax.weights.store import load_weights, save_weights

SIZES = {"depth": 2, "down_width": 3, "up_width": 4, "last_widths": (3, 2)}
CONFIG, PLAIN = ConditionedUNet3DConfig(**SIZES, conditions=2), UNet3DConfig(**SIZES)
MODEL = load_model("conditioned_unet3d")


def random_parameters(seed=0):
    random = np.random.default_rng(seed)
    shapes = MODEL.parameter_shapes(CONFIG)
    return {
        name: {key: random.normal(0, 0.3, shape).astype(np.float32) for key, shape in layer.items()}
        for name, layer in shapes.items()
    }


def test_every_bias_is_shifted_by_the_conditions():
    parameters, conditions = random_parameters(), np.array([0.5, -2.0], np.float32)
    plain, config = condition(parameters, conditions, CONFIG)
    assert config == PLAIN
    assert plain.keys() == {layer.name for layer in PLAIN.layers()}
    for name, layer in parameters.items():
        rows = layer["conditioning"]
        np.testing.assert_allclose(plain[name]["bias"], layer["bias"] + 0.5 * rows[0] - 2 * rows[1], rtol=1e-6)
        np.testing.assert_array_equal(plain[name]["kernel"], layer["kernel"])
        assert plain[name].keys() == {"kernel", "bias"}


def test_without_conditions_it_is_the_plain_network():
    parameters = random_parameters()
    x = np.random.default_rng(1).standard_normal((1, 6, 5, 8, 1)).astype(np.float32)
    kept = {name: {key: layer[key] for key in ("kernel", "bias")} for name, layer in parameters.items()}
    expected = UNet3D(PLAIN).apply({"params": kept}, x)
    np.testing.assert_allclose(MODEL.apply(parameters, x, CONFIG), expected, atol=1e-5)
    again = add_conditioning(kept, CONFIG)
    assert not any(layer["conditioning"].any() for layer in again.values())
    np.testing.assert_allclose(MODEL.apply(again, x, CONFIG), expected, atol=1e-5)


def test_initial_parameters_have_the_shapes_and_no_conditioning():
    parameters = MODEL.init(jax.random.key(0), CONFIG)
    shapes = jax.tree.map(np.shape, parameters)
    assert shapes == MODEL.parameter_shapes(CONFIG)
    assert not any(np.any(layer["conditioning"]) for layer in parameters.values())


def test_weights_are_stored_with_their_conditioning(tmp_path):
    card = dict.fromkeys(("source", "license", "training", "expected_input"), "by hand") | {"task": "classification"}
    save_weights(tmp_path / "w", random_parameters(), CONFIG, card)
    weights = load_weights(tmp_path / "w", "classification")
    assert weights.config == CONFIG
    jax.tree.map(np.testing.assert_array_equal, weights.parameters, random_parameters())


@pytest.mark.parametrize("conditions", [0, -1, 2.5, True])
def test_the_number_of_conditions_is_checked(conditions):
    with pytest.raises(ValueError, match="conditions to be a whole number above 0"):
        dataclasses.replace(CONFIG, conditions=conditions)
