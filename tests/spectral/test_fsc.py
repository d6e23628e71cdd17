import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import spectra as slow

from crefjax.spectral.curves import FscCurve, resolution_at
from crefjax.spectral.fsc import c_ref, fsc, fsc_curve

SHAPES = [(16, 16, 16), (15, 15, 15), (20, 13, 16), (6, 18, 11)]


def pair(shape, seed=0):
    """Half-maps of a smooth signal with independent noise."""
    rng = np.random.default_rng(seed)
    signal = rng.standard_normal(shape)
    signal += np.roll(signal, 1, 0) + np.roll(signal, 1, 1) + np.roll(signal, 1, 2)
    return [(signal + rng.standard_normal(shape)).astype(np.float32) for _ in range(2)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("jit", [False, True])
def test_fsc_matches_numpy(shape, jit):
    first, second = pair(shape)
    found = (jax.jit(fsc) if jit else fsc)(first, second)
    np.testing.assert_allclose(found, slow.fsc(first, second), atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_curve_matches_numpy_in_float64(shape):
    first, second = pair(shape)
    mask = np.random.default_rng(5).uniform(0, 1, shape).astype(np.float32)
    found = fsc_curve(first, second, 1.0, mask).fsc
    expected = slow.fsc(first.astype(np.float64) * mask, second.astype(np.float64) * mask)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_level_is_not_signal_under_a_mask():
    """Independent noise that has a level in common is still independent; one on a single map hides nothing."""
    rng = np.random.default_rng(2)
    z, y, x = np.meshgrid(*[np.arange(24) - 12] * 3, indexing="ij")
    mask = np.clip(8 - np.sqrt(z**2 + y**2 + x**2), 0, 1).astype(np.float32)
    noise = rng.standard_normal((2, 24, 24, 24))
    plain = slow.fsc(*((noise_map - np.average(noise_map, weights=1 - mask)) * mask for noise_map in noise))
    found = fsc_curve(*(noise + 5).astype(np.float32), 1.0, mask, leveled=True)
    np.testing.assert_allclose(found.fsc, plain, atol=1e-5)
    first, second = pair((24, 24, 24))
    shifted, same = (fsc_curve(first, other, 1.0, mask, leveled=True) for other in (second + np.float32(3), second))
    np.testing.assert_allclose(shifted.fsc, same.fsc, atol=1e-5)


def test_curve_of_a_steep_spectrum_is_accurate():
    """A denoised map has next to no power in its last shells; float64 still tells their correlation."""
    first, second = pair((32, 32, 32))
    fall = np.exp(-2.0 * slow.shell_index((32, 32, 32)))  # 1e-14 in amplitude at Nyquist, relative to the first shell
    smooth = np.fft.ifftn(np.fft.fftn(first) * fall).real.astype(np.float32)
    found = fsc_curve(smooth, second, 1.0).fsc
    np.testing.assert_allclose(found, slow.fsc(smooth, second), atol=1e-8)


def test_a_map_correlates_with_itself_by_1_and_its_negative_by_minus_1():
    first, _ = pair((12, 12, 12))
    np.testing.assert_allclose(fsc(first, first), 1, atol=1e-6)
    np.testing.assert_allclose(fsc(first, -first), -1, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1e6, 1e15])
def test_scale_of_either_map_does_not_matter(scale):
    first, second = pair((12, 12, 12))
    np.testing.assert_allclose(fsc(first * np.float32(scale), second), slow.fsc(first, second), atol=1e-5)


def test_shells_without_power_are_zero_and_have_no_gradient():
    first, second = pair((8, 8, 8))
    flat = jnp.ones((8, 8, 8), jnp.float32)
    np.testing.assert_array_equal(fsc(flat, second)[1:], 0)
    zero = jnp.zeros((8, 8, 8), jnp.float32)
    gradient = jax.grad(lambda a: fsc(a, first).sum())(zero)
    assert np.isfinite(gradient).all()


def test_batches_match_vmap():
    maps = np.stack([np.stack(pair((10, 10, 10), seed)) for seed in range(3)])
    found = fsc(maps[:, 0], maps[:, 1])
    assert found.shape == (3, 6)
    mapped = jax.vmap(fsc)(maps[:, 0], maps[:, 1])
    for i in range(3):
        expected = slow.fsc(maps[i, 0], maps[i, 1])
        np.testing.assert_allclose(found[i], expected, atol=1e-5)
        np.testing.assert_allclose(mapped[i], expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(8, 8, 8), (7, 6, 9)])
