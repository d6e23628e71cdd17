"""What the stream takes from the model of a whole map: B-factors that make sense, noise, and scale."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from crefjax import simulate
from crefjax.simulate.atoms import LEAST_B, plausible_b_factors, read_atoms, with_least_b_factor
from crefjax.simulate.density import density, scatterers
from crefjax.simulate.noise import white
from crefjax.simulate.parts import mask_of
from crefjax.simulate.phantom import phantom
from crefjax.simulate.stream_draw import draw
from crefjax.simulate.stream_models import prepare
from crefjax.simulate.stream_variety import Variety
from crefjax.training.stream_material import standardizing


@pytest.fixture(scope="module")
def model():
    return phantom(200, seed=6)


def test_flat_b_factors_give_way_to_ones_that_follow_the_packing(model):
    """60 Å² times the mean number of atoms within 7.35 Å over an atom's own, itself among them."""
    flat = replace(model, b_factor=np.full(len(model), 20.0, np.float32))
    distances = np.linalg.norm(model.positions[:, None] - model.positions[None], axis=2)
    neighbours = (distances <= 7.35).sum(1)
    expected = np.minimum(60 * neighbours.mean() / neighbours, 300)
    np.testing.assert_allclose(plausible_b_factors(flat), expected, rtol=1e-5)
    uneven = replace(model, b_factor=np.linspace(10, 90, len(model), dtype=np.float32))
    assert plausible_b_factors(uneven) is uneven.b_factor


def test_no_atom_is_sharpened_beyond_a_point(model):
    """One atom far below the others takes their difference to the drawn B-factor with it, and would end below 0."""
    b_factor = np.full(len(model), 150.0, np.float32) + np.linspace(0, 50, len(model), dtype=np.float32)
    b_factor[7] = 0.0
    (prepared,) = prepare([replace(model, b_factor=b_factor)], 1.0)
    variety = Variety(b_factor=(0.0, 150.0), sharpened=1.0, resolution=(2.5, 3.5))
    blurs = [float(draw([prepared], np.ones(1), variety, 32, 48, 1, k).info.b_factor) for k in range(50)]
    lowest = np.percentile(b_factor, 10)
    assert prepared.best_b == pytest.approx(lowest)
    assert min(blurs) + lowest >= LEAST_B - 1e-3
    assert min(blurs) + 0.0 < -50  # what that atom would have had
    with_it = density(scatterers(replace(model, b_factor=np.maximum(b_factor, lowest)), 1.0), (64,) * 3, 1.0)
    np.testing.assert_allclose(prepared.scatter.weights.sum(), scatterers(model, 1.0).weights.sum(), rtol=0.01)
    assert np.isfinite(np.asarray(with_it)).all()


def test_simulated_entries_are_sharpened_no_further(model):
    b_factor = np.linspace(0, 100, len(model), dtype=np.float32)
    atoms = replace(model, b_factor=b_factor)
    np.testing.assert_array_equal(with_least_b_factor(atoms, 60.0).b_factor, b_factor)
    np.testing.assert_allclose(with_least_b_factor(atoms, -40.0).b_factor, np.maximum(b_factor, 45.0))


