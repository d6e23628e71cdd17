"""Max pooling whose gradient is fast on a CPU and the same on every platform."""

import jax
import jax.numpy as jnp
from jax import lax


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
    """The largest of every 2x2x2 voxels: `(batch, z, y, x, c)` to `(batch, z/2, y/2, x/2, c)`; even sizes.

    Of equal voxels the first in the order of z, y, x has the gradient, on every platform: outside a mask
    all voxels are equal.
    """
    return lax.platform_dependent(x, cpu=_strided_max, default=_windowed_max)


def _strided_max(x):
    # Three strided maxima are vectorized by XLA's CPU compiler; reduce_window is not.
    x = jnp.maximum(x[:, 0::2], x[:, 1::2])
    x = jnp.maximum(x[:, :, 0::2], x[:, :, 1::2])
    return jnp.maximum(x[:, :, :, 0::2], x[:, :, :, 1::2])


def _windowed_max(x):
    window = (1, 2, 2, 2, 1)
    # A start of -inf, not the type's lowest number, is what lets JAX differentiate this as a maximum.
    return lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")


def _pool_fwd(x):
    return max_pool(x), x


def _pool_bwd(x, gradient):
    return (lax.platform_dependent(x, gradient, cpu=_pool_bwd_first, default=_pool_bwd_window),)


max_pool.defvjp(_pool_fwd, _pool_bwd)


def _pool_bwd_window(x, gradient):
    return jax.vjp(_windowed_max, x)[1](gradient)[0]


def _pool_bwd_first(x, gradient):
    batch, depth, height, width, channels = gradient.shape
    parities = [(i, j, k) for i in range(2) for j in range(2) for k in range(2)]
    best, where = x[:, 0::2, 0::2, 0::2], jnp.zeros(gradient.shape, jnp.int8)
    for number, (i, j, k) in enumerate(parities):
        voxel = x[:, i::2, j::2, k::2]
        where = jnp.where(voxel > best, jnp.int8(number), where)
        best = jnp.maximum(voxel, best)
    spread = (batch, depth, 1, height, 1, width, 1, channels)
    numbers = jnp.arange(8, dtype=jnp.int8).reshape(1, 1, 2, 1, 2, 1, 2, 1)
    chosen = where.reshape(spread) == numbers
    return jnp.where(chosen, gradient.reshape(spread), jnp.zeros((), x.dtype)).reshape(x.shape)
