"""The configuration of the stream: shares of the models, limits in Å, flexible parts, sharpening, low-passes."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage
from scipy.stats import chisquare

from crefjax.data.grid import find_grid
from crefjax.errors import UserError
from crefjax.simulate.atoms import LEAST_B
from crefjax.simulate.half_maps import SimulationConfig, simulate_half_maps
from crefjax.simulate.phantom import phantom
from crefjax.simulate.stream import StreamConfig
from crefjax.simulate.stream.batches import stream_half_maps
from crefjax.simulate.stream.draw import draw_sample
from crefjax.simulate.stream.models import prepare_models

PATCH = 32
PLAIN = StreamConfig(
    resolution=(2.2, 3.0), solvent=0.0, center=1.0, spectra=("white",), unevenness=(0.0, 0.0), b_factor=(90.0, 90.0),
    falloff=30.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return phantom(150)


def batch_of(model, **changes):
    return next(stream_half_maps([model], patch=PATCH, batch=4, config=replace(PLAIN, **changes)))


def frequencies(side):
    k = np.fft.fftfreq(side)
    return np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)


def window():
    line = np.hanning(PATCH)
    return line[:, None, None] * line[:, None] * line


def test_models_are_drawn_as_often_as_their_shares(model):
    models = prepare_models([phantom(20), model, phantom(40)], 0.8)
    shares = np.array([0.5, 0.2, 0.3])
    found = Counter(int(draw_sample(models, shares, PLAIN, 16, 20, 0, k).info.model) for k in range(600))
    assert chisquare([found[k] for k in range(3)], 600 * shares).pvalue > 1e-3
    only = stream_half_maps([phantom(20), model], shares=(0, 2), patch=16, batch=8, config=replace(PLAIN, center=0.5))
    assert set(next(only).info.model) == {1}


@pytest.mark.parametrize("shares", [(1.0,), (1.0, -1.0), (0.0, 0.0), (1.0, float("nan"))])
def test_invalid_shares_raise(model, shares):
    with pytest.raises(UserError, match="shares of 0 or more for 2 models"):
        stream_half_maps([model, phantom(20)], shares=shares, patch=PATCH)


def test_resolutions_stay_within_their_limits(model):
    models = prepare_models([model], 0.6)
    config = replace(PLAIN, voxel_size=(0.6, 2.2), resolution=(2.1, 5.0), resolution_limits=(2.0, 8.0))
    drawn = [draw_sample(models, np.ones(1), config, 16, 20, 0, k).info for k in range(300)]
    voxel_size, resolution = np.array([(sample.voxel_size, sample.resolution) for sample in drawn], np.float64).T
    assert (resolution > 1.9999).all()
    assert (resolution < 8.0001).all()
    assert (resolution / voxel_size > 2.0999).all()
    assert (resolution / voxel_size < 5.0001).all()
    # Where limits leave nothing, the end of the range in voxels that is nearest to them.
    far = replace(PLAIN, voxel_size=(1.0, 1.0), resolution=(2.1, 5.0), resolution_limits=(20.0, 30.0))
    assert draw_sample(models, np.ones(1), far, 16, 20, 0, 0).info.resolution == pytest.approx(5.0)


def test_b_factors_are_within_their_multiples_of_the_squared_resolution(model):
    models = prepare_models([model], 1.0)
    config = replace(PLAIN, b_factor=(0.0, 1000.0), least_falloff=4.0, falloff=9.0)
    drawn = [draw_sample(models, np.ones(1), config, 16, 20, 0, k).info for k in range(200)]
    multiple = np.array([(info.b_factor + models[0].best_b) / info.resolution**2 for info in drawn])
    assert 4.0 - 1e-3 <= multiple.min() < 4.3
    assert 8.7 < multiple.max() <= 9.0 + 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("b_factor", [150.0, 450.0])
def test_blur_is_the_one_that_denoising_gives_to_whole_half_maps(b_factor):
    atoms = phantom(2500, seed=2)
    settings = SimulationConfig(voxel_size=1.5, resolution=5.0, seed=3, b_factor=b_factor, box=120)
    pair = simulate_half_maps(atoms, settings)
    found = find_grid([pair.half_map_1, pair.half_map_2], 1.5, pair.mask, voxels=3.3)
    (prepared,) = prepare_models([atoms], 1.5)
    frequency = np.linspace(0, 0.5 / 1.5 * np.sqrt(3), 96)
    own = prepared.best_blur(5.0, b_factor, frequency, np.ones(96))
    assert own == pytest.approx(found.blur, abs=25.0)  # one squared resolution
    assert abs(own) > 50


def test_best_falloff_blurs_signal_and_noise_alike(model):
    models = prepare_models([model], 1.0)
    wide = replace(PLAIN, resolution=(2.6, 3.6), b_factor=(5.0, 400.0), falloff=16.0)
    for position in range(20):
        plain, best, spread = (
            draw_sample(models, np.ones(1), config, 16, 20, 0, position)
            for config in (wide, replace(wide, best_falloff=True), replace(wide, best_falloff=True, falloff_spread=2.0))
        )
        more = float(best.info.b_factor) - float(plain.info.b_factor)
        resolution = float(plain.info.resolution)
        reached = np.minimum(plain.frequency, np.inf if more > 0 else 1 / resolution)
        expected = plain.amplitude * np.exp(-more * reached**2 / 4)
        np.testing.assert_allclose(best.amplitude, expected / expected.max(), rtol=1e-4)
        assert abs(float(spread.info.b_factor) - float(best.info.b_factor)) <= 2 * resolution**2 + 1e-3
        assert float(best.info.b_factor) + models[0].best_b >= LEAST_B - 1e-3


def test_flexible_side_is_blurred_by_its_b_factor_and_the_other_side_unchanged(model):
    plain = batch_of(model)
    moved = batch_of(model, flexible=1.0, flexible_b=(200.0, 200.0))
    assert (plain.info.flexible_b == 0).all()
    np.testing.assert_allclose(moved.info.flexible_b, 200)
    models = prepare_models([model], PLAIN.voxel_size[0])
    for index in range(4):
        normal_x, normal_y, normal_z, height = draw_sample(
            models, np.ones(1), replace(PLAIN, flexible=1.0), PATCH, 80, 0, index
        ).plane
        voxel_size = float(plain.info.voxel_size[index])
        line = (np.arange(PATCH) - PATCH / 2) * voxel_size
        beyond = normal_z * line[:, None, None] + normal_y * line[:, None] + normal_x * line - height
        before, after = (np.asarray(batch.truth[index], np.float64) for batch in (plain, moved))
        np.testing.assert_allclose(after[beyond < -15], before[beyond < -15], atol=0.01 * before.max())
        falloff = np.exp(-200 * (frequencies(PATCH) / voxel_size) ** 2 / 4)
        blurred = np.fft.ifftn(np.fft.fftn(before) * falloff).real
        inner = np.zeros_like(before, bool)
        inner[8:-8, 8:-8, 8:-8] = True  # the patch's own borders are not those of the box that was blurred
        chosen = inner & (beyond > 15)
        np.testing.assert_allclose(after[chosen], blurred[chosen], atol=0.03 * before.max())


def test_sharpening_amplifies_signal_and_noise_alike(model):
    plain, sharp = batch_of(model), batch_of(model, sharpened=1.0)
    for index in range(4):
        b_factor, voxel_size = float(sharp.info.sharpened[index]), float(plain.info.voxel_size[index])
        assert 0 < b_factor <= 32 * voxel_size**2 + 1e-3
        assert plain.info.b_factor[index] - b_factor == pytest.approx(sharp.info.b_factor[index], abs=1e-3)
        growth = np.exp(b_factor * np.minimum(frequencies(PATCH) / voxel_size, 0.5 / voxel_size) ** 2 / 4)
        before, after = (np.asarray(batch.truth[index], np.float64) for batch in (plain, sharp))
        inner = (slice(8, -8),) * 3  # the patch's own borders are not those of the box
        expected = np.fft.ifftn(np.fft.fftn(before) * growth).real[inner]
        assert np.corrcoef(expected.ravel(), after[inner].ravel())[0, 1] > 0.99
        assert after[inner].std() == pytest.approx(expected.std(), rel=0.05)
        # White noise takes the curve itself; its level is solved anew, by what is near the resolution.
        noise = np.asarray(sharp.half_map_1[index], np.float64) - after
        power = np.abs(np.fft.fftn(noise * window())) ** 2
        shells = [(low <= frequencies(PATCH)) & (frequencies(PATCH) < low + 0.1) for low in (0.1, 0.2, 0.3, 0.4)]
        found = np.array([power[shell].mean() for shell in shells])
        growth_by_shell = np.array([(growth[shell] ** 2).mean() for shell in shells])
        np.testing.assert_allclose(found / found[0], growth_by_shell / growth_by_shell[0], rtol=0.2)


def test_bulk_solvent_lowers_the_contrast_at_low_frequencies(model):
    """The noise-free density is that of a vacuum less the density blurred by the solvent's B-factor, times its scale.

    The blur is done in real space, and compared where the patch's borders do not matter."""
    settings = {"resolution": (3.6, 4.0), "bulk_solvent_scale": (0.4, 0.9), "bulk_solvent_b": (60.0, 300.0)}
    vacuum, batch = batch_of(model, resolution=(3.6, 4.0)), batch_of(model, bulk_solvent=1.0, **settings)
    np.testing.assert_array_equal(vacuum.info.center, batch.info.center)
    inner = (slice(8, -8),) * 3
    for index, truth in enumerate(np.asarray(vacuum.truth)):
        scale, b_factor = float(batch.info.bulk_solvent_scale[index]), float(batch.info.bulk_solvent_b[index])
        assert 0.4 <= scale <= 0.9
        assert 60 <= b_factor <= 300
        sigma = np.sqrt(b_factor / (8 * np.pi**2)) / float(batch.info.voxel_size[index])
        expected = truth - scale * ndimage.gaussian_filter(truth, sigma)
        np.testing.assert_allclose(batch.truth[index][inner], expected[inner], atol=0.03 * truth.std())
    assert np.all(batch.info.noise < vacuum.info.noise)  # weaker signal at the resolution, so less noise


