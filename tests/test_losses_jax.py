"""The losses under JAX's transformations, at the limits of float32, and their weighted sum."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import losses as slow

from crefjax import losses
from crefjax.errors import UserError
from crefjax.spectral.shells import box_shells

SHAPE = (10, 8, 12)
MAPS = ("denoised", "denoised_1", "denoised_2", "half_map_1", "half_map_2", "truth", "mask")
# Different weights, so that no loss can stand for another.
WEIGHTS = {name: 0.1 * number for number, name in enumerate(losses.LOSSES, start=3)}


def batch(count=4, seed=0):
    """Correlated maps by name, each `(count, z, y, x)`."""
    rng = np.random.default_rng(seed)
    signal = rng.standard_normal((count, *SHAPE))
    return {name: (signal + rng.standard_normal((count, *SHAPE))).astype(np.float32) for name in MAPS}


def sample(maps, i):
    return {name: array[i] for name, array in maps.items()}


def reference(name, maps):
    """The loss by the function of the same name in `reference.losses`."""
    function, arguments = losses.LOSSES[name]
    return getattr(slow, function.__name__)(*(maps[argument].astype(np.float64) for argument in arguments))


@pytest.fixture(scope="module")
def expected():
    """Slow values of every loss for every sample of `batch`."""
    maps = batch()
    return {name: np.array([reference(name, sample(maps, i)) for i in range(4)]) for name in WEIGHTS}


def total(maps, shells=None):
    return losses.weighted(WEIGHTS, **maps, shells=shells)


jitted_with_gradient = jax.jit(jax.value_and_grad(total, has_aux=True))


def check(found, expected):
    loss, aux = found
    assert set(aux) == set(WEIGHTS)
    for name, array in aux.items():
        np.testing.assert_allclose(np.asarray(array).ravel(), expected[name], rtol=2e-5, err_msg=name)
    summed = sum(weight * expected[name] for name, weight in WEIGHTS.items())
    np.testing.assert_allclose(np.asarray(loss).ravel(), summed, rtol=1e-5)


def test_batch_of_two_dimensions_without_jit(expected):
    found = total({name: array.reshape(2, 2, *SHAPE) for name, array in batch().items()})
    assert found[0].shape == (2, 2)
    check(found, expected)


def test_jit_and_pmap_of_vmap_and_their_gradients(expected):
    maps, shells = batch(), box_shells(SHAPE)

    def of_batch(maps, shells):
        loss, aux = total(maps, shells)
        return loss.sum(), (loss, aux)

    (_, whole), whole_gradient = jax.jit(jax.value_and_grad(of_batch, has_aux=True))(maps, shells)
    assert jax.local_device_count() == 2
    by_device = {name: array.reshape(2, 2, *SHAPE) for name, array in maps.items()}
    each = jax.vmap(jax.value_and_grad(total, has_aux=True), in_axes=(0, None))
    parallel, parallel_gradient = jax.pmap(each, in_axes=(0, None))(by_device, shells)
    one_by_one = [jitted_with_gradient(sample(maps, i))[1] for i in range(4)]
    for found, gradient in ((whole, whole_gradient), (parallel, parallel_gradient)):
        check(found, expected)
        for name in MAPS:
            stacked = np.stack([aux[name] for aux in one_by_one])
            flat = np.asarray(gradient[name]).reshape(stacked.shape)
            np.testing.assert_allclose(flat, stacked, atol=1e-6, err_msg=name)


def test_float64_stays_float64():
    with jax.enable_x64(True):
        maps = {name: jnp.asarray(array.astype(np.float64)) for name, array in sample(batch(), 0).items()}
        _, aux = jax.jit(total)(maps)
    for name, array in aux.items():
        np.testing.assert_allclose(array, reference(name, sample(batch(), 0)), rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("name", ["cref_l1", "fsc", "truth_fsc", "bias", "gain_l1"])
def test_maps_in_other_units_have_the_same_loss_and_gradient(name, expected):
    call = jax.jit(jax.value_and_grad(lambda m: losses.weighted({name: 1.0}, **m)[0]))
    maps = sample(batch(), 0)
    _, unscaled = call(maps)
    for scale in np.float32([1e-15, 1e15]):
        loss, gradient = call({key: array * scale for key, array in maps.items()})
        np.testing.assert_allclose(loss, expected[name][0], rtol=2e-5)
        for key in MAPS:
            np.testing.assert_allclose(gradient[key] * scale, unscaled[key], atol=1e-6)


@pytest.mark.parametrize("scale", [1e-15, 1e15])
def test_variances_are_in_the_units_of_the_maps(scale):
    maps = sample(batch(), 0)
    half_maps = [maps[name] * np.float32(scale) for name in ("denoised_1", "denoised_2", "half_map_1", "half_map_2")]
    _, aux = losses.bias(*half_maps)
    exact = [array.astype(np.float64) for array in half_maps]
    np.testing.assert_allclose(aux["var_bias"], slow.var_bias(*exact), rtol=1e-4)
    np.testing.assert_allclose(aux["var_signal"], slow.cov(*exact[2:]), rtol=1e-4)


@pytest.mark.parametrize("zeros", [MAPS, MAPS[:3], MAPS[3:], ("half_map_1",), ("denoised_1",)])
def test_zero_maps_have_finite_losses_and_gradients(zeros):
    maps = {name: np.zeros_like(array) if name in zeros else array for name, array in sample(batch(), 0).items()}
    (loss, aux), gradient = jitted_with_gradient(maps)
    assert np.isfinite(loss)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((aux, gradient)))
    assert np.isfinite(losses.cref_rmse(maps["denoised"], maps["half_map_1"], maps["half_map_2"]))


def test_a_loss_needs_the_maps_that_it_takes():
    expected = {"cref_l1": {"full"}, "fsc": {"halves"}, "truth_fsc": {"full", "truth"}}
    expected |= {"cref_l1_masked": {"full", "mask"}, "truth_fsc_masked": {"full", "truth", "mask"}}
    for name, needed in expected.items():
        assert losses.needs({name: 0.3, "bias": 0.0}) == losses.LOSSES[name].needs == needed
    assert losses.needs({"fsc": 1, "truth_fsc": 0.5}) == {"halves", "full", "truth"}


def test_a_loss_of_weight_zero_needs_nothing():
    maps = sample(batch(), 0)
    halves = {name: maps[name] for name in ("half_map_1", "half_map_2")}
    loss, aux = losses.weighted({"cref_l1": 2, "bias": 0.0, "truth_fsc": 0}, **halves, denoised=maps["denoised"])
    assert list(aux) == ["cref_l1"]
    np.testing.assert_allclose(loss, 2 * reference("cref_l1", maps), rtol=1e-5)


@pytest.mark.parametrize(
    ("weights", "field"),
    [
        ({"l2": 1.0}, r"losses\.l2: .*cref_l1.*found l2"),
        ({"cref_l1": 1.0, "l2": 0.0}, r"losses\.l2"),
        ({"fsc": -0.5}, r"losses\.fsc: .*found -0\.5"),
        ({"fsc": float("nan")}, r"losses\.fsc: .*found nan"),
        ({"fsc": float("inf")}, r"losses\.fsc: .*found inf"),
        ({"fsc": "much"}, r"losses\.fsc: .*found 'much'"),
        ({"fsc": None}, r"losses\.fsc: .*found None"),
        ({"fsc": 0.0}, r"losses: expected a weight above 0 .*cref_l1"),
        ({}, r"losses: expected a weight above 0 .*cref_l1"),
    ],
)
def test_invalid_loss_weights_are_refused_in_one_line(weights, field):
    maps = sample(batch(), 0)
    for call in (losses.needs, functools.partial(losses.weighted, **maps)):
        with pytest.raises(UserError, match=field) as refused:
            call(weights)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        (name, argument)
        for name, loss in losses.LOSSES.items()
        for argument in loss.arguments
        if not argument.startswith("half_map")
    ],
)
def test_a_missing_map_is_refused(name, missing):
    maps = {**sample(batch(), 0), missing: None}
    with pytest.raises(ValueError, match=f"{name} needs {missing}, found None"):
        losses.weighted({name: 1.0}, **maps)


@pytest.mark.parametrize("name", WEIGHTS)
def test_shapes_that_would_broadcast_are_refused(name):
    maps = batch()
    last = "truth" if name.startswith("truth_") else "half_map_2"
    for other in (maps[last][0], maps[last][:1], maps[last][..., :1]):
        with pytest.raises(ValueError, match="one shape"):
            losses.weighted({name: 1.0}, **{**maps, last: other})


def test_boxes_without_shells_and_shells_of_another_box_are_refused():
    small = np.ones((3, 3, 3), np.float32)
    with pytest.raises(ValueError, match="at least 4 voxels"):
        losses.truth_fsc(small, small)
    with pytest.raises(ValueError, match="half-spectrum of shape"):
        total(batch(), box_shells((8, 8, 8)))
