"""Classification with a network that is known: its logit is a line through the density."""

import dataclasses

import numpy as np
import pytest
from helpers.classifier import CONFIG, LEVEL, SLOPE, balls, save_line_classifier
from skimage import filters

from crefjax.data.grid import on_unit_grid
from crefjax.data.map_features import measure_features, standardize_features
from crefjax.errors import UserError
from crefjax.inference.classify import THRESHOLDS, choose_thresholds, classify_map, plan_classify, solvent_density
from crefjax.io.maps import Map
from crefjax.models.conditioned_unet3d import ConditionedUNet3DConfig, add_conditioning
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


def test_a_conditioned_network_is_that_of_the_features_of_the_map(weights):
    map_ = blob_map((45, 40, 42), 1.0)
    config = ConditionedUNet3DConfig(**dataclasses.asdict(CONFIG), conditions=6)
    parameters = add_conditioning(weights.parameters, config)
    last = CONFIG.up_names(0)[-1]
    parameters[last]["conditioning"][:, 0] = (1, 2, 0, 0, 0, -3)
    conditioned = dataclasses.replace(weights, parameters=parameters, config=config)
    density = on_unit_grid(map_.array, 1.0, solvent_density(map_.array))
    features = standardize_features(measure_features(density))
    probability = classified(map_, conditioned).probability.array
    plain = classified(map_, weights).probability.array
    within = (plain > 0.01) & (plain < 0.99) & (probability > 0.01) & (probability < 0.99)
    shift = np.log(probability / (1 - probability)) - np.log(plain / (1 - plain))
    assert within.any()
    np.testing.assert_allclose(shift[within], features @ [1, 2, 0, 0, 0, -3], atol=0.02)
    assert abs(features @ [1, 2, 0, 0, 0, -3]) > 0.1


def test_a_map_that_is_masked_to_zeros_stays_zero_outside(weights):
    map_ = blob_map((45, 40, 42), 1.0)
    map_ = map_.replace_array(np.where(map_.array > 0.1, map_.array, 0))
    found = classified(map_, weights)
    assert not found.map.array[map_.array == 0].any()


def test_inverted_contrast_is_refused(weights):
    map_ = blob_map((45, 40, 42), 1.0)
    with pytest.raises(UserError, match="inverted contrast"):
        classified(map_.replace_array(-map_.array), weights)


@pytest.mark.parametrize("threshold", [0.0, 1.0, -3.0, np.nan, "everything"])
def test_a_threshold_that_is_not_a_probability_is_refused(weights, threshold):
    with pytest.raises(UserError, match="between 0 and 1"):
        classified(blob_map((45, 40, 42), 1.0), weights, threshold)


def calibrated_map(structure_weight, seed=0):
    """Probabilities as a network that was trained with a weight for structure gives them, with labels drawn by them."""
    random = np.random.default_rng(seed)
    share = 1 / (1 + np.exp(-random.choice([-6.0, 3.0], 200_000, p=[0.93, 0.07]) - 2 * random.standard_normal(200_000)))
    structure = random.random(200_000) < share
    return structure_weight * share / (structure_weight * share + 1 - share), structure


def g_mean(probability, structure, threshold):
    noise_found = np.mean(probability[~structure] < threshold)
    return np.sqrt(noise_found * np.mean(probability[structure] >= threshold))


@pytest.mark.parametrize("structure_weight", [40.0, 10.0])
def test_the_chosen_threshold_is_as_good_as_the_best_one_by_the_labels(weights, structure_weight):
    probability, structure = calibrated_map(structure_weight)
    weights = dataclasses.replace(weights, card=weights.card | {"structure_weight": structure_weight})
    chosen = choose_thresholds(weights, probability, np.full(probability.shape, True))
    candidates = np.linspace(0.01, 0.99, 197)
    best = max(g_mean(probability, structure, threshold) for threshold in candidates)
    assert g_mean(probability, structure, chosen["background"]) == pytest.approx(best, abs=2e-3)
    kept = probability >= chosen["background"]
    candidates = 1 - np.logspace(-1, -5, 200)
    best = max(g_mean(probability[kept], structure[kept], threshold) for threshold in candidates)
    assert g_mean(probability[kept], structure[kept], chosen["structural"]) == pytest.approx(best, abs=4e-3)


def test_voxels_that_do_not_count_do_not_move_the_threshold(weights):
    probability, _ = calibrated_map(40.0)
    weights = dataclasses.replace(weights, card=weights.card | {"structure_weight": 40.0})
    counted = np.full(probability.shape, True)
    expected = choose_thresholds(weights, probability, counted)
    more = np.concatenate([probability, np.full(10**6, 0.6)])
    assert choose_thresholds(weights, more, np.concatenate([counted, np.full(10**6, False)])) == expected


def test_in_a_map_without_structure_the_likeliest_voxels_are_not_kept(weights):
    weights = dataclasses.replace(weights, card=weights.card | {"structure_weight": 40.0})
    probability = np.random.default_rng(0).uniform(0, 0.4, 10_000)
    chosen = choose_thresholds(weights, probability, np.full(probability.shape, True))
    assert min(chosen.values()) >= 0.5
    nothing = choose_thresholds(weights, probability, np.full(probability.shape, False))
    assert min(nothing.values()) >= 0.5


def test_weights_that_do_not_say_how_structure_was_weighted_have_the_thresholds_of_the_paper(weights):
    weights = dataclasses.replace(weights, card={k: v for k, v in weights.card.items() if k != "structure_weight"})
    probability, _ = calibrated_map(40.0)
    assert choose_thresholds(weights, probability, probability > 0) == {"background": 0.035, "structural": 0.495}
    found = classified(blob_map((45, 40, 42), 1.0), weights, "structural")
    assert found.threshold == THRESHOLDS["structural"]


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
