"""Convolutional layers of whole volumes, with gradients that are fast on a CPU.

A layer is a convolution, its bias, and a LeakyReLU. On a GPU it is XLA's own 3D convolution and its derivative. On a
CPU that derivative is slow, most of all that of the kernel, which is written as matrix products over the voxels
instead. Forward and backward run slab by slab along z inside one loop, so that the temporaries stay in the cache and
their memory is mapped only once.

Arrays are `(batch, z, y, x, channel)`, kernels `(3, 3, 3, in, out)`; zeros around all sides keep the size. The result
has the type of the input; kernels and biases may be of a wider type, which their gradients then have too. The sign of a
LeakyReLU's output is that of its input, so only a layer's input and output are kept for the backward pass.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from crefjax.models import conv

# Size of the largest temporary array of a slab, forward and backward: the fastest of 0.1 to 48 MB on two CPUs with 2 MB
# of second-level cache each.
_FORWARD_BYTES = 16e6
_BACKWARD_BYTES = 4e6
# Number of rows of a matrix product below which the three row shifts share one product.
_FEW_ROWS = 24


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def conv3d_layer(x: jax.Array, kernel: jax.Array, bias: jax.Array, slope: float) -> jax.Array:
    """Convolve with a 3x3x3 kernel, with zeros around all sides, add a bias, and apply a LeakyReLU.

    Args:
        x: `(batch, z, y, x, in)`.
        kernel: `(3, 3, 3, in, out)`.
        bias: `(out,)`.
        slope: Slope of the LeakyReLU below zero, above 0; 1 for none.

    Returns:
        `(batch, z, y, x, out)`, of the type of `x`.
    """
    kernel, bias = kernel.astype(x.dtype), bias.astype(x.dtype)
    return _by_platform(_conv3d_slabs, _conv3d_whole, slope, x, kernel, bias)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def conv3d_upsampled_layer(
    skip: jax.Array, up: jax.Array, kernel: jax.Array, bias: jax.Array, slope: float
) -> jax.Array:
    """Convolve `[skip, upsampled]` as `conv.conv3d_upsampled`, but for whole volumes, and apply a LeakyReLU.

    Args:
        skip: `(batch, 2z, 2y, 2x, skip channels)`.
        up: `(batch, z, y, x, up channels)`.
        kernel: `(3, 3, 3, skip channels + up channels, out)`.
        bias: `(out,)`.
        slope: Slope of the LeakyReLU below zero, above 0; 1 for none.

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
    """Return the gradient before a LeakyReLU from the gradient after it and its output."""
    return gradient if slope == 1 else jnp.where(out > 0, gradient, slope * gradient)


# Forward.


def _conv3d_whole(x, kernel, bias, *, slope):
    return _activate(conv.xla_conv3d(_pad_z(x), kernel), bias, slope)


def _conv3d_slabs(x, kernel, bias, *, slope):
    channels_in, channels_out = kernel.shape[3:]
    convolve = conv.cpu_conv3d(kernel)

    def add_slab(start, size, out):
        """Put the output of a slab in its place."""
        slab = _activate(convolve(_with_halo(x, start, size), kernel), bias, slope)
        return lax.dynamic_update_slice_in_dim(out, slab, start, 1)

    out = jnp.zeros((*x.shape[:-1], channels_out), x.dtype)
    return _over_slabs(add_slab, out, x.shape[1], _plane_bytes(x, 3 * max(channels_in, channels_out)), _FORWARD_BYTES)


def _upsampled_whole(skip, up, kernel, bias, *, slope):
    return _activate(conv.xla_conv3d(_pad_z(jnp.concatenate([skip, conv.upsample(up)], axis=-1)), kernel), bias, slope)


def _upsampled_slabs(skip, up, kernel, bias, *, slope):
    def add_slab(start, size, out):
        """Put the output of a slab in its place; the planes of `up` count."""
        skip_slab, up_slab = _with_halo(skip, 2 * start, 2 * size), _with_halo(up, start, size)
        slab = _activate(conv.cpu_conv3d_upsampled(skip_slab, up_slab, kernel), bias, slope)
        return lax.dynamic_update_slice_in_dim(out, slab, 2 * start, 1)

    out = jnp.zeros((*skip.shape[:-1], kernel.shape[-1]), skip.dtype)
    return _over_slabs(add_slab, out, up.shape[1], _plane_bytes(skip, 6 * kernel.shape[-1]), _FORWARD_BYTES)


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
    backward = jax.vjp(functools.partial(_conv3d_whole, slope=1), x, kernel, bias)[1]
    to_x, to_kernel, to_bias = backward(gradient)
    return to_x, to_kernel.astype(jnp.float32), to_bias.astype(jnp.float32)


