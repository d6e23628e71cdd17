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
from flax import linen as nn
from jax import lax
from ml_collections import ConfigDict

from crefjax.errors import UserError
from crefjax.models import Model, Parameters
from crefjax.models.unet2d import IMAGES, init_network
from crefjax.models.unet2d_config import UNet2DConfig
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
    whole,
)
from experiments.images.noise_levels import SCHEDULES, draw_levels, noise_levels

SETTINGS = {
    "stage": "diffusion",  # diffusion; or post, the post-processing of refined images
    "levels": 2000,  # levels of noise of the training, between whose neighbors one is drawn
    "training_schedule": "linear",  # of these levels
}
_EMBEDDED = 32  # sines and cosines of a noise level
_MOST_ATTENDED = 2**14  # pixels, whose attention to each other takes 1 GiB


@dataclass(frozen=True)
class DiffusionConfig:
    """Hyperparameters of the diffusion, its post-processing, and its inference.

    Attributes:
        width: Channels at the full resolution.
        multipliers: Factors on these at each level, the full resolution first.
        blocks: Residual blocks of a level on the way down; one more on the way up.
        attention: Whether pixels of the coarsest level attend to each other.
        clean_scale: Factor on the clean signal inside the diffusion, the inverse of its standard deviation where that
            of the noisy image is 1: nearly one over the root of `signal_to_noise` in the `set.json` of a set.
        post_depth: Poolings of the post-processing U-Net.
        post: Whether images are post-processed; set once that is trained.
        steps: Steps of the refinement.
        schedule: Schedule of its levels, `linear` or `cosine`.
        seed: Seed of its noise, which also depends on the image, but not on others.
    """

    network: ClassVar[str] = "experiments.images.diffusion"

    width: int = 16
    multipliers: tuple[int, ...] = (1, 2, 4)
    blocks: int = 1
    attention: bool = True
    clean_scale: float = 3.0
    post_depth: int = 3
    post: bool = False
    steps: int = 50
    schedule: str = "linear"
    seed: int = 0

    def __post_init__(self):
        for name in ("width", "blocks", "post_depth", "steps"):
            whole(name, getattr(self, name))
        whole("seed", self.seed, 0)
        object.__setattr__(self, "multipliers", tuple(self.multipliers))  # JSON gives a list
        for number in self.multipliers or (0,):
            whole("multipliers", number)
        if not isinstance(self.clean_scale, (int, float)) or not 0 < self.clean_scale < 1e6:
            raise ValueError(f"expected clean_scale to be a number above 0, found {self.clean_scale!r}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"expected schedule to be one of {', '.join(SCHEDULES)}, found {self.schedule!r}")

    @property
    def multiple(self) -> int:
        """The number of pixels of which every side of the network's image is a multiple."""
        return 2 ** (len(self.multipliers) - 1)

    @property
    def post_network(self) -> UNet2DConfig:
        """The post-processing U-Net, the project's own for images."""
        return UNet2DConfig(depth=self.post_depth)


def embed_level(gamma: jax.Array) -> jax.Array:
    """Return sines and cosines of noise levels at frequencies from 1 to 5000: `(samples,)` to `(samples, 32)`."""
    frequencies = jnp.exp(jnp.linspace(0.0, jnp.log(5000.0), _EMBEDDED // 2))
    phases = gamma[:, jnp.newaxis] * frequencies[jnp.newaxis]
    return jnp.concatenate([jnp.sin(phases), jnp.cos(phases)], 1)


def _convolution(width, *, size=3, stride=1):
    return nn.Conv(width, (size, size), (stride, stride))


def _normalized(x):
    """Normalize groups of channels and apply the swish."""
    width = x.shape[-1]
    groups = max(count for count in range(1, 9) if width % count == 0)
    return nn.swish(nn.GroupNorm(groups)(x))


class _Residual(nn.Module):
    """Two convolutions beside the identity; the noise level is added between them, in every channel."""

    width: int

    @nn.compact
    def __call__(self, x, level):
        y = _convolution(self.width)(_normalized(x))
        y = y + nn.Dense(self.width)(level)[:, jnp.newaxis, jnp.newaxis]
        y = _convolution(self.width)(_normalized(y))
        return y + (x if x.shape[-1] == self.width else _convolution(self.width, size=1)(x))


class _Attention(nn.Module):
    """Every pixel attends to all, beside the identity."""

    @nn.compact
    def __call__(self, x):
        pixels = nn.GroupNorm(1)(x).reshape(len(x), -1, x.shape[-1])
        query, key, value = (nn.Dense(x.shape[-1], name=name)(pixels) for name in ("query", "key", "value"))
        weights = nn.softmax(query @ key.transpose(0, 2, 1) / x.shape[-1] ** 0.5)
        return x + nn.Dense(x.shape[-1], name="out")(weights @ value).reshape(x.shape)


def _check_attention(coarsest, full):
    if (pixels := coarsest[1] * coarsest[2]) > _MOST_ATTENDED:
        raise UserError(
            f"images of {full[2]}x{full[1]} pixels: expected at most {_MOST_ATTENDED} pixels at the coarsest level of "
            f"a diffusion with attention, found {pixels}; cut smaller images, or train with network.attention = False"
        )


class Denoiser(nn.Module):
    """Predicts the noise: noisy and partly noised image `(samples, y, x, 1)` and levels `(samples,)` to an image."""

    config: DiffusionConfig

    @nn.compact
    def __call__(self, noisy: jax.Array, partly: jax.Array, gamma: jax.Array) -> jax.Array:
        """Predict the noise in `partly`; sides are multiples of `config.multiple`."""
        config = self.config
        widths = [config.width * factor for factor in config.multipliers]
        level = nn.swish(nn.Dense(4 * config.width)(embed_level(gamma)))
        x = _convolution(config.width)(jnp.concatenate([noisy, partly], -1))
        skips = [x]
        for number, width in enumerate(widths):
            if number:
                x = _convolution(x.shape[-1], stride=2)(x)
                skips.append(x)
            for _ in range(config.blocks):
                x = _Residual(width)(x, level)
                skips.append(x)
        x = _Residual(widths[-1])(x, level)
        if config.attention:
            _check_attention(x.shape, noisy.shape)
            x = _Attention()(x)
        x = _Residual(widths[-1])(x, level)
        for number, width in reversed(list(enumerate(widths))):
            for _ in range(config.blocks + 1):
                x = _Residual(width)(jnp.concatenate([x, skips.pop()], -1), level)
            if number:
                x = _convolution(width)(jnp.repeat(jnp.repeat(x, 2, 1), 2, 2))
        return nn.Conv(1, (3, 3), kernel_init=nn.initializers.zeros)(_normalized(x))


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
    parameters: Parameters, noisy: jax.Array, config: DiffusionConfig, *, levels: Sequence[float] | jax.Array
) -> jax.Array:
    """Refine standard normal noise to clean images (Saharia et al. 2022, algorithm 2).

    From the noisiest level to the cleanest, with alpha the ratio of a level to the next cleaner one,
    `y <- (y - (1 - alpha) / sqrt(1 - gamma) f(x, y, gamma)) / sqrt(alpha) + sqrt(1 - alpha) z`; without the last term
    at the last step.

    Args:
        parameters: Parameters of the method.
        noisy: `(samples, y, x, 1)`, standardized.
        config: Hyperparameters of the network; its own schedule is not used.
        levels: Falling levels of noise, as from `noise_levels`.

    Returns:
        Clean images, `(samples, y, x, 1)`, on the scale of `noisy`.
    """
    gammas = jnp.asarray(levels)[::-1]
    alphas = gammas / jnp.concatenate([gammas[1:], jnp.ones(1)])
    keys = image_keys(noisy, config.seed)

    def step(image, now):
        number, gamma, alpha = now
        drawn = draw_normal(jax.vmap(jax.random.fold_in, (0, None))(keys, number), noisy.shape[1:])
        noise = predict_noise(parameters, noisy, image, jnp.broadcast_to(gamma, (len(noisy),)), config)
        image = (image - (1 - alpha) / jnp.sqrt(1 - gamma) * noise) / jnp.sqrt(alpha)
        more = jnp.where(number < len(gammas), jnp.sqrt(1 - alpha), 0.0)
        return image + more * drawn, None

    start = draw_normal(keys, noisy.shape[1:])
    image, _ = lax.scan(step, start, (jnp.arange(1, len(gammas) + 1), gammas, alphas))
    return image / config.clean_scale


def post_process(parameters: Parameters, refined: jax.Array, config: DiffusionConfig) -> jax.Array:
    """Run the post-processing U-Net over refined images, `(samples, y, x, 1)`."""
    return apply_network(parameters["post"], refined, config.post_network, IMAGES)


def denoise(parameters: Parameters, noisy: jax.Array, config: DiffusionConfig) -> jax.Array:
    """Denoise standardized images `(samples, y, x, 1)`: refine by the network's own schedule, and post-process."""
    refined = refine(parameters, noisy, config, levels=noise_levels(config.schedule, config.steps))
    return post_process(parameters, refined, config) if config.post else refined


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
        """Return as the loss the squared error of denoised images; beside it that of the noisy ones."""
        noisy, clean = images_of(batch)
        if self.settings["stage"] == "post":
            denoised = self._post_process(parameters, noisy)
        else:
            denoised = denoise(parameters, noisy, replace(self.network, post=False))
        return {"loss": mean_of_squares(denoised - clean), "noisy": mean_of_squares(noisy - clean)}

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
