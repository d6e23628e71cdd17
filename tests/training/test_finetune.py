"""Fine-tuning: the gain against a slow FSC, and old weights where there is none."""

import jax
import numpy as np
import pytest
import slow_losses

from crefjax.data.specimen import Specimen
from crefjax.errors import UserError
from crefjax.models.unet3d import UNet3D, UNet3DConfig, apply_network
from crefjax.training import presets
from crefjax.training.denoising import Denoising
from crefjax.training.finetune import Gain, finetune, judge
from crefjax.training.sources import specimen_source
from crefjax.weights.store import load_weights, save_weights

NETWORK = UNet3DConfig(depth=1, down_width=3, up_width=3, last_widths=(3,))
ABOUT = {"source": "random numbers", "licence": "none needed", "training": "none", "expected_input": "any map"}


@pytest.fixture(scope="module")
def specimen():
    return simulated(1.0)


def simulated(strength):
    """A smooth signal in noise of deviation 1, in a long box."""
    random = np.random.default_rng(4)
    shape = (24, 24, 64)
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
    c = presets.finetune()
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


def test_the_judge_is_the_slow_fsc_of_patches_that_did_not_choose(specimen, weights):
    task = Denoising(NETWORK, {"fsc": 1.0})
    after = jax.tree.map(lambda array: array + np.float32(0.02), weights.parameters)
    before, now, error, patches = judge(specimen, task, weights.parameters, after, config())
    judging = list(specimen_source([specimen], config(), 1, every_other=1).held_out())
    apply = jax.jit(lambda parameters, half: apply_network(parameters, half, NETWORK))

    def fsc(parameters, samples):
        halves = [samples.batch[name] for name in ("half_map_1", "half_map_2")]
        denoised = [np.asarray(apply(parameters, half[..., None]))[0, ..., 0] for half in halves]
        return 1 - slow_losses.fsc_loss(*denoised, *(half[0] for half in halves))

    expected = np.array([[fsc(one, samples) for one in (weights.parameters, after)] for samples in judging])
    assert patches == len(judging) == 3
    assert before == pytest.approx(expected[:, 0].mean(), abs=1e-5)
    assert now == pytest.approx(expected[:, 1].mean(), abs=1e-5)
    difference = expected[:, 1] - expected[:, 0]
    spread = np.sqrt(((difference - difference.mean()) ** 2).sum() / (patches - 1))
    assert error >= spread / np.sqrt(patches) * 0.999
    chosen = [
        one.batch["half_map_1"].tobytes() for one in specimen_source([specimen], config(), 1, every_other=0).held_out()
    ]
    assert not {one.batch["half_map_1"].tobytes() for one in judging} & set(chosen)


def test_weights_that_can_learn_do(specimen, weights):
    c = config(steps=30, epoch_steps=15, rate=1e-2)
    lines = []
    parameters, gain, stopped = finetune(specimen, weights, c, say=lines.append)
    assert stopped is None
    assert gain.steps == 30
    assert gain.step in (15, 30)
    assert gain.after > gain.before + 0.05
    assert gain.real
    changed = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), parameters, weights.parameters)
    assert max(jax.tree.leaves(changed)) > 1e-3
    assert lines[0].startswith("step 0, held out: ")  # what is to be bettered


def test_noise_alone_is_no_gain(weights):
    """There is nothing to learn: neither half-map tells anything of the other."""
    c = config(steps=30, epoch_steps=15, rate=1e-2)
    parameters, gain, _ = finetune(simulated(0.0), weights, c, say=lambda line: None)
    assert not gain.real
    assert abs(gain.after) < 0.1
    if gain.step == 0:
        assert gain.before == gain.after
        assert all(jax.tree.leaves(jax.tree.map(np.array_equal, parameters, weights.parameters)))


def test_a_specimen_too_small_to_judge_by_is_refused_before_training(weights):
    random, mask = np.random.default_rng(1), np.ones((20, 20, 20), np.float32)
    small = Specimen("small", *random.standard_normal((2, 20, 20, 20)).astype("f4"), mask, 1.5, 0.0, 1.0)
    c = config()
    c.data.patch = 24
    with pytest.raises(UserError, match=r"small: expected at least 2 held-out patches of 24 voxels .* smaller patches"):
        finetune(small, weights, c)


@pytest.mark.parametrize(
    ("after", "error", "step", "real"),
    [(0.55, 0.02, 20, True), (0.55, 0.03, 20, False), (0.45, 0.001, 20, False), (0.55, 0.02, 0, False)],
)
def test_a_gain_is_real_beyond_two_standard_errors(after, error, step, real):
    gain = Gain(0.5, after, error, 8, step, 40)
    assert gain.real is real
    line = gain.describe()
    assert f"0.5000 before, {after:.4f} after ({after - 0.5:+.4f} ± {error:.4f} over 8 patches)" in line
    assert line.endswith("a real gain" if real else "no gain beyond the scatter")
