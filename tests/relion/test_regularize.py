"""Regularized half-maps against a known truth."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.relion_files import RELION_5, write_job
from reference.losses import fsc as slow_fsc
from reference.losses import shells_of

from crefjax.errors import UserError
from crefjax.relion import COMBINATIONS
from crefjax.relion.external import read_job
from crefjax.relion.regularize import regularize, signal_share, weights_on_grid
from crefjax.simulate.half_maps import SimulationConfig, simulate_half_maps
from crefjax.simulate.phantom import phantom
from crefjax.weights.store import load_weights

BOX, VOXEL = 40, 2.5


@pytest.fixture(scope="module")
def simulation():
    config = SimulationConfig(VOXEL, 5.4, seed=3, box=BOX)
    pair = simulate_half_maps(phantom(200, seed=1), config)
    # Images are masked before they are aligned: the noise of the solvent does not fill RELION's FSC as it does here.
    names = ("half_map_1", "half_map_2")
    halves = {name: pair.truth + np.float32(0.55) * (getattr(pair, name) - pair.truth) for name in names}
    return replace(pair, **halves)


def shell_index(shape):
    """The shell of every Fourier voxel; one more than the last where it has none."""
    shells = shells_of(shape)
    index = np.full(shape, len(shells))
    for number, inside in enumerate(shells):
        index[inside] = number
    return index


@pytest.fixture(scope="module")
def weights():
    return load_weights(None)


@pytest.fixture
def job(simulation, tmp_path, monkeypatch):
    """The call of half-map 1, with the FSC that RELION measures: of the whole box."""
    monkeypatch.chdir(tmp_path)
    fsc = slow_fsc(simulation.half_map_1, simulation.half_map_2)
    more = RELION_5.format(voxel_size=VOXEL, diameter=0.8 * BOX * VOXEL)
    power = np.ones(BOX // 2 + 1)
    return read_job(write_job(tmp_path, "run_it003_half1_class001", fsc, box=BOX, current=BOX, tau2=power, more=more))


def masked_fsc(array, simulation):
    level = array[simulation.mask < 0.01].mean()
    return slow_fsc((array - level) * simulation.mask, simulation.truth * simulation.mask)


def regularized(simulation, job, weights, combine="trailing", factor=1.0):
    half = np.float32(factor) * simulation.half_map_1
    # Weights for which the classical step is a Wiener filter with the FSC: W tau² = F / (1 - F), with tau² = 1.
    shell = shell_index(half.shape)[:, :, : BOX // 2 + 1]
    fsc = np.append(np.clip(job.fsc, 1e-3, 0.99), np.full(BOX, 1e-3))[shell]
    weight = fsc / (1 - fsc)
    spectrum = np.fft.rfftn(half) * weight / (weight + 1)
    classical = np.fft.irfftn(spectrum, s=half.shape, axes=(0, 1, 2)).astype(np.float32)
    return classical, regularize(job, classical, half, weight, weights, combine=combine)


@pytest.mark.parametrize("combine", COMBINATIONS)
def test_a_half_map_comes_nearer_to_the_truth_where_there_is_signal(simulation, job, weights, combine):
    classical, found = regularized(simulation, job, weights, combine)
    before, after = (masked_fsc(array, simulation)[1 : found.end] for array in (classical, found.array))
    assert 5 < found.end < BOX // 2
    assert after.mean() > before.mean() + 0.02
    assert (after > before - 0.02).all()


def test_the_result_is_on_the_scale_of_the_signal(simulation, job, weights):
    _, found = regularized(simulation, job, weights)
    shell = shell_index(simulation.truth.shape)
    truth, mine = (np.fft.fftn(array * simulation.mask) for array in (simulation.truth, found.array))
    for s in range(2, found.end):
        ratio = np.vdot(mine[shell == s], truth[shell == s]).real / np.sum(np.abs(mine[shell == s]) ** 2)
        # 1 is the scale at which the result has the least distance from the truth.
        assert ratio == pytest.approx(1, abs=0.25)


def test_beyond_the_fsc_the_classical_map_stands(simulation, job, weights):
    classical, found = regularized(simulation, job, weights)
    shell, last = shell_index(classical.shape), BOX // 2
    before, after = (np.fft.fftn(array) for array in (classical, found.array))
    beyond = (shell >= found.end + 2) & (shell <= last)
    assert beyond.any()
    np.testing.assert_allclose(after[beyond], before[beyond], atol=1e-3 * np.abs(before[beyond]).max())


def test_the_result_follows_the_scale_of_the_half_map(simulation, job, weights):
    _, one = regularized(simulation, job, weights, "trailing")
    _, other = regularized(simulation, job, weights, "trailing", factor=1e-4)
    np.testing.assert_allclose(other.array, 1e-4 * one.array, atol=2e-6 * np.abs(one.array).max())


def test_a_half_map_of_low_resolution_is_not_denoised(simulation, job, weights):
    low = read_job(job.star)
    object.__setattr__(low, "fsc", np.where(np.arange(BOX // 2 + 1) < 5, 1.0, 0.0))
    with pytest.raises(UserError, match="the resolution is 2"):
        regularized(simulation, low, weights)
    object.__setattr__(low, "fsc", np.zeros(BOX // 2 + 1))
    with pytest.raises(UserError, match="the resolution is unknown"):
        regularized(simulation, low, weights)


def test_weights_are_taken_at_the_frequencies_of_the_map(job):
    padded = np.fft.fftfreq(2 * BOX, 1 / (2 * BOX))
    z, y, x = np.meshgrid(padded, padded, np.arange(BOX + 1), indexing="ij")
    of_map = np.fft.fftfreq(BOX, 1 / BOX)
    expected = np.meshgrid(of_map, of_map, np.arange(BOX // 2 + 1), indexing="ij")
    for axis, values in enumerate((z, y, x)):
        np.testing.assert_array_equal(weights_on_grid(values, job), 2 * expected[axis])


def test_the_joined_map_has_the_signal_of_both_halves(job):
    object.__setattr__(job, "fsc", np.array([1.0, 0.5, -0.1, 0.25]))
    np.testing.assert_allclose(signal_share(job), [0.999, 0.5, 0, 0.25], atol=1e-6)
    object.__setattr__(job, "half", None)
    np.testing.assert_allclose(signal_share(job)[1:], [2 / 3, 0, 0.4], atol=1e-6)
