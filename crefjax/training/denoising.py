"""The task of denoising maps: losses and metrics of a network's outputs for half-maps and their mean."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from crefjax import losses
from crefjax.errors import UserError
from crefjax.models.unet3d import UNet3D, UNet3DConfig, apply_network
from crefjax.weights.store import check_parameters, load_weights, parameter_shapes, save_weights

_AS_IT_IS = "full map standardized to mean 0 and deviation 1, masked or not"
_ON_A_GRID = (
    "full map on a grid on which its resolution takes {:g} voxels, its solvent at 0, divided by its root mean square "
    "within its mask, masked or not"
)
NOT_A_RESOLUTION = "the FSC of a denoised map with its input, or of denoised half-maps, is no resolution"


@dataclass(frozen=True)
class DenoisingTask:
    """Trains the network on batches of `half_map_1`, `half_map_2` and, where known, `truth` and `mask`.

    All are `(samples, z, y, x)`.

    Attributes:
        network: its config.
        factors: of the losses, by name.
        start: parameters to start from; None for random ones.
        licence: of the weights that come out.
        origin: where they come from.
        before: how those to start from were trained.
        grid: voxels that the resolution takes on the grid of the data; 0 for maps as they are.
    """

    network: UNet3DConfig
    factors: dict[str, float]
    start: dict | None = None
    licence: str = "yours to choose: trained from your own data"
    origin: str = "trained with crefjax"
    before: str | None = None
    grid: float = 0.0
    name: str = "denoising"

    def init(self, key):
        """Random parameters, or those to start from."""
        if self.start is not None:
            return jax.tree.map(jnp.asarray, self.start)
        side = self.network.multiple
        return jax.jit(UNet3D(self.network).init)(key, jnp.zeros((1, side, side, side, 1)))["params"]

    def loss(self, parameters, batch, key):
        """The weighted losses."""
        del key  # nothing is random within a step
        return losses.weighted(self.factors, **self._arrays(parameters, batch, losses.needs(self.factors)))

    def metrics(self, parameters, batch):
        """The losses; the RMSE between FSC² (denoised, full map) and C_ref²; the mean FSC to the truth, where known."""
        needs = losses.needs(self.factors) | {"full"}
        arrays = self._arrays(parameters, batch, needs)
        loss, found = losses.weighted(self.factors, **arrays)
        found = {"loss": loss, **found}
        pair = arrays["half_map_1"], arrays["half_map_2"]
        found["cref_rmse"] = losses.cref_rmse(arrays["denoised"], *pair)
        if "truth" in batch:
            found["fsc_truth"] = 1 - losses.truth_fsc(arrays["denoised"], batch["truth"])[0]
            found["fsc_truth_full"] = 1 - losses.truth_fsc((pair[0] + pair[1]) / 2, batch["truth"])[0]
        return found

    def export(self, folder: Path, parameters, about):
        """Write a weights folder, which `crefjax denoise --weights` takes."""
        card = {
            "source": self.origin,
            "licence": self.licence,
            "expected_input": _ON_A_GRID.format(self.grid) if self.grid else _AS_IT_IS,
            **about,
        }
        if self.grid:
            card["grid"] = self.grid
        save_weights(folder, parameters, self.network, card, overwrite=True)

    def _arrays(self, parameters, batch, needs):
        arrays = {name: batch[name] for name in ("half_map_1", "half_map_2")}
        first, second = arrays.values()
        if "full" in needs:
            arrays["denoised"] = self._apply(parameters, (first + second) / 2)
        if "halves" in needs:
            both = self._apply(parameters, jnp.concatenate([first, second]))
            arrays["denoised_1"], arrays["denoised_2"] = jnp.split(both, 2)
        if "truth" in needs:
            arrays["truth"] = batch["truth"]
        if "mask" in needs:  # a source without one gives masked maps
            arrays["mask"] = batch["mask"] if "mask" in batch else jnp.ones_like(first)
        return arrays

    def _apply(self, parameters, maps):
        return apply_network(parameters, maps[..., None], self.network)[..., 0]


def denoising_task(config: ConfigDict, *, truth: bool) -> DenoisingTask:
    """The task that a config asks for.

    Args:
        config: of the run.
        truth: whether the data have one.

    Raises:
        UserError: the network, its first weights or the losses cannot be.
    """
    try:
        network = UNet3DConfig(**config.network.to_dict())
    except ValueError as error:
        raise UserError(f"config: network: {error}") from error
    factors = {name: float(factor) for name, factor in config.losses.items()}
    if "truth" in losses.needs(factors) and not truth:
        name = next(name for name, factor in factors.items() if factor > 0 and "truth" in losses.needs({name: factor}))
        raise UserError(
            f"config: losses.{name}: expected data with a truth, found none in this source; take the stream, entries "
            "with a truth.mrc, or another loss"
        )
    if config.weights:
        weights = load_weights(config.weights)
        same = dataclasses.replace(weights.config, compute_dtype=network.compute_dtype)
        if same != network:
            raise UserError(
                f"{weights.path}: expected weights for {network}, found some for {weights.config}; set the fields of "
                "network alike, or take other weights"
            )
        check_parameters(weights.parameters, parameter_shapes(network), str(weights.path))
        origin = f"trained with crefjax from {weights.name}: {weights.card['source']}"
        before = weights.card.get("training")
        if weights.grid != config.data.grid:
            raise UserError(
                f"{weights.path}: expected weights for data.grid = {config.data.grid:g} voxels, found some for "
                f"{weights.grid:g}; set it alike, or take other weights"
            )
        grid = config.data.grid
        return DenoisingTask(network, factors, weights.parameters, weights.card["licence"], origin, before, grid)
    return DenoisingTask(network, factors, grid=config.data.grid)
