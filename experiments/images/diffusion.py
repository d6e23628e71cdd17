"""Conditional diffusion with post-processing (Zhang et al. 2024), in the form of SR3 (Saharia et al. 2022).

A network sees the noisy image `x`, a partly noised clean image, and the level `gamma` of that, the share of the clean
image in its power, and predicts the noise. It minimizes

    E || f(x, sqrt(gamma) y0 + sqrt(1 - gamma) e, gamma) - e ||^2

over clean images `y0`, standard normal `e`, and levels. An image is denoised by refining standard normal noise through
falling amounts of noise; how many, and by which schedule, is chosen when it is denoised (`steps` and `schedule` of the
network, which its weights do not depend on). A second stage trains a simple U-Net by its squared error on the result.

The clean signal, whose standard deviation is well below that of the noisy image, is multiplied by `clean_scale`. The
sizes of the networks are ours: the defaults are those of a network that is trained on a CPU, and SR3's are larger.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import lax
from ml_collections import ConfigDict

from crefjax.models import Model, Parameters
from crefjax.models.unet2d import IMAGES, init_network
from crefjax.models.unet3d import apply_network, pad_far_ends
from crefjax.training.optimizer import make_optimizer
from crefjax.training.task import DataSource
from experiments.images.common import (
    PublishedTask,
    draw_normal,
    image_keys,
    images_of,
    make_published_task,
    mean_of_squares,
    optimize_each,
    over_sections,
)
from experiments.images.diffusion_network import Denoiser, DiffusionConfig
from experiments.images.noise_levels import draw_levels, noise_levels

SETTINGS = {
    "stage": "diffusion",  # diffusion; or post, the post-processing of refined images
    "levels": 2000,  # levels of noise of the training, between whose neighbors one is drawn
    "training_schedule": "linear",  # of these levels
}


def init(key: jax.Array, config: DiffusionConfig) -> Parameters:
    """Return random parameters of `diffusion` and `post`; the diffusion first predicts 0."""
    first, second = jax.random.split(key)
    image = jnp.zeros((1, config.multiple, config.multiple, 1))
    diffusion = jax.jit(Denoiser(config).init)(first, image, image, jnp.zeros(1))["params"]
    return {"diffusion": diffusion, "post": init_network(second, config.post_network)}


def predict_noise(
    parameters: Parameters, noisy: jax.Array, partly: jax.Array, gamma: jax.Array, config: DiffusionConfig
) -> jax.Array:
    """Run the network f: images `(samples, y, x, 1)` of any sides and levels `(samples,)` to the noise in `partly`."""
    _, y, x, _ = noisy.shape
    padded = [pad_far_ends(image, config.multiple) for image in (noisy, partly)]
    return Denoiser(config).apply({"params": parameters["diffusion"]}, *padded, gamma)[:, :y, :x]


def refine(
    parameters: Parameters,
    noisy: jax.Array,
    config: DiffusionConfig,
    *,
    levels: Sequence[float] | jax.Array,
    seed: int | jax.Array = 0,
) -> jax.Array:
    """Refine standard normal noise to clean images (Saharia et al. 2022, algorithm 2).

    From the noisiest level to the cleanest, with alpha the ratio of a level to the next cleaner one, gamma',
    `y <- (y - (1 - alpha) / sqrt(1 - gamma) f(x, y, gamma)) / sqrt(alpha) + sqrt(v) z`; without the last term at the
    last step. Two things differ from that algorithm, and matter where the steps are few:

    - `v = (1 - alpha) (1 - gamma') / (1 - gamma)` in place of `1 - alpha`, the smaller of the two choices of Ho et al.
      2020, section 3.2. The larger one leaves noise in the result.
    - The mean of the image is removed after every step, because a clean image has none. Otherwise it walks at random:
      the predicted noise is hardly wrong by a small constant, but that is multiplied by `1 / sqrt(gamma)`.

    Args:
        parameters: Parameters of the method.
        noisy: `(samples, y, x, 1)`, standardized.
        config: Hyperparameters of the network; its own schedule and seed are not used.
        levels: Falling levels of noise, as from `noise_levels`.
        seed: Of the noise, which also depends on the image.

    Returns:
        Clean images, `(samples, y, x, 1)`, on the scale of `noisy`.
    """
    gammas = jnp.asarray(levels)[::-1]
    cleaner = jnp.concatenate([gammas[1:], jnp.ones(1)])  # so that nothing is added at the last step
    alphas = gammas / cleaner
    spreads = jnp.sqrt((1 - alphas) * (1 - cleaner) / (1 - gammas))
    keys = image_keys(noisy, seed)

    def step(image, now):
        number, gamma, alpha, spread = now
        drawn = draw_normal(jax.vmap(jax.random.fold_in, (0, None))(keys, number), noisy.shape[1:])
        noise = predict_noise(parameters, noisy, image, jnp.broadcast_to(gamma, (len(noisy),)), config)
        image = (image - (1 - alpha) / jnp.sqrt(1 - gamma) * noise) / jnp.sqrt(alpha) + spread * drawn
        return image - image.mean((1, 2, 3), keepdims=True), None

    start = draw_normal(keys, noisy.shape[1:])
    image, _ = lax.scan(step, start, (jnp.arange(1, len(gammas) + 1), gammas, alphas, spreads))
    return image / config.clean_scale


def post_process(parameters: Parameters, refined: jax.Array, config: DiffusionConfig) -> jax.Array:
    """Run the post-processing U-Net over refined images, `(samples, y, x, 1)`."""
    return apply_network(parameters["post"], refined, config.post_network, IMAGES)


def denoise(parameters: Parameters, noisy: jax.Array, config: DiffusionConfig) -> jax.Array:
    """Denoise standardized images `(samples, y, x, 1)`: refine by the network's own schedule, and post-process.

    Of several draws the mean is returned, the seeds being `seed`, `seed + 1`, and so on.
    """
    levels = noise_levels(config.schedule, config.steps)

    def add(total, seed):
        drawn = refine(parameters, noisy, config, levels=levels, seed=seed)
        return total + (post_process(parameters, drawn, config) if config.post else drawn), None

    total, _ = lax.scan(add, jnp.zeros_like(noisy), config.seed + jnp.arange(config.draws))
    return total / config.draws


def apply(parameters: Parameters, x: jax.Array, config: DiffusionConfig) -> jax.Array:
    """Denoise the sections of `(batch, z, y, x, 1)`."""
    return over_sections(lambda images: denoise(parameters, images, config), x)


@dataclass(frozen=True)
class DiffusionTask(PublishedTask):
    """Trains the diffusion on clean signals and their noisy images, or its post-processing on its results."""

    method: ClassVar[str] = "conditional diffusion with post-processing, after Zhang et al. 2024"
    stages: ClassVar[tuple[str, ...]] = ("diffusion", "post")

    def optimizer(self, config, schedule):
        """Train the network of the stage alone."""
        trained = self.settings["stage"]
        return optimize_each(
            {name: make_optimizer(config, schedule) if name == trained else None for name in ("diffusion", "post")}
        )

    def loss(self, parameters, batch, key):
        """Return the objective, or the squared error of post-processed images."""
        noisy, clean = images_of(batch)
        if self.settings["stage"] == "post":
            return mean_of_squares(self._post_process(parameters, noisy) - clean), {}
        levels = noise_levels(self.settings["training_schedule"], self.settings["levels"])
        first, second = jax.random.split(key)
        gamma = draw_levels(first, len(noisy), levels)
        return self.objective(parameters, noisy, clean, gamma, jax.random.normal(second, noisy.shape)), {}

    def objective(self, parameters, noisy, clean, gamma, noise):
        """Return the mean square of the error of the predicted noise, `(samples,)`, for given levels and noise."""
        share = gamma[:, jnp.newaxis, jnp.newaxis, jnp.newaxis]
        partly = jnp.sqrt(share) * clean * self.network.clean_scale + jnp.sqrt(1 - share) * noise
        return mean_of_squares(predict_noise(parameters, noisy, partly, gamma, self.network) - noise)

    def metrics(self, parameters, batch):
        """Return as the loss the squared error of denoised images; beside it those of noisy and of empty ones.

        Of the diffusion also the objective, whose levels and noise are the same at every evaluation. An image that is
        drawn has twice the error of the mean of all such draws, so that `loss` passes `empty` late.
        """
        noisy, clean = images_of(batch)
        errors = {"noisy": mean_of_squares(noisy - clean), "empty": mean_of_squares(clean)}
        if self.settings["stage"] == "post":
            return {"loss": mean_of_squares(self._post_process(parameters, noisy) - clean)} | errors
        denoised = denoise(parameters, noisy, replace(self.network, post=False))
        objective, _ = self.loss(parameters, batch, jax.random.key(0))
        return {"loss": mean_of_squares(denoised - clean), "objective": objective} | errors

    def export(self, folder, parameters, about):
        """Write the weights; after the second stage they post-process."""
        post = self.network.post or self.settings["stage"] == "post"
        exported = replace(self, network=replace(self.network, post=post))
        PublishedTask.export(exported, folder, parameters, about)

    def _post_process(self, parameters, noisy):
        refined = denoise(parameters, noisy, replace(self.network, post=False))
        return post_process(parameters, lax.stop_gradient(refined), self.network)


def make_task(config: ConfigDict) -> tuple[DiffusionTask, DataSource]:
    """Return the task of a config and its simulated sets; see `make_published_task`."""
    return make_published_task(config, DiffusionTask)


MODEL = Model(DiffusionConfig, init, apply, dimensions=2)
