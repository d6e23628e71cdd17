"""NT2C: re-weighting, gradient penalty, sizes, patches of noise, and training in three stages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.broken_off import run, run_and_resume, same
from helpers.cli import run_crefjax

from crefjax.errors import UserError
from crefjax.io.stacks import ImageStack, write_stack
from experiments.images import nt2c
from experiments.images.noise_source import noise_source
from experiments.images.nt2c import SETTINGS, Nt2cConfig, Nt2cTask, gradient_penalty
from experiments.images.reweighting import least_squares, reweight

FIELDS = {
    "network__depth": 2,
    "network__down_width": 4,
    "network__up_width": 4,
    "network__noise_width": 2,
    "network__latent": 3,
    "settings__critic_steps": 2,
}
TINY = Nt2cConfig(depth=2, down_width=4, up_width=4, noise_width=2, latent=3)


def images(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_weights_are_those_of_least_squares():
    """NumPy's lstsq on the pixels of every image."""
    signal, noise, image = images(3, 4, 8, 9, 1)
    image = image + 2 * signal - 0.5 * noise + 7
    found = least_squares(signal, noise, image)
    for s, v, x, row in zip(signal, noise, image, found, strict=True):
        columns = np.stack([s.ravel(), v.ravel(), np.ones(s.size)], 1).astype(np.float64)
        np.testing.assert_allclose(row, np.linalg.lstsq(columns, x.ravel(), rcond=None)[0], rtol=2e-4, atol=1e-5)


def test_a_constant_signal_or_noise_has_no_weight():
    noise, image = images(2, 1, 8, 8, 1)
    found = np.asarray(least_squares(np.full_like(noise, 3), noise, image + 2 * noise))
    assert np.isfinite(found).all()
    assert found[0, 0] == 0
    assert np.isfinite(reweight(noise, np.zeros_like(noise), image)[0]).all()


