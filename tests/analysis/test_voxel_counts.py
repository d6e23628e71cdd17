"""The definitions of the voxel classification's study, on cases counted by hand."""

import numpy as np
import pytest

from analysis.baselines.voxel_counts import (
    BINS,
    Confusion,
    Scores,
    add_scores,
    best_dust_filter,
    confusion,
    hide_dust,
    score_histograms,
)


def test_rates_of_counts_by_hand():
    counts = Confusion(tp=60, fn=20, fp=4, tn=16)
    assert counts.tpr == 0.75
    assert counts.fnr == 0.25
    assert counts.fpr == 0.2
    assert counts.precision == pytest.approx(60 / 64)
    assert counts.accuracy == 0.76
    assert counts.g_mean == pytest.approx(np.sqrt(0.75 * 0.8))


def test_rates_without_noise_are_not_numbers():
    assert np.isnan(Confusion(tp=0, fn=0, fp=1, tn=3).tpr)


def test_noise_is_the_positive_class_and_uncounted_voxels_are_left_out():
    kept = np.array([1, 0, 1, 0, 0, 1, 1], bool)
    structure = np.array([1, 1, 0, 0, 0, 0, 1], bool)
    counted = np.array([1, 1, 1, 1, 1, 0, 1], bool)
    assert confusion(kept, structure, counted) == Confusion(tp=2, fn=1, fp=1, tn=2)


def test_thresholds_of_histograms_count_as_the_voxels_do():
    random = np.random.default_rng(0)
    structure = random.random(5000) < 0.3
    score = np.round(np.clip(random.normal(0.3 + 0.4 * structure, 0.2), 0, 1), 3)
    score[:2] = 0, 1
    counted = random.random(5000) < 0.9
    counted[:2] = True
    scores = score_histograms(score, structure, counted)
    assert len(scores.edges) == BINS + 1
    for index in (0, 123, 500, 777):
        threshold = scores.edges[index] - 1e-9
        assert scores.at(index) == confusion(score >= threshold, structure, counted)
    threshold, best = scores.best()
    others = [confusion(score >= t - 1e-9, structure, counted).g_mean for t in np.linspace(0.01, 0.99, 99)]
    assert best.g_mean >= max(others)
    assert 0.3 < threshold < 0.7


def test_dust_is_what_is_small_above_the_contour():
    density = np.zeros((6, 6, 12))
    density[1:3, 1:3, 1:3] = 2  # 8 voxels
    density[3, 3, 3] = 2  # touches their corner
    density[1:4, 2, 8] = 2  # 3 voxels
    density[5, 5, 11] = 0.5
    all_kept, kept = hide_dust(density, 1.0, (1, 4))
    assert all_kept.sum() == 12
    assert kept.sum() == 9
    assert kept[3, 3, 3]
    assert not kept[1, 2, 8]


def test_the_best_dust_filter_separates_a_blob_from_specks():
    random = np.random.default_rng(1)
    structure = np.zeros((20, 20, 20), bool)
    structure[6:14, 6:14, 6:14] = True
    density = structure * 1.0 + (random.random(structure.shape) < 0.02) + 0.01 * random.random(structure.shape)
    _, size, found = best_dust_filter(density, structure, np.ones_like(structure))
    assert size > 1
    assert found.g_mean > 0.99


def test_the_best_dust_filter_is_about_as_good_as_a_search_of_every_contour():
    random = np.random.default_rng(2)
    structure = np.zeros((24, 24, 24), bool)
    structure[8:17, 8:17, 8:17] = True  # 5 % of the box: between two of the first contours
    density = structure * 1.0 + 0.08 * random.random(structure.shape)
    counted = np.ones_like(structure)
    every = [confusion(density >= contour, structure, counted).g_mean for contour in np.linspace(0, 1.1, 1000)]
    _, _, found = best_dust_filter(density, structure, counted, sizes=(1,))
    assert found.g_mean > max(every) - 0.005


def test_maps_of_any_size_weigh_the_same():
    edges = np.array([0.0, 0.5, 1.0])
    small = Scores(edges, noise=np.array([3, 1]), structure=np.array([0, 2]))
    large = Scores(edges, noise=np.array([100, 300]), structure=np.array([500, 500]))
    total = add_scores([small, large])
    np.testing.assert_allclose(total.noise, [1.0, 1.0])  # 3/4 + 1/4, 1/4 + 3/4
    np.testing.assert_allclose(total.structure, [0.5, 1.5])
    assert total.at(1) == Confusion(tp=1.0, fn=1.0, fp=0.5, tn=1.5)


def test_without_noise_the_lowest_threshold_is_the_best():
    structure = np.ones(10, bool)
    threshold, counts = score_histograms(np.linspace(0.1, 1, 10), structure, structure).best()
    assert threshold == pytest.approx(0.1)
    assert (counts.tp, counts.fn, counts.fp, counts.tn) == (0, 0, 0, 10)