def _conv3d_bwd_slabs(x, kernel, bias, out, gradient, *, slope):
    channels_in, channels_out = kernel.shape[3:]

    def add_slab(start, size, sums):
        """Add the gradients that come from a slab of the output."""
        to_x, to_kernel, to_bias = sums
        slab = _materialize(_before_activation(_with_halo(gradient, start, size), _with_halo(out, start, size), slope))
        taps = _materialize(_depth_taps(slab))
        to_x = lax.dynamic_update_slice_in_dim(to_x, _to_input(taps, kernel), start, 1)
        to_kernel += _to_kernel(lax.dynamic_slice_in_dim(x, start, size, 1), taps)
        return to_x, to_kernel, to_bias + _sum_voxels(slab[:, 1:-1])

    sums = jnp.zeros_like(x), _zero_taps(kernel), jnp.zeros(channels_out, jnp.float32)
    plane = _plane_bytes(x, 3 * max(channels_in, channels_out))
    to_x, to_kernel, to_bias = _over_slabs(add_slab, sums, x.shape[1], plane, _BACKWARD_BYTES)
    return to_x, _from_taps(to_kernel), to_bias


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
    backward = jax.vjp(functools.partial(_upsampled_whole, slope=1), skip, up, kernel, bias)[1]
    to_skip, to_up, to_kernel, to_bias = backward(gradient)
    return to_skip, to_up, to_kernel.astype(jnp.float32), to_bias.astype(jnp.float32)


def _upsampled_bwd_slabs(skip, up, kernel, bias, out, gradient, *, slope):
    split, channels_out = skip.shape[-1], kernel.shape[-1]
    on_skip, on_up = kernel[..., :split, :], kernel[..., split:, :]
    spread, back_to_kernel = jax.vjp(_spread, on_up.astype(jnp.float32))
    spread = spread.astype(up.dtype)

    def add_slab(start, size, sums):
        """Add the gradients that come from a slab of the output; the planes of `up` count."""
        to_skip, to_up, to_on_skip, to_spread, to_bias = sums
        first, planes = 2 * start, 2 * size
        slab = _materialize(
            _before_activation(_with_halo(gradient, first, planes), _with_halo(out, first, planes), slope)
        )
        taps = _materialize(_depth_taps(slab))
        to_skip = lax.dynamic_update_slice_in_dim(to_skip, _to_input(taps, on_skip), first, 1)
        to_on_skip += _to_kernel(lax.dynamic_slice_in_dim(skip, first, planes, 1), taps)
        taps = _materialize(jnp.concatenate([slab[:, i : i + planes : 2] for i in range(4)], axis=-1))
        to_up = lax.dynamic_update_slice_in_dim(to_up, _to_up(taps, spread), start, 1)
        to_spread += _to_spread(lax.dynamic_slice_in_dim(up, start, size, 1), taps)
        return to_skip, to_up, to_on_skip, to_spread, to_bias + _sum_voxels(slab[:, 1:-1])

    sums = jnp.zeros_like(skip), jnp.zeros_like(up), _zero_taps(on_skip)
    sums = *sums, jnp.zeros((4, up.shape[-1], 4, 4 * channels_out)), jnp.zeros(channels_out)
    plane = _plane_bytes(skip, 6 * channels_out)
    to_skip, to_up, to_on_skip, to_spread, to_bias = _over_slabs(add_slab, sums, up.shape[1], plane, _BACKWARD_BYTES)
    to_spread = to_spread.reshape(4, up.shape[-1], 4, 4, channels_out)  # tap y, in, tap x, tap z, out
    (to_on_up,) = back_to_kernel(jnp.transpose(to_spread, (3, 0, 2, 1, 4)))
    return to_skip, to_up, jnp.concatenate([_from_taps(to_on_skip), to_on_up], axis=3), to_bias


# One slab, and the loop over slabs.


def _over_slabs(add_slab, start, planes, plane_bytes, most_bytes):
    """Fold `add_slab(first plane, planes, carry)` over slabs of equal size, as many planes as fit `most_bytes`."""
    size = max(n for n in range(1, planes + 1) if planes % n == 0 and (n == 1 or n * plane_bytes <= most_bytes))
    if size == planes:
        return add_slab(0, planes, start)
    return lax.fori_loop(0, planes // size, lambda i, carry: add_slab(i * size, size, carry), start)


def _plane_bytes(x, channels):
    """Return the bytes of one float32 plane of `x` with a number of channels."""
    batch, _, height, width, _ = x.shape
    return 4 * batch * height * width * channels


def _pad_z(x):
    """Put a plane of zeros before and after a volume."""
    return jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))


