from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kstest

from crefjax.errors import UserError
from crefjax.simulate.density import density, scatterers
from crefjax.simulate.noise import NoiseSpectrum
from crefjax.simulate.phantom import phantom
from crefjax.simulate.specimen import truth_mask
from crefjax.simulate.stream import StreamConfig
from crefjax.simulate.stream.batches import stream_half_maps
from crefjax.simulate.stream.draw import draw_sample
from crefjax.simulate.stream.models import prepare_models

PATCH = 32
CONFIG = StreamConfig(resolution=(2.2, 3.0), solvent=0.0, center=0.5)


@pytest.fixture(scope="module")
def model():
    return phantom(80)


@pytest.fixture(scope="module")
def make(model):
    def make(models=(model,), *, patch=PATCH, batch=4, config=CONFIG, **options):
        return stream_half_maps(models, patch=patch, batch=batch, config=config, **options)

    return make


def in_numpy(batch):
    """The maps and the noise's deviation, as arrays of the host."""
    return [np.asarray(array) for array in batch[:5]]


@pytest.fixture(scope="module")
def samples(make):
    """24 samples: maps, each `(24, z, y, x)`, and what is known of them."""
    stream = make(phantoms=1)
    batches = [next(stream) for _ in range(6)]
    maps = [np.concatenate(sample) for sample in zip(*map(in_numpy, batches), strict=True)]
    info = [np.concatenate(sample_info) for sample_info in zip(*(batch.info for batch in batches), strict=True)]
    return (*maps, type(batches[0].info)(*info))


def falling_off(patch):
    """1 in the middle, a raised cosine to 0 at the borders over an eighth of the side."""
    edge = patch // 8
    ramp = (1 - np.cos(np.pi * (np.arange(edge) + 0.5) / edge)) / 2
    line = np.concatenate([ramp, np.ones(patch - 2 * edge), ramp[::-1]])
    return line[:, None, None] * line[:, None] * line


