"""The comparison of denoisers on clean images with Gaussian noise on 0 to 255."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from experiments.images.gray_noise import compare, main


def test_numbers_are_those_of_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    y, x = np.mgrid[:48, :48] / 48
    clean = np.stack([np.sin(6 * x) * np.cos(4 * y), x + y**2]).astype(np.float32)
    found = compare(clean, [], sigma=40.0, seed=3)
    low, high = clean.min((1, 2), keepdims=True), clean.max((1, 2), keepdims=True)
    grays = 255 * (clean - low) / (high - low)
    noisy = grays + 40 * np.random.default_rng(3).standard_normal(grays.shape)
    for name, images in (("noisy", noisy), ("Gaussian, 2 pixels", [gaussian_filter(image, 2.0) for image in noisy])):
        pairs = list(zip(grays, images, strict=True))
        psnr = np.mean([metrics.peak_signal_noise_ratio(gray, image, data_range=255) for gray, image in pairs])
        ssim = np.mean([metrics.structural_similarity(gray, image, data_range=255) for gray, image in pairs])
        np.testing.assert_allclose(found[name], (psnr, ssim), rtol=1e-3)
    assert found["noisy"][0] == pytest.approx(16.09, abs=0.3)  # 10 log10(255^2 / 40^2)


def test_command_prints_a_line_for_every_method_and_refuses_what_is_not_a_set(image_set, tmp_path, capsys):
    assert main([str(image_set), "--sigma", "20"]) == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()][:2] == ["noisy", "Gaussian, 1 pixels"]
    assert main([str(tmp_path)]) == 2
    assert "expected a set of images" in capsys.readouterr().err
