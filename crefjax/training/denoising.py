"""The task of denoising maps: losses and metrics of a network's outputs for half-maps and their mean."""

from dataclasses import dataclass

import jax.numpy as jnp
from ml_collections import ConfigDict

from crefjax import losses
from crefjax.errors import UserError
from crefjax.training.config import network_config
from crefjax.training.sources import MapSource, make_source
from crefjax.training.task import NetworkTask, TaskDescription
from crefjax.weights.store import load_weights

_INPUT_AS_IT_IS = "full map standardized to mean 0 and standard deviation 1, masked or not"
_INPUT_ON_A_GRID = (
    "full map on a grid on which its resolution spans {:g} voxels, its solvent at 0, divided by its root mean square "
    "within its mask, masked or not"
)


@dataclass(frozen=True)
class DenoisingTask(NetworkTask):
    """Trains a network on batches of `half_map_1`, `half_map_2`, and, if known, `truth` and `mask`.

    All are `(samples, z, y, x)`.

    Attributes:
        loss_weights: Weight of each loss by its name.
        grid: Number of voxels that the resolution spans on the working grid; 0 for maps on their own grid.
    """

    loss_weights: dict[str, float]
    grid: float = 0.0
    name: str = "denoising"

    def loss(self, parameters, batch, key):
        """Return the weighted sum of the losses, and each of them."""
        del key  # nothing is random within a step
        return losses.weighted(self.loss_weights, **self._arrays(parameters, batch, losses.needs(self.loss_weights)))

    def metrics(self, parameters, batch):
        """Return the losses, the RMSE of FSC² to C_ref², and, if a truth is known, the mean FSC to it."""
        needs = losses.needs(self.loss_weights) | {"full"}
        arrays = self._arrays(parameters, batch, needs)
        loss, metrics = losses.weighted(self.loss_weights, **arrays)
        metrics = {"loss": loss, **metrics}
        half_maps = arrays["half_map_1"], arrays["half_map_2"]
        metrics["cref_rmse"] = losses.cref_rmse(arrays["denoised"], *half_maps)
        if "truth" in batch:
            metrics["fsc_truth"] = 1 - losses.truth_fsc(arrays["denoised"], batch["truth"])[0]
            metrics["fsc_truth_full"] = 1 - losses.truth_fsc((half_maps[0] + half_maps[1]) / 2, batch["truth"])[0]
        return metrics

    def describe(self, config):
        """Name the patches and the losses."""
        card = {"losses": {name: weight for name, weight in config.losses.items() if weight}}
        return TaskDescription(f"patches of {self.patch} voxels a side", card)

    def card(self):
        """Name the grid on which the maps of the training were."""
        if not self.grid:
            return {"expected_input": _INPUT_AS_IT_IS}
        return {"expected_input": _INPUT_ON_A_GRID.format(self.grid), "grid": self.grid}

    def _arrays(self, parameters, batch, needs):
        """Return the maps that the losses need, by the names of their arguments."""
        arrays = {name: batch[name] for name in ("half_map_1", "half_map_2")}
        first, second = arrays.values()
        if "full" in needs:
            arrays["denoised"] = self.apply(parameters, (first + second) / 2)
        if "halves" in needs:
            both = self.apply(parameters, jnp.concatenate([first, second]))
            arrays["denoised_1"], arrays["denoised_2"] = jnp.split(both, 2)
        if "truth" in needs:
            arrays["truth"] = batch["truth"]
        if "mask" in needs:  # a source without one gives masked maps
            arrays["mask"] = batch["mask"] if "mask" in batch else jnp.ones_like(first)
        return arrays


def make_task(config: ConfigDict) -> tuple[DenoisingTask, MapSource]:
    """Return the task of a config and its data.

    Raises:
        UserError: As `denoising_task` and `crefjax.training.sources.make_source`.
    """
    source = make_source(config)
    return denoising_task(config, truth=source.truth, patch=source.patch), source


def denoising_task(
    config: ConfigDict, *, truth: bool, patch: int | None = None, kind: type[DenoisingTask] = DenoisingTask
) -> DenoisingTask:
    """Return the task of a config for the caller's own data.

    Args:
        config: Config of the run.
        truth: Whether the data have a truth.
        patch: Side of the patches, voxels; None for that of the config.
        kind: Class of the task.

    Raises:
        UserError: The network or the losses are invalid, or the initial weights do not fit.
    """
    network = network_config(config)
    weights = {name: float(weight) for name, weight in config.losses.items()}
    if "truth" in losses.needs(weights) and not truth:
        name = next(name for name, weight in weights.items() if weight > 0 and "truth" in losses.LOSSES[name].needs)
        raise UserError(
            f"config: losses.{name}: expected data with a truth, found none in this source; use the stream, entries "
            "with a truth.mrc, or another loss"
        )
    task = kind(network, weights, patch=patch or config.data.patch, grid=config.data.grid)
    return _start_from(config.weights, task) if config.weights else task


def _start_from(name, task):
    """Return a task that starts from weights of the same network and grid."""
    start = load_weights(name, task.name, task.network)
    if start.grid != task.grid:
        raise UserError(
            f"{start.path}: expected weights for data.grid = {task.grid:g} voxels, found some for {start.grid:g}; set "
            "data.grid to that, or use other weights"
        )
    return task.started_from(start)
