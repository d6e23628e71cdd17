"""The task of telling structure from noise, voxel by voxel, as DeepTracer-Denoising does (Guan and Si 2022)."""

from dataclasses import dataclass, replace
from typing import ClassVar

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from crefjax.data.labeled_maps import labeled_batches, load_labeled_map
from crefjax.data.map_features import FEATURES
from crefjax.errors import UserError
from crefjax.models import load_model, same_architecture
from crefjax.models.conditioned_unet3d import ConditionedUNet3DConfig, add_conditioning
from crefjax.training.config import network_config, split_commas
from crefjax.training.processes import current_of_batch
from crefjax.training.sources import NamedBatches, matching_folders
from crefjax.training.task import DataSource, NetworkTask, TaskDescription
from crefjax.weights.store import load_weights

_HELD_OUT_SEED = 2**31


@dataclass(frozen=True)
class VoxelClassificationTask(NetworkTask):
    """Trains a network to classify voxels, on batches of `map` and `structure`, `(samples, z, y, x)`.

    A network with conditions also needs `features`, `(samples, features)`, see `crefjax.data.map_features`.

    The softmax over two classes depends on the difference of their logits alone. The network's one output is that
    difference: a voxel is structure with the probability `sigmoid(output)`.

    Attributes:
        structure_weight: Weight of a voxel of structure over one of noise in the cross-entropy.
    """

    structure_weight: float = 40.0
    name: str = "classification"
    conditions: ClassVar[int] = len(FEATURES)

    def loss(self, parameters, batch, key):
        """Return the weighted cross-entropy of every sample: the mean over its voxels."""
        del key  # nothing is random within a step
        return self._cross_entropy(self._logits(parameters, batch), batch["structure"]), {}

    def metrics(self, parameters, batch):
        """Return the loss, and at a probability of one half the shares of structure kept and of noise found.

        One voxel is added to the counts of both shares, so that a patch without structure or noise has them too.
        """
        logits, structure = self._logits(parameters, batch), batch["structure"]
        kept = (logits > 0).astype(jnp.float32)
        axes = (1, 2, 3)
        return {
            "loss": self._cross_entropy(logits, structure),
            "structure_kept": (1 + (kept * structure).sum(axes)) / (1 + structure.sum(axes)),
            "noise_found": (1 + ((1 - kept) * (1 - structure)).sum(axes)) / (1 + (1 - structure).sum(axes)),
        }

    def describe(self, config):
        """Name the patches and the weight of structure."""
        return TaskDescription(f"patches of {self.patch} voxels a side", {"structure_weight": self.structure_weight})

    def card(self):
        """Describe input and output."""
        return {
            "expected_input": "a map on a grid of 1 Å, its negative density set to 0 and the rest scaled to 0 to 1",
            "output": "logit of the probability that a voxel is structure",
            "task": self.name,
        }

    def _logits(self, parameters, batch):
        condition = load_model(self.network.network).condition
        if condition is None:
            return self.apply(parameters, batch["map"])

        def logits_of(array, features):
            plain, network = condition(parameters, features, self.network)
            return replace(self, network=network).apply(plain, array[None])[0]

        return jax.vmap(logits_of)(batch["map"], batch["features"])

    def _cross_entropy(self, logits, structure):
        losses = self.structure_weight * structure * jax.nn.softplus(-logits)
        losses += (1 - structure) * jax.nn.softplus(logits)
        return losses.mean((1, 2, 3))


def make_task(config: ConfigDict) -> tuple[VoxelClassificationTask, DataSource]:
    """Return the task of a config and its data.

    Raises:
        UserError: The network is invalid, the initial weights do not fit, or the labeled maps cannot be read.
    """
    network = network_config(config)
    task = VoxelClassificationTask(network, config.data.labeled.structure_weight, patch=config.data.patch)
    if config.weights:
        task = task.started_from(_starting_weights(config.weights, network))
    return task, _labeled_source(config, features=load_model(network.network).condition is not None)


def _starting_weights(name, network):
    """Return weights for a network; those of a plain U-Net are given a conditioning of 0 if the network has one."""
    if isinstance(network, ConditionedUNet3DConfig):
        weights = load_weights(name, VoxelClassificationTask.name)
        if same_architecture(weights.config, network.plain()):
            return replace(weights, config=network, parameters=add_conditioning(weights.parameters, network))
    return load_weights(name, VoxelClassificationTask.name, network)


def _labeled_source(config, *, features):
    chosen = config.data.labeled
    names = split_commas(chosen.held_out)
    folders = matching_folders(chosen.folders)
    held_out = [folder for folder in folders if folder.name.split("_")[0] in names]
    training = [folder for folder in folders if folder not in held_out]
    if not training:
        raise UserError(
            f"config: data.labeled.folders: expected labeled maps to train on, found none matching {chosen.folders!r}"
        )
    maps, held_out_maps = ([load_labeled_map(folder) for folder in part] for part in (training, held_out))
    settings = {"patch": config.data.patch, "batch": config.batch, "features": features}
    settings["process"] = tuple(current_of_batch(config.batch))

    def train():
        return NamedBatches(labeled_batches(maps, seed=config.seed, gain=tuple(chosen.gain), **settings))

    def evaluate():
        once = {"seed": _HELD_OUT_SEED, "rotations": False, "count": chosen.held_out_patches}
        return NamedBatches(labeled_batches(held_out_maps, **once, **settings))

    wanted = held_out_maps and chosen.held_out_patches > 0
    return DataSource(
        size=None,
        training=train,
        held_out=evaluate if wanted else None,
        description=f"{len(maps)} simulated maps with labels",
        held_out_size=chosen.held_out_patches,
        divided=True,
    )
