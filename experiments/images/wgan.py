"""Wasserstein GAN with a gray constraint (Ouyang et al. 2020): networks after pix2pix (Isola et al. 2017).

With noisy images `y`, clean ones `x`, generator G, and critic D, both of these are minimized:

    L_G = mean D(G(y)) + 0.1 mean ||x - G(y)||^2
    L_D = mean D(x) - mean D(G(y))

The signs are as printed. They were checked: D falls at clean and rises at denoised images, and G goes where D is low.
This D is the negative of the critic of Arjovsky et al. 2017, whose distance is here `mean D(G(y)) - mean D(x)`; nothing
was changed. The squared norm is taken as the mean over pixels. Weights of the critic are clipped to +-0.001, there is
no sigmoid, and Adam (1e-4) trains the generator, SGD (1e-5) the critic. With weights so small D hardly depends on its
input, and the gray constraint dominates.

Where the paper is silent or does not suit images of other sizes, this is ours: the residual learning is
`G(y) = y - R(y)`; images are normalized one by one instead of in batches, without further parameters, so that an image
is denoised alone as in a batch, and nothing but convolutions is clipped; there is no dropout; the critic has a turn at
every step and the generator at every fifth, as in Arjovsky et al. 2017. Images are standardized as everywhere in the
project, and the constraint is on that scale.

For training, Gaussian noise of sigma 10 to 80 is added to clean images on 0 to 255, as in the paper; a sigma of 0 takes
the noisy images of the simulated sets instead.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import lax
from ml_collections import ConfigDict

from crefjax.errors import UserError
from crefjax.models import Model, Parameters
from crefjax.models.unet3d import pad_far_ends
from crefjax.training.optimizer import make_optimizer
from crefjax.training.task import DataSource
from experiments.images.common import (
    PublishedTask,
    clip_weights,
    every,
    images_of,
    instance_norm,
    lrelu,
    make_published_task,
    mean_of_squares,
    optimize_each,
    over_sections,
    standardize_pair,
    whole,
)

SETTINGS = {
    "sigma": (10.0, 80.0),  # range of the Gaussian noise of the training, on 0 to 255; (0, 0): the noise of the sets
    "held_out_sigma": 40.0,  # noise of the evaluation; 0: the noise of the sets
    "gray": 0.1,  # weight of the gray constraint
    "clip": 0.001,  # largest absolute value of the critic's weights
    "critic_rate": 1e-5,  # learning rate of the critic; the generator's is schedule.rate
    "critic_steps": 5,  # steps of the critic for one of the generator
}
_GRAYS = 255.0


@dataclass(frozen=True)
class WganConfig:
    """Hyperparameters of generator and critic; the defaults are those of pix2pix for images of 256 pixels.

    Attributes:
        depth: Convolutions of stride 2 of the generator; images are padded to multiples of `2**depth` pixels.
        width: Channels of the first; they double up to eight times as many.
        critic_depth: Convolutions of stride 2 of the critic.
    """

    network: ClassVar[str] = "experiments.images.wgan"

    depth: int = 8
    width: int = 64
    critic_depth: int = 3

    def __post_init__(self):
        whole("depth", self.depth, 2)
        whole("width", self.width)
        whole("critic_depth", self.critic_depth)

    @property
    def multiple(self) -> int:
        """The number of pixels of which every side of the network's image is a multiple."""
        return 2**self.depth

    @property
    def widths(self) -> list[int]:
        """Channels after each convolution of stride 2."""
        return [self.width * min(2**level, 8) for level in range(self.depth)]


def _conv(width, stride, name):
    return nn.Conv(width, (4, 4), (stride, stride), kernel_init=nn.initializers.normal(0.02), name=name)


def _conv_transposed(width, name):
    return nn.ConvTranspose(width, (4, 4), (2, 2), kernel_init=nn.initializers.normal(0.02), name=name)


class Generator(nn.Module):
    """A U-Net of 4x4 convolutions of stride 2, and of transposed ones, that predicts the noise to be subtracted."""

    config: WganConfig

    @nn.compact
    def __call__(self, noisy: jax.Array) -> jax.Array:
        """Denoise `(samples, y, x, 1)`, whose sides are multiples of `config.multiple`."""
        widths, skips, x = self.config.widths, [], noisy
        last = len(widths) - 1
        for level, width in enumerate(widths):
            x = _conv(width, 2, f"down{level}")(x if level == 0 else lrelu(x))
            if 0 < level < last:  # a single pixel would be normalized to 0
                x = instance_norm(x)
            skips.append(x)
        skips.pop()
        for level in range(last, 0, -1):
            x = instance_norm(_conv_transposed(widths[level - 1], f"up{level}")(nn.relu(x)))
            x = jnp.concatenate([x, skips.pop()], -1)
        return noisy - _conv_transposed(1, "up0")(nn.relu(x))


class Critic(nn.Module):
    """The critic of pix2pix, without a condition and without a sigmoid: patches of an image to one number each."""

    config: WganConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the mean number of every image, `(samples, y, x, 1)` to `(samples,)`."""
        depth = self.config.critic_depth
        for level in range(depth + 1):
            stride = 2 if level < depth else 1
            x = _conv(self.config.width * min(2**level, 8), stride, f"down{level}")(x)
            x = lrelu(instance_norm(x) if level else x)
        return _conv(1, 1, "out")(x).mean((1, 2, 3))


def init(key: jax.Array, config: WganConfig) -> Parameters:
    """Return random parameters of `generator` and `critic`, normal with 0.02 as in pix2pix."""
    first, second = jax.random.split(key)
    image = jnp.zeros((1, config.multiple, config.multiple, 1))
    generator = jax.jit(Generator(config).init)(first, image)["params"]
    return {"generator": generator, "critic": jax.jit(Critic(config).init)(second, image)["params"]}


def generate(parameters: Parameters, noisy: jax.Array, config: WganConfig) -> jax.Array:
    """Denoise images `(samples, y, x, 1)` of any sides."""
    _, y, x, _ = noisy.shape
    padded = pad_far_ends(noisy, config.multiple)
    return Generator(config).apply({"params": parameters["generator"]}, padded)[:, :y, :x]


def criticize(critic: Parameters, images: jax.Array, config: WganConfig) -> jax.Array:
    """Return the critic's number of every image, `(samples,)`."""
    return Critic(config).apply({"params": critic}, images)


