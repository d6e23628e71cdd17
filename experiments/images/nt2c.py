"""NT2C, Noise-Transfer2Clean (Li et al. 2022): a denoiser trained with noise that a network learned from the images.

Three stages, each started from the weights of the one before (`settings.stage`, `config.weights`):

1. `coarse`: a U-Net with five max-poolings learns by its squared error to remove white Gaussian noise, as strong as
   that of the image, from clean signals.
2. `noise`: where the coarse denoiser shows nothing, `crefjax images extract-noise` cuts patches of noise out of
   micrographs. A Wasserstein GAN with gradient penalty (Gulrajani et al. 2017) learns to make such noise: a generator
   of six transposed convolutions, and a critic of six convolutions.
3. `fine`: the coarse denoiser learns on with the noise V of the generator, weighted as in the images. For a signal S
   and an image X, `alpha S + beta V + gamma = X` is solved by least squares, and the pair is
   `(alpha S + beta V + gamma, alpha S)`.

What is ours:

- X is the simulated image of the same view as S, so that the equations have a meaning pixel by pixel.
- The noise in X is not V, so that by least squares alone beta is 0 but for chance, whatever the noise in X; as beta we
  take the root of the sum of beta^2 and the power of what remains, over that of V: the pair is then as noisy as X. If V
  is the noise in X, nothing remains, and beta is that of least squares.
- Batches are normalized in the generator only, by their own statistics, also where it makes noise later. In the critic
  layers are normalized, because the gradient penalty is one of each image by itself.
- The generator starts from a field of random numbers, 64 times smaller than the image, and can make images of any side.
- The widths of the layers.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import lax
from ml_collections import ConfigDict

from crefjax.models import Model, Parameters
from crefjax.models.unet2d import IMAGES, init_network
from crefjax.models.unet2d_config import UNet2DConfig
from crefjax.models.unet3d import apply_network
from crefjax.spectral.shells import box_shells, half_spectrum, shell_means
from crefjax.training.optimizer import make_optimizer
from crefjax.training.task import DataSource
from experiments.images.common import (
    PublishedTask,
    every,
    images_of,
    lrelu,
    make_published_task,
    mean_of_squares,
    optimize_each,
    over_sections,
    standardize_pair,
    whole,
)
from experiments.images.noise_source import noise_source
from experiments.images.reweighting import reweight

SETTINGS = {
    "stage": "coarse",  # coarse, noise, or fine
    "noise": "",  # noise: stacks of `crefjax images extract-noise`, names or patterns with *, separated by commas
    "penalty": 10.0,  # noise: weight of the gradient penalty
    "critic_steps": 5,  # noise: steps of the critic for one of the generator
}
_LAYERS = 6  # of generator and critic
_NETWORKS = ("denoiser", "generator", "critic")


@dataclass(frozen=True)
class Nt2cConfig(UNet2DConfig):
    """Hyperparameters of the denoiser, which are those of the project's 2D U-Net, and of the noise synthesizer.

    Attributes:
        noise_width: Channels of the generator's last layer but one, and of the critic's first; they double up to eight
            times as many.
        latent: Random numbers for every 64x64 pixels of noise.
    """

    network: ClassVar[str] = "experiments.images.nt2c"

    noise_width: int = 64
    latent: int = 128

    def __post_init__(self):
        super().__post_init__()
        whole("noise_width", self.noise_width)
        whole("latent", self.latent)

    @property
    def noise_widths(self) -> list[int]:
        """Channels of the layers between images and random numbers, those nearest to the image first."""
        return [self.noise_width * min(2**level, 8) for level in range(_LAYERS - 1)]


class NoiseGenerator(nn.Module):
    """Six transposed convolutions: `(samples, y, x, latent)` to noise `(samples, 64 y, 64 x, 1)`."""

    config: Nt2cConfig

    @nn.compact
    def __call__(self, latent: jax.Array) -> jax.Array:
        """Make noise of a batch of random numbers, which is normalized together."""
        x = latent
        for number, width in enumerate([*reversed(self.config.noise_widths), 1]):
            x = nn.ConvTranspose(width, (4, 4), (2, 2), name=f"layer{number}")(x)
            if number < _LAYERS - 1:
                x = lrelu(_BatchNorm(name=f"norm{number}")(x))
        return x


class _BatchNorm(nn.Module):
    """Batch normalization by the batch's own statistics, with a scale and a bias for every channel."""

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        mean, variance = x.mean((0, 1, 2), keepdims=True), x.var((0, 1, 2), keepdims=True)
        shape = (1, 1, 1, -1)
        return (x - mean) / jnp.sqrt(variance + 1e-5) * scale.reshape(shape) + bias.reshape(shape)


