"""The 3D U-Net's layers in two dimensions, for images.

Levels, skips, and names are those of `crefjax.models.unet3d`. An image is a map of one section, `(1, y, x)`; a batch of
maps with more sections is denoised section by section.
"""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from crefjax.models import Parameters
from crefjax.models.conv import DIMENSIONS_2D
from crefjax.models.unet2d_config import UNet2DConfig
from crefjax.models.unet3d import Operations, apply_network
from crefjax.models.unet3d_config import parameter_shapes


@functools.partial(jax.jit, static_argnames="config")
def init_network(key: jax.Array, config: UNet2DConfig) -> Parameters:
    """Return random parameters, He-normal, with biases of 0."""
    shapes = parameter_shapes(config)
    keys = dict(zip(shapes, jax.random.split(key, len(shapes)), strict=True))
    normal = nn.initializers.he_normal()
    return {
        name: {"kernel": normal(keys[name], layer["kernel"]), "bias": jnp.zeros(layer["bias"])}
        for name, layer in shapes.items()
    }


def apply_to_sections(parameters: Parameters, x: jax.Array, config: UNet2DConfig) -> jax.Array:
    """Run the network over every section of `(batch, z, y, x, 1)`; the same shape, float32."""
    sections = x.reshape(-1, *x.shape[2:])
    return apply_network(parameters, sections, config, IMAGES).reshape(x.shape)


def conv2d_layer(x: jax.Array, kernel: jax.Array, bias: jax.Array, slope: float) -> jax.Array:
    """Convolve with a 3x3 kernel, with zeros around, add a bias, and apply a LeakyReLU.

    Args:
        x: `(batch, y, x, in)`.
        kernel: `(3, 3, in, out)`.
        bias: `(out,)`.
        slope: Slope of the LeakyReLU below zero; 1 for none.

    Returns:
        `(batch, y, x, out)`, of the type of `x`.
    """
    # As in three dimensions: a GPU's default precision is too coarse to call the result the network's own.
    y = lax.conv_general_dilated(
        x, kernel.astype(x.dtype), (1, 1), "SAME", dimension_numbers=DIMENSIONS_2D, precision=lax.Precision.HIGHEST
    )
    y = y + bias.astype(x.dtype).reshape(1, 1, 1, -1)
    return y if slope == 1 else jnp.where(y > 0, y, slope * y)


def conv2d_upsampled_layer(
    skip: jax.Array, up: jax.Array, kernel: jax.Array, bias: jax.Array, slope: float
) -> jax.Array:
    """Convolve `skip` beside `up` with every pixel repeated 2x2 times; otherwise as `conv2d_layer`."""
    repeated = jnp.repeat(jnp.repeat(up, 2, axis=1), 2, axis=2)
    return conv2d_layer(jnp.concatenate([skip, repeated], axis=-1), kernel, bias, slope)


def max_pool(x: jax.Array) -> jax.Array:
    """Take the largest of every 2x2 pixels: `(batch, y, x, c)` to half the sides, which are even."""
    x = jnp.maximum(x[:, 0::2], x[:, 1::2])
    return jnp.maximum(x[:, :, 0::2], x[:, :, 1::2])


IMAGES = Operations(conv2d_layer, conv2d_upsampled_layer, max_pool)
