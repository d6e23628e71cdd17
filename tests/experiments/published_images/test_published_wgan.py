"""The Wasserstein GAN with a gray constraint: losses, noise, size, and training in turn."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.broken_off import run_and_resume
from helpers.cli import run_crefjax

from crefjax.errors import UserError
from crefjax.io.stacks import ImageStack
from experiments.images import wgan
from experiments.images.common import clip_weights, every, optimize_each
from experiments.images.wgan import SETTINGS, WganConfig, WganTask

TINY = WganConfig(depth=2, width=4, critic_depth=1)
FIELDS = {"network__depth": 2, "network__width": 4, "network__critic_depth": 1, "settings__critic_steps": 2}
TASK = WganTask(TINY, {}, settings=SETTINGS)


def size(shapes):
    return sum(np.prod(shape) for shape in jax.tree.leaves(shapes, is_leaf=lambda leaf: isinstance(leaf, tuple)))


def test_sizes_are_those_of_pix2pix_for_one_channel():
    """54.4 million parameters in the generator and 2.8 million in the critic, as published."""
    down = [(1, 64), (64, 128), (128, 256), (256, 512), *4 * [(512, 512)]]
    up = [(512, 512), *3 * [(1024, 512)], (1024, 256), (512, 128), (256, 64), (128, 1)]
    critic = [(1, 64), (64, 128), (128, 256), (256, 512), (512, 1)]
    shapes = wgan.MODEL.parameter_shapes(WganConfig())
    counts = [sum(4 * 4 * i * o + o for i, o in layers) for layers in (down + up, critic)]
    assert [size(shapes["generator"]), size(shapes["critic"])] == counts == [54_403_457, 2_762_689]


def test_losses_are_the_papers_and_each_trains_its_own_network(monkeypatch):
    """With a critic D(x) = w mean(x), all gradients are known."""
    monkeypatch.setattr(wgan, "criticize", lambda critic, images, config: critic * images.mean((1, 2, 3)))
    random = np.random.default_rng(0)
    denoised, clean = random.standard_normal((2, 3, 8, 8, 1)).astype(np.float32)
    w = np.float32(0.7)

    def total(w, denoised):
        losses, parts = TASK.losses(w, denoised, clean)
        return losses.sum(), parts

    (_, parts), (of_critic, of_denoised) = jax.value_and_grad(total, (0, 1), has_aux=True)(w, denoised)
    gray = 0.1 * ((clean - denoised) ** 2).mean((1, 2, 3))
    np.testing.assert_allclose(parts["generator"], w * denoised.mean((1, 2, 3)) + gray, rtol=1e-5)
    np.testing.assert_allclose(parts["critic"], w * (clean - denoised).mean((1, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(of_critic, clean.mean((1, 2, 3)).sum() - denoised.mean((1, 2, 3)).sum(), rtol=1e-4)
    np.testing.assert_allclose(of_denoised, (w + 0.2 * (denoised - clean)) / 64, rtol=1e-4, atol=1e-7)


def test_gaussian_noise_is_on_0_to_255_and_its_psnr_the_definition():
    """Noise of sigma 40 has 10 log10(255^2 / 40^2) = 16.09 dB."""
    clean = np.random.default_rng(1).standard_normal((2, 1, 64, 64)).astype(np.float32)
    grays = wgan.to_grays(jnp.asarray(clean[:, 0, ..., None]))
    assert np.allclose(grays.min((1, 2, 3)), 0)
    assert np.allclose(grays.max((1, 2, 3)), 255)
    batch = {"half_map_1": clean, "half_map_2": clean, "truth": clean}
    noisy, standardized = TASK.noisy_pair(batch, 40.0, jax.random.key(0))
    scale = float((grays - grays.mean((1, 2, 3), keepdims=True)).std()) / float(standardized.std())
    assert float((noisy - standardized).std()) * scale == pytest.approx(40, rel=0.03)
    parameters = jax.tree.map(jnp.zeros_like, wgan.init(jax.random.key(0), TINY))
    metrics = TASK.metrics(parameters, batch)  # of a generator that changes nothing
    np.testing.assert_allclose(metrics["psnr_noisy"], 16.09, atol=0.35)  # 4 of its standard deviations
    np.testing.assert_allclose(metrics["psnr"], metrics["psnr_noisy"], atol=0.01)
    np.testing.assert_allclose(metrics["loss"], metrics["noisy"], rtol=1e-5)


def test_without_sigma_the_noise_is_that_of_the_set():
    random = np.random.default_rng(1)
    batch = dict(zip(("half_map_1", "half_map_2", "truth"), random.standard_normal((3, 2, 1, 8, 8)), strict=True))
    noisy, clean = TASK.noisy_pair(batch, None, jax.random.key(0))
    np.testing.assert_allclose(noisy[..., 0], (batch["half_map_1"] + batch["half_map_2"])[:, 0] / 2, rtol=1e-6)
    np.testing.assert_allclose(clean[..., 0], batch["truth"][:, 0], rtol=1e-6)


def test_networks_take_turns_and_weights_stay_within_their_limit():
    """By hand: one of rate 1 changes at every third step, one is clipped to 0.5, and one is left as it is."""
    rules = {"a": every(3, optax.sgd(1.0)), "b": optax.chain(optax.sgd(0.2), clip_weights(0.5)), "c": None}
    optimizer = optimize_each(rules)
    parameters = {name: {"w": jnp.zeros(2)} for name in rules}
    state, found = optimizer.init(parameters), []
    for _ in range(6):
        updates, state = optimizer.update(jax.tree.map(jnp.ones_like, parameters), state, parameters)
        parameters = optax.apply_updates(parameters, updates)
        found.append([float(parameters[name]["w"][0]) for name in rules])
    np.testing.assert_allclose(np.transpose(found)[0], [0, 0, -1, -1, -1, -2])
    np.testing.assert_allclose(np.transpose(found)[1], [-0.2, -0.4, -0.5, -0.5, -0.5, -0.5], rtol=1e-6)
    np.testing.assert_allclose(np.transpose(found)[2], 0)


def test_images_of_any_sides_are_denoised_one_by_one():
    parameters = wgan.init(jax.random.key(0), TINY)
    x = jnp.asarray(np.random.default_rng(3).standard_normal((2, 1, 9, 14, 1)), jnp.float32)
    both = wgan.apply(parameters, x, TINY)
    assert both.shape == x.shape
    assert not np.allclose(both, x)
    np.testing.assert_allclose(wgan.apply(parameters, x[1:], TINY), both[1:], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_it_is_trained_and_resumed_and_its_weights_denoise(tmp_path, tiny_config, image_set):
    config = tiny_config("experiments.images.wgan", **FIELDS)
    start = WganTask.of_config(config).init(jax.random.key(0))
    weights = run_and_resume(config, tmp_path)
    for name in ("generator", "critic"):
        changed = jax.tree.map(lambda a, b: not np.array_equal(a, b), start[name], weights.parameters[name])
        assert any(jax.tree.leaves(changed)), name
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(weights.parameters["critic"]))
    assert 0.0009 < largest <= 0.001 * (1 + 1e-5)
    output = tmp_path / "out.mrcs"
    outcome = run_crefjax("images", "denoise", image_set / "images.mrcs", "-o", output, "--weights", weights.path)
    assert outcome.status == 0, outcome.err
    with ImageStack(output) as stack:
        assert stack.count == 8
        assert np.isfinite(stack.read(slice(None))).all()


def test_a_range_of_sigma_that_is_none_is_refused(tiny_config):
    config = tiny_config("experiments.images.wgan", **FIELDS, settings__sigma=(80.0, 10.0))
    with pytest.raises(UserError, match=r"settings\.sigma: expected two numbers, the smaller one first"):
        wgan.make_task(config)
