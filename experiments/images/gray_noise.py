"""PSNR and SSIM of denoisers on clean images with Gaussian noise, as Ouyang et al. 2020 report them.

    python -m experiments.images.gray_noise SET --weights runs/images_wgan/best --sigma 40

Every clean image of a simulated set is scaled to 0 to 255 by its own least and largest value, and Gaussian noise is
added. Beside the weights stand Gaussian filters: noise that is white is easily removed from images that are smooth, and
the numbers mean little without them.
"""

import argparse
import sys
from collections.abc import Sequence

import numpy as np
from scipy.ndimage import gaussian_filter

from crefjax.errors import UserError
from crefjax.images.denoise import denoise_images, plan_images
from crefjax.images.measures import psnr, ssim
from crefjax.images.sets import CLEAN, ImageSet
from crefjax.weights.store import load_weights

GRAYS = 255.0
WIDTHS = (1.0, 1.5, 2.0, 3.0)  # standard deviations of the filters, pixels


def compare(
    clean: np.ndarray, weights: Sequence[str], *, sigma: float, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Return mean PSNR (dB, of 255) and SSIM of noisy and denoised images by the name of the method.

    Args:
        clean: `(images, y, x)`, particles bright.
        weights: Names or folders of weights for images.
        sigma: Standard deviation of the noise, on 0 to 255.
        seed: Of the noise.

    Raises:
        UserError: Weights cannot be read, or are not for images.
    """
    low, high = clean.min((1, 2), keepdims=True), clean.max((1, 2), keepdims=True)
    grays = (clean - low) * (GRAYS / np.where(high > low, high - low, 1))
    noise = np.random.default_rng(seed).standard_normal(grays.shape)
    noisy = (grays + sigma * noise).astype(np.float32)
    outputs = {"noisy": noisy}
    for width in WIDTHS:
        outputs[f"Gaussian, {width:g} pixels"] = np.stack([gaussian_filter(image, width) for image in noisy])
    for name in weights:
        loaded = load_weights(name, "images")
        outputs[str(name)] = denoise_images(noisy, loaded, plan_images(noisy.shape[1:], loaded))
    return {name: _scores(images, grays) for name, images in outputs.items()}


def _scores(images, grays):
    pairs = list(zip(images, grays, strict=True))
    return tuple(float(np.mean([score(*pair, GRAYS) for pair in pairs])) for score in (psnr, ssim))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m experiments.images.gray_noise", description=__doc__.split("\n")[0])
    parser.add_argument("set", metavar="SET", help="set of crefjax images simulate")
    parser.add_argument("--weights", nargs="*", default=[], metavar="W", help="names or folders of weights for images")
    parser.add_argument("--sigma", type=float, default=40.0, help="noise on 0 to 255 (default: 40)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise (default: 0)")
    arguments = parser.parse_args(argv)
    try:
        with ImageSet(arguments.set) as opened:
            clean = opened.sign * opened.stack(CLEAN).read(slice(None))
        scores = compare(clean, arguments.weights, sigma=arguments.sigma, seed=arguments.seed)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name, (ratio, similarity) in scores.items():
        print(f"{name}: PSNR {ratio:.2f} dB, SSIM {similarity:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