def shell_sums(values):
    side = len(values)
    k = np.fft.fftfreq(side, 1 / side)
    shell = np.floor(np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2) + 0.5).astype(int).ravel()
    return np.bincount(shell, values.ravel())[: side // 2 + 1]


def numpy_fsc(map_1, map_2):
    f1, f2 = (np.fft.fftn(map_.astype(float) * falling_off(len(map_))) for map_ in (map_1, map_2))
    cross, p1, p2 = map(shell_sums, ((f1 * f2.conj()).real, np.abs(f1) ** 2, np.abs(f2) ** 2))
    return cross / np.sqrt(p1 * p2)


def crossing(fsc, threshold=0.143):
    """The shell at which a curve first falls below the threshold."""
    below = [*(np.flatnonzero(fsc[1:] < threshold) + 1), len(fsc) - 1][0]
    return below - 1 + (fsc[below - 1] - threshold) / (fsc[below - 1] - fsc[below])


def direct(model, info, index):
    """The density of the turned model in a large box, and that box's mask, cut to the patch."""
    voxel_size, side = float(info.voxel_size[index]), 96
    turned = (model.positions - info.center[index]) @ info.rotation[index].T
    # The sharpest tenth of the atoms is as sharp as the next one.
    b_factor = np.maximum(model.b_factor, np.percentile(model.b_factor, 10)).astype(np.float32)
    whole = density(
        scatterers(replace(model, positions=turned.astype(np.float32), b_factor=b_factor), voxel_size),
        (side,) * 3,
        voxel_size,
        origin=(-side / 2 * voxel_size,) * 3,
        b_factor=float(info.b_factor[index]),
    )
    inner = (slice((side - PATCH) // 2, (side + PATCH) // 2),) * 3
    return np.asarray(whole)[inner], truth_mask(np.asarray(whole), voxel_size)[inner]


def test_shapes_and_info_of_a_batch(make):
    stream = make(phantoms=1)
    assert stream.names == ("phantom", "phantom 0")
    assert stream.spectra == ("white", "b_factor", "power")
    batch = next(stream)
    for map_ in batch[:4]:
        assert map_.shape == (4, PATCH, PATCH, PATCH)
        assert map_.dtype == np.float32
        assert np.isfinite(map_).all()
    assert batch.info.position.tolist() == [0, 1, 2, 3]
    ratio = batch.info.resolution / batch.info.voxel_size
    assert ((ratio >= 2.2) & (ratio <= 3.0)).all()
    assert ((batch.info.voxel_size >= 0.8) & (batch.info.voxel_size <= 1.6)).all()


def test_samples_are_identical_for_any_batch_size_and_start(make):
    stream, other = make(), make(batch=3)
    ours = [next(stream) for _ in range(3)]
    theirs = [next(other) for _ in range(4)]
    assert stream.get_state() == other.get_state()
    assert {name: stream.get_state()[name] for name in ("seed", "position")} == {"seed": 0, "position": 12}
    for first, second in zip(
        zip(*map(in_numpy, ours), strict=True), zip(*map(in_numpy, theirs), strict=True), strict=True
    ):
        np.testing.assert_array_equal(np.concatenate(first), np.concatenate(second))
    later = make(start=4)
    stream.set_state({"seed": 0, "position": 4})
    for resumed in (later, stream):
        for first, second in zip(in_numpy(next(resumed)), in_numpy(ours[1]), strict=True):
            np.testing.assert_array_equal(first, second)
        assert resumed.get_state()["position"] == 8


def test_another_seed_gives_another_stream(make):
    first, second = (next(make(seed=seed)) for seed in (1, 2))
    assert not np.intersect1d(first.info.voxel_size, second.info.voxel_size).size
    noises = [np.asarray(batch.half_map_1 - batch.truth)[0].ravel() for batch in (first, second)]
    assert abs(np.corrcoef(*noises)[0, 1]) < 0.05


def test_truth_and_mask_are_those_of_the_whole_model(make, model):
    batch = next(make(start=20, config=replace(CONFIG, b_factor=(60.0, 150.0), falloff=20.0)))
    for index in range(4):
        truth, mask = direct(model, batch.info, index)
        # What is missing are the ripples of atoms beyond the box, which a sharp end of the spectrum makes.
        np.testing.assert_allclose(batch.truth[index], truth, atol=0.02 * truth.max())
        assert np.std(batch.truth[index] - truth) < 0.01 * truth.std()
        assert np.corrcoef(np.ravel(batch.truth[index]), truth.ravel())[0, 1] > 0.9999
        assert np.abs(np.asarray(batch.mask[index]) - mask).mean() < 0.02


def test_noise_is_independent_and_as_strong_as_reported(samples):
    half_1, half_2, _, truth, deviation, _ = samples
    noise_1, noise_2 = half_1 - truth, half_2 - truth
    curves = np.array([numpy_fsc(*pair) for pair in zip(noise_1, noise_2, strict=True)])
    assert np.abs(curves[:, 5:].mean(0)).max() < 0.05
    np.testing.assert_allclose(noise_1.std((1, 2, 3)) / noise_2.std((1, 2, 3)), 1, atol=0.05)
    np.testing.assert_allclose(np.median(noise_1.std((1, 2, 3)) / deviation), 1, atol=0.1)


def test_fsc_crosses_at_the_requested_resolution(samples):
    half_1, half_2, mask, *_, info = samples
    curves = [numpy_fsc(*pair) for pair in zip(half_1 * mask, half_2 * mask, strict=True)]
    found = [crossing(curve) for curve in curves]
    asked = PATCH * info.voxel_size / info.resolution
    there = [np.interp(where, np.arange(len(curve)), curve) for where, curve in zip(asked, curves, strict=True)]
    np.testing.assert_allclose(np.mean(there), 0.143, atol=0.03)
    np.testing.assert_allclose(np.median(found / asked), 1, atol=0.05)
    assert np.mean(np.abs(found / asked - 1) < 0.1) > 0.7


def test_full_map_correlates_with_the_truth_as_c_ref_predicts(samples):
    half_1, half_2, mask, truth, *_ = samples
    halves = [numpy_fsc(*pair) for pair in zip(half_1 * mask, half_2 * mask, strict=True)]
    true = [numpy_fsc(*pair) for pair in zip((half_1 + half_2) / 2 * mask, truth * mask, strict=True)]
    h = np.clip(halves, 0.143, 1)
    difference = np.where(np.array(halves) > 0.143, np.array(true) - np.sqrt(2 * h / (1 + h)), np.nan)
    assert np.abs(np.nanmean(difference[:, 3:12], axis=0)).max() < 0.03


def test_measured_spectrum_and_even_noise(make):
    step = NoiseSpectrum(np.float32([0, 0.15, 0.16, 2]), np.float32([1, 1, 0.2, 0.2]), "step")
    stream = make(config=replace(CONFIG, spectra=(step,), unevenness=(0, 0), voxel_size=(1.0, 1.0)))
    assert stream.spectra == ("step",)
    batch = next(stream)
    power = sum(shell_sums(np.abs(np.fft.fftn(noise)) ** 2) for noise in np.asarray(batch.half_map_1 - batch.truth))
    power = power / shell_sums(np.ones((PATCH,) * 3))
    np.testing.assert_allclose(power[2:4].mean() / power[7:14].mean(), 25, rtol=0.3)


def test_solvent_has_the_noise_of_a_map(make):
    batch = next(make(config=replace(CONFIG, solvent=1.0, center=0.0)))
    assert (batch.info.place == 2).all()
    assert np.mean(batch.mask) < 0.4
    particle = next(make(config=replace(CONFIG, solvent=0.0, center=1.0)))
    ratio = np.asarray(batch.noise_std / particle.noise_std)  # the other numbers are drawn alike
    assert ((ratio > 0.1) & (ratio < 5)).all()


def test_belt_lies_outside_the_model_and_is_the_same_in_both_halves(make):
    plain = next(make())
    belted = next(make(config=replace(CONFIG, belt=1.0, belt_strength=(0.6, 0.6))))
    np.testing.assert_array_equal(plain.info.rotation, belted.info.rotation)
    belt = np.asarray(belted.truth - plain.truth)
    assert (belt.max((1, 2, 3)) > 0).all()
    weighted = np.asarray(plain.truth)
    inside = weighted > 0.3 * weighted.max((1, 2, 3), keepdims=True)
    assert np.abs(belt[inside]).mean() < 0.2 * np.abs(belt[~inside]).max()
    noise = [np.asarray(half - belted.truth) for half in (belted.half_map_1, belted.half_map_2)]
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.05


def test_rotations_are_proper_and_uniform(model):
    models = prepare_models([model], 0.8)
    rotations = np.array(
        [
            draw_sample(models, np.full(len(models), 1 / len(models)), CONFIG, 16, 40, 3, k).info.rotation
            for k in range(600)
        ],
        np.float64,
    )
    np.testing.assert_allclose(
        rotations @ rotations.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (600, 3, 3)), atol=1e-6
    )
    np.testing.assert_allclose(np.linalg.det(rotations), 1, atol=1e-6)
    for row, column in np.ndindex(3, 3):  # every component of a turned unit vector is even over -1 to 1
        assert kstest(rotations[:, row, column], "uniform", (-1, 2)).pvalue > 1e-4
    angle = np.arccos(np.clip((np.trace(rotations, axis1=1, axis2=2) - 1) / 2, -1, 1))
    assert kstest(angle, lambda a: (a - np.sin(a)) / np.pi).pvalue > 1e-4


def test_atoms_are_those_in_the_cube(model):
    models = prepare_models([phantom(20), model], 0.8)
    for position in range(8):
        drawn = draw_sample(models, np.full(len(models), 1 / len(models)), CONFIG, 16, 20, 0, position)
        chosen, first = ((phantom(20), 0), (model, len(phantom(20))))[drawn.info.model]
        turned = (chosen.positions - drawn.info.center) @ drawn.info.rotation.T
        inside = np.abs(turned).max(1) <= 10 * drawn.info.voxel_size
        np.testing.assert_array_equal(drawn.atoms, first + np.flatnonzero(inside))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"models": ()}, "expected atomic models or phantoms, found none"),
        ({"models": [Path("none.cif")]}, "none.cif: .* no such file"),
        ({"patch": 33}, "even side, found 33"),
        ({"patch": 8}, "patches of 16 to 512, found 8"),
        ({"patch": 32.5}, "found 32.5"),
        ({"batch": 0}, "a batch of 1"),
        ({"seed": -1}, "a seed of 0"),
        ({"start": -1}, "a position of 0"),
        (
            {"config": StreamConfig(resolution=(1.9, 3.0))},
            r"resolution .* within 2 to 8 voxels \(2 is Nyquist\).* found 1.9",
        ),
        ({"config": StreamConfig(resolution=(2.0, 3.0))}, "above 2 voxels"),
        ({"config": StreamConfig(resolution=(2.5, 20.0))}, "found 2.5 to 20"),
        ({"config": StreamConfig(voxel_size=(1.5, 1.0))}, "voxel_size"),
        ({"config": StreamConfig(b_factor=(float("nan"), 10.0))}, "b_factor"),
        ({"config": StreamConfig(spectra=("pink",))}, "found .'pink'"),
        ({"config": StreamConfig(spectra=(NoiseSpectrum(np.zeros(1), np.zeros(1), "none"),))}, "above 0 .* 'none'"),
        ({"config": StreamConfig(falloff=8.0, least_falloff=9.0)}, "least_falloff of 0 to falloff = 8, found 9"),
        ({"config": StreamConfig(falloff_spread=11.0)}, "falloff_spread of 0 to 10, found 11"),
        ({"config": StreamConfig(center=0.7, solvent=0.7)}, "center and solvent to add up to at most 1"),
    ],
)
def test_invalid_options_raise(make, options, match):
    with pytest.raises(UserError, match=match) as caught:
        make(**options)
    assert "\n" not in str(caught.value)


def test_a_state_of_another_stream_raises(make):
    with pytest.raises(UserError, match="position saved with seed 0"):
        make().set_state({"seed": 1, "position": 4})