def test_a_pair_with_the_images_own_noise_is_the_image():
    signal, noise = images(2, 2, 16, 16, 1)
    noisy, clean = reweight(signal, noise, 2 * signal + 3 * noise + 5)
    np.testing.assert_allclose(noisy, 2 * signal + 3 * noise + 5, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(clean, 2 * signal, rtol=1e-4, atol=1e-4)


def test_a_pair_with_other_noise_is_as_noisy_as_the_image():
    signal, noise, others = images(3, 2, 64, 64, 1)
    noisy, clean = reweight(signal, 0.2 * noise, 2 * signal + 3 * others)
    np.testing.assert_allclose((noisy - clean).std((1, 2, 3)), 3, rtol=0.03)
    np.testing.assert_allclose(clean, 2 * signal, rtol=0.1)


def test_gradient_penalty_of_critics_with_a_known_gradient():
    real, made = images(2, 3, 4, 5, 1)
    weights = images(4, 5, 1, seed=1)
    share = np.array([0.0, 0.25, 1.0], np.float32)
    linear = gradient_penalty(lambda x: (x * weights[None]).sum((1, 2, 3)), real, made, share)
    np.testing.assert_allclose(linear, 3 * [(np.linalg.norm(weights) - 1) ** 2], rtol=1e-5)
    square = gradient_penalty(lambda x: (x**2).sum((1, 2, 3)) / 2, real, made, share)
    between = share[:, None, None, None] * real + (1 - share[:, None, None, None]) * made
    np.testing.assert_allclose(square, (np.sqrt((between**2).sum((1, 2, 3))) - 1) ** 2, rtol=1e-5)


def test_adversarial_losses_are_those_of_a_critic_whose_mean_and_gradient_are_known(monkeypatch):
    """D(x) = w mean(x): its gradient has the norm |w| / sqrt(pixels)."""
    monkeypatch.setattr(Nt2cTask, "_criticize", lambda self, critic, x: critic["w"] * x.mean((1, 2, 3)))
    task = Nt2cTask(TINY, {}, settings=SETTINGS | {"stage": "noise"})
    made = images(2, 32, 32, 1, seed=4)
    monkeypatch.setattr(nt2c, "make_noise", lambda parameters, *_: parameters["generator"] * made)
    parameters = {"generator": jnp.float32(1.0), "critic": {"w": jnp.float32(3.0)}}
    batch = {"noise": 1 + images(2, 1, 32, 32)}

    def total(parameters):
        losses, parts = task.loss(parameters, batch, jax.random.key(0))
        return losses.sum(), parts

    (_, parts), gradients = jax.jit(jax.value_and_grad(total, has_aux=True))(parameters)
    real_means, made_means = batch["noise"].mean((1, 2, 3)), made.mean((1, 2, 3))
    np.testing.assert_allclose(parts["distance"], 3 * (real_means - made_means), rtol=1e-4)
    np.testing.assert_allclose(parts["generator"], -3 * made_means, rtol=1e-4)
    np.testing.assert_allclose(parts["penalty"], (3 / 32 - 1) ** 2, rtol=1e-5)
    np.testing.assert_allclose(gradients["generator"], -3 * made_means.sum(), rtol=1e-4)
    of_penalty = 2 * 10 * 2 * (3 / 32 - 1) / 32
    np.testing.assert_allclose(gradients["critic"]["w"], (made_means - real_means).sum() + of_penalty, rtol=1e-4)


def test_sizes_are_those_of_five_poolings_and_six_layers():
    def size(name):
        shapes = nt2c.MODEL.parameter_shapes(Nt2cConfig())[name]
        return sum(np.prod(shape) for shape in jax.tree.leaves(shapes, is_leaf=lambda leaf: isinstance(leaf, tuple)))

    def layers(rows):
        return sum(4 * 4 * i * o + o for i, o in rows)

    widths = [64, 128, 256, 512, 512]  # six layers, and a scale and a bias for each normalized channel
    generator = layers([(128, 512), (512, 512), (512, 256), (256, 128), (128, 64), (64, 1)]) + 2 * sum(widths)
    critic = layers([(1, 64), (64, 128), (128, 256), (256, 512), (512, 512), (512, 1)]) + 2 * sum(widths[1:])
    assert (size("generator"), size("critic")) == (generator, critic)
    assert (Nt2cConfig().depth, size("denoiser")) == (5, 107_889)  # as docs/training.md has it of unet2d


def test_noise_has_the_asked_sides_and_the_critic_judges_images_one_by_one():
    parameters = nt2c.init(jax.random.key(0), TINY)
    make_noise = jax.jit(nt2c.make_noise, static_argnums=(2, 3))
    assert make_noise(parameters, jax.random.key(1), (2, 70, 32), TINY).shape == (2, 70, 32, 1)
    criticize = jax.jit(nt2c.NoiseCritic(TINY).apply)
    x = images(2, 64, 64, 1)
    both = criticize({"params": parameters["critic"]}, x)
    np.testing.assert_allclose(criticize({"params": parameters["critic"]}, x[1:]), both[1:], rtol=1e-4, atol=1e-6)


def test_power_on_rings_is_that_of_numpy():
    x = images(3, 8, 8, 1)
    power = (np.abs(np.fft.fft2(x[..., 0])) ** 2).mean(0)
    ky, kx = np.meshgrid(*[np.fft.fftfreq(8, 1 / 8)] * 2, indexing="ij")
    ring = np.floor(np.hypot(ky, kx) + 0.5)
    np.testing.assert_allclose(nt2c.ring_power(x), [power[ring == r].mean() for r in range(5)], rtol=1e-4)


@pytest.fixture
def noise_file(tmp_path):
    """Four patches of noise of 48 pixels, of mean 5 and standard deviation 3."""
    path = tmp_path / "noise.mrcs"
    with write_stack(path, 4, (48, 48), 4.0) as append:
        for patch in 5 + 3 * images(4, 48, 48, seed=8):
            append(patch)
    return path


def test_noise_is_on_the_scale_of_its_stack(tiny_config, noise_file):
    source = noise_source(tiny_config("experiments.images.nt2c", **FIELDS), str(noise_file), (4.0, 4.0))
    batches = source.training()
    crops = np.concatenate([next(batches).batch["noise"] for _ in range(4)])
    batches.close()
    assert crops.shape == (8, 1, 32, 32)
    assert abs(crops.mean()) < 0.05
    assert abs(crops.std() - 1) < 0.05
    held_out = list(source.held_out())
    assert [len(batch.entries) for batch in held_out] == [2]


@pytest.mark.parametrize(
    ("named", "sizes", "message"),
    [
        ("", (4.0, 4.0), "settings.noise: expected stacks of noise, found none"),
        ("{noise}", (3.0, 3.5), "expected pixels of 3 Å|expected pixels of 3.*found 4 Å"),
        ("missing.mrcs", (4.0, 4.0), "missing.mrcs"),
    ],
)
def test_noise_that_does_not_fit_is_refused(tiny_config, noise_file, named, sizes, message):
    config = tiny_config("experiments.images.nt2c", **FIELDS)
    with pytest.raises(UserError, match=message):
        noise_source(config, named.format(noise=noise_file), sizes)


def test_patches_smaller_than_the_crops_are_refused(tiny_config, noise_file):
    config = tiny_config("experiments.images.nt2c", **FIELDS, data__patch=64)
    with pytest.raises(UserError, match="expected patches of at least 64 pixels a side"):
        noise_source(config, str(noise_file), (4.0, 4.0))


@pytest.mark.slow
def test_the_three_stages_are_trained_and_resumed_and_their_weights_denoise(
    tmp_path, tiny_config, image_set, noise_file
):
    name = "experiments.images.nt2c"
    coarse = run(tiny_config(name, **FIELDS), tmp_path / "coarse")
    fields = FIELDS | {"weights": str(coarse.path), "settings__stage": "noise", "settings__noise": str(noise_file)}
    noise = run_and_resume(tiny_config(name, **fields), tmp_path / "noise")
    assert same(noise.parameters["denoiser"], coarse.parameters["denoiser"])
    for network in ("generator", "critic"):
        assert not same(noise.parameters[network], coarse.parameters[network])
    fields = FIELDS | {"weights": str(noise.path), "settings__stage": "fine"}
    fine = run(tiny_config(name, **fields), tmp_path / "fine")
    assert same(fine.parameters["generator"], noise.parameters["generator"])
    assert not same(fine.parameters["denoiser"], noise.parameters["denoiser"])
    output = tmp_path / "out.mrcs"
    outcome = run_crefjax("images", "denoise", image_set / "images.mrcs", "-o", output, "--weights", fine.path)
    assert outcome.status == 0, outcome.err
    with ImageStack(output) as stack:
        assert stack.count == 8
        assert np.isfinite(stack.read(slice(None))).all()
