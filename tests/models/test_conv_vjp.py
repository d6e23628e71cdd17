import functools
import hashlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from crefjax.models import conv_vjp
from crefjax.models.unet3d import UNet3D, UNet3DConfig

CHANNELS = [(1, 5), (3, 5), (6, 2), (9, 10)]
SKIP_UP_OUT = [(1, 5, 3), (3, 4, 5)]
SLOPE = 0.1


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def xla_layer(x, kernel, bias, slope=SLOPE):
    """A layer as XLA's 3D convolution, an independent path, differentiated by JAX."""
    dimensions = ("NDHWC", "DHWIO", "NDHWC")
    out = lax.conv_general_dilated(x, kernel, (1, 1, 1), "SAME", dimension_numbers=dimensions)
    return jax.nn.leaky_relu(out + bias.reshape(1, 1, 1, 1, -1), slope)


def xla_upsampled_layer(skip, up, kernel, bias, slope=SLOPE):
    for axis in (1, 2, 3):
        up = jnp.repeat(up, 2, axis=axis)
    return xla_layer(jnp.concatenate([skip, up], axis=-1), kernel, bias, slope)


def layer(*arrays):
    return conv_vjp.conv3d_layer(*arrays, SLOPE)


def upsampled_layer(*arrays):
    return conv_vjp.conv3d_upsampled_layer(*arrays, SLOPE)


def plain_case(channels_in, channels_out):
    kernel, bias = random(3, 3, 3, channels_in, channels_out, seed=1), random(channels_out, seed=2)
    return random(2, 6, 5, 7, channels_in), kernel, bias


def upsampled_case(skip, up, out):
    kernel, bias = random(3, 3, 3, skip + up, out, seed=1), random(out, seed=2)
    return random(2, 8, 6, 10, skip), random(2, 4, 3, 5, up, seed=3), kernel, bias


def cosines(shape):
    return jnp.cos(jnp.arange(float(np.prod(shape)))).reshape(shape)


def output_and_gradients(function, arrays):
    def run(*arrays):
        out, back = jax.vjp(function, *arrays)
        return out, *back(cosines(out.shape).astype(out.dtype))

    return jax.jit(run)(*arrays)


def assert_alike(found, expected, tolerance=3e-6):
    for first, second in zip(found, expected, strict=True):
        assert first.shape == second.shape
        scale = np.abs(second).max()
        np.testing.assert_allclose(np.float32(first) / scale, np.float32(second) / scale, atol=tolerance)


@pytest.fixture(params=["one slab", "many slabs"])
def slabs(request, monkeypatch):
    if request.param == "many slabs":
        monkeypatch.setattr(conv_vjp, "_FORWARD_BYTES", 1)
        monkeypatch.setattr(conv_vjp, "_BACKWARD_BYTES", 1)


@pytest.mark.parametrize("channels", CHANNELS)
def test_layer_and_its_gradients_equal_xlas_3d_convolution(slabs, channels):
    arrays = plain_case(*channels)
    assert_alike(output_and_gradients(layer, arrays), output_and_gradients(xla_layer, arrays))


@pytest.mark.parametrize("channels", SKIP_UP_OUT)
def test_upsampled_layer_and_its_gradients_equal_xlas_3d_convolution(slabs, channels):
    arrays = upsampled_case(*channels)
    found, expected = (output_and_gradients(f, arrays) for f in (upsampled_layer, xla_upsampled_layer))
    assert_alike(found, expected)


def test_slabs_of_several_planes_give_the_same_gradients(monkeypatch):
    monkeypatch.setattr(conv_vjp, "_BACKWARD_BYTES", 4 * 2 * 5 * 7 * 15 * 2)
    monkeypatch.setattr(conv_vjp, "_FORWARD_BYTES", 4 * 2 * 5 * 7 * 15 * 3)
    arrays = plain_case(3, 5)
    assert_alike(output_and_gradients(layer, arrays), output_and_gradients(xla_layer, arrays))


def test_gradients_of_the_implementations_for_other_platforms_agree():
    x, kernel, bias = plain_case(3, 5)
    out, *expected = output_and_gradients(xla_layer, (x, kernel, bias))
    gradient = cosines(out.shape)
    assert_alike(conv_vjp._conv3d_bwd_whole(x, kernel, bias, out, gradient, slope=SLOPE), expected)
    arrays = upsampled_case(3, 4, 5)
    out, *expected = output_and_gradients(xla_upsampled_layer, arrays)
    gradient = cosines(out.shape)
    assert_alike(conv_vjp._upsampled_bwd_whole(*arrays, out, gradient, slope=SLOPE), expected)


def test_a_layer_without_activation():
    arrays = plain_case(3, 2)
    found = output_and_gradients(lambda *a: conv_vjp.conv3d_layer(*a, 1.0), arrays)
    assert_alike(found, output_and_gradients(functools.partial(xla_layer, slope=1.0), arrays))


