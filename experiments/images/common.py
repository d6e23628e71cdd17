"""What the published denoisers of images share: their task's frame, optimizers for several networks, and numbers.

Inside a network an image is `(samples, y, x, 1)`. The parameters of a method are a dict of networks, such as
`{"generator": ..., "critic": ...}`; one loss trains them all, with `jax.lax.stop_gradient` where one network must not
learn from what another is asked for, and one optimizer gives each its own rule (`optimize_each`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from crefjax.errors import UserError
from crefjax.models import load_model
from crefjax.training.config import network_config
from crefjax.training.image_denoising import ImageDenoisingTask, image_source, pixel_sizes
from crefjax.training.task import DataSource, TaskDescription
from crefjax.weights.store import load_weights


@dataclass(frozen=True)
class PublishedTask(ImageDenoisingTask):
    """Trains the networks of one method on batches of `crefjax.images.sets`.

    Attributes:
        settings: `config.settings`, which the method's `SETTINGS` describes.
        method: Name of the method and its source, for the card.
        stages: Values of `settings["stage"]`, in the order in which they are trained; empty if there is one.
    """

    settings: dict = field(default_factory=dict)
    method: ClassVar[str] = ""
    stages: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def of_config(cls, config: ConfigDict) -> Self:
        """Return the task of a config.

        Raises:
            UserError: The network or the stage is not of this method, a set cannot be read, or the initial weights do
                not fit.
        """
        settings = config.settings.to_dict()
        if config.network.name != cls.__module__:
            raise UserError(
                f"config: network.name: expected {cls.__module__}, as the task, found {config.network.name}; change it"
            )
        if cls.stages and settings["stage"] not in cls.stages:
            found = f"found {settings['stage']!r}"
            raise UserError(f"config: settings.stage: expected one of {', '.join(cls.stages)}, {found}; choose one")
        if cls.stages and settings["stage"] != cls.stages[0] and not config.weights:
            raise UserError(
                f"config: weights: the stage {settings['stage']} starts from the weights of an earlier stage, found "
                "none; name the folder of a run's weights"
            )
        sizes = pixel_sizes(config)
        task = cls(network_config(config), {}, patch=config.data.patch, pixel_sizes=sizes, settings=settings)
        return task._start_from(config.weights) if config.weights else task

    def _start_from(self, name):
        """Return the task with weights to start from; only the sizes of their arrays must fit."""
        start = load_weights(name, self.name)
        shapes = [load_model(config.network).parameter_shapes(config) for config in (start.config, self.network)]
        if start.config.network != self.network.network or shapes[0] != shapes[1]:
            raise UserError(
                f"{start.path}: expected weights for {self.network}, found some for {start.config}; change the network "
                "of the config, or choose others"
            )
        return self.started_from(start)

    def describe(self, config):
        """Name the crops, the method, and its settings."""
        card = {"method": self.method, "settings": config.settings.to_dict()}
        return TaskDescription(f"crops of {self.patch} pixels a side", card)


def make_published_task(config: ConfigDict, kind: type[PublishedTask]) -> tuple[PublishedTask, DataSource]:
    """Return a method's task and the simulated sets of a config.

    Raises:
        UserError: As `PublishedTask.of_config`, or the images are smaller than the crops.
    """
    return kind.of_config(config), image_source(config)


def images_of(batch: dict) -> tuple[jax.Array, jax.Array]:
    """Return the noisy images of a batch and their clean signal, `(samples, y, x, 1)`."""
    noisy = (batch["half_map_1"] + batch["half_map_2"]) / 2
    return jnp.moveaxis(noisy, 1, -1), jnp.moveaxis(batch["truth"], 1, -1)


def over_sections(network: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """Run a network of images over every section of `(batch, z, y, x, 1)`; the same shape."""
    return network(x.reshape(-1, *x.shape[2:])).reshape(x.shape)


def standardize_pair(noisy: jax.Array, clean: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Bring every noisy image to mean 0 and standard deviation 1, and its clean signal to the same scale and mean 0."""
    axes = tuple(range(1, noisy.ndim))
    std = noisy.std(axes, keepdims=True)
    scale = 1 / jnp.where(std > 0, std, 1)
    return (noisy - noisy.mean(axes, keepdims=True)) * scale, (clean - clean.mean(axes, keepdims=True)) * scale


def mean_of_squares(difference: jax.Array) -> jax.Array:
    """Return the mean square of every image, `(samples,)`."""
    return jnp.square(difference).mean(tuple(range(1, difference.ndim)))


def lrelu(x: jax.Array) -> jax.Array:
    """Apply the LeakyReLU of pix2pix and DCGAN, of slope 0.2 below zero."""
    return nn.leaky_relu(x, 0.2)


def instance_norm(x: jax.Array) -> jax.Array:
    """Bring every channel of every image `(samples, y, x, c)` to mean 0 and standard deviation 1."""
    variance = x.var((1, 2), keepdims=True)
    return (x - x.mean((1, 2), keepdims=True)) / jnp.sqrt(variance + 1e-5)


def optimize_each(rules: dict[str, optax.GradientTransformation | None]) -> optax.GradientTransformation:
    """Return the optimizer of a dict of networks with a rule for each; None leaves a network as it is."""
    transforms = {name: optax.set_to_zero() if rule is None else rule for name, rule in rules.items()}

    def labels(parameters):
        return {name: jax.tree.map(lambda _, name=name: name, tree) for name, tree in parameters.items()}

    return optax.multi_transform(transforms, labels)


def every(steps: int, rule: optax.GradientTransformation) -> optax.GradientTransformation:
    """Apply a rule at every so many steps, the last of each, and change nothing at the others.

    So a generator takes its turn after its critic has taken several. Its gradients of the other steps are not used, and
    the schedule of its rate counts its own turns.
    """
    return optax.transforms.conditionally_mask(rule, lambda step: step % steps == steps - 1)


def clip_weights(limit: float) -> optax.GradientTransformation:
    """Keep every parameter within a limit after a rule's update, as the critic of Arjovsky et al. 2017."""

    def update(updates, state, params=None):
        clipped = jax.tree.map(lambda u, p: jnp.clip(p + u, -limit, limit) - p, updates, params)
        return clipped, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def whole(name: str, value, least: int = 1) -> None:
    """Check a hyperparameter that is a whole number.

    Raises:
        ValueError: It is not one, or too small.
    """
    if type(value) is not int or value < least:
        raise ValueError(f"expected {name} to be a whole number of at least {least}, found {value!r}")


def image_keys(images: jax.Array, seed: int | jax.Array) -> jax.Array:
    """Return a random key for every image, `(samples,)`, which depends on its pixels and the seed alone.

    What is drawn for an image is thus the same in any batch, and different for different images.
    """
    bits = jax.lax.bitcast_convert_type(images.astype(jnp.float32).reshape(len(images), -1), jnp.uint32)
    weights = jnp.asarray(np.arange(1, 2 * bits.shape[1], 2, dtype=np.uint32))  # odd, so that no bit is lost
    sums = (bits * weights[np.newaxis]).sum(1, dtype=jnp.uint32)
    return jax.vmap(lambda number: jax.random.fold_in(jax.random.key(seed), number))(sums)


def draw_normal(keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draw standard normal noise for every key: `(samples, *shape)`."""
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
