import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crefjax.models import unet3d_slabs
from crefjax.models.unet3d import UNet3D, UNet3DConfig
from crefjax.models.unet3d_slabs import count_bytes, count_flops, level_slab, padded_shape, run_slabs, slab_sizes

CONFIGS = [
    UNet3DConfig(depth=2, down_width=3, up_width=4, last_widths=(3, 2)),
    UNet3DConfig(depth=1, down_width=2, up_width=3, last_widths=(4,)),
    UNet3DConfig(depth=3, down_width=2, up_width=2, last_widths=(4, 3, 2)),
    UNet3DConfig(depth=3, down_width=2, up_width=3, growth=2, last_widths=(4, 2)),
]


def network(config, seed=0):
    side = config.multiple
    parameters = jax.jit(UNet3D(config).init)(jax.random.key(seed), jnp.zeros((1, side, side, side, 1)))["params"]
    # A bias makes planes outside the box nonzero unless they are reset to zero.
    keys = iter(jax.random.split(jax.random.key(1), 99))
    return jax.tree.map(lambda a: a + 0.3 * jax.random.normal(next(keys), a.shape), parameters)


def at_once(parameters, x, config):
    return np.asarray(jax.jit(UNet3D(config).apply)({"params": parameters}, x[None, ..., None]))[0, ..., 0]


def error(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "config"),
    [
        ((16, 16, 16), CONFIGS[0]),
        *zip(
            [(11, 10, 17), (9, 10, 17), (23, 10, 17), (13, 10, 17)], CONFIGS, strict=True
        ),  # up to three calls of several slabs
        *[((5, 24, 9), config) for config in CONFIGS],
    ],
)
def test_every_slab_size_gives_the_output_of_the_whole_network(shape, config):
    parameters = network(config)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    expected = at_once(parameters, x, config)
    for slab in slab_sizes(padded_shape(shape, config)[0]):
        assert error(run_slabs(parameters, x, config, slab=slab), expected) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "slab"), [((64, 32, 32), 16), ((40, 33, 20), 2)])
def test_default_network_slab_by_slab(shape, slab):
    config = UNet3DConfig()
    parameters = network(config)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    expected = at_once(parameters, x, config)
    assert error(run_slabs(parameters, x, config, slab=slab), expected) < 1e-5


def test_input_is_unchanged_and_progress_reaches_1():
    config = CONFIGS[0]
    x = np.random.default_rng(0).standard_normal((16, 8, 8)).astype(np.float32)
    before, shares = x.copy(), []
    run_slabs(network(config), x, config, slab=2, progress=shares.append)
    np.testing.assert_array_equal(x, before)
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)


def test_slab_sizes_and_padded_shapes():
    assert slab_sizes(12) == [2, 4, 6, 12]
    assert level_slab(96, 0, 6) == 6
    assert level_slab(96, 1, 6) == 12  # of 48 planes
    assert level_slab(96, 4, 6) == 6  # all there are
    assert padded_shape((96, 97, 20), UNet3DConfig()) == (96, 128, 32)
    with pytest.raises(ValueError, match="found 5"):
        run_slabs({}, np.zeros((16, 16, 16), np.float32), CONFIGS[0], slab=5)


def test_flops_of_a_small_network():
    config = UNet3DConfig(depth=1, down_width=2, up_width=3, last_widths=(4,))
    # multiplications a voxel: 1 to 2, 2 to 2, (1 + 2) to 4, 4 to 1
    assert count_flops((4, 4, 4), config) == 2 * 27 * (2 + 4 + 12 + 4) * 64


PAPER = UNet3DConfig()


def test_memory_grows_no_faster_than_voxels():
    small, large = (count_bytes((n, n, n), PAPER, 16, on_cpu=True) for n in (128, 256))
    assert large < 8 * small


def test_temporaries_agree_with_the_analysis_of_xla():
    """At the two levels that take the most, for the default network, within ten percent."""
    side, slab = 64, 8
    parameters = {name: {"kernel": jnp.zeros((3, 3, 3, a, b)), "bias": jnp.zeros(b)} for name, a, b in PAPER.layers()}

    def temporaries(level):
        n, halo = side >> level, 2 * unet3d_slabs._halo(PAPER)
        planes = level_slab(side, level, slab)
        skip = jax.ShapeDtypeStruct((n + halo, n, n, PAPER.down_width if level else 1), jnp.float32)
        up = jax.ShapeDtypeStruct((n // 2 + halo, n // 2, n // 2, PAPER.up_width), jnp.float32)
        out = (n + halo, n, n, PAPER.up_width) if level else (n, n, n, 1)
        arguments = (parameters, skip, up, jax.ShapeDtypeStruct(out, jnp.float32), 0, (n, planes, 1), PAPER, level)
        analysis = unet3d_slabs._up_slabs.lower(*arguments).compile().memory_analysis()
        return analysis.temp_size_in_bytes

    measured = max(temporaries(0), temporaries(1))
    arrays = count_bytes((side,) * 3, PAPER, slab, on_cpu=True)
    voxels = side**3
    arrays -= max(4 + 8 + 16 + 2, 4 + 16 + 4) * voxels  # box, down, up and up below
    assert arrays == pytest.approx(measured, rel=0.1)