def test_signal_and_noise_are_those_of_the_whole_map(model):
    """A map of the model is made, and white noise of the deviation that is told put on it."""
    voxel_size, resolution, blur, side = 1.3, 4.0, 40.0, 96
    (prepared,) = prepare([model], voxel_size)
    atoms = replace(model, b_factor=np.maximum(model.b_factor, prepared.best_b))
    origin = atoms.positions.mean(0) - side * voxel_size / 2
    truth = np.asarray(density(scatterers(atoms, voxel_size), (side,) * 3, voxel_size, origin=origin, b_factor=blur))
    mask = mask_of(truth, voxel_size)
    flat = white()
    signal, noise = prepared.whole_map(voxel_size, resolution, blur, flat.frequency, flat.amplitude)
    assert signal == pytest.approx(np.sqrt(np.sum(mask * truth**2) / mask.sum()), rel=0.1)
    random, crossings = np.random.default_rng(1), []
    k = np.fft.fftfreq(side, 1 / side)
    shell = np.floor(np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2) + 0.5).astype(int).ravel()
    for _ in range(3):
        one, two = (np.fft.fftn((truth + noise * random.normal(size=truth.shape)) * mask) for _ in range(2))
        cross, *power = (
            np.bincount(shell, values.ravel())[: side // 2 + 1]
            for values in ((one * two.conj()).real, abs(one) ** 2, abs(two) ** 2)
        )
        fsc = np.convolve(cross, np.ones(5), "same") / np.sqrt(
            np.convolve(power[0], np.ones(5), "same") * np.convolve(power[1], np.ones(5), "same")
        )
        crossings.append(np.flatnonzero(fsc[3:] < 0.143)[0] + 3)
    assert np.mean(crossings) == pytest.approx(side * voxel_size / resolution, rel=0.08)


def test_patches_of_one_map_have_one_noise(model):
    variety = Variety(
        whole_map=True, resolution=(3.0, 3.0), voxel_size=(1.2, 1.2), unevenness=(0, 0), colours=("white",)
    )
    variety = replace(variety, b_factor=(60.0, 60.0))
    batch = next(simulate.stream([model], patch=32, batch=4, variety=variety))
    noise = np.asarray(batch.half_map_1 - batch.truth).std((1, 2, 3))
    np.testing.assert_allclose(noise, batch.info.noise, rtol=0.02)
    np.testing.assert_allclose(batch.info.noise, batch.info.noise[0])


def test_a_low_pass_ends_within_its_range_and_edge(model):
    variety = Variety(low_passed=1.0, low_pass=(1.1, 1.2), low_pass_edge=(0.1, 0.1), resolution=(3.0, 3.5))
    models = prepare([model], 0.8)
    for k in range(20):
        drawn = draw(models, np.ones(1), variety, 32, 48, 1, k)
        end = float(drawn.info.low_pass)
        assert 1.1 <= end * drawn.info.resolution <= 1.2001
        assert (drawn.passed[drawn.frequency < 0.89 * end] > 0.999).all()
        assert (drawn.passed[drawn.frequency > end] < 0.004).all()


def test_whole_maps_are_divided_by_the_number_that_is_given():
    random = np.random.default_rng(2)
    half_1, half_2, truth = (random.normal(3, 2, (2, 8, 8, 8)).astype(np.float32) for _ in range(3))
    mask = np.ones_like(truth)
    prepare_batch = standardizing(0.0, (1.0, 1.0), whole_map=True)
    found = prepare_batch(half_1, half_2, truth, mask, np.arange(2), np.uint32(0), np.array([2.0, 4.0], np.float32))
    for name, array in (("half_map_1", half_1), ("half_map_2", half_2), ("truth", truth)):
        np.testing.assert_allclose(found[name], array / np.array([2, 4]).reshape(2, 1, 1, 1), rtol=1e-5)


def test_no_sample_of_any_model_is_absurd(shared):
    """The density in the sharpest atom is no more than 60 deviations of the map: a point would have hundreds."""
    files = sorted([*shared.glob("models/cryoem/*.gz"), *shared.glob("models/em/*.gz")])
    assert len(files) > 70
    variety = Variety(
        whole_map=True, b_factor=(0.0, 0.0), sharpened=1.0, resolution=(2.6, 2.6), voxel_size=(0.9, 0.9), centre=0.0,
        solvent=0.0,
    )  # fmt: skip
    for path in files:
        atoms = read_atoms(path)
        (prepared,) = prepare([atoms], 0.9)
        drawn = draw([prepared], np.ones(1), variety, 32, 48, 1, 0)
        b_factor = np.maximum(plausible_b_factors(atoms), prepared.best_b) + float(drawn.info.b_factor)
        assert b_factor.min() >= LEAST_B - 1e-3, path.name
        assert np.isfinite([drawn.info.signal, drawn.info.noise]).all(), path.name
        near = np.argsort(np.linalg.norm(atoms.positions - atoms.positions[np.argmin(atoms.b_factor)], axis=1))[:2000]
        patch = jax.tree.map(lambda leaf: leaf, prepared.scatter)
        patch = replace(patch, positions=patch.positions[near], weights=patch.weights[near])
        origin = patch.positions[0] - 24 * 0.9
        made = np.asarray(density(patch, (48,) * 3, 0.9, origin=origin, b_factor=float(drawn.info.b_factor)))
        assert np.isfinite(made).all(), path.name
        assert np.abs(made).max() < 60 * float(drawn.info.signal), path.name
