"""Convolutional layers of whole volumes, with gradients that are fast on a CPU.

A layer is a convolution, its bias and a LeakyReLU. On a GPU it is XLA's own 3D convolution and what XLA derives from
it. On a CPU that derivative is slow, that of the kernel most of all, which is written as matrix products over the
voxels instead. Forward and backward run slab by slab along z inside one loop, so that the temporaries stay in the
cache and are not mapped into memory anew.

Arrays are `(batch, z, y, x, channel)`, kernels `(3, 3, 3, in, out)`; zeros around all sides keep the size. The
result has the type of the input; kernels and biases may be of a wider type, which their gradients then have too. The
sign of a LeakyReLU's output is that of its input, so only a layer's input and output are kept for the way back.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from crefjax.models import conv, slabs

# Size of the largest temporary array of a slab, forward and backward: the fastest of 0.1 to 48 MB on two CPUs with 2 MB
# of second-level cache each.
_FORWARD_BYTES = 16e6
_BACKWARD_BYTES = 4e6


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def conv3d_layer(x: jax.Array, kernel: jax.Array, bias: jax.Array, slope: float) -> jax.Array:
    """Convolve with a 3x3x3 kernel, zeros around all sides, add a bias and apply a LeakyReLU.

    Args:
        x: `(batch, z, y, x, in)`.
        kernel: `(3, 3, 3, in, out)`.
        bias: `(out,)`.
        slope: of the LeakyReLU below zero, above 0; 1 for none.

    Returns:
        `(batch, z, y, x, out)`, of the type of `x`.
    """
    kernel, bias = kernel.astype(x.dtype), bias.astype(x.dtype)
    return _by_platform(_conv3d_slabs, _conv3d_whole, slope, x, kernel, bias)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def conv3d_upsampled_layer(
    skip: jax.Array, up: jax.Array, kernel: jax.Array, bias: jax.Array, slope: float
) -> jax.Array:
    """Convolve `[skip, upsampled]` as `conv.conv3d_upsampled`, but of whole volumes, and apply a LeakyReLU.

    Args:
        skip: `(batch, 2z, 2y, 2x, skip channels)`.
        up: `(batch, z, y, x, up channels)`.
        kernel: `(3, 3, 3, skip channels + up channels, out)`.
        bias: `(out,)`.
        slope: of the LeakyReLU below zero, above 0; 1 for none.

    Returns:
        `(batch, 2z, 2y, 2x, out)`, of the type of `skip`.
    """
    kernel, bias = kernel.astype(skip.dtype), bias.astype(skip.dtype)
    return _by_platform(_upsampled_slabs, _upsampled_whole, slope, skip, up, kernel, bias)


def _by_platform(cpu, default, slope, *arrays):
    cpu, default = (functools.partial(f, slope=slope) for f in (cpu, default))
    return lax.platform_dependent(*arrays, cpu=cpu, default=default)


def _activate(x, bias, slope):
    x = x + bias.reshape(1, 1, 1, 1, -1)
    return x if slope == 1 else jnp.where(x > 0, x, slope * x)


def _before_activation(gradient, out, slope):
    """The gradient before a LeakyReLU from the one after it and its output."""
    return gradient if slope == 1 else jnp.where(out > 0, gradient, slope * gradient)


# Forward.


def _conv3d_whole(x, kernel, bias, *, slope):
    return _activate(conv.plain(slabs.pad_z(x), kernel), bias, slope)


def _conv3d_slabs(x, kernel, bias, *, slope):
    channels_in, channels_out = kernel.shape[3:]
    way = conv.fast_way(kernel)

    def one(start, size, out):
        slab = _activate(way(slabs.with_halo(x, start, size), kernel), bias, slope)
        return lax.dynamic_update_slice_in_dim(out, slab, start, 1)

    out = jnp.zeros((*x.shape[:-1], channels_out), x.dtype)
    return slabs.over_slabs(
        one, out, x.shape[1], slabs.plane_bytes(x, 3 * max(channels_in, channels_out)), _FORWARD_BYTES
    )


def _upsampled_whole(skip, up, kernel, bias, *, slope):
    return _activate(conv.plain(slabs.pad_z(jnp.concatenate([skip, conv.upsample(up)], axis=-1)), kernel), bias, slope)


def _upsampled_slabs(skip, up, kernel, bias, *, slope):
    def one(start, size, out):
        skip_slab, up_slab = slabs.with_halo(skip, 2 * start, 2 * size), slabs.with_halo(up, start, size)
        slab = _activate(conv.upsampled_folded(skip_slab, up_slab, kernel), bias, slope)
        return lax.dynamic_update_slice_in_dim(out, slab, 2 * start, 1)

    out = jnp.zeros((*skip.shape[:-1], kernel.shape[-1]), skip.dtype)
    return slabs.over_slabs(one, out, up.shape[1], slabs.plane_bytes(skip, 6 * kernel.shape[-1]), _FORWARD_BYTES)


# Backward.


def _conv3d_fwd(x, kernel, bias, slope):
    out = conv3d_layer(x, kernel, bias, slope)
    return out, (x, kernel, bias, out)


def _conv3d_bwd(slope, kept, gradient):
    x, kernel, bias, out = kept
    arrays = x, kernel.astype(x.dtype), bias.astype(x.dtype), out, gradient
    to_x, to_kernel, to_bias = _by_platform(_conv3d_bwd_slabs, _conv3d_bwd_whole, slope, *arrays)
    return to_x, to_kernel.astype(kernel.dtype), to_bias.astype(bias.dtype)


conv3d_layer.defvjp(_conv3d_fwd, _conv3d_bwd)


def _conv3d_bwd_whole(x, kernel, bias, out, gradient, *, slope):
    gradient = _before_activation(gradient, out, slope)
    back = jax.vjp(functools.partial(_conv3d_whole, slope=1), x, kernel, bias)[1]
    to_x, to_kernel, to_bias = back(gradient)
    return to_x, to_kernel.astype(jnp.float32), to_bias.astype(jnp.float32)


def _conv3d_bwd_slabs(x, kernel, bias, out, gradient, *, slope):
    channels_in, channels_out = kernel.shape[3:]

    def one(start, size, sums):
        to_x, to_kernel, to_bias = sums
        slab = slabs.made(
            _before_activation(slabs.with_halo(gradient, start, size), slabs.with_halo(out, start, size), slope)
        )
        taps = slabs.made(slabs.depth_taps(slab))
        to_x = lax.dynamic_update_slice_in_dim(to_x, slabs.to_input(taps, kernel), start, 1)
        to_kernel += slabs.to_kernel(lax.dynamic_slice_in_dim(x, start, size, 1), taps)
        return to_x, to_kernel, to_bias + slabs.sum_voxels(slab[:, 1:-1])

    sums = jnp.zeros_like(x), slabs.zero_taps(kernel), jnp.zeros(channels_out, jnp.float32)
    plane = slabs.plane_bytes(x, 3 * max(channels_in, channels_out))
    to_x, to_kernel, to_bias = slabs.over_slabs(one, sums, x.shape[1], plane, _BACKWARD_BYTES)
    return to_x, slabs.from_taps(to_kernel), to_bias


def _upsampled_fwd(skip, up, kernel, bias, slope):
    out = conv3d_upsampled_layer(skip, up, kernel, bias, slope)
    return out, (skip, up, kernel, bias, out)


def _upsampled_bwd(slope, kept, gradient):
    skip, up, kernel, bias, out = kept
    arrays = skip, up, kernel.astype(skip.dtype), bias.astype(skip.dtype), out, gradient
    to_skip, to_up, to_kernel, to_bias = _by_platform(_upsampled_bwd_slabs, _upsampled_bwd_whole, slope, *arrays)
    return to_skip, to_up, to_kernel.astype(kernel.dtype), to_bias.astype(bias.dtype)


conv3d_upsampled_layer.defvjp(_upsampled_fwd, _upsampled_bwd)


def _upsampled_bwd_whole(skip, up, kernel, bias, out, gradient, *, slope):
    gradient = _before_activation(gradient, out, slope)
    back = jax.vjp(functools.partial(_upsampled_whole, slope=1), skip, up, kernel, bias)[1]
    to_skip, to_up, to_kernel, to_bias = back(gradient)
    return to_skip, to_up, to_kernel.astype(jnp.float32), to_bias.astype(jnp.float32)


def _upsampled_bwd_slabs(skip, up, kernel, bias, out, gradient, *, slope):
    split, channels_out = skip.shape[-1], kernel.shape[-1]
    on_skip, on_up = kernel[..., :split, :], kernel[..., split:, :]
    spread, back_to_kernel = jax.vjp(slabs.spread, on_up.astype(jnp.float32))
    spread = spread.astype(up.dtype)

    def one(start, size, sums):
        to_skip, to_up, to_on_skip, to_spread, to_bias = sums
        first, planes = 2 * start, 2 * size
        slab = slabs.made(
            _before_activation(slabs.with_halo(gradient, first, planes), slabs.with_halo(out, first, planes), slope)
        )
        taps = slabs.made(slabs.depth_taps(slab))
        to_skip = lax.dynamic_update_slice_in_dim(to_skip, slabs.to_input(taps, on_skip), first, 1)
        to_on_skip += slabs.to_kernel(lax.dynamic_slice_in_dim(skip, first, planes, 1), taps)
        taps = slabs.made(jnp.concatenate([slab[:, i : i + planes : 2] for i in range(4)], axis=-1))
        to_up = lax.dynamic_update_slice_in_dim(to_up, slabs.to_up(taps, spread), start, 1)
        to_spread += slabs.to_spread(lax.dynamic_slice_in_dim(up, start, size, 1), taps)
        return to_skip, to_up, to_on_skip, to_spread, to_bias + slabs.sum_voxels(slab[:, 1:-1])

    sums = jnp.zeros_like(skip), jnp.zeros_like(up), slabs.zero_taps(on_skip)
    sums = *sums, jnp.zeros((4, up.shape[-1], 4, 4 * channels_out)), jnp.zeros(channels_out)
    plane = slabs.plane_bytes(skip, 6 * channels_out)
    to_skip, to_up, to_on_skip, to_spread, to_bias = slabs.over_slabs(one, sums, up.shape[1], plane, _BACKWARD_BYTES)
    to_spread = to_spread.reshape(4, up.shape[-1], 4, 4, channels_out)  # tap y, in, tap x, tap z, out
    (to_on_up,) = back_to_kernel(jnp.transpose(to_spread, (3, 0, 2, 1, 4)))
    return to_skip, to_up, jnp.concatenate([slabs.from_taps(to_on_skip), to_on_up], axis=3), to_bias
