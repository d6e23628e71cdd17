"""The 3D U-Net of Agarwal et al. 2024, as a Flax module and as functions on slabs.

The module holds the parameters; the arithmetic is in `down_level`, `bottom_level`, and `up_level`, which work on a
whole volume and on a slab of it alike, so that `crefjax.models.unet3d_slabs` computes the same network.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from crefjax.models import Parameters
from crefjax.models.conv import conv3d, conv3d_upsampled, max_pool
from crefjax.models.conv_vjp import conv3d_layer, conv3d_upsampled_layer
from crefjax.models.unet3d_config import Layer, UNet3DConfig


class SlabPosition(NamedTuple):
    """Position of a slab along z: its first plane and the number of planes in the whole box."""

    start: jax.Array | int
    total: int


class Operations(NamedTuple):
    """The arithmetic of a U-Net on whole boxes of some number of dimensions.

    Attributes:
        layer: `(x, kernel, bias, slope) -> y`, a convolution that keeps the size, with a LeakyReLU.
        upsampled_layer: `(skip, up, kernel, bias, slope) -> y`, the same of `skip` beside `up` at twice its size.
        pool: `(x) -> y`, the largest value in every two voxels along each axis.
    """

    layer: Callable[..., jax.Array]
    upsampled_layer: Callable[..., jax.Array]
    pool: Callable[..., jax.Array]


VOLUMES = Operations(conv3d_layer, conv3d_upsampled_layer, max_pool)


class UNet3D(nn.Module):
    """The network, from a standardized map to a denoised one.

    `(batch, z, y, x, 1)` to the same shape, float32. Sides that are not multiples of `config.multiple` are padded
    symmetrically at their far ends, and cropped afterwards.
    """

    config: UNet3DConfig = UNet3DConfig()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Denoise a batch of standardized maps or patches."""
        parameters = {layer.name: _Convolution(layer, name=layer.name)() for layer in self.config.layers()}
        return apply_network(parameters, x, self.config)


class _Convolution(nn.Module):
    """The parameters of one convolution, He-normal as in the paper."""

    layer: Layer

    @nn.compact
    def __call__(self):
        _, channels_in, channels_out = self.layer
        kernel = self.param("kernel", nn.initializers.he_normal(), (3, 3, 3, channels_in, channels_out))
        return {"kernel": kernel, "bias": self.param("bias", nn.initializers.zeros, (channels_out,))}


def init_network(key: jax.Array, config: UNet3DConfig) -> Parameters:
    """Return random parameters, He-normal as in the paper, with biases of 0."""
    side = config.multiple
    return jax.jit(UNet3D(config).init)(key, jnp.zeros((1, side, side, side, 1)))["params"]


def apply_network(
    parameters: Parameters, x: jax.Array, config: UNet3DConfig, operations: Operations = VOLUMES
) -> jax.Array:
    """Run the whole network at once; shapes as in `UNet3D`, or with the dimensions of other operations."""
    shape = x.shape[1:-1]
    x = pad_far_ends(x.astype(config.compute_dtype), config.multiple)
    skips = []
    for level in range(config.depth):
        skips.append(x)
        x = down_level(parameters, x, config, level, operations=operations)
    x = bottom_level(parameters, x, config, operations)
    for level in range(config.depth - 1, -1, -1):
        x = up_level(parameters, skips.pop(), x, config, level, operations=operations)
    return x[:, *(slice(side) for side in shape)].astype(jnp.float32)


def pad_far_ends(x: jax.Array, multiple: int) -> jax.Array:
    """Pad z, y, and x of `(batch, z, y, x, c)` symmetrically at their far ends to a multiple of voxels."""
    widths = [(0, 0), *((0, -n % multiple) for n in x.shape[1:-1]), (0, 0)]
    return jnp.pad(x, widths, mode="symmetric") if any(after for _, after in widths) else x


