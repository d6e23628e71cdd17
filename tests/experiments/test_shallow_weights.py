"""A network of fewer levels computes the output of the deeper one with the removed levels silenced."""

import jax.numpy as jnp
import numpy as np
import pytest

from crefjax.models.unet3d import UNet3DConfig, apply_network
from crefjax.weights.store import load_weights, save_weights
from experiments import shallow_weights

ABOUT = {"source": "random", "license": "Apache-2.0", "training": "none", "expected_input": "any", "grid": 3.0}
DEEP = UNet3DConfig(depth=4, down_width=3, up_width=4, last_widths=(3, 2))
# The layer that reads the level below, at the level where the shallow network ends; its first channels are the skip's.
READS_BELOW = {3: "up2_a", 2: "up3_a"}


@pytest.fixture
def deep(tmp_path):
    rng = np.random.default_rng(1)
    parameters = {
        name: {
            "kernel": rng.normal(0, 0.2, (3, 3, 3, into, out)).astype(np.float32),
            "bias": rng.normal(0, 0.2, out).astype(np.float32),
        }
        for name, into, out in DEEP.layers()
    }
    save_weights(tmp_path / "deep", parameters, DEEP, ABOUT)
    return tmp_path / "deep"


@pytest.mark.slow
@pytest.mark.parametrize("depth", [2, 3])
def test_output_equals_that_of_the_deep_network_with_coarse_levels_silenced(deep, tmp_path, depth):
    assert shallow_weights.main([str(deep), str(tmp_path / "new"), "--depth", str(depth)]) == 0
    old, new = load_weights(deep), load_weights(tmp_path / "new")
    assert new.config.depth == depth
    assert new.grid == 3.0
    silenced = {name: dict(layer) for name, layer in old.parameters.items()}
    kernel = np.array(silenced[READS_BELOW[depth]]["kernel"])
    kernel[..., DEEP.down_width :, :] = 0
    silenced[READS_BELOW[depth]]["kernel"] = kernel
    x = jnp.asarray(np.random.default_rng(2).normal(size=(1, 32, 16, 48, 1)), jnp.float32)
    expected = np.asarray(apply_network(silenced, x, old.config))
    actual = np.asarray(apply_network(new.parameters, x, new.config))
    assert expected.std() > 0.01
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("depth", ["0", "4"])
def test_depth_outside_the_range_is_refused(deep, tmp_path, depth, capsys):
    assert shallow_weights.main([str(deep), str(tmp_path / "new"), "--depth", depth]) == 2
    assert capsys.readouterr().err == f"shallow_weights: --depth: expected 1 to 3, found {depth}; give another\n"
    assert not (tmp_path / "new").exists()


def test_grid_of_the_new_weights_can_be_set(deep, tmp_path):
    assert shallow_weights.main([str(deep), str(tmp_path / "new"), "--depth", "3", "--grid", "3.3"]) == 0
    assert load_weights(tmp_path / "new").grid == 3.3
    assert shallow_weights.main([str(deep), str(tmp_path / "none"), "--depth", "3", "--grid", "-1"]) == 2
    assert not (tmp_path / "none").exists()
