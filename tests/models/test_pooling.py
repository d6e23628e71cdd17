import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import network as slow

from crefjax.models import conv


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("way", ["_strided_max", "_windowed_max", "max_pool"])
def test_pooling_equals_numpy(way):
    x = random(2, 4, 6, 8, 3)
    found = getattr(conv, way)(x)
    for sample, expected in zip(found, x, strict=True):
        np.testing.assert_array_equal(sample, slow.pool(expected))


def first_of_equal(x, gradient):
    """Voxel by voxel: the gradient goes to the first largest voxel of each window, in the order of z, y, x."""
    out = np.zeros_like(x)
    for b, z, y, x_, c in np.ndindex(gradient.shape):
        window = x[b, 2 * z : 2 * z + 2, 2 * y : 2 * y + 2, 2 * x_ : 2 * x_ + 2, c]
        i, j, k = np.unravel_index(np.argmax(window), window.shape)
        out[b, 2 * z + i, 2 * y + j, 2 * x_ + k, c] = gradient[b, z, y, x_, c]
    return out


@pytest.mark.parametrize("way", [conv.max_pool, conv._windowed_max])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradient_of_equal_voxels_goes_to_the_first_on_every_platform(way, dtype):
    x, gradient = np.round(random(2, 4, 6, 8, 3)), random(2, 2, 3, 4, 3, seed=1)
    gradient = np.asarray(gradient, dtype)
    found = jax.jit(lambda x, g: jax.vjp(way, x)[1](g)[0])(jnp.asarray(x, dtype), gradient)
    np.testing.assert_array_equal(np.float32(found), first_of_equal(x, np.float32(gradient)))
