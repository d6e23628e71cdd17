"""A network that is defined here alone is trained, stored, and used for denoising like those of the package."""

from dataclasses import dataclass
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import mrcfile
import numpy as np
import pytest
from helpers.cli import error_line, run_crefjax, run_ok
from helpers.training_run import write_run

from crefjax.models import MODELS, Model, load_model, same_architecture
from crefjax.models.unet3d import UNet3DConfig
from crefjax.training.config import default, network_config
from crefjax.weights.store import load_weights


@dataclass(frozen=True)
class VoxelwiseConfig:
    network: ClassVar[str] = "voxelwise"
    multiple: ClassVar[int] = 1
    width: int = 3

    def __post_init__(self):
        if self.width < 1:
            raise ValueError(f"expected a width of at least 1, found {self.width}")


class Block(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(self.width, name="hidden")(x))
        return nn.Dense(1, name="out")(x)


class Voxelwise(nn.Module):
    """Every voxel by itself: x plus what two dense layers make of it."""

    width: int

    @nn.compact
    def __call__(self, x):
        return x + Block(self.width, name="block")(x)


def init(key, config):
    return Voxelwise(config.width).init(key, jnp.zeros((1, 2, 2, 2, 1)))["params"]


def apply(parameters, x, config):
    return Voxelwise(config.width).apply({"params": parameters}, x)


CONFIG = """
from crefjax.training.config import default


def get_config():
    c = default(network="voxelwise")
    c.network.width = 4
    c.batch, c.epochs = 2, 2
    c.data.dataset.folder = "dataset"
    return c
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with entries and a finished run of the network."""
    folder = write_run(tmp_path_factory.mktemp("run"))
    (folder / "voxelwise.py").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "voxelwise", Model(VoxelwiseConfig, init, apply))
        patch.chdir(folder)
        run_ok("train", "--config", "voxelwise.py", "--workdir", "run")
        yield folder


def test_a_registered_network_is_trained_and_stored(run):
    weights = load_weights(run / "run" / "last")
    assert weights.config == VoxelwiseConfig(width=4)
    assert weights.card["architecture"] == {"network": "voxelwise", "width": 4}
    assert weights.card["parameters"] == 4 + 4 + 4 + 1
    start = init(jax.random.key(0), weights.config)
    assert jax.tree.structure(weights.parameters) == jax.tree.structure(start)
    assert not np.allclose(weights.parameters["block"]["hidden"]["kernel"], start["block"]["hidden"]["kernel"])


def test_a_registered_network_is_resumed_and_trained_further(run):
    assert (
        "resuming from step" in run_ok("train", "--config", "voxelwise.py", "--workdir", "run", "--config.epochs=3").err
    )
    more = ["--config.weights=run/last", "--config.epochs=1"]
    run_ok("train", "--config", "voxelwise.py", "--workdir", "second", *more)
    assert "; before: " in load_weights("second/last").card["training"]
    outcome = run_crefjax("train", "--config", "voxelwise.py", "--workdir", "third", *more, "--config.network.width=5")
    assert "expected weights for VoxelwiseConfig(width=5)" in error_line(outcome.err, outcome.status)


def test_a_network_without_slabs_denoises_a_whole_map_at_once(run):
    pair = [f"entries/e0/half_map_{number}.mrc" for number in (1, 2)]
    outcome = run_ok("denoise", *pair, "-o", "denoised.mrc", "--weights", "run/last", "--scale", "none")
    assert "the whole box at once" in outcome.err
    full = np.mean([mrcfile.read(path).astype(np.float64) for path in pair], axis=0)
    x = (full - full.mean()) / full.std()
    block, y = load_weights("run/last").parameters["block"], x[..., None]
    hidden, out = block["hidden"], block["out"]
    y = np.maximum(y @ hidden["kernel"] + hidden["bias"], 0) @ out["kernel"] + out["bias"]
    np.testing.assert_allclose(mrcfile.read("denoised.mrc"), x + y[..., 0], atol=1e-4)
    run_ok("denoise", *pair, "-o", "signal.mrc", "--weights", "run/last", "--mask", "entries/e0/mask.mrc")


def test_a_network_that_is_unknown_or_has_other_fields_is_refused(run):
    for change, words in (
        ("--config.network.width=0", "network: expected a width of at least 1, found 0"),
        ("--config.network.name=unet3d", "there is no field network.width"),
        (
            "--config.network.name=resnet",
            "expected a network of unet3d, unet2d, conditioned_unet3d, voxelwise, or a module",
        ),
        ("--config.network.depth=3", "there is no field"),
    ):
        outcome = run_crefjax("train", "--config", "voxelwise.py", "--workdir", "refused", change)
        assert words in error_line(outcome.err, outcome.status)


def test_configs_of_a_network():
    assert network_config(default()) == UNet3DConfig()
    assert network_config(default("unet3d")) == load_model("unet3d").config()
    with pytest.raises(ValueError, match=r"expected a network of unet3d.*found 'resnet'"):
        default("resnet")
    with pytest.raises(ValueError, match=r"found 'nowhere\.network'; put its folder on PYTHONPATH"):
        default("nowhere.network")
    half = UNet3DConfig(compute_dtype="bfloat16")
    assert same_architecture(UNet3DConfig(), half)
    assert not same_architecture(UNet3DConfig(), UNet3DConfig(depth=4))


def test_shapes_of_parameters_are_those_of_the_initial_ones():
    model, config = load_model("unet3d"), UNet3DConfig(depth=2, down_width=3, up_width=4, last_widths=(3,))
    shapes = jax.tree.map(np.shape, model.init(jax.random.key(0), config))
    assert model.parameter_shapes(config) == shapes
    assert Model(UNet3DConfig, model.init, model.apply).parameter_shapes(config) == shapes