def down_level(
    parameters: Parameters,
    x: jax.Array,
    config: UNet3DConfig,
    level: int,
    position: SlabPosition | None = None,
    *,
    operations: Operations = VOLUMES,
) -> jax.Array:
    """Convolve and pool at a level of the way down.

    Args:
        parameters: Parameters of the network.
        x: `(batch, z, y, x, c)`; a slab has `down_halo` additional planes at each end.
        config: Hyperparameters of the network.
        level: 0 for the full resolution.
        position: Position of `x`, halo included, if it is a slab; None if it is the whole box.
        operations: Arithmetic of the whole box.

    Returns:
        Half the size along z, y, and x.
    """
    return operations.pool(_convolve(parameters, config.down_names(level), x, config, position, operations))


def bottom_level(
    parameters: Parameters, x: jax.Array, config: UNet3DConfig, operations: Operations = VOLUMES
) -> jax.Array:
    """Convolve at the coarsest level; the size is kept."""
    return _convolve(parameters, ["bottom"], x, config, None, operations)


def up_level(
    parameters: Parameters,
    skip: jax.Array,
    up: jax.Array,
    config: UNet3DConfig,
    level: int,
    position: SlabPosition | None = None,
    *,
    operations: Operations = VOLUMES,
) -> jax.Array:
    """Join the skip with the upsampled level below and convolve.

    Args:
        parameters: Parameters of the network.
        skip: `(batch, z, y, x, c)`; a slab has `up_halo(...)[0]` additional planes at each end.
        up: Half the size of `skip`; a slab has `up_halo(...)[1]` additional planes at each end.
        config: Hyperparameters of the network.
        level: Level of `skip`; 0 for the full resolution.
        position: Position of `skip`, halo included, if it is a slab; None if it is the whole box.
        operations: Arithmetic of the whole box.

    Returns:
        The size of `skip` without its halo; at level 0 the output of the network, with one channel.
    """
    first, *others = config.up_names(level)
    if position is None:
        x = operations.upsampled_layer(skip, up, *_weights(parameters, first), config.negative_slope)
    else:
        x = _leaky_relu(conv3d_upsampled(skip, up, *_weights(parameters, first)), config)
        position = SlabPosition(position.start + 1, position.total)
        x = _zero_outside(x, position)
        spare = up_halo(config, level)[0] - 1 - len(others)
        if spare:  # the upsampled slab comes in pairs of planes, one of which may not be needed
            x, position = x[:, spare:-spare], SlabPosition(position.start + spare, position.total)
    return _convolve(parameters, others, x, config, position, operations)


def down_halo(config: UNet3DConfig, level: int) -> int:
    """Return the number of planes that a slab of `down_level` needs at each end."""
    return len(config.down_names(level))


def up_halo(config: UNet3DConfig, level: int) -> tuple[int, int]:
    """Return the number of planes that a slab of `up_level` needs at each end of `skip` and of `up`."""
    after_first = len(config.up_names(level)) - 1
    pairs = -(-after_first // 2)
    return 2 * pairs + 1, pairs + 1


def _convolve(parameters, names, x, config, position, operations):
    """Apply convolutions with their LeakyReLU one after the other, none after the output."""
    for name in names:
        if position is None:
            slope = 1.0 if name == "out" else config.negative_slope
            x = operations.layer(x, *_weights(parameters, name), slope)
            continue
        x = conv3d(x, *_weights(parameters, name))
        if name == "out":
            return x
        position = SlabPosition(position.start + 1, position.total)
        x = _zero_outside(_leaky_relu(x, config), position)
    return x


def _weights(parameters, name):
    return parameters[name]["kernel"], parameters[name]["bias"]


def _leaky_relu(x, config):
    return jnp.where(x > 0, x, config.negative_slope * x)


def _zero_outside(x, position):
    """Put zeros on the planes outside the box, as every convolution of the whole network has them there."""
    index = position.start + jnp.arange(x.shape[1])
    inside = (index >= 0) & (index < position.total)
    return jnp.where(inside[None, :, None, None, None], x, jnp.zeros((), x.dtype))
