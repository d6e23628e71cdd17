"""Methods that denoise images, to be compared: classical filters, and networks by their weights.

A method takes images `(n, y, x)` with bright particles and a `Context`, and returns images of that shape. To add one,
write it here and list it in `METHODS`; weights that `crefjax images denoise` takes need no more than their name.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from crefjax.errors import UserError
from crefjax.images import filters
from crefjax.images.denoise import denoise_images, plan_images
from crefjax.images.measures import ring_covariances
from crefjax.spectral.curves import resolution_at
from crefjax.spectral.variances import LINEAR_FORMS, linear_form
from crefjax.weights.store import Weights, load_weights

RAW = "raw"
Method = Callable[[np.ndarray, "Context"], np.ndarray]
_FRC = 0.143  # of half-exposures, at which filters end
_GAUSSIAN = np.sqrt(np.log(2) / 2) / np.pi  # its standard deviation times the frequency at which it damps to a half


@dataclass(frozen=True)
class Context:
    """What a method may know of the images: their pixel size, and what two half-exposures of some say of their noise.

    Attributes:
        pixel_size: Å.
        even: `(n, y, x)`, half-exposures of some images.
        odd: their other halves.
        half: whether the images to denoise are half-exposures, with twice the noise.
    """

    pixel_size: float
    even: np.ndarray
    odd: np.ndarray
    half: bool = False

    @cached_property
    def rings(self) -> tuple[np.ndarray, np.ndarray]:
        """Power of signal and noise per ring, of the images to denoise."""
        matrix = ring_covariances(zip(self.even, self.odd, strict=True)).matrix
        noise = linear_form(matrix, LINEAR_FORMS["N"])
        return linear_form(matrix, LINEAR_FORMS["S"]), noise * (1 if self.half else 0.5)

    @cached_property
    def resolution(self) -> float:
        """Å, at which the ring correlation of the half-exposures falls below 0.143."""
        curve = ring_covariances(zip(self.even, self.odd, strict=True)).fsc(0, 1)
        side = max(self.even.shape[1:]) * self.pixel_size
        return resolution_at(curve, _FRC, side, 2 * self.pixel_size).angstrom

    @cached_property
    def noise(self) -> float:
        """Standard deviation of the noise of a pixel, of the images to denoise."""
        return float(np.std(self.even - self.odd)) * (np.sqrt(0.5) if self.half else 0.5)

    @cached_property
    def dictionary(self) -> np.ndarray:
        """Patches that were learned from the noisy images."""
        return filters.learned_dictionary((self.even + self.odd) / 2)


def _each(function):
    return lambda images, context: np.stack([function(image, context) for image in images])


METHODS: dict[str, Method] = {
    RAW: lambda images, context: images,
    "low-pass": _each(lambda image, c: filters.lowpass(image, c.pixel_size, c.resolution)),
    "Gaussian": _each(lambda image, c: filters.gaussian(image, c.pixel_size, c.resolution * _GAUSSIAN)),
    "Wiener": _each(lambda image, c: filters.wiener(image, *c.rings)),
    "non-local means": _each(lambda image, c: filters.nonlocal_means(image, c.noise)),
    "total variation": _each(lambda image, c: filters.total_variation(image, c.noise)),
    "dictionary": _each(lambda image, c: filters.sparse(image, c.dictionary, c.noise)),
}


def network_method(weights: Weights) -> Method:
    """Return the method of weights for images."""

    def denoise(images, context):
        del context
        return denoise_images(images, weights, plan_images(images.shape[1:], weights))

    return denoise


def chosen_methods(names: Sequence[str] | None, weights: Sequence[str]) -> dict[str, Method]:
    """Return methods by name, the raw images first.

    Args:
        names: of `METHODS`; None for all.
        weights: names or folders of weights.

    Raises:
        UserError: there is no method of a name, weights cannot be read, or two have one name.
    """
    if unknown := set(names or ()) - set(METHODS):
        raise UserError(f"methods: expected some of {', '.join(METHODS)}, found {', '.join(sorted(unknown))}")
    methods = {name: method for name, method in METHODS.items() if names is None or name == RAW or name in names}
    for name in weights:
        loaded = load_weights(name, "images")
        label = loaded.name if loaded.name not in ("best", "last") else loaded.path.parent.name
        if label in methods:
            raise UserError(f"{loaded.path}: expected weights of other names, found {label} twice; rename the folder")
        methods[label] = network_method(loaded)
    return methods
