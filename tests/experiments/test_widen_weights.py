"""A widened network computes the output of the original one."""

import jax.numpy as jnp
import numpy as np
import pytest

from crefjax.models.unet3d import UNet3DConfig, apply_network
from crefjax.weights.store import load_weights, save_weights
from experiments import widen_weights

ABOUT = {"source": "random", "license": "Apache-2.0", "training": "none", "expected_input": "any", "grid": 3.3}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights, including biases, of a small network with every kind of layer."""
    config, rng = UNet3DConfig(depth=3, down_width=3, up_width=4, last_widths=(3, 2)), np.random.default_rng(1)
    parameters = {
        name: {
            "kernel": rng.normal(0, 0.2, (3, 3, 3, into, out)).astype(np.float32),
            "bias": rng.normal(0, 0.2, out).astype(np.float32),
        }
        for name, into, out in config.layers()
    }
    folder = tmp_path_factory.mktemp("weights") / "narrow"
    save_weights(folder, parameters, config, ABOUT)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("widths", "growth"), [((5, 7, (4, 3)), 1), ((3, 4, (3, 2)), 1), ((6, 4, (3, 5)), 1), ((3, 4, (3, 2)), 2)]
)
def test_output_is_the_same(weights, tmp_path, widths, growth):
    down, up, last = widths
    sizes = ["--down", str(down), "--up", str(up), "--last", ",".join(map(str, last)), "--growth", str(growth)]
    assert widen_weights.main([str(weights), str(tmp_path / "wide"), *sizes]) == 0
    narrow, wide = load_weights(weights), load_weights(tmp_path / "wide")
    assert (wide.config.down_width, wide.config.up_width, wide.config.last_widths) == widths
    assert wide.config.growth == growth
    assert {field: wide.card[field] for field in ABOUT} == ABOUT
    assert wide.card["widened_from"] == "narrow"
    x = jnp.asarray(np.random.default_rng(2).normal(size=(1, 16, 8, 24, 1)), jnp.float32)
    expected, actual = (np.asarray(apply_network(net.parameters, x, net.config)) for net in (narrow, wide))
    assert expected.std() > 0.01
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-4)


def test_the_task_of_a_classifier_is_kept(weights, tmp_path):
    card, config = {"task": "classification", "structure_weight": 40.0}, load_weights(weights).config
    save_weights(tmp_path / "classifier", load_weights(weights).parameters, config, ABOUT | card)
    sizes = ["--down", "3", "--up", "4", "--last", "3,2", "--growth", "2"]
    assert widen_weights.main([str(tmp_path / "classifier"), str(tmp_path / "wide"), *sizes]) == 0
    wide = load_weights(tmp_path / "wide", "classification")
    assert {name: wide.card[name] for name in card} == card


def test_weights_of_another_network_are_refused(tmp_path, capsys):
    sizes = ["--down", "3", "--up", "4", "--last", "3,2"]
    assert widen_weights.main(["images", str(tmp_path / "wide"), *sizes]) == 2
    assert "expected weights of unet3d" in capsys.readouterr().err


def test_new_channels_can_learn(weights):
    """New kernels are He-normal (std sqrt(2 / inputs)), weights that read them start at 0, and others are kept."""
    old = load_weights(weights)
    new = UNet3DConfig(depth=3, down_width=30, up_width=40, last_widths=(12, 8))
    wide = widen_weights.widen(old.parameters, old.config, new, np.random.default_rng(3))
    kernel = wide["up1_a"]["kernel"]  # reads 3 of the skip and 3 of the level below; 30 and 30 in the wide one
    assert kernel.shape == (3, 3, 3, 60, 40)
    np.testing.assert_array_equal(kernel[..., [0, 1, 2, 30, 31, 32], :4], old.parameters["up1_a"]["kernel"])
    assert not kernel[..., [*range(3, 30), *range(33, 60)], :4].any()
    assert kernel[..., 4:].std() == pytest.approx(np.sqrt(2 / (27 * 60)), rel=0.02)
    assert not wide["up1_a"]["bias"][4:].any()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (("2", "4", "3,2"), "expected 4 of at least (3, 4, 3, 2), found (2, 4, 3, 2)"),
        (("3", "4", "3"), "expected 4 of at least"),
        (("3", "4", "3,x"), "expected whole numbers"),
        (("0", "4", "3,2"), "expected whole numbers"),
    ],
)
def test_wrong_widths_are_refused(weights, tmp_path, capsys, sizes, message):
    down, up, last = sizes
    folder = tmp_path / "wide"
    assert widen_weights.main([str(weights), str(folder), "--down", down, "--up", up, "--last", last]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not folder.exists()


def test_lower_growth_is_refused(weights, tmp_path, capsys):
    sizes = ["--down", "5", "--up", "7", "--last", "4,3"]
    assert widen_weights.main([str(weights), str(tmp_path / "wide"), *sizes, "--growth", "2"]) == 0
    narrower = [str(tmp_path / "wide"), str(tmp_path / "narrow"), *sizes, "--growth", "1"]
    assert widen_weights.main(narrower) == 2
    assert capsys.readouterr().err == "widen_weights: --growth: expected at least 2, as in the weights, found 1\n"


def test_negative_seed_is_refused(weights, tmp_path, capsys):
    sizes = ["--down", "5", "--up", "7", "--last", "4,3"]
    assert widen_weights.main([str(weights), str(tmp_path / "wide"), *sizes, "--seed", "-1"]) == 2
    assert capsys.readouterr().err == "widen_weights: --seed: expected at least 0, found -1\n"
    assert not (tmp_path / "wide").exists()