def test_some_samples_are_in_a_vacuum_and_the_solvent_is_not_wider_than_a_patch(model):
    models = prepare_models([model], 0.8)
    config = replace(PLAIN, bulk_solvent=0.4, bulk_solvent_b=(40.0, 5000.0), voxel_size=(0.8, 0.8))
    infos = [draw_sample(models, np.ones(1), config, 16, 20, 0, k).info for k in range(300)]
    drawn = [info for info in infos if info.bulk_solvent_scale > 0]
    assert 0.3 < len(drawn) / 300 < 0.5
    assert max(info.bulk_solvent_b for info in drawn) == np.float32(700 * 0.8**2)
    assert min(info.bulk_solvent_b for info in drawn) < 60
    assert all(info.bulk_solvent_b == 0 for info in infos if info.bulk_solvent_scale == 0)


@pytest.mark.parametrize(
    "field", [{"bulk_solvent": 1.5}, {"bulk_solvent_scale": (0.5, 1.0)}, {"bulk_solvent_b": (0, 9)}]
)
def test_an_invalid_bulk_solvent_raises(field):
    with pytest.raises(UserError, match=next(iter(field))):
        StreamConfig(**field).check(64)


def test_low_pass_filters_both_half_maps_and_not_the_truth(model):
    plain, passed = batch_of(model, resolution=(3.6, 4.0)), batch_of(model, resolution=(3.6, 4.0), low_passed=1.0)
    np.testing.assert_allclose(plain.truth, passed.truth, rtol=1e-5, atol=1e-5)
    for index in range(4):
        end = float(passed.info.low_pass[index])
        resolution, voxel_size = (float(values[index]) for values in (plain.info.resolution, plain.info.voxel_size))
        assert 1.25 <= end * resolution * 1.0001 <= 1.601
        pairs = [(batch.half_map_1[index], batch.half_map_2[index]) for batch in (plain, passed)]
        full = [np.asarray(first + second, np.float64) / 2 for first, second in pairs]
        noise = [np.asarray(first - second, np.float64) for first, second in pairs]
        below = frequencies(PATCH) < 0.7 * end * voxel_size
        beyond = frequencies(PATCH) > 1.15 * end * voxel_size
        for before, after in (full, noise):
            power = [np.abs(np.fft.fftn(spectrum * window())) ** 2 for spectrum in (before, after)]
            assert power[1][below].sum() == pytest.approx(power[0][below].sum(), rel=0.05)
            assert power[1][beyond].sum() < 0.01 * power[0][beyond].sum()
