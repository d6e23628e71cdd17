"""The conditional diffusion: schedule, refinement, objective, size, and training in two stages."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.broken_off import run, run_and_resume, same
from helpers.cli import run_crefjax

from crefjax.errors import UserError
from crefjax.io.stacks import ImageStack
from crefjax.weights.store import load_weights
from experiments.images import diffusion
from experiments.images.diffusion import DiffusionConfig, DiffusionTask, refine
from experiments.images.noise_levels import draw_levels, noise_levels
from experiments.images.set_schedule import main, set_schedule

TINY = DiffusionConfig(width=8, multipliers=(1, 2), post_depth=1, steps=3)
FIELDS = {"network__width": 8, "network__multipliers": (1, 2), "network__post_depth": 1, "network__steps": 3}


def test_linear_levels_are_the_closed_form_and_near_the_product_of_two_thousand_steps():
    """SR3's training schedule: beta from 1e-6 to 1e-2 in 2000 steps; the limit drops terms of beta^2 / 2."""
    levels = np.asarray(noise_levels("linear", 2000), np.float64)
    product = np.cumprod(1 - np.linspace(1e-6, 1e-2, 2000))
    np.testing.assert_allclose(levels, product, atol=2e-3)
    np.testing.assert_allclose(levels[[499, 1999]], [0.535027, 4.53546e-05], rtol=1e-4)  # exp(-0.62544), exp(-10.001)


def test_cosine_levels_are_the_closed_form():
    s = np.arange(1, 11) / 10
    expected = np.cos(np.pi / 2 * (s + 0.008) / 1.008) ** 2 / np.cos(np.pi / 2 * 0.008 / 1.008) ** 2
    np.testing.assert_allclose(noise_levels("cosine", 10)[:9], expected[:9], rtol=1e-4)
    assert noise_levels("cosine", 10)[9] == np.float32(1e-4)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_levels_fall_from_near_one_and_do_not_depend_on_the_number_of_steps(schedule):
    fine, coarse = np.asarray(noise_levels(schedule, 100)), np.asarray(noise_levels(schedule, 20))
    assert np.all(np.diff(fine) < 0)
    assert 0.99 < fine[0] < 1
    np.testing.assert_allclose(coarse, fine[4::5], rtol=1e-5)


def test_training_levels_lie_evenly_between_neighbors():
    levels = jnp.array([0.8, 0.2])
    drawn = np.asarray(draw_levels(jax.random.key(0), 4000, levels))
    assert 0.2 <= drawn.min() < 0.21
    assert 0.99 < drawn.max() <= 1
    assert abs((drawn > 0.8).mean() - 0.5) < 0.04
    assert abs(drawn[drawn > 0.8].mean() - 0.9) < 0.01
    assert abs(drawn[drawn < 0.8].mean() - 0.5) < 0.02


@pytest.mark.parametrize("offset", [0.0, 0.01])
def test_refinement_with_the_exact_noise_but_for_a_constant_ends_at_the_clean_image(monkeypatch, offset):
    clean = jnp.asarray(np.random.default_rng(1).standard_normal((2, 8, 8, 1)), jnp.float32)
    clean -= clean.mean((1, 2, 3), keepdims=True)

    def exact(parameters, noisy, partly, gamma, config):
        share = gamma.reshape(-1, 1, 1, 1)
        return (partly - jnp.sqrt(share) * clean * config.clean_scale) / jnp.sqrt(1 - share) + offset

    monkeypatch.setattr(diffusion, "predict_noise", exact)
    refined = refine({}, clean + 1, TINY, levels=noise_levels("linear", 7))
    np.testing.assert_allclose(refined, clean, atol=1e-4)


def test_refinement_adds_the_noise_of_its_schedule(monkeypatch):
    """A network that predicts 0 leaves, with b = 1 - alpha, v <- v / alpha + b (1 - gamma') / (1 - gamma)."""
    monkeypatch.setattr(diffusion, "predict_noise", lambda parameters, noisy, partly, *_: jnp.zeros_like(partly))
    levels = [0.9, 0.6, 0.3]
    variance = 1.0
    for gamma, cleaner in ((0.3, 0.6), (0.6, 0.9), (0.9, 1.0)):
        alpha = gamma / cleaner
        variance = variance / alpha + (1 - alpha) * (1 - cleaner) / (1 - gamma)
    refined = refine({}, jnp.ones((1, 128, 128, 1)), TINY, levels=levels)
    assert float(refined.std()) * TINY.clean_scale == pytest.approx(variance**0.5, rel=0.02)


def test_several_draws_give_the_mean_of_the_results_of_their_seeds():
    parameters = diffusion.init(jax.random.key(0), TINY)
    parameters = jax.tree.map(lambda p: p + 0.01, parameters)
    x = jnp.asarray(np.random.default_rng(4).standard_normal((2, 8, 8, 1)), jnp.float32)
    levels = noise_levels(TINY.schedule, TINY.steps)
    draw = jax.jit(lambda seed: refine(parameters, x, TINY, levels=levels, seed=seed))
    each = [draw(seed) for seed in (5, 6, 7)]
    assert not np.allclose(each[0], each[1], atol=1e-3)
    together = jax.jit(lambda: diffusion.denoise(parameters, x, replace(TINY, seed=5, draws=3)))()
    np.testing.assert_allclose(together, np.mean(each, axis=0), rtol=1e-3, atol=1e-4)