def _with_halo(x, start, size):
    """Return planes `start - 1` to `start + size` of `x`, zeros outside it."""
    last = x.shape[1] - 1
    if size > last:
        return _pad_z(x)
    below = lax.dynamic_slice_in_dim(x, jnp.maximum(start - 1, 0), 1, 1)
    above = lax.dynamic_slice_in_dim(x, jnp.minimum(start + size, last), 1, 1)
    below = jnp.where(start > 0, below, jnp.zeros((), x.dtype))
    above = jnp.where(start + size <= last, above, jnp.zeros((), x.dtype))
    return jnp.concatenate([below, lax.dynamic_slice_in_dim(x, start, size, 1), above], axis=1)


def _materialize(x):
    """Force `x` into memory; otherwise XLA computes it again at every use."""
    return lax.optimization_barrier(x)


def _depth_taps(slab):
    """Put the planes below, at, and above each plane side by side in the channels; drop the first and last plane."""
    return jnp.concatenate([slab[:, :-2], slab[:, 1:-1], slab[:, 2:]], axis=-1)


def _sum_voxels(x):
    """Sum every channel, in float32."""
    return jnp.sum(x, axis=(0, 1, 2, 3), dtype=jnp.float32)


def _product(a, b):
    """Sum over voxels of the products of every channel of `a` with every channel of `b`, in float32."""
    a, b = a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])
    return lax.dot_general(a, b, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)


def _row_taps(x):
    """Put the voxels before, at, and after each voxel of a row side by side, with rows of zeros around a plane."""
    padded = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
    return jnp.concatenate([padded[:, :, :, i : i + x.shape[3]] for i in range(3)], axis=-1)


def _to_input(taps, kernel):
    """Return the gradient of the input: that of the output convolved with the mirrored and transposed kernel."""
    channels_in, channels_out = kernel.shape[3:]
    mirrored = jnp.transpose(kernel[::-1, ::-1, ::-1], (1, 2, 0, 4, 3)).reshape(3, 3, 3 * channels_out, channels_in)
    return conv.conv2d(taps, mirrored)


def _zero_taps(kernel):
    """Return zeros to which `_to_kernel` of every slab is added."""
    channels_in, channels_out = kernel.shape[3:]
    return jnp.zeros((3, 3 * channels_in, 3 * channels_out), jnp.float32)


def _to_kernel(x, taps):
    """Return a slab's part of the gradient of the kernel, `(tap y, (tap x, in), (mirrored tap z, out))`."""
    rows, height = _row_taps(x), x.shape[2]
    shifts = [rows[:, :, i : i + height] for i in range(3)]
    if rows.shape[-1] >= _FEW_ROWS:
        return jnp.stack([_product(shift, taps) for shift in shifts])
    return _product(jnp.concatenate(shifts, axis=-1), taps).reshape(3, rows.shape[-1], taps.shape[-1])


def _from_taps(gradient):
    """Return the gradient of a kernel in its own shape from the sums of `_to_kernel`."""
    _, rows, columns = gradient.shape
    gradient = gradient.reshape(3, 3, rows // 3, 3, columns // 3)
    return jnp.transpose(gradient[:, :, :, ::-1], (3, 0, 1, 2, 4))


def _spread(kernel):
    """Return the 4x4x4 kernel with which a voxel of `up` reaches output voxels `2v - 1` to `2v + 2` on each axis."""
    for axis in range(3):
        first, middle, last = (lax.index_in_dim(kernel, i, axis, keepdims=False) for i in range(3))
        kernel = jnp.stack([last, middle + last, first + middle, first], axis)
    return kernel


def _to_up(taps, spread):
    """Return the gradient of `up` from that of the output, whose four planes at each plane of `up` are side by side."""
    weights = jnp.transpose(spread, (1, 2, 0, 4, 3)).reshape(4, 4, -1, spread.shape[3])
    return conv.conv2d(taps, weights, ((1, 1), (1, 1)), 2)


def _to_spread(up, taps):
    """Return a slab's part of the gradient of the 4x4x4 kernel, `(tap y, in, tap x, (tap z, out))`.

    Pairs of voxels of a row lie side by side in the output, so that its even and odd voxels need not be separated: each
    product takes a row of them with three voxels of `up`, and a third of the result is dropped.
    """
    batch, depth, height, width, channels = up.shape
    rows, pairs = _row_taps(up), taps.reshape(batch, depth, height, 2, width, 2 * taps.shape[-1])
    # For each of the four taps: the parity of the output, and the position of the voxel of `up` relative to its own.
    positions = ((1, 2), (0, 1), (1, 1), (0, 0))
    products = [_product(rows[:, :, shift : shift + height], pairs[:, :, :, parity]) for parity, shift in positions]
    products = jnp.stack(products).reshape(4, 3, channels, 2, taps.shape[-1])
    return jnp.stack([products[:, shift, :, parity] for parity, shift in positions], axis=2)
