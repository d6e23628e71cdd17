import numpy as np
import pytest
from helpers.cli import densities, run_ok, write

ABOUT = {"source": "random numbers", "license": "none needed", "training": "none", "expected_input": "any map"}


def published_shapes():
    """Return input and output channels of the 18 convolutions, as the paper lists them."""
    down = [(1, 16)] + [(16, 16)] * 6
    up = [(32, 32), (32, 32)] + [(48, 32), (32, 32)] * 3 + [(33, 16), (16, 8)]
    return [*down, *up, (8, 1)]


def published_arrays(seed=0):
    """Return 36 random arrays with the names and shapes of the published checkpoint."""
    random = np.random.default_rng(seed)
    arrays = {}
    for number, (expected, shape) in enumerate(published_shapes()):
        spread = np.sqrt(2 / (27 * expected))
        arrays[f"{2 * number:02d}_kernel"] = (spread * random.standard_normal((3, 3, 3, expected, shape))).astype("f4")
        arrays[f"{2 * number + 1:02d}_bias"] = (0.1 * random.standard_normal(shape)).astype("f4")
    return arrays


@pytest.fixture(scope="session", autouse=True)
def no_weights_of_the_user(tmp_path_factory):
    """Keep the user's own weights out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CREFJAX_WEIGHTS", str(tmp_path_factory.mktemp("no_weights")))
        yield


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Write a weights folder of a small random network."""
    import jax
    import jax.numpy as jnp

    from crefjax.models.unet3d import UNet3D, UNet3DConfig
    from crefjax.weights.store import save_weights

    config = UNet3DConfig(depth=2, down_width=2, up_width=3, last_widths=(2, 2))
    shapes = jax.eval_shape(UNet3D(config).init, jax.random.key(0), jnp.zeros((1, 8, 8, 8, 1)))["params"]
    random = np.random.default_rng(1)
    parameters = jax.tree.map(lambda leaf: jnp.asarray(0.3 * random.standard_normal(leaf.shape), "float32"), shapes)
    folder = tmp_path_factory.mktemp("weights") / "small"
    save_weights(folder, parameters, config, ABOUT)
    return folder


@pytest.fixture(scope="session")
def arrays_file(tmp_path_factory):
    """Write an .npz of 36 random arrays in the shapes of the published network."""
    path = tmp_path_factory.mktemp("arrays") / "arrays.npz"
    np.savez(path, **published_arrays())
    return path


@pytest.fixture(scope="session")
def imported(tmp_path_factory, arrays_file):
    """Import a weights folder from `arrays_file`."""
    folder = tmp_path_factory.mktemp("imported") / "random"
    run_ok("weights", "import", arrays_file, "-o", folder)
    return folder


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """Return an empty working directory, in which a stray file is noticed."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def pair(workdir):
    """Write two half-maps of 20 x 17 x 23 voxels (z, y, x) of 1.5 Å."""
    return tuple(write(workdir / f"half_{n}.mrc", data) for n, data in enumerate(densities(), 1))


@pytest.fixture
def commands(workdir, weights):
    """Return a function that makes the command line of a command that reads two maps."""
    (workdir / "out").mkdir()

    def make(command, map_1, map_2):
        extra = {
            "denoise": ["-o", workdir / "out" / "denoised.mrc", "--weights", weights, "--halves"],
            "mask": ["-o", workdir / "out" / "mask.mrc"],
            "fsc": ["--json", workdir / "out" / "fsc.json", "--plot", workdir / "out" / "fsc.png"],
        }[command]
        return [command, map_1, map_2, *extra]

    return make
