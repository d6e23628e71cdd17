import numpy as np
import pytest


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory):
    """A weights folder of a small random network."""
    import jax
    import jax.numpy as jnp

    from crefjax.models.unet3d import UNet3D, UNet3DConfig
    from crefjax.weights.store import save_weights

    config = UNet3DConfig(depth=1, down_width=2, up_width=2, last_widths=(2,))
    parameters = UNet3D(config).init(jax.random.key(3), jnp.zeros((1, 4, 4, 4, 1)))["params"]
    parameters = jax.tree.map(lambda leaf: np.asarray(leaf + 0.05), parameters)
    about = {"source": "random numbers", "license": "none needed", "training": "none", "expected_input": "any map"}
    folder = tmp_path_factory.mktemp("weights") / "small"
    save_weights(folder, parameters, config, about)
    return folder


@pytest.fixture(scope="session")
def small_network(small_weights):
    from crefjax.weights.store import load_weights

    return load_weights(small_weights)
