"""Trained weights for images are released as included weights, if they are what their card says."""

import jax
import numpy as np
import pytest

from crefjax.models import load_model
from crefjax.weights.store import load_weights, save_weights
from experiments import release_image_weights


@pytest.fixture
def trained(tmp_path):
    """A function that writes weights as a run does, and returns their folder."""

    def write(network="unet2d", losses=("n2n_l2",), **sizes):
        model = load_model(network)
        config = model.config(**sizes)
        card = {
            "source": "trained with crefjax",
            "license": "that of its owner",
            "expected_input": "any",
            "task": "images",
            "training": "3 steps",
            "pixel_sizes": [2.0, 3.0],
            "losses": dict.fromkeys(losses, 1.0),
            "step": 3,
            "good_for": "tests",
            "not_good_for": "anything else",
        }
        folder = tmp_path / network / "best"
        parameters = jax.tree.map(np.asarray, model.init(jax.random.key(0), config))
        save_weights(folder, parameters, config, card, overwrite=True)
        return str(folder)

    return write


def test_released_weights_are_those_of_the_run_with_the_card_of_the_package(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(release_image_weights, "SHIPPED", tmp_path / "images")
    run = trained(depth=1, down_width=2, up_width=2, last_widths=(2,), compute_dtype="bfloat16")
    assert release_image_weights.main([run, "--models", "1ABC"]) == 0
    released, before = load_weights(tmp_path / "images", "images"), load_weights(run, "images")
    assert jax.tree.all(jax.tree.map(np.array_equal, released.parameters, before.parameters))
    assert released.config.compute_dtype == "float32"
    assert released.card["license"] == "Apache-2.0, as crefjax"
    assert (released.card["models"], released.card["pixel_sizes"], released.card["step"]) == ("1ABC", [2.0, 3.0], 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"losses": ("truth_l2",), "depth": 1}, "expected weights with the losses"),
        ({"network": "experiments.images.wgan", "depth": 2, "width": 2, "critic_depth": 1}, "network of the package"),
    ],
)
def test_weights_of_another_kind_are_refused(trained, tmp_path, monkeypatch, capsys, change, message):
    monkeypatch.setattr(release_image_weights, "SHIPPED", tmp_path / "images")
    assert release_image_weights.main([trained(**change)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "images").exists()
