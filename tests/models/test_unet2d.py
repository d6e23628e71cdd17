"""The 2D U-Net, compared with NumPy, its reach, and its place in the registry."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crefjax.models import load_model

MODEL = load_model("unet2d")
apply = jax.jit(MODEL.apply, static_argnums=2)


@pytest.fixture
def random():
    return np.random.default_rng(0)


def slow_conv(x, kernel, bias, slope):
    """A convolution of `(y, x, in)` by sums over all taps."""
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    y = sum(padded[i : i + len(x), j : j + x.shape[1]] @ kernel[i, j] for i in range(3) for j in range(3)) + bias
    return np.where(y > 0, y, slope * y)


def slow_network(parameters, x):
    """The network of depth 2, layer by layer, on `(y, x)`."""
    layer = {name: (np.float64(value["kernel"]), np.float64(value["bias"])) for name, value in parameters.items()}

    def pool(x):
        return x.reshape(len(x) // 2, 2, x.shape[1] // 2, 2, -1).max((1, 3))

    def join(skip, up):
        return np.concatenate([skip, up.repeat(2, 0).repeat(2, 1)], -1)

    image = np.float64(x)[..., None]
    first = pool(slow_conv(slow_conv(image, *layer["down1_a"], 0.1), *layer["down1_b"], 0.1))
    y = slow_conv(pool(slow_conv(first, *layer["down2"], 0.1)), *layer["bottom"], 0.1)
    y = slow_conv(slow_conv(join(first, y), *layer["up1_a"], 0.1), *layer["up1_b"], 0.1)
    y = slow_conv(slow_conv(join(image, y), *layer["up2_a"], 0.1), *layer["up2_b"], 0.1)
    return slow_conv(y, *layer["out"], 1)[..., 0]


def test_network_matches_numpy(random):
    config = MODEL.config(depth=2, down_width=3, up_width=5, last_widths=(4, 2))
    parameters = MODEL.init(jax.random.key(0), config)
    parameters = jax.tree.map(lambda array: array + 0.1, parameters)  # biases that are not 0
    x = random.normal(size=(2, 1, 12, 16, 1)).astype(np.float32)
    found = apply(parameters, x, config)
    assert found.shape == x.shape
    for image, expected in zip(found[:, 0, ..., 0], x[:, 0, ..., 0], strict=True):
        np.testing.assert_allclose(image, slow_network(parameters, expected), rtol=1e-3, atol=1e-4)


def test_sections_are_denoised_one_by_one_and_odd_sides_are_padded(random):
    config = MODEL.config(depth=2, down_width=2, up_width=2, last_widths=(2,))
    parameters = MODEL.init(jax.random.key(0), config)
    x = random.normal(size=(1, 3, 9, 14, 1)).astype(np.float32)
    found = apply(parameters, x, config)
    for section in range(3):
        padded = np.pad(x[0, section, ..., 0], ((0, 3), (0, 2)), mode="symmetric")
        alone = apply(parameters, padded[None, None, ..., None], config)[0, 0, :9, :14, 0]
        np.testing.assert_allclose(found[0, section, ..., 0], alone, atol=1e-6)


def test_default_network_has_the_layers_of_the_3d_one_with_kernels_of_nine():
    """The paper's 322,881 numbers, of which 393 are biases: 7 layers of 16, 8 of 32, and 16, 8, and 1."""
    biases = 7 * 16 + 8 * 32 + 16 + 8 + 1
    sizes = [np.prod(shape) for layer in MODEL.parameter_shapes(MODEL.config()).values() for shape in layer.values()]
    assert biases == 393
    assert sum(sizes) == (322881 - biases) // 3 + biases == 107889


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_reach_is_how_far_a_pixel_is_seen(depth, random):
    config = MODEL.config(depth=depth, down_width=4, up_width=4, last_widths=(4, 2))
    parameters = MODEL.init(jax.random.key(0), config)
    apply = jax.jit(lambda x: MODEL.apply(parameters, x, config))
    side = 2 * config.reach + 4 * config.multiple
    side += -side % config.multiple
    x = random.normal(size=(1, 1, side, config.multiple, 1)).astype(np.float32)
    before, farthest = np.asarray(apply(x)), 0
    for at in range(side // 2, side // 2 + config.multiple):
        changed = x.copy()
        changed[0, 0, at] += 100
        rows = np.flatnonzero(np.abs(np.asarray(apply(jnp.asarray(changed))) - before)[0, 0].max((1, 2)))
        farthest = max(farthest, at - rows.min(), rows.max() - at)
    assert farthest == config.reach
