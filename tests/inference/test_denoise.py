"""Scales, masks and half-maps, with a small network that NumPy computes too."""

import jax
import numpy as np
import pytest
from helpers.small_network import CONFIG, network

import crefjax
from crefjax.errors import UserError
from crefjax.inference.denoise import denoise_maps
from crefjax.inference.network import run_network
from crefjax.inference.request import DenoiseRequest
from crefjax.io.maps import Map, write_map
from crefjax.weights.store import Weights


def random_map(seed, shape=(9, 6, 8)):
    array = 3 + 2 * np.random.default_rng(seed).standard_normal(shape)
    return Map.from_array(array.astype(np.float32), 1.2, (1.0, 2.0, 3.0))


def standardized(array):
    array = array.astype(np.float64)
    return (array - array.mean()) / array.std()


def test_scale_none_is_the_network_on_the_standardized_full_map(weights):
    first, second = random_map(1), random_map(2)
    found = crefjax.denoise(first, second, weights=weights, scale="none")
    expected = network(weights, standardized((first.array + second.array) / 2).astype(np.float32))
    np.testing.assert_allclose(found.array, expected, atol=1e-5)
    assert found.voxel_size == 1.2
    assert found.origin == (1.0, 2.0, 3.0)


def test_input_scale_has_mean_and_std_of_the_full_map(weights):
    first, second = random_map(1), random_map(2)
    found = crefjax.denoise(first, second, weights=weights, scale="input").array.astype(np.float64)
    full = (first.array.astype(np.float64) + second.array) / 2
    raw = network(weights, standardized(full).astype(np.float32))
    np.testing.assert_allclose(found, standardized(raw) * full.std() + full.mean(), atol=1e-4)


def test_input_scale_within_a_mask(weights):
    first, second = random_map(1), random_map(2)
    mask = np.random.default_rng(5).uniform(0, 1, first.array.shape).astype(np.float32)
    mask[:3] = 0
    found = crefjax.denoise(first, second, first.replace_array(mask), weights=weights, scale="input")
    found = found.array.astype(np.float64)
    full = (first.array.astype(np.float64) + second.array) / 2
    raw = network(weights, (standardized(full) * mask).astype(np.float32))

    def moments(values):
        mean = np.average(values, weights=mask)
        return mean, np.sqrt(np.average((values - mean) ** 2, weights=mask))

    # mean and deviation within the mask are those of the masked standardized map, back on the map's scale
    (want_mean, want_std), (raw_mean, raw_std) = moments(standardized(full) * mask), moments(raw)
    expected = ((raw - raw_mean) / raw_std * want_std + want_mean) * full.std() + full.mean()
    level = np.average(full, weights=1 - mask.astype(np.float64))
    np.testing.assert_allclose(found, (expected - level) * mask, atol=1e-4)
    assert not found[:3].any()


def test_half_maps_are_standardized_by_the_moments_of_the_full_map(weights):
    first, second = random_map(1), random_map(2)
    second = second.replace_array(1.5 * second.array + 1)
    full = (first.array.astype(np.float64) + second.array) / 2
    plain, scaled = (
        denoise_maps(DenoiseRequest((first, second), weights, scale=scale, half_maps=True))
        for scale in ("none", "input")
    )
    for name, half in (("half_map_1", first), ("half_map_2", second)):
        raw = network(weights, ((half.array - full.mean()) / full.std()).astype(np.float32))
        np.testing.assert_allclose(getattr(plain, name).array, raw, rtol=1e-5, atol=1e-5)
        expected = standardized(raw) * half.array.std(dtype=np.float64) + half.array.mean(dtype=np.float64)
        np.testing.assert_allclose(getattr(scaled, name).array, expected, atol=1e-4)


def test_maps_may_be_paths(weights, tmp_path):
    first, second = random_map(1), random_map(2)
    for name, map_ in (("a.mrc", first), ("b.mrc", second)):
        write_map(tmp_path / name, map_, label="test")
    found = crefjax.denoise(tmp_path / "a.mrc", str(tmp_path / "b.mrc"), weights=weights)
    np.testing.assert_array_equal(found.array, crefjax.denoise(first, second, weights=weights).array)


def test_invalid_requests_raise(weights):
    first, second = random_map(1), random_map(2, (8, 8, 8))
    with pytest.raises(UserError, match="same shape"):
        crefjax.denoise(first, second, weights=weights)
    with pytest.raises(UserError, match="`scale`: expected one of signal, input, none, found loud"):
        crefjax.denoise(first, weights=weights, scale="loud")
    for maps in ((first,), (first, None)):
        with pytest.raises(UserError, match="`scale` signal: expected two half-maps"):
            crefjax.denoise(*maps, weights=weights, scale="signal")
    with pytest.raises(UserError, match="`half_maps`: expected two half-maps"):
        DenoiseRequest((first,), weights, half_maps=True)
    with pytest.raises(UserError, match="`mask` auto: expected two half-maps"):
        crefjax.denoise(first, mask="auto", weights=weights)
    flat = first.replace_array(np.ones_like(first.array))
    with pytest.raises(UserError, match="same value in every voxel"):
        crefjax.denoise(flat, weights=weights)
    silent = Weights("silent", weights.path, CONFIG, {}, jax.tree.map(np.zeros_like, weights.parameters))
    with pytest.raises(UserError, match="silent: the network produced a constant map"):
        crefjax.denoise(first, weights=silent)
    with pytest.raises(UserError, match="silent: the network produced a constant map"):
        crefjax.denoise(first, random_map(2), weights=silent)


def test_exhausted_device_memory_gives_thinner_slabs(weights, monkeypatch):
    first, second = random_map(1, (16, 8, 8)), random_map(2, (16, 8, 8))
    maps = {"half_map_1": first, "half_map_2": second, "weights": weights, "scale": "input"}
    expected = crefjax.denoise(**maps).array
    tried = []

    def short_of_memory(*arguments, slab, **more):
        tried.append(slab)
        if slab > room:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return run_network(*arguments, slab=slab, **more)

    monkeypatch.setattr("crefjax.inference.network.run_network", short_of_memory)
    room = 4
    np.testing.assert_allclose(crefjax.denoise(**maps).array, expected, atol=1e-5)
    assert tried == [16, 8, 4]
    room = 0
    with pytest.raises(UserError, match="ran out of memory"):
        crefjax.denoise(**maps)
