"""Properties of the whole map in the stream: plausible B-factors, noise, and scale."""

from dataclasses import replace

import numpy as np
import pytest

from crefjax.errors import UserError
from crefjax.simulate.atoms import LEAST_B, plausible_b_factors, with_least_b_factor
from crefjax.simulate.density import density, scatterers
from crefjax.simulate.phantom import phantom
from crefjax.simulate.specimen import BulkSolvent, truth_mask
from crefjax.simulate.stream import StreamConfig
from crefjax.simulate.stream.batches import stream_half_maps
from crefjax.simulate.stream.draw import draw_sample
from crefjax.simulate.stream.models import prepare_models
from crefjax.training.stream_source import make_standardizer


@pytest.fixture(scope="module")
def model():
    return phantom(200, seed=6)


def test_flat_b_factors_are_replaced_by_those_of_the_packing(model):
    """60 Å² times the mean number of atoms within 7.35 Å over an atom's own, itself among them."""
    flat = replace(model, b_factor=np.full(len(model), 20.0, np.float32))
    distances = np.linalg.norm(model.positions[:, None] - model.positions[None], axis=2)
    neighbors = (distances <= 7.35).sum(1)
    expected = np.minimum(60 * neighbors.mean() / neighbors, 300)
    np.testing.assert_allclose(plausible_b_factors(flat), expected, rtol=1e-5)
    uneven = replace(model, b_factor=np.linspace(10, 90, len(model), dtype=np.float32))
    assert plausible_b_factors(uneven) is uneven.b_factor


def test_no_atom_is_sharpened_beyond_a_point(model):
    """One atom far below the others takes their difference to the drawn B-factor with it, and would end below 0."""
    b_factor = np.full(len(model), 150.0, np.float32) + np.linspace(0, 50, len(model), dtype=np.float32)
    b_factor[7] = 0.0
    (prepared,) = prepare_models([replace(model, b_factor=b_factor)], 1.0)
    config = StreamConfig(b_factor=(0.0, 150.0), sharpened=1.0, resolution=(2.5, 3.5))
    blurs = [float(draw_sample([prepared], np.ones(1), config, 32, 48, 1, k).info.b_factor) for k in range(50)]
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