def test_gradient_matches_finite_differences_of_numpy(shape):
    first, second = pair(shape)
    weights = np.random.default_rng(7).standard_normal(max(shape) // 2 + 1)
    gradient = jax.jit(jax.grad(lambda a: (fsc(a, second) * weights.astype(np.float32)).sum()))(first)
    direction = np.random.default_rng(8).standard_normal(shape)
    step = 1e-5
    ahead, behind = (slow.fsc(first + sign * step * direction, second) @ weights for sign in (1, -1))
    np.testing.assert_allclose(np.sum(gradient * direction), (ahead - behind) / (2 * step), rtol=1e-4)


def test_maps_of_different_shapes_raise():
    with pytest.raises(ValueError, match="one shape"):
        fsc(jnp.zeros((4, 4, 4)), jnp.zeros((4, 4, 6)))


def test_c_ref_matches_values_by_hand():
    np.testing.assert_allclose(
        c_ref(jnp.array([1.0, 0.143, 0.0, -0.2, 1 / 3])), [1, np.sqrt(0.286 / 1.143), 0, 0, np.sqrt(0.5)], rtol=1e-6
    )


def test_c_ref_has_no_gradient_where_nothing_correlates():
    gradient = jax.grad(lambda h: c_ref(h).sum())(jnp.array([-0.1, 0.0, 0.5]))
    # d/dh sqrt(2h/(1+h)) = 1 / ((1+h)² sqrt(2h/(1+h)))
    np.testing.assert_allclose(gradient, [0, 0, 1 / (2.25 * np.sqrt(2 / 3))], rtol=1e-6)


def test_resolution_is_interpolated_in_shell_index():
    # between shells 2 (0.6) and 3 (0.2) the curve is 0.5 at 2.25: 100 Å / 2.25
    found = resolution_at(np.array([1, 0.9, 0.6, 0.2, 0.7]), 0.5, length=100, nyquist=4)
    assert found.crossed
    assert found.angstrom == pytest.approx(100 / 2.25)


def test_resolution_of_a_curve_that_never_falls_is_the_nyquist_limit():
    assert resolution_at(np.array([1, 0.9, 0.8]), 0.5, length=8, nyquist=4) == (4.0, False)


def test_resolution_of_a_curve_that_is_below_from_the_first_shell_is_the_box():
    assert resolution_at(np.array([1, 0.1, 0.05]), 0.5, length=8, nyquist=4) == (8.0, True)


def test_curve_properties():
    curve = FscCurve((4, 4, 4), 1.5, np.array([1, 0.5, 0.0]))
    np.testing.assert_allclose(curve.frequency, [0, 1 / 6, 1 / 3])
    np.testing.assert_allclose(curve.cref, [1, np.sqrt(2 / 3), 0], rtol=1e-6)
    # 0.143 lies between shells 1 and 2, at 1 + (0.5 - 0.143) / 0.5
    assert curve.resolution(0.143).angstrom == pytest.approx(6 / 1.714)


@pytest.mark.parametrize(
    ("case", "output", "mean", "at_half"),
    [  # scores of another program
        ("8tze", None, 0.7821, 3.621),
        ("8tze", "crefdenoiser", 0.8196, 3.400),
        ("8tze", "lafter", 0.8014, 3.510),
        ("7yc8", None, 0.6531, 4.973),
        ("7yc8", "crefdenoiser", 0.6782, 4.850),
        ("7yc8", "lafter", 0.6871, 4.722),
    ],
)
def test_scores_of_the_benchmark_entries(shared, case, output, mean, at_half):
    from crefjax.io.maps import read_map

    folder = shared / "bench" / case
    truth, mask = read_map(folder / "truth.mrc"), read_map(folder / "mask.mrc")
    if output:
        result = read_map(folder / "outputs" / output / "full.mrc").array
    else:
        result = (read_map(folder / "half_map_1.mrc").array + read_map(folder / "half_map_2.mrc").array) / 2
    curve = fsc_curve(result, truth.array, truth.voxel_size, mask.array)
    assert curve.fsc[1:-1].mean() == pytest.approx(mean, abs=1e-3)
    assert curve.resolution(0.5).angstrom == pytest.approx(at_half, abs=2e-3)
    expected = slow.fsc(result.astype(np.float64) * mask.array, truth.array.astype(np.float64) * mask.array)
    np.testing.assert_allclose(curve.fsc, expected, atol=1e-10)
