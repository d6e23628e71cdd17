"""The package's own weights for images, on images of a specimen that they were not trained on."""

import numpy as np
from images.conftest import write

from analysis.images.methods import gaussian
from crefjax.images import measures
from crefjax.images.denoise import denoise_images, plan_images
from crefjax.images.sets import CLEAN, NOISY, ImageSet
from crefjax.images.simulate import ImageConfig
from crefjax.images.specimen import specimen_of_atoms
from crefjax.simulate.phantom import phantom
from crefjax.weights.store import load_weights


def error(images, clean):
    factor, level = measures.least_squares_scale(images, clean)
    return measures.mse(factor * images + level, clean)


def test_included_weights_denoise_better_than_a_gaussian_of_their_detail(tmp_path):
    config = ImageConfig(3.0, 24, side=64, seed=21)
    folder = write(tmp_path / "set", specimen_of_atoms(phantom(3000), 3.0, 64), config)
    with ImageSet(folder) as opened:
        noisy, clean = (opened.stack(name).read(slice(None)) for name in (NOISY, CLEAN))
    weights = load_weights(None, "images")
    denoised = denoise_images(noisy, weights, plan_images(noisy.shape[1:], weights, device="cpu"))
    blurred = np.stack([gaussian(image, 3.0, 4.5) for image in noisy])
    assert error(denoised, clean) < 0.9 * error(blurred, clean) < 0.9 * error(noisy, clean)
