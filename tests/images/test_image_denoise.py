"""Denoising in batches and tiles, and patches of noise."""

import itertools

import jax
import numpy as np
import pytest
from scipy import ndimage

from crefjax.errors import UserError
from crefjax.images.denoise import ImagePlan, denoise_images, plan_images
from crefjax.images.noise_patches import noise_places
from crefjax.models import load_model
from crefjax.weights.store import Weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    model = load_model("unet2d")
    config = model.config(depth=2, down_width=4, up_width=4, last_widths=(4,))
    parameters = jax.tree.map(np.asarray, model.init(jax.random.key(1), config))
    return Weights("small", tmp_path_factory.mktemp("weights"), config, {"task": "images"}, parameters)


def whole(image, weights):
    """The network over a whole standardized image, scaled back."""
    x = (image - image.mean()) / image.std()
    y = weights.model.apply(weights.parameters, x[None, None, ..., None].astype(np.float32), weights.config)
    return np.asarray(y)[0, 0, ..., 0] * image.std() + image.mean()


@pytest.mark.parametrize(("shape", "tile"), [((130, 90), 32), ((64, 128), 48), ((33, 35), 16)])
def test_tiles_are_the_whole_network_without_seams(shape, tile, weights, random):
    image = random.normal(3, 2, shape).astype(np.float32)
    padded = tuple(n + -n % 4 for n in shape)
    halo = weights.config.reach + -weights.config.reach % 4
    window = tuple(min(n, tile + 2 * halo) for n in padded)
    plan = ImagePlan(jax.devices("cpu")[0], 1, tile, window, 0.0)
    shares = []
    found = denoise_images(image[None], weights, plan, progress=shares.append)[0]
    expected = whole(image, weights)
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_a_stack_is_denoised_image_by_image_whatever_the_batch(weights, random):
    images = random.normal(size=(5, 20, 22)).astype(np.float32) * np.arange(1, 6)[:, None, None]
    plan = ImagePlan(jax.devices("cpu")[0], 2, 0, (20, 24), 0.0)
    found = denoise_images(images, weights, plan)
    for image, denoised in zip(images, found, strict=True):
        np.testing.assert_allclose(denoised, whole(image, weights), atol=1e-4)


def test_dark_particles_are_inverted_before_and_after(weights, random):
    image = random.normal(size=(1, 20, 20)).astype(np.float32)
    plan = plan_images((20, 20), weights, device="cpu")
    np.testing.assert_allclose(
        denoise_images(image, weights, plan, sign=-1), -denoise_images(-image, weights, plan), atol=1e-5
    )


def test_an_image_of_one_value_stays_as_it_is_in_mean(weights):
    plan = plan_images((20, 20), weights, device="cpu")
    found = denoise_images(np.full((1, 20, 20), 7, np.float32), weights, plan)
    assert np.isfinite(found).all()


def test_a_micrograph_of_4096_pixels_is_planned_within_the_memory_that_is_given(weights):
    large = plan_images((4096, 4096), weights, device="cpu", max_memory=8.0)
    small = plan_images((4096, 4096), weights, device="cpu", max_memory=0.75)
    assert 0 < small.tile < large.tile <= 2048
    assert small.bytes + 0.45 * 2**30 <= 0.75 * 2**30
    with pytest.raises(UserError, match=r"images of 4096x4096 pixels need at least .* found 0\.5 GiB"):
        plan_images((4096, 4096), weights, device="cpu", max_memory=0.5)


def test_weights_for_maps_are_refused(weights):
    maps = load_model("unet3d").config()
    with pytest.raises(UserError, match="expected weights for images, found some for maps"):
        plan_images((64, 64), Weights("maps", weights.path, maps, {}, {}))


def slow_places(image, side, threshold):
    """The same by scikit-image, patch by patch."""
    metrics = pytest.importorskip("skimage.metrics")
    scaled = (image - image.min()) / (image.max() - image.min())
    half, places = side // 2, []
    for top in range(0, len(image) - side + 1, half):
        for left in range(0, image.shape[1] - side + 1, half):
            parts = [scaled[top + y : top + y + half, left + x : left + x + half] for y in (0, half) for x in (0, half)]
            values = [
                metrics.structural_similarity(a, b, data_range=1.0, K1=0.01, K2=0.03)
                for a, b in itertools.combinations(parts, 2)
            ]
            if min(values) > threshold:
                places.append((top, left))
    return places


def test_places_of_noise_are_those_of_scikit_image(random):
    image = ndimage.gaussian_filter(random.normal(size=(96, 128)), 3) * 0.2
    image[20:34, 60:74] += 2  # a particle
    for threshold in (0.5, 0.7, 0.9):
        expected = slow_places(image, 32, threshold)
        assert noise_places(image, side=32, threshold=threshold) == expected
    assert 0 < len(noise_places(image, side=32, threshold=0.7)) < len(noise_places(image, side=32, threshold=-1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"side": 33}, "even side of at least 16"),
        ({"side": 200}, "at least 200 pixels a side, found 64x64"),
        ({"side": 32, "threshold": 1.0}, "-1 to below 1"),
    ],
)
def test_settings_of_the_extraction_are_checked(settings, message, random):
    with pytest.raises(UserError, match=message):
        noise_places(random.normal(size=(64, 64)), **settings)
    with pytest.raises(UserError, match="single value"):
        noise_places(np.ones((64, 64)), side=32)
