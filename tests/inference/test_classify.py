"""Classification with a network that is known: its logit is a line through the density."""

import dataclasses

import numpy as np
import pytest
from helpers.classifier import CONFIG, LEVEL, SLOPE, balls, save_line_classifier
from skimage import filters

from crefjax.errors import UserError
from crefjax.inference.classify import classify_map, plan_classify, solvent_density
from crefjax.io.maps import Map
from crefjax.weights.store import load_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return load_weights(save_line_classifier(tmp_path_factory.mktemp("weights") / "line"), "classification")


def blob_map(shape, voxel_size, level=0.0, scale=1.0):
    """The balls in weak noise."""
    noise = 1e-3 * np.random.default_rng(0).standard_normal(shape)
    return Map.from_array((scale * (balls(shape, voxel_size) + noise) + level).astype(np.float32), voxel_size)


def classified(map_, weights, threshold=0.5):
    return classify_map(map_, weights, plan_classify(map_, weights, device="cpu"), threshold=threshold)


def expected_structure(map_, voxel_size, solvent, threshold=0.5):
    """The voxels above the density at which the line through it has the threshold's logit."""
    density = map_.array - solvent
    top = np.sort(density, axis=None)[-1 - round(1000 / voxel_size**3)]
    logit = np.log(threshold / (1 - threshold))
    return density > top * (LEVEL + logit / SLOPE), density, top


@pytest.mark.parametrize("threshold", [0.5, 0.05])
def test_voxels_below_the_threshold_get_the_density_of_the_solvent(weights, threshold):
    map_ = blob_map((45, 40, 42), 1.0, level=7.0, scale=3.0)
    found = classified(map_, weights, threshold)
    solvent = float(np.median(map_.array[map_.array < filters.threshold_otsu(map_.array)]))
    structure, density, top = expected_structure(map_, 1.0, solvent, threshold)
    level = LEVEL + np.log(threshold / (1 - threshold)) / SLOPE
    values, counts = np.unique(found.map.array, return_counts=True)
    filled = values[counts.argmax()]  # a voxel may have this density by chance, and is the same kept or not
    clear = (np.abs(density / top - level) > 0.003) & (map_.array != filled)  # Otsu's threshold has other bins here
    kept = found.map.array == map_.array
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(kept[clear], structure[clear])
    np.testing.assert_allclose(found.map.array[~kept], solvent, atol=3e-3)
    positive = np.maximum(density, 0)
    assert found.removed == pytest.approx(1 - positive[structure].sum() / positive.sum(), abs=5e-3)
    assert found.pieces == 1


@pytest.mark.parametrize(
    ("shape", "voxel_size"),
    [((45, 40, 42), 1.0), ((35, 31, 33), 1.3), ((64, 60, 61), 0.7), ((23, 20, 21), 2.0)],
)
def test_the_probability_overlays_the_map_on_any_grid(weights, shape, voxel_size):
    map_ = blob_map(shape, voxel_size)
    found = classified(map_, weights)
    structure, density, top = expected_structure(map_, voxel_size, solvent_density(map_.array))
    clear = np.abs(density / top - LEVEL) > 0.05  # elsewhere the two grids round differently
    kept = found.probability.array >= 0.5
    assert (kept == structure)[clear].mean() > 0.999
    centers = [np.array(np.nonzero(which)).mean(1) for which in (kept, structure)]
    np.testing.assert_allclose(*centers, atol=0.05)
    assert found.map.voxel_size == map_.voxel_size


def test_a_map_that_is_masked_to_zeros_stays_zero_outside(weights):
    map_ = blob_map((45, 40, 42), 1.0)
    map_ = map_.replace_array(np.where(map_.array > 0.1, map_.array, 0))
    found = classified(map_, weights)
    assert not found.map.array[map_.array == 0].any()


def test_inverted_contrast_is_refused(weights):
    map_ = blob_map((45, 40, 42), 1.0)
    with pytest.raises(UserError, match="inverted contrast"):
        classified(map_.replace_array(-map_.array), weights)


@pytest.mark.parametrize("threshold", [0.0, 1.0, -3.0, np.nan])
def test_a_threshold_that_is_not_a_probability_is_refused(weights, threshold):
    with pytest.raises(UserError, match="between 0 and 1"):
        classified(blob_map((45, 40, 42), 1.0), weights, threshold)


def test_weights_of_a_denoiser_are_refused():
    with pytest.raises(UserError, match="expected weights for classification, found some for denoising"):
        load_weights("truth", "classification")


def test_weights_of_a_classifier_do_not_denoise(weights):
    with pytest.raises(UserError, match="expected weights for denoising, found some for classification"):
        load_weights(weights.path)


def test_a_map_without_structure_is_reported(weights):
    high = {name: {key: value.copy() for key, value in layer.items()} for name, layer in weights.parameters.items()}
    high[CONFIG.up_names(0)[-1]]["bias"][0] = -1000
    found = classified(blob_map((45, 40, 42), 1.0), dataclasses.replace(weights, parameters=high))
    assert found.removed == 1
    assert found.pieces == 0
    assert "no voxel is taken for structure" in found.notes[0]


def test_a_hot_voxel_is_replaced_and_reported(weights):
    sound = blob_map((45, 40, 42), 1.0)
    hot = sound.array.copy()
    hot[4, 5, 6] = 2000
    expected, found = classified(sound, weights), classified(sound.replace_array(hot), weights)
    assert "6, 5, 4" in found.notes[0]
    np.testing.assert_array_equal(found.map.array, expected.map.array)
    np.testing.assert_allclose(found.probability.array, expected.probability.array, atol=0.02)