def apply(parameters: Parameters, x: jax.Array, config: WganConfig) -> jax.Array:
    """Denoise the sections of `(batch, z, y, x, 1)`."""
    return over_sections(lambda images: generate(parameters, images, config), x)


def to_grays(clean: jax.Array) -> jax.Array:
    """Scale every image `(samples, y, x, 1)` from its own least and largest value to 0 to 255."""
    low, high = clean.min((1, 2, 3), keepdims=True), clean.max((1, 2, 3), keepdims=True)
    return (clean - low) * (_GRAYS / jnp.where(high > low, high - low, 1))


def gray_psnr(image: jax.Array, clean: jax.Array) -> jax.Array:
    """Return the peak signal-to-noise ratio, dB, of images with clean ones on 0 to 255, `(samples,)`."""
    return 10 * jnp.log10(_GRAYS**2 / jnp.maximum(mean_of_squares(image - clean), 1e-12))


@dataclass(frozen=True)
class WganTask(PublishedTask):
    """Trains generator and critic in turn."""

    method: ClassVar[str] = "Wasserstein GAN with a gray constraint, after Ouyang et al. 2020"

    def init(self, key):
        """Return the initial parameters; the critic's are within their limit from the start."""
        parameters, limit = super().init(key), self.settings["clip"]
        return parameters | {"critic": jax.tree.map(lambda p: jnp.clip(p, -limit, limit), parameters["critic"])}

    def optimizer(self, config, schedule):
        """Take the optimizer of the config for the generator, and SGD with clipped weights for the critic."""
        chosen = self.settings
        return optimize_each(
            {
                "generator": every(chosen["critic_steps"], make_optimizer(config, schedule)),
                "critic": optax.chain(optax.sgd(chosen["critic_rate"]), clip_weights(chosen["clip"])),
            }
        )

    def loss(self, parameters, batch, key):
        """Return the sum of both networks' losses, each for its own parameters alone, and each of its parts."""
        first, second = jax.random.split(key)
        low, high = self.settings["sigma"]
        sigma = jax.random.uniform(first, (len(batch["truth"]), 1, 1, 1), minval=low, maxval=max(high, low + 1e-6))
        noisy, clean = self.noisy_pair(batch, sigma if high > 0 else None, second)
        denoised = generate(parameters, noisy, self.network)
        return self.losses(parameters["critic"], denoised, clean)

    def losses(self, critic, denoised, clean):
        """Return the sum of the losses of a critic and of a generator's images `(samples, y, x, 1)`, and its parts."""
        of_generator = criticize(lax.stop_gradient(critic), denoised, self.network)
        gray = self.settings["gray"] * mean_of_squares(clean - denoised)
        on_clean = criticize(critic, clean, self.network)
        on_denoised = criticize(critic, lax.stop_gradient(denoised), self.network)
        generator, of_critic = of_generator + gray, on_clean - on_denoised
        return generator + of_critic, {"generator": generator, "gray": gray, "critic": of_critic}

    def noisy_pair(self, batch, sigma, key):
        """Return noisy and clean images, standardized: of the sets, or clean ones with Gaussian noise on 0 to 255."""
        noisy, clean = images_of(batch)
        if sigma is None:
            return noisy, clean
        grays = to_grays(clean)
        return standardize_pair(grays + sigma * jax.random.normal(key, grays.shape), grays)

    def metrics(self, parameters, batch):
        """Return as the loss the squared error of held-out images; with Gaussian noise, the PSNR of both on 0 to 255.

        The Gaussian noise is the same at every evaluation.
        """
        sigma = self.settings["held_out_sigma"]
        if not sigma:
            noisy, clean = images_of(batch)
            denoised = generate(parameters, noisy, self.network)
            return {"loss": mean_of_squares(denoised - clean), "noisy": mean_of_squares(noisy - clean)}
        grays = to_grays(images_of(batch)[1])
        observed = grays + sigma * jax.random.normal(jax.random.key(0), grays.shape)
        noisy, clean = standardize_pair(observed, grays)
        denoised = generate(parameters, noisy, self.network)
        back = denoised * observed.std((1, 2, 3), keepdims=True) + observed.mean((1, 2, 3), keepdims=True)
        return {
            "loss": mean_of_squares(denoised - clean),
            "noisy": mean_of_squares(noisy - clean),
            "psnr": gray_psnr(back, grays),
            "psnr_noisy": gray_psnr(observed, grays),
        }


def make_task(config: ConfigDict) -> tuple[WganTask, DataSource]:
    """Return the task of a config and its simulated sets; see `make_published_task`.

    Raises:
        UserError: As `make_published_task`; also if `settings.sigma` is not a range.
    """
    sigma = config.settings.sigma
    if len(sigma) != 2 or sigma[0] > sigma[1]:
        raise UserError(
            f"config: settings.sigma: expected two numbers, the smaller one first, found {sigma!r}; correct it"
        )
    return make_published_task(config, WganTask)


MODEL = Model(WganConfig, init, apply, dimensions=2)
