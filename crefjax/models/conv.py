"""3x3x3 convolutions and pooling of volumes, each computed in the way that is fast on the platform.

On a GPU XLA's own 3D convolution is fast. On a CPU it is several times slower than the same sum written as 2D
convolutions, so there the depth taps become output channels of one 2D convolution and are added afterwards with a
shift in z. The platform is chosen where the function is lowered, inside one jitted function.

Arrays are `(batch, z, y, x, channel)`, kernels `(3, 3, 3, in, out)`. Along y and x the input is padded with zeros to
keep its size; along z it is not ("valid"), so that a slab with a halo can be given.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

DIMENSIONS_2D = ("NHWC", "HWIO", "NHWC")
_DIMENSIONS_3D = ("NDHWC", "DHWIO", "NDHWC")
# The default precision of a GPU rounds float32 products to 10 bits (TF32), which is too coarse to call the result the
# network's own. On bfloat16 input and on a CPU this setting changes nothing.
_PRECISION = lax.Precision.HIGHEST


def conv3d(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """Convolve with a 3x3x3 kernel, with zeros around y and x and no padding along z.

    Args:
        x: `(batch, z, y, x, in)`.
        kernel: `(3, 3, 3, in, out)`; kernel and bias are cast to the type of `x`.
        bias: `(out,)`.

    Returns:
        `(batch, z - 2, y, x, out)`.
    """
    out = lax.platform_dependent(x, kernel.astype(x.dtype), cpu=cpu_conv3d(kernel), default=xla_conv3d)
    return _add_bias(out, bias)


def conv3d_upsampled(skip: jax.Array, up: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """Convolve `[skip, upsampled]`, where `upsampled` is `up` with every voxel repeated 2x2x2 times.

    On a CPU the upsampled array is never computed: along each axis an output voxel sees only two different voxels of
    `up`, so the 3x3x3 kernel folds into eight 2x2x2 kernels, one for each parity of the output position, at 8/27 of
    the arithmetic.

    Args:
        skip: `(batch, 2 (z - 2) + 2, 2 y, 2 x, skip channels)`, with one plane more at each end than the result.
        up: `(batch, z, y, x, up channels)`; its first plane is the one below the result's first pair.
        kernel: `(3, 3, 3, skip channels + up channels, out)`.
        bias: `(out,)`.

    Returns:
        `(batch, 2 (z - 2), 2 y, 2 x, out)`.
    """
    kernel = kernel.astype(skip.dtype)
    out = lax.platform_dependent(skip, up, kernel, cpu=cpu_conv3d_upsampled, default=_xla_conv3d_upsampled)
    return _add_bias(out, bias)


def upsample(x: jax.Array) -> jax.Array:
    """Repeat every voxel 2x2x2 times: `(batch, z, y, x, c)` to `(batch, 2z, 2y, 2x, c)`."""
    for axis in (1, 2, 3):
        x = jnp.repeat(x, 2, axis=axis)
    return x


def _add_bias(x, bias):
    return x + bias.astype(x.dtype).reshape(1, 1, 1, 1, -1)


def xla_conv3d(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Compute `conv3d` without bias as XLA's own 3D convolution."""
    return lax.conv_general_dilated(
        x, kernel, (1, 1, 1), ((0, 0), (1, 1), (1, 1)), dimension_numbers=_DIMENSIONS_3D, precision=_PRECISION
    )