def shells_of(side):
    """The shell of every coefficient of a half-spectrum, and how often it stands for one of the whole spectrum."""
    k, half = np.fft.fftfreq(side, 1 / side), np.arange(side // 2 + 1)
    radius = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + half**2)
    weight = np.where((half == 0) | (half == side // 2), 1.0, 2.0) + 0 * radius
    return np.floor(radius + 0.5).astype(int), weight


def colored(random, side, voxel_size, b_factor):
    """Noise of deviation 1 whose amplitudes fall off by a B-factor in Å²."""
    axes = *([np.fft.fftfreq(side, voxel_size)] * 2), np.fft.rfftfreq(side, voxel_size)
    squared = axes[0][:, None, None] ** 2 + axes[1][:, None] ** 2 + axes[2] ** 2
    white_noise = np.fft.rfftn(random.standard_normal((side,) * 3))
    noise = np.fft.irfftn(white_noise * np.exp(-b_factor * squared / 4), (side,) * 3, (0, 1, 2))
    return noise / noise.std()


def in_solvent(truth, voxel_size, solvent):
    """Density whose amplitudes are lowered by Babinet's principle, computed with complex transforms."""
    axis = np.fft.fftfreq(len(truth), voxel_size)
    squared = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2
    factor = 1 - solvent.scale * np.exp(-solvent.b_factor / 4 * squared)
    return np.fft.ifftn(np.fft.fftn(truth) * factor).real


@pytest.mark.parametrize(
    ("voxel_size", "resolution", "blur", "noise_b", "side", "solvent"),
    [
        (1.3, 4.0, 40.0, 0.0, 96, None),
        (1.3, 4.0, 40.0, 30.0, 96, None),
        (1.6, 6.0, 100.0, 0.0, 80, None),
        (1.0, 2.6, 20.0, -10.0, 108, None),
        (1.3, 4.0, 40.0, 0.0, 96, BulkSolvent(0.8, 60.0)),
    ],
)
def test_signal_and_noise_are_those_of_the_whole_map(model, voxel_size, resolution, blur, noise_b, side, solvent):
    """A map of the model is made, and noise of the deviation that is told put on it: the FSC crosses as asked."""
    (prepared,) = prepare_models([model], voxel_size)
    atoms = replace(model, b_factor=np.maximum(model.b_factor, prepared.best_b))
    origin = atoms.center - side * voxel_size / 2
    truth = np.asarray(density(scatterers(atoms, voxel_size), (side,) * 3, voxel_size, origin=origin, b_factor=blur))
    mask = truth_mask(truth, voxel_size)
    if solvent is not None:
        truth = in_solvent(truth, voxel_size, solvent)
    frequency = np.linspace(0, 0.87 / voxel_size, 200)
    amplitude = 3 * np.exp(-noise_b * frequency**2 / 4)  # of any scale
    signal, noise = prepared.whole_map_levels(
        voxel_size, resolution, blur, frequency, amplitude, *([] if solvent is None else [solvent])
    )
    assert signal == pytest.approx(np.sqrt(np.sum(mask * truth**2) / mask.sum()), rel=0.1)
    random, (shell, weight) = np.random.default_rng(1), shells_of(side)
    sums = np.zeros((3, side // 2 + 1))
    for _ in range(4):
        halves = [truth + noise * colored(random, side, voxel_size, noise_b) for _ in range(2)]
        first, other = (np.fft.rfftn(half * mask) for half in halves)
        for row, product in zip(sums, (first * other.conj(), first * first.conj(), other * other.conj()), strict=True):
            row += np.bincount(shell.ravel(), (weight * product.real).ravel())[: len(row)]
    fsc = sums[0] / np.sqrt(sums[1] * sums[2])
    below = np.flatnonzero(fsc[1:] < 0.143)[0] + 1
    crossing = below - 1 + (fsc[below - 1] - 0.143) / (fsc[below - 1] - fsc[below])
    assert crossing == pytest.approx(side * voxel_size / resolution, rel=0.05)


def test_patches_of_one_map_have_one_noise(model):
    config = StreamConfig(
        whole_map=True, resolution=(3.0, 3.0), voxel_size=(1.2, 1.2), unevenness=(0, 0), spectra=("white",)
    )
    config = replace(config, b_factor=(60.0, 60.0))
    batch = next(stream_half_maps([model], patch=32, batch=4, config=config))
    noise = np.asarray(batch.half_map_1 - batch.truth).std((1, 2, 3))
    np.testing.assert_allclose(noise, batch.info.noise, rtol=0.02)
    np.testing.assert_allclose(batch.info.noise, batch.info.noise[0])


@pytest.mark.parametrize("edge", [0.05, 0.1, 0.3])
def test_a_low_pass_ends_within_its_range_and_edge(model, edge):
    """It falls as a raised cosine over the last part of what it leaves, down to 0.003."""
    config = StreamConfig(low_passed=1.0, low_pass=(1.1, 1.2), low_pass_edge=(edge, edge), resolution=(3.0, 3.5))
    models = prepare_models([model], 0.8)
    ends = []
    for k in range(20):
        drawn = draw_sample(models, np.ones(1), config, 32, 48, 1, k)
        end = float(drawn.info.low_pass)
        ends.append(end * drawn.info.resolution)
        assert (drawn.passed[drawn.frequency < (0.999 - edge) * end] > 0.999).all()
        assert (drawn.passed[drawn.frequency > end] < 0.004).all()
        within = np.abs(drawn.frequency / end - 1 + edge / 2) < edge / 2
        share = (1 - drawn.frequency[within] / end) / edge  # of the edge that is left
        np.testing.assert_allclose(drawn.passed[within], 0.003 + 0.997 * np.sin(np.pi * share / 2) ** 2, atol=1e-3)
    assert 1.1 <= min(ends) < max(ends) <= 1.2001


@pytest.mark.parametrize("field", [{"low_pass": (0.1, 1.2)}, {"low_pass_edge": (0.0, 0.2)}, {"low_pass": (1.5, 1.2)}])
def test_an_invalid_low_pass_raises(field):
    with pytest.raises(UserError, match=rf"expected {next(iter(field))} to be two numbers within"):
        StreamConfig(**field).check(32)


def test_whole_maps_are_divided_by_the_given_number():
    random = np.random.default_rng(2)
    half_1, half_2, truth = (random.normal(3, 2, (2, 8, 8, 8)).astype(np.float32) for _ in range(3))
    mask = np.ones_like(truth)
    prepare_batch = make_standardizer(0.0, (1.0, 1.0), whole_map=True)
    found = prepare_batch(half_1, half_2, truth, mask, np.arange(2), np.uint32(0), np.array([2.0, 4.0], np.float32))
    for name, array in (("half_map_1", half_1), ("half_map_2", half_2), ("truth", truth)):
        np.testing.assert_allclose(found[name], array / np.array([2, 4]).reshape(2, 1, 1, 1), rtol=1e-5)