class NoiseCritic(nn.Module):
    """Six convolutions of stride 2: images `(samples, y, x, 1)` to one number each."""

    config: Nt2cConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the mean of the last layer, `(samples,)`."""
        for number, width in enumerate([*self.config.noise_widths, 1]):
            x = nn.Conv(width, (4, 4), (2, 2), name=f"layer{number}")(x)
            if number < _LAYERS - 1:
                x = lrelu(nn.GroupNorm(1, name=f"norm{number}")(x) if number else x)
        return x.mean((1, 2, 3))


def init(key: jax.Array, config: Nt2cConfig) -> Parameters:
    """Return random parameters of `denoiser`, `generator`, and `critic`."""
    keys = jax.random.split(key, 3)
    side = 2**_LAYERS
    generator = jax.jit(NoiseGenerator(config).init)(keys[1], jnp.zeros((1, 1, 1, config.latent)))["params"]
    critic = jax.jit(NoiseCritic(config).init)(keys[2], jnp.zeros((1, side, side, 1)))["params"]
    return {"denoiser": init_network(keys[0], config), "generator": generator, "critic": critic}


def denoise(parameters: Parameters, noisy: jax.Array, config: Nt2cConfig) -> jax.Array:
    """Denoise standardized images `(samples, y, x, 1)`."""
    return apply_network(parameters["denoiser"], noisy, config, IMAGES)


def apply(parameters: Parameters, x: jax.Array, config: Nt2cConfig) -> jax.Array:
    """Denoise the sections of `(batch, z, y, x, 1)`."""
    return over_sections(lambda images: denoise(parameters, images, config), x)


def make_noise(parameters: Parameters, key: jax.Array, shape: tuple[int, int, int], config: Nt2cConfig) -> jax.Array:
    """Make noise images, `shape` being `(samples, y, x)`: `(samples, y, x, 1)`."""
    samples, y, x = shape
    fields = tuple(-(-side // 2**_LAYERS) for side in (y, x))
    latent = jax.random.normal(key, (samples, *fields, config.latent))
    return NoiseGenerator(config).apply({"params": parameters["generator"]}, latent)[:, :y, :x]


def gradient_penalty(critic, real: jax.Array, made: jax.Array, share: jax.Array) -> jax.Array:
    """Return `(||grad D(z)|| - 1)^2` of every sample between real and made images (Gulrajani et al. 2017, Eq. 3).

    Args:
        critic: D, `(samples, y, x, 1)` to `(samples,)`, each sample by itself.
        real: `(samples, y, x, 1)`.
        made: The same shape.
        share: `(samples,)`, the share of `real` in `z = share real + (1 - share) made`.
    """
    share = share[:, jnp.newaxis, jnp.newaxis, jnp.newaxis]
    gradient = jax.grad(lambda images: critic(images).sum())(share * real + (1 - share) * made)
    norm = jnp.sqrt(jnp.square(gradient).sum((1, 2, 3)) + 1e-12)  # whose root has a derivative at 0
    return jnp.square(norm - 1)


@dataclass(frozen=True)
class Nt2cTask(PublishedTask):
    """Trains the networks of one stage on clean signals, or on patches of noise."""

    method: ClassVar[str] = "NT2C, noise-transfer to clean, after Li et al. 2022"
    stages: ClassVar[tuple[str, ...]] = ("coarse", "noise", "fine")

    def optimizer(self, config, schedule):
        """Train the denoiser by the config's rule, or generator and critic by Adam with b1 = 0 and b2 = 0.9."""
        if self.settings["stage"] != "noise":
            return optimize_each(dict.fromkeys(_NETWORKS) | {"denoiser": make_optimizer(config, schedule)})
        generator = every(self.settings["critic_steps"], optax.adam(schedule, 0.0, 0.9))
        return optimize_each({"denoiser": None, "generator": generator, "critic": optax.adam(schedule, 0.0, 0.9)})

    def loss(self, parameters, batch, key):
        """Return the squared error of a denoised pair, or the losses of generator and critic."""
        if self.settings["stage"] == "noise":
            return self._adversarial(parameters, jnp.moveaxis(batch["noise"], 1, -1), key)
        noisy, clean = self.pair(parameters, *images_of(batch), key)
        return mean_of_squares(denoise(parameters, noisy, self.network) - clean), {}

    def pair(self, parameters, image, signal, key):
        """Return the noisy and the clean image on which the denoiser learns, standardized.

        Args:
            parameters: Parameters of the method.
            image: Noisy image of a set, `(samples, y, x, 1)`.
            signal: Its clean signal.
            key: Key of the noise.
        """
        if self.settings["stage"] == "coarse":
            strength = (image - signal).std((1, 2, 3), keepdims=True)
            return standardize_pair(signal + strength * jax.random.normal(key, signal.shape), signal)
        noise = lax.stop_gradient(make_noise(parameters, key, image.shape[:3], self.network))
        return standardize_pair(*reweight(signal, noise, image))

    def _adversarial(self, parameters, real, key):
        first, second = jax.random.split(key)
        made = make_noise(parameters, first, real.shape[:3], self.network)
        fixed = lax.stop_gradient(made)
        generator = -self._criticize(lax.stop_gradient(parameters["critic"]), made)
        distance = self._criticize(parameters["critic"], real) - self._criticize(parameters["critic"], fixed)
        share = jax.random.uniform(second, (len(real),))
        penalty = gradient_penalty(lambda z: self._criticize(parameters["critic"], z), real, fixed, share)
        loss = generator - distance + self.settings["penalty"] * penalty
        return loss, {"generator": generator, "distance": distance, "penalty": penalty}

    def _criticize(self, critic, images):
        return NoiseCritic(self.network).apply({"params": critic}, images)

    def metrics(self, parameters, batch):
        """Return the squared error of denoised, noisy, and empty images; of the noise, how far its spectrum is off.

        That is the mean over rings of the squared difference of the logarithms of the mean power, in a batch.
        """
        if self.settings["stage"] == "noise":
            real = jnp.moveaxis(batch["noise"], 1, -1)
            made = make_noise(parameters, jax.random.key(0), real.shape[:3], self.network)
            powers = [ring_power(each)[1:] for each in (real, made)]
            error = jnp.square(jnp.log(powers[0]) - jnp.log(powers[1])).mean()
            std = made.std((1, 2, 3))
            return {"loss": jnp.broadcast_to(error, std.shape), "std": std, "std_real": real.std((1, 2, 3))}
        noisy, clean = images_of(batch)
        denoised = denoise(parameters, noisy, self.network)
        errors = {"noisy": mean_of_squares(noisy - clean), "empty": mean_of_squares(clean)}
        return {"loss": mean_of_squares(denoised - clean)} | errors


def ring_power(images: jax.Array) -> jax.Array:
    """Return the mean power of images `(samples, y, x, 1)` on each ring, from 0 to Nyquist."""
    sections = jnp.moveaxis(images, -1, 1)
    shells = box_shells(sections.shape[1:])
    power = jnp.square(jnp.abs(half_spectrum(sections))).mean(0, keepdims=True)
    return shell_means(power, shells)[0] + 1e-12


def make_task(config: ConfigDict) -> tuple[Nt2cTask, DataSource]:
    """Return the task of a config, and its simulated sets or its patches of noise.

    Raises:
        UserError: As `make_published_task`, or the patches cannot be read.
    """
    if config.settings.stage == "noise":
        task = Nt2cTask.of_config(config)
        return task, noise_source(config, config.settings.noise, task.pixel_sizes)
    return make_published_task(config, Nt2cTask)


MODEL = Model(Nt2cConfig, init, apply, dimensions=2)
