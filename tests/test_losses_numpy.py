"""Values and gradients of the losses against slow NumPy, and where they are least."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import losses as slow

from crefjax import losses

SHAPES = [(16, 16, 16), (11, 11, 11), (14, 9, 12)]
OF_FULL = ("denoised", "half_map_1", "half_map_2")
ARGUMENTS = {loss.function.__name__: loss.arguments for loss in losses.LOSSES.values()}
jitted = {name: jax.jit(getattr(losses, name)) for name in (*ARGUMENTS, "cref_rmse")}


def made_up(shape, seed=0):
    """Maps of one signal with noise of different strengths; the denoised ones are not of the signal's scale."""
    rng = np.random.default_rng(seed)
    signal = sum(np.roll(rng.standard_normal(shape), step, axis) for axis in range(3) for step in (0, 1))
    maps = {"truth": signal}
    for name in ("half_map_1", "half_map_2", "denoised", "denoised_1", "denoised_2"):
        scale, noise = (1, 2) if name.startswith("half") else (0.7, 0.8)
        maps[name] = scale * signal + noise * rng.standard_normal(shape) + 0.1
    maps["mask"] = np.clip(rng.uniform(-0.5, 1.5, shape), 0, 1)
    return {name: array.astype(np.float32) for name, array in maps.items()}


def arguments(name, maps):
    return [maps[argument] for argument in ARGUMENTS[name]]


def simulated(size=32, seed=0):
    """Signal with a falling spectrum, white noise below it at first and above it at last; (truth, M1, M2)."""
    rng = np.random.default_rng(seed)
    radius = np.sqrt(sum(np.meshgrid(*3 * [(np.fft.fftfreq(size) * size) ** 2], indexing="ij")))
    spectrum = np.fft.fftn(rng.standard_normal((size,) * 3)) * 6 * np.exp(-radius / 4)
    truth = np.fft.ifftn(spectrum).real
    return [truth.astype(np.float32)] + [
        (truth + rng.standard_normal(truth.shape)).astype(np.float32) for _ in range(2)
    ]


def shrunk(map_, gain):
    """A map filtered by a gain per shell."""
    spectrum = np.fft.fftn(map_)
    for shell, inside in enumerate(slow.shells_of(map_.shape)):
        spectrum[inside] *= gain[shell]
    return np.fft.ifftn(spectrum).real.astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ARGUMENTS)
