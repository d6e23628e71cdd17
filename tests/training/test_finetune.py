"""Fine-tuning: the gain against a slow FSC, and old weights where there is none."""

import signal

import jax
import numpy as np
import pytest
from reference import losses as slow_losses

from crefjax.data.patches import Specimen
from crefjax.errors import UserError
from crefjax.models.unet3d import UNet3D, UNet3DConfig, apply_network
from crefjax.training.config import finetune_config
from crefjax.training.denoising import DenoisingTask
from crefjax.training.finetune import Improvement, evaluate_improvement, finetune, split
from crefjax.training.loop import Result
from crefjax.weights.store import load_weights, save_weights

NETWORK = UNet3DConfig(depth=1, down_width=3, up_width=3, last_widths=(3,))
ABOUT = {"source": "random numbers", "license": "none needed", "training": "none", "expected_input": "any map"}


@pytest.fixture(scope="module")
def specimen():
    return simulated(1.0)


def simulated(strength):
    """A smooth signal in noise of deviation 1, in a long box."""
    random = np.random.default_rng(4)
    shape = (24, 24, 96)
    frequency = np.sqrt(sum(f**2 for f in np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij")))
    signal = np.fft.ifftn(np.fft.fftn(random.standard_normal(shape)) * np.exp(-60 * frequency**2)).real
    signal *= strength / signal.std()
    mask = np.zeros(shape, np.float32)
    mask[1:-1, 1:-1, 1:-1] = 1
    maps = [((signal + random.standard_normal(shape)) * mask).astype(np.float32) for _ in range(2)]
    return Specimen("s", *maps, mask, 1.5, 0.0, 1.0)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    parameters = jax.jit(UNet3D(NETWORK).init)(jax.random.key(3), np.zeros((1, 8, 8, 8, 1), "f4"))["params"]
    folder = tmp_path_factory.mktemp("weights") / "small"
    save_weights(folder, parameters, NETWORK, ABOUT)
    return load_weights(folder)


def config(**fields):
    c = finetune_config()
    c.steps = 2
    c.data.patch = 16
    c.data.entries.held_out_patches = 6
    c.minutes = 0.0
    c.schedule.warmup = 0
    for name, value in fields.items():
        if name == "rate":
            c.schedule.rate = value
        else:
            c[name] = value
    return c


def test_no_voxel_is_in_two_parts(specimen):
    parts = split(specimen, config())
    masks = [part.mask > 0 for part in parts]
    assert all(mask.any() for mask in masks)
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert not (masks[first] & masks[second]).any()
    for part in parts:  # the maps have the weights of the mask
        inside = specimen.mask > 0
        np.testing.assert_allclose(part.half_map_1[inside], (specimen.half_map_1 * part.mask / 1.0)[inside], atol=1e-6)


def test_an_improvement_agrees_with_numpy_fsc(specimen, weights):
    task = DenoisingTask(NETWORK, {"fsc": 1.0})
    after = jax.tree.map(lambda array: array + np.float32(0.02), weights.parameters)
    test = split(specimen, config()).test
    before, now, error = evaluate_improvement(test, task, weights.parameters, after)
    z, y, x = (slice(i.min(), i.max() + 1) for i in np.nonzero(test.mask))
    maps = [half_map[z, y, x] for half_map in (test.half_map_1, test.half_map_2)]
    apply = jax.jit(lambda parameters, half: apply_network(parameters, half, NETWORK))
    denoised = [
        [np.asarray(apply(parameters, half[None, ..., None]))[0, ..., 0] for half in maps]
        for parameters in (weights.parameters, after)
    ]
    old, new = (
        (slow_losses.fsc(first, maps[1]) + slow_losses.fsc(second, maps[0]))[1:-1] / 2 for first, second in denoised
    )
    assert before == pytest.approx(old.mean(), abs=1e-5)
    assert now == pytest.approx(new.mean(), abs=1e-5)
    assert 0 < error < 0.2


def test_the_error_of_an_improvement_is_its_scatter_over_pairs_of_half_maps(weights):
    """The same two networks and the same signal, half-maps with other noise: how far the difference scatters."""
    task = DenoisingTask(NETWORK, {"fsc": 1.0})
    random = np.random.default_rng(7)
    after = jax.tree.map(
        lambda array: array + 0.1 * random.standard_normal(array.shape).astype("f4"), weights.parameters
    )
    found = []
    for number in range(40):
        judged = noise((24, 32, 40), 100 + number)
        found.append(evaluate_improvement(judged, task, weights.parameters, after))
    before, now, errors = np.array(found).T
    scatter = (now - before).std(ddof=1)
    assert 0.6 < np.sqrt(np.mean(errors**2)) / scatter < 1.7


def test_noise_is_significant_no_more_often_than_by_chance():
    """Two random networks on pure noise: neither is better, and one in 40 such cases may look so."""
    c = config()
    c.data.patch = 32
    task = DenoisingTask(NETWORK, {"fsc": 1.0})
    random = jax.jit(jax.vmap(lambda key: UNet3D(NETWORK).init(key, np.zeros((1, 8, 8, 8, 1), "f4"))["params"]))
    networks = random(jax.random.split(jax.random.key(0), 80))
    networks = [jax.tree.map(lambda array, n=n: array[n], networks) for n in range(80)]
    called = 0
    for number in range(40):
        test = split(noise((32, 32, 80), number), c).test
        gain = Improvement(*evaluate_improvement(test, task, *networks[2 * number : 2 * number + 2]), step=1, steps=1)
        swapped = Improvement(gain.after, gain.before, gain.error, 1, 1)
        called += gain.significant + swapped.significant
    assert called <= 6  # of 80 one-sided cases two are expected; more than six come once in 200 times


def noise(shape, seed):
    """A specimen of nothing but noise, smooth over neighbors as real noise is."""
    random = np.random.default_rng(seed)
    mask = np.zeros(shape, np.float32)
    mask[2:-2, 2:-2, 2:-2] = 1
    frequency = np.sqrt(sum(f**2 for f in np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij")))
    maps = [np.fft.ifftn(np.fft.fftn(random.standard_normal(shape)) * np.exp(-3 * frequency**2)).real for _ in range(2)]
    return Specimen("noise", *((map_ * mask).astype(np.float32) for map_ in maps), mask, 1.5, 0.0, 1.0)


@pytest.mark.slow
def test_fine_tuning_improves_weights_that_can_learn(tmp_path, specimen, weights):
    c = config(steps=30, epoch_steps=15, rate=1e-2)
    lines = []
    parameters, gain, stopped = finetune(specimen, weights, c, tmp_path, say=lines.append)
    assert stopped is None
    assert gain.steps == 30
    assert gain.step in (15, 30)
    assert gain.after > gain.before + 0.05
    assert gain.significant
    changed = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), parameters, weights.parameters)
    assert max(jax.tree.leaves(changed)) > 1e-3
    assert lines[0].startswith("step 0, held out: ")  # what is to be bettered


@pytest.mark.slow
def test_noise_alone_gives_no_significant_improvement(tmp_path, weights):
    """There is nothing to learn: neither half-map tells anything of the other."""
    c = config(steps=30, epoch_steps=15, rate=1e-2)
    parameters, gain, _ = finetune(simulated(0.0), weights, c, tmp_path, say=lambda line: None)
    assert not gain.significant
    assert abs(gain.after) < 0.1
    if gain.step == 0:
        assert gain.before == gain.after
        assert all(jax.tree.leaves(jax.tree.map(np.array_equal, parameters, weights.parameters)))


def test_a_specimen_too_small_for_its_parts_is_refused_before_training(tmp_path, weights):
    random, mask = np.random.default_rng(1), np.zeros((20, 20, 20), np.float32)
    mask[7:13, 7:13, 7:13] = 1
    small = Specimen("small", *random.standard_normal((2, 20, 20, 20)).astype("f4"), mask, 1.5, 0.0, 1.0)
    c = config()
    c.data.patch = 16
    with pytest.raises(UserError, match=r"small: expected a particle large enough .* of 16 .*; this one is too small"):
        finetune(small, weights, c, tmp_path)
    c.data.patch = 20
    with pytest.raises(UserError, match=r"small: expected a particle large enough .* of 20 voxels .* smaller patches"):
        finetune(small, weights, c, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_run_stopped_before_any_evaluation_reports_no_improvement(tmp_path, specimen, weights, monkeypatch):
    asked = []

    def stopped(config, workdir, *more, **options):
        asked.append(workdir)
        return Result(3, 40, signal.SIGTERM, None, None, weights.path)

    monkeypatch.setattr("crefjax.training.finetune.train", stopped)
    _, gain, number = finetune(specimen, weights, config(), tmp_path)
    assert asked == [tmp_path]
    assert number == signal.SIGTERM
    assert not gain.significant
    assert gain.describe() == "stopped at step 3, before any evaluation was finished; whether it helps is unknown"


@pytest.mark.parametrize(
    ("after", "error", "step", "significant"),
    [(0.55, 0.025, 20, True), (0.55, 0.026, 20, False), (0.45, 0.001, 20, False), (0.55, 0.001, 0, False)],
)
def test_an_improvement_is_significant_beyond_its_scatter(after, error, step, significant):
    gain = Improvement(0.5, after, error, step, 40)
    assert gain.significant is significant
    line = gain.describe()
    if not step:
        assert line == "no evaluated step of 40 was better than the start"
        return
    assert f"0.5000 before, {after:.4f} after ({after - 0.5:+.4f} ± {error:.4f})" in line
    assert line.endswith("a real gain" if significant else "no gain beyond the scatter")
    assert not Improvement(0.5, after, error, None, 40).significant