def cpu_conv3d(kernel: jax.Array) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Return the function of input and kernel that computes `conv3d` without bias, fast on a CPU."""
    channels_in, channels_out = kernel.shape[3:]
    # With few input channels it is cheaper to lay the three depth taps side by side in the input.
    return _stacked_input if channels_in < channels_out / 2 else _tapped_output


def conv2d(x: jax.Array, kernel: jax.Array, padding=((1, 1), (1, 1)), stride: int = 1) -> jax.Array:
    """Convolve every z plane of a volume in two dimensions; kernel `(height, width, in, out)`."""
    planes = x.reshape(-1, *x.shape[2:])
    out = lax.conv_general_dilated(planes, kernel, (stride, stride), padding, dimension_numbers=DIMENSIONS_2D)
    return out.reshape(*x.shape[:2], *out.shape[1:])


def _tapped_output(x, kernel):
    channels_in, channels_out = kernel.shape[3:]
    taps = jnp.transpose(kernel, (1, 2, 3, 0, 4)).reshape(3, 3, channels_in, 3 * channels_out)
    below, same, above = jnp.split(conv2d(x, taps), 3, axis=-1)
    return below[:, :-2] + same[:, 1:-1] + above[:, 2:]


def _stacked_input(x, kernel):
    channels_in, channels_out = kernel.shape[3:]
    stacked = jnp.concatenate([x[:, :-2], x[:, 1:-1], x[:, 2:]], axis=-1)
    return conv2d(stacked, jnp.transpose(kernel, (1, 2, 0, 3, 4)).reshape(3, 3, 3 * channels_in, channels_out))


def _xla_conv3d_upsampled(skip, up, kernel):
    return xla_conv3d(jnp.concatenate([skip, upsample(up)[:, 1:-1]], axis=-1), kernel)


def cpu_conv3d_upsampled(skip: jax.Array, up: jax.Array, kernel: jax.Array) -> jax.Array:
    """Compute `conv3d_upsampled` without bias fast on a CPU."""
    split = skip.shape[-1]
    from_skip = conv3d(skip, kernel[..., :split, :], jnp.zeros(kernel.shape[-1], kernel.dtype))
    return from_skip + _folded(up, kernel[..., split:, :])


def _folded(up, kernel):
    batch, depth, height, width, channels_in = up.shape
    channels_out = kernel.shape[-1]
    # (parity x, tap x, parity y, tap y, parity z, tap z, in, out)
    folded = _fold(_fold(_fold(kernel, 0), 2), 4)
    rows = []
    for y in range(2):
        columns = []
        for x in range(2):
            phase = jnp.transpose(folded[x, :, y], (1, 0, 4, 2, 3, 5))
            phase = phase.reshape(2, 2, channels_in, 4 * channels_out)
            planes = conv2d(up, phase, ((1 - y, y), (1 - x, x)))
            even_below, even_same, odd_same, odd_above = jnp.split(planes, 4, axis=-1)
            even = even_below[:, :-2] + even_same[:, 1:-1]
            odd = odd_same[:, 1:-1] + odd_above[:, 2:]
            columns.append(jnp.stack([even, odd], axis=2))
        rows.append(jnp.stack(columns, axis=5))
    out = jnp.stack(rows, axis=4)  # batch, z, parity z, y, parity y, x, parity x, channel
    return out.reshape(batch, 2 * (depth - 2), 2 * height, 2 * width, channels_out)


def _fold(kernel, axis):
    """Fold one axis of three taps on repeated voxels into (parity of the output, two taps), put first.

    An even output voxel sees the voxel below through its first tap and its own through the other two; an odd one sees
    its own through the first two and the voxel above through the last.
    """
    first, middle, last = (lax.index_in_dim(kernel, i, axis, keepdims=False) for i in range(3))
    return jnp.stack([jnp.stack([first, middle + last]), jnp.stack([first + middle, last])])


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
    """Take the largest of every 2x2x2 voxels: `(batch, z, y, x, c)` to `(batch, z/2, y/2, x/2, c)`; even sizes.

    Of equal voxels the first in the order of z, y, x receives the gradient, on every platform: outside a mask all
    voxels are equal.
    """
    return lax.platform_dependent(x, cpu=_strided_max, default=_windowed_max)


def _strided_max(x):
    # Three strided maxima are vectorized by XLA's CPU compiler; reduce_window is not.
    x = jnp.maximum(x[:, 0::2], x[:, 1::2])
    x = jnp.maximum(x[:, :, 0::2], x[:, :, 1::2])
    return jnp.maximum(x[:, :, :, 0::2], x[:, :, :, 1::2])


def _windowed_max(x):
    window = (1, 2, 2, 2, 1)
    # JAX differentiates this as a maximum only if it starts from -inf, not from the type's lowest number.
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
    best, first = x[:, 0::2, 0::2, 0::2], jnp.zeros(gradient.shape, jnp.int8)
    for number, (i, j, k) in enumerate(parities):
        voxel = x[:, i::2, j::2, k::2]
        first = jnp.where(voxel > best, jnp.int8(number), first)
        best = jnp.maximum(voxel, best)
    spread = (batch, depth, 1, height, 1, width, 1, channels)
    numbers = jnp.arange(8, dtype=jnp.int8).reshape(1, 1, 2, 1, 2, 1, 2, 1)
    is_first = first.reshape(spread) == numbers
    return jnp.where(is_first, gradient.reshape(spread), jnp.zeros((), x.dtype)).reshape(x.shape)