def test_equals_slow_numpy(name, shape):
    arrays = arguments(name, made_up(shape))
    found, _ = jitted[name](*arrays)
    np.testing.assert_allclose(found, getattr(slow, name)(*(array.astype(np.float64) for array in arrays)), rtol=2e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_aux_and_metric_equal_slow_numpy(shape):
    maps = made_up(shape)
    d, d1, d2 = maps["denoised"], maps["denoised_1"], maps["denoised_2"]
    m1, m2, truth = maps["half_map_1"], maps["half_map_2"], maps["truth"]
    _, aux = jitted["cref_l1"](d, m1, m2)
    np.testing.assert_allclose(aux["fsc"], slow.fsc(d, (m1 + m2) / 2), atol=1e-5)
    np.testing.assert_allclose(aux["cref"], slow.c_ref(m1, m2), atol=1e-4)
    _, aux = jitted["fsc_loss"](d1, d2, m1, m2)
    np.testing.assert_allclose(aux["fsc"], (slow.fsc(d1, m2) + slow.fsc(d2, m1)) / 2, atol=1e-5)
    _, aux = jitted["truth_fsc"](d, truth)
    np.testing.assert_allclose(aux["fsc"], slow.fsc(d, truth), atol=1e-5)
    _, aux = jitted["bias"](d1, d2, m1, m2)
    power = np.sqrt(slow.cov(m1, m1) * slow.cov(m2, m2))
    np.testing.assert_allclose(aux["var_bias"] / power, slow.var_bias(d1, d2, m1, m2) / power, atol=2e-5)
    np.testing.assert_allclose(aux["var_signal"] / power, slow.cov(m1, m2) / power, atol=1e-5)
    for distance, name in ((np.square, "n2n_l2"), (np.abs, "n2n_l1")):
        _, aux = jitted[name](d1, d2, m1, m2)
        np.testing.assert_allclose(aux["loss_1"], distance(d1 - m2).mean(), rtol=1e-5)
        np.testing.assert_allclose(aux["loss_2"], distance(d2 - m1).mean(), rtol=1e-5)
    np.testing.assert_allclose(jitted["cref_rmse"](d, m1, m2), slow.cref_rmse(d, m1, m2), rtol=2e-5)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_gradient_equals_finite_differences_of_slow_numpy(name):
    arrays = arguments(name, made_up((11, 8, 10)))
    count = sum(argument.startswith("denoised") for argument in ARGUMENTS[name])
    gradients = jax.jit(jax.grad(lambda *a: getattr(losses, name)(*a)[0], argnums=tuple(range(count))))(*arrays)
    arrays = [array.astype(np.float64) for array in arrays]
    rng = np.random.default_rng(8)
    for _ in range(3):
        directions = [rng.standard_normal(array.shape) if i < count else 0 for i, array in enumerate(arrays)]
        ahead, behind = (
            getattr(slow, name)(*(a + step * b for a, b in zip(arrays, directions, strict=True)))
            for step in (1e-6, -1e-6)
        )
        along = sum(np.sum(g * d) for g, d in zip(gradients, directions[:count], strict=True))
        size = np.sqrt(sum(np.sum(np.square(g)) for g in gradients))
        np.testing.assert_allclose(along, (ahead - behind) / 2e-6, atol=1e-3 * size)


def test_c_ref_carries_no_gradient():
    """The full map does depend on the half-maps, so the gradient is that of the loss with C_ref held fixed."""
    maps = made_up((11, 8, 10))
    d, m1, m2 = (array.astype(np.float64) for array in arguments("cref_l1", maps))
    gradient = jax.jit(jax.grad(lambda a, *other: losses.cref_l1(other[0], a, other[1])[0]))(
        maps["half_map_1"], maps["denoised"], maps["half_map_2"]
    )
    target = slow.c_ref(m1, m2)
    direction = np.random.default_rng(9).standard_normal(m1.shape)
    steps = [m1 + step * direction for step in (1e-6, -1e-6)]
    fixed, free = (
        np.subtract(*(slow.cref_l1(d, moved, m2, held) for moved in steps)) / 2e-6 for held in (target, None)
    )
    assert abs(free - fixed) > 0.05 * abs(fixed)  # the two can be told from each other
    np.testing.assert_allclose(np.sum(gradient * direction), fixed, rtol=1e-3)


def test_truth_fsc_of_truth_negative_and_noise():
    truth, m1, m2 = simulated()
    assert jitted["truth_fsc"](truth, truth)[0] == pytest.approx(0, abs=1e-6)
    assert jitted["truth_fsc"](-3 * truth, truth)[0] == pytest.approx(2, abs=1e-6)
    halves, half = jitted["truth_fsc"]((m1 + m2) / 2, truth)[0], jitted["truth_fsc"](m1, truth)[0]
    assert 0.1 < halves < half < 1


def test_cref_l1_is_least_for_the_truth_not_its_negative_or_the_noisy_map():
    truth, m1, m2 = simulated()
    full = (m1 + m2) / 2
    of_truth, of_full, of_negative = (jitted["cref_l1"](map_, m1, m2)[0] for map_ in (truth, full, -truth))
    # FSC(truth, full) is C_ref up to the scatter of the outer shells, about the root of one over their voxels.
    assert of_truth < 0.1
    assert of_full > 3 * of_truth
    assert of_negative > 10 * of_truth
    np.testing.assert_allclose(of_full, 1 - slow.over_shells(slow.c_ref(m1, m2)), atol=1e-4)
    assert jitted["cref_rmse"](truth, m1, m2) < 0.1 < 0.5 < jitted["cref_rmse"](-truth, m1, m2)


def test_gain_l1_is_least_for_the_truth_in_its_own_scale():
    truth, m1, m2 = simulated()
    scales = np.linspace(0.5, 1.5, 21).astype(np.float32)
    found = [jitted["gain_l1"](a * truth, m1, m2)[0] for a in scales]
    assert scales[np.argmin(found)] == pytest.approx(1, abs=0.051)
    _, aux = jitted["gain_l1"](truth, m1, m2)
    wiener = slow.c_ref(m1, m2) ** 2
    np.testing.assert_allclose(aux["target"][1:9], wiener[1:9], atol=0.02)
    np.testing.assert_allclose(aux["gain"][1:9], wiener[1:9], atol=0.15)
    # The Wiener filter has the scale, but not the correlation; the full map has neither, the truth has both.
    filtered = shrunk((m1 + m2) / 2, wiener)
    for name, least, most in (("gain_l1", 0, 0.05), ("cref_l1", 0.3, 1)):
        assert least <= jitted[name](filtered, m1, m2)[0] < most
    assert jitted["gain_l1"]((m1 + m2) / 2, m1, m2)[0] > 0.3


def test_gain_l1_includes_the_mean_and_ignores_shells_that_a_filter_emptied():
    truth, m1, m2 = simulated()
    assert jitted["gain_l1"](truth + 5, m1 + 1, m2 + 1)[0] > jitted["gain_l1"](truth + 1, m1 + 1, m2 + 1)[0] + 0.1
    low_passed = [shrunk(half_map, np.arange(17) < 9) for half_map in (m1, m2)]
    assert jitted["gain_l1"](truth, *low_passed)[0] < 0.2


def test_cref_l1_masked_ignores_what_is_outside_the_mask():
    truth, m1, m2 = simulated()
    inside = np.zeros_like(truth)
    inside[8:24, 8:24, 8:24] = 1
    outside = np.random.default_rng(4).standard_normal(truth.shape).astype(np.float32)
    outside = (outside - outside[inside == 0].mean()) * (1 - inside)  # the solvent's level is looked at
    arrays = truth, m1, m2, inside
    np.testing.assert_allclose(
        jitted["cref_l1_masked"](truth + outside, *arrays[1:])[0], slow.cref_l1_masked(*arrays), rtol=1e-4
    )


def test_masked_losses_do_not_take_a_level_for_signal():
    rng = np.random.default_rng(5)
    distance = np.sqrt(np.sum((np.indices((32, 32, 32)) - 16.0) ** 2, axis=0))
    mask = np.clip((12 - distance) / 4, 0, 1).astype(np.float32)
    truth, m1, m2 = rng.standard_normal((3, 32, 32, 32)).astype(np.float32)
    m1, m2 = truth + m1, truth + m2
    for name, arrays in (("cref_l1_masked", (truth, m1, m2)), ("truth_fsc_masked", (m1, truth * mask))):
        level = [array if array is arrays[-1] and name == "truth_fsc_masked" else array + 5 for array in arrays]
        np.testing.assert_allclose(jitted[name](*level, mask)[0], jitted[name](*arrays, mask)[0], atol=1e-4)
    # As whole maps times the mask they would differ: a level of 5 is most of what two masked maps share.
    plain = [slow.fsc((m1 + level) * mask, (m2 + level) * mask)[1:3].mean() for level in (0, 5)]
    assert plain[1] > plain[0] + 0.1


def test_fsc_loss_is_lower_for_the_truth_than_for_the_half_maps():
    truth, m1, m2 = simulated()
    assert jitted["fsc_loss"](truth, truth, m1, m2)[0] < jitted["fsc_loss"](m1, m2, m1, m2)[0] - 0.1
    # Another gain in every shell changes nothing.
    gain = 1 / (1 + np.arange(17.0))
    filtered = jitted["fsc_loss"](shrunk(m1, gain), shrunk(m2, gain), m1, m2)[0]
    np.testing.assert_allclose(filtered, jitted["fsc_loss"](m1, m2, m1, m2)[0], atol=1e-4)


def test_n2n_l2_is_least_at_the_scale_of_the_wiener_filter():
    truth, m1, m2 = simulated()
    wiener = np.mean(truth**2) / np.mean(m1 * m1)  # signal over signal and noise, the best single factor
    scales = np.linspace(0, 1.2, 61)
    found = [jitted["n2n_l2"](a * m1, a * m2, m1, m2)[0] for a in scales.astype(np.float32)]
    assert scales[np.argmin(found)] == pytest.approx(wiener, abs=0.04)
    # The noise of the other half-map is all that is left at the truth: variance 1, mean |x| of the normal distribution.
    assert jitted["n2n_l2"](truth, truth, m1, m2)[0] == pytest.approx(1, abs=0.02)
    assert jitted["n2n_l1"](truth, truth, m1, m2)[0] == pytest.approx(np.sqrt(2 / np.pi), abs=0.02)


def test_bias_is_0_for_the_half_maps_and_for_the_truth():
    truth, m1, m2 = simulated()
    assert jitted["bias"](m1, m2, m1, m2)[0] == pytest.approx(0, abs=1e-6)
    assert jitted["bias"](truth, truth, m1, m2)[0] == pytest.approx(0, abs=0.02)


def test_bias_is_the_power_of_planted_false_structure():
    truth, m1, m2 = simulated()
    false = 0.8 * np.random.default_rng(3).standard_normal(truth.shape).astype(np.float32)
    loss, aux = jitted["bias"](truth + false, truth + false, m1, m2)
    power = np.sqrt(slow.cov(m1, m1) * slow.cov(m2, m2))
    np.testing.assert_allclose(loss, slow.over_shells(slow.cov(false, false) / power), atol=0.03)
    # White noise of variance v has a power of v voxels in every shell.
    np.testing.assert_allclose(np.asarray(aux["var_bias"])[8:16] / (0.64 * truth.size), 1, atol=0.2)


def test_bias_of_a_damped_signal_is_the_lost_part():
    truth, m1, m2 = simulated()
    gain = 1 / (1 + (np.arange(17) / 5.0) ** 4)
    loss, aux = jitted["bias"](shrunk(m1, gain), shrunk(m2, gain), m1, m2)
    expected = (1 - gain) ** 2 * slow.cov(truth, truth)  # |E[D|S] - S|² with E[D|S] = gain S
    power = np.sqrt(slow.cov(m1, m1) * slow.cov(m2, m2))
    np.testing.assert_allclose(loss, slow.over_shells(expected / power), atol=0.01)
    np.testing.assert_allclose(aux["var_bias"] / power, expected / power, atol=0.08)
    assert loss > 0.02


def test_bias_is_least_at_the_scale_of_the_truth():
    truth, m1, m2 = simulated()
    scales = np.linspace(0.5, 1.5, 21).astype(np.float32)
    found = [jitted["bias"](a * truth, a * truth, m1, m2)[0] for a in scales]
    assert scales[np.argmin(found)] == pytest.approx(1, abs=0.051)


@pytest.mark.parametrize("name", [*ARGUMENTS, "cref_rmse"])
def test_bfloat16_maps_give_the_float32_result(name):
    maps = made_up((11, 8, 10))
    names = OF_FULL if name == "cref_rmse" else ARGUMENTS[name]
    low = [jnp.asarray(maps[argument]).astype(jnp.bfloat16) for argument in names]
    found, expected = (getattr(losses, name)(*arrays) for arrays in (low, [array.astype(jnp.float32) for array in low]))
    for first, second in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert first.dtype == jnp.float32
        np.testing.assert_array_equal(first, second)
