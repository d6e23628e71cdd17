import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.small_network import CONFIG

from crefjax.models.unet3d import UNet3D
from crefjax.weights.store import Weights


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Return random weights, with biases, of the network that NumPy computes."""
    parameters = UNet3D(CONFIG).init(jax.random.key(3), jnp.zeros((1, 4, 4, 4, 1)))["params"]
    parameters = jax.tree.map(lambda a: np.asarray(a + 0.05), parameters)
    return Weights("by-hand", tmp_path_factory.mktemp("none"), CONFIG, {}, parameters)
