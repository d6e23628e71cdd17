import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import network as slow

from crefjax.models.unet3d import UNet3D, UNet3DConfig, pad_far_ends

SMALL = UNet3DConfig(depth=2, down_width=3, up_width=4, last_widths=(3, 2))


def parameters_of(config, seed=0):
    side = config.multiple
    return jax.jit(UNet3D(config).init)(jax.random.key(seed), jnp.zeros((1, side, side, side, 1)))["params"]


def test_the_papers_network_has_the_papers_number_of_parameters():
    # by hand, 27 in out + out for each row of the paper's table
    rows = [(1, 16)] + [(16, 16)] * 6 + [(32, 32)] * 2 + [(48, 32), (32, 32)] * 3 + [(33, 16), (16, 8), (8, 1)]
    expected = sum(27 * a * b + b for a, b in rows)
    assert expected == 322_881
    init = UNet3D(UNet3DConfig()).init
    shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 32, 32, 32, 1)))
    assert sum(a.size for a in jax.tree.leaves(shapes)) == expected
    assert [(layer.channels_in, layer.channels_out) for layer in UNet3DConfig().layers()] == rows


def test_initial_parameters_are_he_normal_with_biases_of_0():
    layer = parameters_of(UNet3DConfig())["up2_a"]
    assert np.std(layer["kernel"]) == pytest.approx(np.sqrt(2 / (27 * 48)), rel=0.02)
    assert not np.any(layer["bias"])


def test_channels_grow_with_every_coarser_level():
    # by hand, with 2 and 3 channels: 2, 4, 8 and 16 on the way down, 12, 6 and 3 on the way up
    rows = [(1, 2), (2, 2), (2, 4), (4, 8), (8, 16), (4 + 16, 6), (6, 6), (2 + 6, 3), (3, 3), (1 + 3, 4), (4, 1)]
    config = UNet3DConfig(depth=3, down_width=2, up_width=3, growth=2, last_widths=(4,))
    assert [(layer.channels_in, layer.channels_out) for layer in config.layers()] == rows


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        UNet3DConfig(depth=3, down_width=2, up_width=3, last_widths=(4, 2)),
        UNet3DConfig(depth=3, down_width=2, up_width=3, growth=2, last_widths=(4, 2)),
    ],
)
def test_equals_slow_numpy(config):
    parameters = parameters_of(config)
    keys = iter(jax.random.split(jax.random.key(1), 99))
    parameters = jax.tree.map(lambda a: a + 0.1 * jax.random.normal(next(keys), a.shape), parameters)
    side = config.multiple
    x = np.random.default_rng(0).standard_normal((side, 2 * side, 3 * side)).astype(np.float32)
    found = jax.jit(UNet3D(config).apply)({"params": parameters}, x[None, ..., None])
    np.testing.assert_allclose(found[0, ..., 0], slow.run(parameters, x, config.depth), atol=1e-4)


def test_a_box_of_other_sides_is_padded_symmetrically_at_its_far_ends():
    parameters = parameters_of(SMALL)
    x = np.random.default_rng(0).standard_normal((6, 4, 5)).astype(np.float32)
    padded = np.pad(x, ((0, 2), (0, 0), (0, 3)), mode="symmetric")
    found = jax.jit(UNet3D(SMALL).apply)({"params": parameters}, x[None, ..., None])
    np.testing.assert_allclose(found[0, ..., 0], slow.run(parameters, padded, 2)[:6, :4, :5], atol=1e-4)


def test_padding_by_hand():
    padded = pad_far_ends(jnp.arange(3.0).reshape(1, 1, 1, 3, 1), 4)
    np.testing.assert_array_equal(padded[0, 0, 0, :, 0], [0, 1, 2, 2])
    assert padded.shape == (1, 4, 4, 4, 1)


def test_members_of_a_batch_do_not_mix():
    parameters = parameters_of(SMALL)
    x = np.random.default_rng(0).standard_normal((3, 4, 4, 4, 1)).astype(np.float32)
    apply = jax.jit(UNet3D(SMALL).apply)
    whole = apply({"params": parameters}, x)
    for i in range(3):
        np.testing.assert_allclose(apply({"params": parameters}, x[i : i + 1])[0], whole[i], atol=1e-6)


def test_bfloat16_is_close_and_gives_float32():
    config = UNet3DConfig(depth=2, down_width=3, up_width=4, last_widths=(3, 2), compute_dtype="bfloat16")
    parameters = parameters_of(SMALL)
    x = np.random.default_rng(0).standard_normal((1, 8, 8, 8, 1)).astype(np.float32)
    exact = jax.jit(UNet3D(SMALL).apply)({"params": parameters}, x)
    rounded = jax.jit(UNet3D(config).apply)({"params": parameters}, x)
    assert rounded.dtype == np.float32
    assert 1e-4 < np.linalg.norm(rounded - exact) / np.linalg.norm(exact) < 0.05


@pytest.mark.parametrize(
    "wrong", [{"depth": 0}, {"down_width": 0}, {"last_widths": ()}, {"growth": 0}, {"compute_dtype": "float16"}]
)
def test_invalid_hyperparameters_are_refused(wrong):
    with pytest.raises(ValueError, match=r"network|compute_dtype"):
        UNet3DConfig(**wrong)


@pytest.mark.parametrize("name", ["noise", "map"])
def test_equals_the_published_network(shared, name):
    from crefjax.weights.crefdenoiser import import_checkpoint

    parameters, config, _ = import_checkpoint(shared / "reference" / "crefdenoiser_epoch192_weights.npz")
    vectors = np.load(shared / "reference" / "crefdenoiser_epoch192_vectors.npz")
    found = jax.jit(UNet3D(config).apply)({"params": parameters}, vectors[f"{name}_in"])
    expected = vectors[f"{name}_out"]
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 1e-5
