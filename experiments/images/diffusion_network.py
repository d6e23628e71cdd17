"""The network of the conditional diffusion, after SR3 (Saharia et al. 2022), which predicts the noise in an image."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from crefjax.errors import UserError
from crefjax.models.unet2d_config import UNet2DConfig
from experiments.images.common import whole
from experiments.images.noise_levels import SCHEDULES

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
        draws: Results whose mean is taken. The method draws 1; the mean of many has half the squared error, is no
            longer a plausible image, and takes as many times as long.
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
    draws: int = 1

    def __post_init__(self):
        for name in ("width", "blocks", "post_depth", "steps", "draws"):
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