@pytest.mark.parametrize(
    ("fast", "slow", "arrays"),
    [
        (conv_vjp.conv3d_layer, xla_layer, plain_case(3, 5)),
        (conv_vjp.conv3d_upsampled_layer, xla_upsampled_layer, upsampled_case(2, 3, 4)),
    ],
)
def test_bfloat16_keeps_the_kernels_gradient_in_float32(slabs, fast, slow, arrays):
    *volumes, kernel, bias = arrays
    rounded = [jnp.asarray(volume, jnp.bfloat16) for volume in volumes]
    # Without activation, as rounding turns voxels near zero to its other side; weighted so that no sum cancels
    fast, slow = (functools.partial(f, slope=1.0) for f in (fast, slow))
    out = jax.eval_shape(fast, *rounded, kernel, bias)
    weights = (2 + cosines(out.shape)).astype(jnp.bfloat16)
    found = jax.jit(lambda *a: jax.vjp(fast, *a)[1](weights))(*rounded, kernel, bias)
    assert [a.dtype for a in (out, *found[-3:])] == ["bfloat16", "bfloat16", "float32", "float32"]
    expected = jax.jit(lambda *a: jax.vjp(slow, *a)[1](weights.astype(jnp.float32)))(*arrays)
    for first, second in zip(found, expected, strict=True):
        assert np.linalg.norm(np.float32(first) - second) / np.linalg.norm(second) < 0.02


@pytest.mark.parametrize("transform", [jax.vmap, jax.pmap])
def test_gradients_under_vmap_and_pmap(slabs, transform):
    x, kernel, bias = plain_case(3, 5)
    stacked = np.stack([x, x[::-1] + 1])

    def gradient(f, x, kernel, bias):
        return jax.grad(lambda *a: jnp.sin(f(*a)).sum(), argnums=(0, 1, 2))(x, kernel, bias)

    found = transform(functools.partial(gradient, layer), in_axes=(0, None, None))(stacked, kernel, bias)
    for i in range(2):
        assert_alike([a[i] for a in found], gradient(xla_layer, stacked[i], kernel, bias))


NETWORK = UNet3DConfig(depth=2, down_width=3, up_width=5, last_widths=(3, 2))


def xla_network(parameters, x):
    """The network from the paper's table with XLA's own operations."""

    def step(name, x, slope=SLOPE):
        return xla_layer(x, parameters[name]["kernel"], parameters[name]["bias"], slope)

    window = (1, 2, 2, 2, 1)
    pooled = lax.reduce_window(step("down1_b", step("down1_a", x)), -jnp.inf, lax.max, window, window, "VALID")
    y = step("bottom", lax.reduce_window(step("down2", pooled), -jnp.inf, lax.max, window, window, "VALID"))
    for first, second, skip in (("up1_a", "up1_b", pooled), ("up2_a", "up2_b", x)):
        for axis in (1, 2, 3):
            y = jnp.repeat(y, 2, axis=axis)
        y = step(second, step(first, jnp.concatenate([skip, y], axis=-1)))
    return step("out", y, 1.0)


def network_case():
    x = jnp.asarray(random(2, 8, 4, 12, 1))
    parameters = jax.jit(UNet3D(NETWORK).init)(jax.random.key(0), x)["params"]
    return jax.tree.map(lambda a: a + 0.05, parameters), x


def test_gradients_under_jax_checkpoint():
    arrays = plain_case(3, 5)
    assert_alike(output_and_gradients(jax.checkpoint(layer), arrays), output_and_gradients(xla_layer, arrays))


@pytest.mark.slow
def test_gradient_of_the_whole_network_equals_xlas(monkeypatch):
    monkeypatch.setattr(conv_vjp, "_BACKWARD_BYTES", 5000)
    parameters, x = network_case()
    weights = cosines(x.shape)

    def run(parameters, x):
        return UNet3D(NETWORK).apply({"params": parameters}, x)

    found, expected = (
        jax.jit(jax.grad(lambda p, x, f=f: (weights * f(p, x)).sum(), argnums=(0, 1)))(parameters, x)
        for f in (run, xla_network)
    )
    assert_alike(*(jax.tree.leaves(tree) for tree in (found, expected)), 2e-5)


def digest():
    """A digest of every bit of the gradients of a layer in several slabs, on all the threads there are."""
    conv_vjp._BACKWARD_BYTES = 1e6
    arrays = random(1, 32, 48, 48, 8), random(3, 3, 3, 8, 8), random(8)
    run = jax.jit(jax.grad(lambda *a: jnp.sin(layer(*a)).sum(), argnums=(0, 1, 2)))
    return {hashlib.sha256(b"".join(np.asarray(a).tobytes() for a in run(*arrays))).hexdigest() for _ in range(3)}


def test_gradients_are_the_same_to_the_last_bit_in_every_run_and_process(monkeypatch):
    monkeypatch.setattr(conv_vjp, "_BACKWARD_BYTES", 0)  # put back after `digest`
    found = subprocess.run([sys.executable, __file__], capture_output=True, text=True, check=True).stdout.split()
    assert found == list(digest())


if __name__ == "__main__":
    print(*digest())