def test_held_out_numbers_are_the_objective_and_the_errors_of_denoised_noisy_and_empty_images():
    random = np.random.default_rng(6)
    halves, clean = random.standard_normal((2, 4, 1, 8, 8)), 0.5 * random.standard_normal((4, 1, 8, 8))
    batch = {"half_map_1": halves[0] + clean, "half_map_2": halves[1] + clean, "truth": clean}
    batch = {name: jnp.asarray(array, jnp.float32) for name, array in batch.items()}
    task = DiffusionTask(TINY, {}, settings=diffusion.SETTINGS)
    found = jax.jit(task.metrics)(diffusion.init(jax.random.key(0), TINY), batch)  # which predicts a noise of 0
    np.testing.assert_allclose(found["empty"], np.square(clean).mean((1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(found["noisy"], np.square(halves.mean(0)).mean((1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(found["objective"], 1.0, atol=0.6)  # the mean square of 64 normal numbers
    assert found["loss"].shape == (4,)


def test_objective_is_the_squared_error_of_the_noise_in_the_partly_noised_image(monkeypatch):
    monkeypatch.setattr(diffusion, "predict_noise", lambda parameters, noisy, partly, gamma, config: noisy - partly)
    random = np.random.default_rng(2)
    noisy, clean, noise = random.standard_normal((3, 2, 8, 8, 1)).astype(np.float32)
    gamma = np.array([0.9, 0.25], np.float32)
    share = gamma[:, None, None, None]
    partly = np.sqrt(share) * 3 * clean + np.sqrt(1 - share) * noise
    found = DiffusionTask(TINY, {}).objective({}, noisy, clean, jnp.asarray(gamma), noise)
    np.testing.assert_allclose(found, ((noisy - partly - noise) ** 2).mean((1, 2, 3)), rtol=1e-5)


def test_size_is_that_of_the_described_layers():
    def conv(i, o, size=3):
        return size * size * i * o + o

    def residual(i, o):  # two norms, two convolutions, the level (4 * 8 channels), and the identity's projection
        return 2 * i + conv(i, o) + (32 * o + o) + 2 * o + conv(o, o) + (conv(i, o, 1) if i != o else 0)

    level = 32 * 32 + 32
    down = conv(2, 8) + residual(8, 8) + conv(8, 8) + residual(8, 16)
    middle = 2 * residual(16, 16) + 2 * 16 + 4 * conv(16, 16, 1)  # and attention
    up = residual(16 + 16, 16) + residual(16 + 8, 16) + conv(16, 16) + residual(16 + 8, 8) + residual(8 + 8, 8)
    out = 2 * 8 + conv(8, 1)
    shapes = diffusion.MODEL.parameter_shapes(TINY)["diffusion"]
    sizes = [np.prod(shape) for shape in jax.tree.leaves(shapes, is_leaf=lambda leaf: isinstance(leaf, tuple))]
    assert sum(sizes) == level + down + middle + up + out


def test_a_denoised_image_does_not_depend_on_its_batch_and_has_any_sides():
    parameters = diffusion.init(jax.random.key(0), TINY)
    parameters = jax.tree.map(lambda p: p + 0.01, parameters)  # so that the noise is not predicted as 0
    x = jnp.asarray(np.random.default_rng(3).standard_normal((2, 1, 9, 12, 1)), jnp.float32)
    apply = jax.jit(diffusion.apply, static_argnums=2)
    both = apply(parameters, x, TINY)
    assert both.shape == x.shape
    np.testing.assert_allclose(apply(parameters, x[1:], TINY), both[1:], rtol=1e-3, atol=1e-4)


def test_images_that_are_too_large_for_attention_are_refused():
    shapes = jax.eval_shape(lambda key: diffusion.init(key, TINY), jax.random.key(0))
    large = jax.ShapeDtypeStruct((1, 1, 258, 256, 1), np.float32)
    with pytest.raises(UserError, match="images of 256x258 pixels: expected at most 16384 pixels"):
        jax.eval_shape(lambda p, x: diffusion.apply(p, x, TINY), shapes, large)


@pytest.mark.slow
def test_both_stages_are_trained_and_resumed_and_their_weights_denoise(tmp_path, tiny_config, image_set):
    first = run_and_resume(tiny_config("experiments.images.diffusion", **FIELDS), tmp_path)
    assert not first.config.post
    weights = {"weights": str(first.path), "settings__stage": "post"}
    second = run(tiny_config("experiments.images.diffusion", **FIELDS, **weights), tmp_path / "post")
    assert second.config.post
    assert same(first.parameters["diffusion"], second.parameters["diffusion"])
    assert not same(first.parameters["post"], second.parameters["post"])
    assert "diffusion" in second.card["method"]
    assert "; before: " in second.card["training"]

    assert (
        main([str(second.path), "-o", str(tmp_path / "five"), "--steps", "5", "--schedule", "cosine", "--draws", "2"])
        == 0
    )
    five = load_weights(tmp_path / "five", "images")
    assert (five.config.steps, five.config.schedule, five.config.draws, five.config.post) == (5, "cosine", 2, True)
    assert five.card["sha256"] == second.card["sha256"]
    with pytest.raises(UserError, match="expected steps to be a whole number of at least 1, found 0"):
        set_schedule(second.path, tmp_path / "none", steps=0)

    output = tmp_path / "out.mrcs"
    outcome = run_crefjax("images", "denoise", image_set / "images.mrcs", "-o", output, "--weights", five.path)
    assert outcome.status == 0, outcome.err
    with ImageStack(output) as stack:
        assert stack.count == 8
        assert np.isfinite(stack.read(slice(None))).all()


def test_stage_and_its_weights_are_checked(tiny_config):
    config = tiny_config("experiments.images.diffusion", **FIELDS, settings__stage="last")
    with pytest.raises(UserError, match=r"settings\.stage: expected one of diffusion, post, found 'last'"):
        diffusion.make_task(config)
    config = tiny_config("experiments.images.diffusion", **FIELDS, settings__stage="post")
    with pytest.raises(UserError, match="the stage post starts from the weights of an earlier stage"):
        diffusion.make_task(config)
