"""What the tests of the corpus share; `pytest tests/corpus --full` runs all of it, not only a part."""

import numpy as np
import pytest


@pytest.fixture(scope="session", autouse=True)
def no_weights_of_the_user(tmp_path_factory):
    """The user's own data folder is never looked into."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CREFJAX_WEIGHTS", str(tmp_path_factory.mktemp("no_weights")))
        yield


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A weights folder of a small random network, quick to compile."""
    from crefjax.models.unet3d import UNet3DConfig
    from crefjax.weights.store import save_weights

    config = UNet3DConfig(depth=1, down_width=2, up_width=2, last_widths=(2,))
    random = np.random.default_rng(1)
    parameters = {
        name: {
            "kernel": (0.3 * random.standard_normal((3, 3, 3, inward, outward))).astype("f4"),
            "bias": np.zeros(outward, "f4"),
        }
        for name, inward, outward in config.layers()
    }
    about = {"source": "random numbers", "license": "none needed", "training": "none", "expected_input": "any map"}
    folder = tmp_path_factory.mktemp("weights") / "small"
    save_weights(folder, parameters, config, about)
    return folder


@pytest.fixture(scope="session")
def classifier(tmp_path_factory):
    """Weights of a small classifier."""
    from helpers.classifier import save_line_classifier

    return save_line_classifier(tmp_path_factory.mktemp("weights") / "line")
