"""What one slab of a volume adds to the gradients of a convolution, as matrix products, and the loop over slabs.

Arrays are `(batch, z, y, x, channel)`, kernels `(3, 3, 3, in, out)`.
"""

import jax.numpy as jnp
from jax import lax

from crefjax.models import conv

# Rows of a matrix product under which the row shifts share one product instead of making three.
_FEW_ROWS = 24


def over_slabs(one, start, planes, plane_bytes, most_bytes):
    """Fold `one(first plane, planes, carry)` over slabs of equal size, as many planes as fit `most_bytes`."""
    size = max(n for n in range(1, planes + 1) if planes % n == 0 and (n == 1 or n * plane_bytes <= most_bytes))
    if size == planes:
        return one(0, planes, start)
    return lax.fori_loop(0, planes // size, lambda i, carry: one(i * size, size, carry), start)


def plane_bytes(x, channels):
    """Bytes of one plane of `x` with that many channels, as float32."""
    batch, _, height, width, _ = x.shape
    return 4 * batch * height * width * channels


def pad_z(x):
    """Put a plane of zeros before and after a volume."""
    return jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))


def with_halo(x, start, size):
    """Planes `start - 1` to `start + size` of `x`, zeros outside it."""
    last = x.shape[1] - 1
    if size > last:
        return pad_z(x)
    below = lax.dynamic_slice_in_dim(x, jnp.maximum(start - 1, 0), 1, 1)
    above = lax.dynamic_slice_in_dim(x, jnp.minimum(start + size, last), 1, 1)
    below = jnp.where(start > 0, below, jnp.zeros((), x.dtype))
    above = jnp.where(start + size <= last, above, jnp.zeros((), x.dtype))
    return jnp.concatenate([below, lax.dynamic_slice_in_dim(x, start, size, 1), above], axis=1)


def made(x):
    """`x` as an array in memory: otherwise XLA computes it again at every use."""
    return lax.optimization_barrier(x)


def depth_taps(slab):
    """The planes below, at and above each plane, side by side in the channels; the first and last plane go."""
    return jnp.concatenate([slab[:, :-2], slab[:, 1:-1], slab[:, 2:]], axis=-1)


def sum_voxels(x):
    """The sum of every channel, in float32."""
    return jnp.sum(x, axis=(0, 1, 2, 3), dtype=jnp.float32)


def _product(a, b):
    """Sum over voxels of the products of every channel of `a` with every channel of `b`, in float32."""
    a, b = a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])
    return lax.dot_general(a, b, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)


def _row_taps(x):
    """The voxels before, at and after each voxel of a row, side by side; rows of zeros before and after a plane."""
    padded = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
    return jnp.concatenate([padded[:, :, :, i : i + x.shape[3]] for i in range(3)], axis=-1)


def to_input(taps, kernel):
    """The gradient of the input: the gradient of the output convolved with the kernel mirrored and transposed."""
    channels_in, channels_out = kernel.shape[3:]
    mirrored = jnp.transpose(kernel[::-1, ::-1, ::-1], (1, 2, 0, 4, 3)).reshape(3, 3, 3 * channels_out, channels_in)
    return conv.conv2d(taps, mirrored)


def zero_taps(kernel):
    """Zeros to which `to_kernel` of every slab is added."""
    channels_in, channels_out = kernel.shape[3:]
    return jnp.zeros((3, 3 * channels_in, 3 * channels_out), jnp.float32)


def to_kernel(x, taps):
    """`(tap y, (tap x, in), (mirrored tap z, out))`: what a slab adds to the gradient of the kernel."""
    rows, height = _row_taps(x), x.shape[2]
    shifts = [rows[:, :, i : i + height] for i in range(3)]
    if rows.shape[-1] >= _FEW_ROWS:
        return jnp.stack([_product(shift, taps) for shift in shifts])
    return _product(jnp.concatenate(shifts, axis=-1), taps).reshape(3, rows.shape[-1], taps.shape[-1])


def from_taps(gradient):
    """The gradient of a kernel in its own shape from the sums of `_to_kernel`."""
    _, rows, columns = gradient.shape
    gradient = gradient.reshape(3, 3, rows // 3, 3, columns // 3)
    return jnp.transpose(gradient[:, :, :, ::-1], (3, 0, 1, 2, 4))


def spread(kernel):
    """The 4x4x4 kernel with which a voxel of `up` reaches the output voxels `2v - 1` to `2v + 2` on each axis."""
    for axis in range(3):
        first, middle, last = (lax.index_in_dim(kernel, i, axis, keepdims=False) for i in range(3))
        kernel = jnp.stack([last, middle + last, first + middle, first], axis)
    return kernel


def to_up(taps, spread):
    """The gradient of `up` from that of the output, whose four planes at each plane of `up` are side by side."""
    weights = jnp.transpose(spread, (1, 2, 0, 4, 3)).reshape(4, 4, -1, spread.shape[3])
    return conv.conv2d(taps, weights, ((1, 1), (1, 1)), 2)


def to_spread(up, taps):
    """`(tap y, in, tap x, (tap z, out))`: what a slab adds to the gradient of the 4x4x4 kernel.

    Pairs of voxels of a row lie side by side in the output, so that its even and odd voxels need not be picked out:
    each product takes a row of them with three voxels of `up`, and a third of what comes out is dropped.
    """
    batch, depth, height, width, channels = up.shape
    rows, pairs = _row_taps(up), taps.reshape(batch, depth, height, 2, width, 2 * taps.shape[-1])
    # For each of the four taps: the parity of the output, and where the voxel of `up` lies from its own
    where = ((1, 2), (0, 1), (1, 1), (0, 0))
    products = [_product(rows[:, :, shift : shift + height], pairs[:, :, :, parity]) for parity, shift in where]
    products = jnp.stack(products).reshape(4, 3, channels, 2, taps.shape[-1])
    return jnp.stack([products[:, shift, :, parity] for parity, shift in where], axis=2)
