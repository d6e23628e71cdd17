import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import network as slow

from crefjax.models import conv

CHANNELS = [(1, 4), (2, 6), (3, 3), (6, 2), (5, 1)]


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(("channels_in", "channels_out"), CHANNELS)
def test_convolution_equals_numpy(channels_in, channels_out):
    x, kernel = random(2, 6, 5, 7, channels_in), random(3, 3, 3, channels_in, channels_out, seed=1)
    bias = random(channels_out, seed=2)
    found = jax.jit(conv.conv3d)(x, kernel, bias)
    assert found.shape == (2, 4, 5, 7, channels_out)
    for sample, expected in zip(found, x, strict=True):
        np.testing.assert_allclose(sample, slow.convolve(expected, kernel, bias)[1:-1], atol=2e-5)


@pytest.mark.parametrize("ways", [("xla_conv3d", "_tapped_output"), ("xla_conv3d", "_stacked_input")])
@pytest.mark.parametrize(("channels_in", "channels_out"), CHANNELS)
def test_implementations_of_different_platforms_agree(ways, channels_in, channels_out):
    x, kernel = random(1, 5, 4, 6, channels_in), random(3, 3, 3, channels_in, channels_out, seed=1)
    first, second = (getattr(conv, way)(x, kernel) for way in ways)
    np.testing.assert_allclose(first, second, atol=2e-5)


@pytest.mark.parametrize("way", ["_xla_conv3d_upsampled", "cpu_conv3d_upsampled"])
def test_convolution_of_skip_and_upsampled_equals_numpy(way):
    skip, up = random(1, 8, 6, 10, 2), random(1, 4, 3, 5, 3, seed=1)
    kernel, bias = random(3, 3, 3, 5, 4, seed=2), np.zeros(4, np.float32)
    expected = slow.convolve(np.concatenate([skip[0], slow.upsample(up[0])], -1), kernel, bias)
    padded = (jnp.pad(a, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0))) for a in (skip, up))
    np.testing.assert_allclose(getattr(conv, way)(*padded, kernel)[0], expected, atol=2e-5)


def test_gradients_of_different_platforms_agree():
    x, kernel = random(1, 6, 4, 4, 3), random(3, 3, 3, 3, 4, seed=1)
    skip, up, both = random(1, 6, 4, 4, 2), random(1, 4, 2, 2, 3), random(3, 3, 3, 5, 4, seed=1)
    cases = [((conv.xla_conv3d, conv._tapped_output), (x, kernel))]
    cases.append(((conv._xla_conv3d_upsampled, conv.cpu_conv3d_upsampled), (skip, up, both)))
    for functions, arguments in cases:
        first, second = (
            jax.grad(lambda *a, f=f: jnp.sin(f(*a)).sum(), argnums=tuple(range(len(arguments))))(*arguments)
            for f in functions
        )
        for a, b in zip(first, second, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)
