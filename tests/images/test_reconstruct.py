"""Reconstruction from a set's images, compared with the truth."""

import numpy as np
from images.conftest import PIXEL_SIZE, write

from crefjax.images.reconstruct import reconstruct
from crefjax.images.sets import NOISY, ImageSet
from crefjax.images.simulate import ImageConfig
from crefjax.spectral.fsc import fsc_curve


def test_images_of_a_set_give_its_truth(tmp_path, specimen):
    config = ImageConfig(PIXEL_SIZE, 96, side=32, dose=10000.0, structure_factor=0.0, astigmatism=2000.0, seed=2)
    with ImageSet(write(tmp_path / "set", specimen, config)) as opened:
        images = opened.stack(NOISY).read(slice(None))
        found, halved = reconstruct(opened, (images, images / 2), np.arange(96))
        truth = opened.truth().array
    assert fsc_curve(found[4:28, 4:28, 4:28], truth, PIXEL_SIZE).fsc[1:8].min() > 0.9
    np.testing.assert_allclose(halved, found / 2, atol=1e-4 * np.abs(found).max())
