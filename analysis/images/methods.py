"""Methods that denoise images, to be compared: classical filters, and networks by their weights.

A method takes images `(n, y, x)` with bright particles and a `Context`, and returns images of that shape. To add one,
write it here and list it in `METHODS`; weights that `crefjax images denoise` takes need no more than their name.

The classical filters are functions of one image `(y, x)`, float32, to the same shape, and keep its mean. Non-local
means and total variation are scikit-image's, dictionary learning is scikit-learn's; both come with
`pip install 'crefjax[images]'`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage

from crefjax.errors import UserError
from crefjax.images.denoise import denoise_images, plan_images
from crefjax.images.measures import ring_covariances
from crefjax.spectral.curves import resolution_at
from crefjax.spectral.shells import filter_shells
from crefjax.spectral.variances import LINEAR_FORMS, linear_form
from crefjax.spectral.windows import raised_cosine
from crefjax.weights.store import Weights, load_weights

_EDGE = 2.0  # rings over which a low-pass falls from 1 to 0
RAW = "raw"
Method = Callable[[np.ndarray, "Context"], np.ndarray]
_FRC = 0.143  # of half-exposures, at which filters end
_GAUSSIAN = np.sqrt(np.log(2) / 2) / np.pi  # its standard deviation times the frequency at which it damps to a half


def lowpass(image: np.ndarray, pixel_size: float, resolution: float) -> np.ndarray:
    """Low-pass an image with a raised cosine in amplitude, a half at the resolution in Å."""
    longest = max(image.shape)
    ring = longest * pixel_size / resolution
    factors = raised_cosine((np.arange(longest // 2 + 1) - ring) / _EDGE + 0.5)
    factors[0] = 1
    return _filter(image, factors)


def gaussian(image: np.ndarray, pixel_size: float, sigma: float) -> np.ndarray:
    """Blur an image with a Gaussian of a standard deviation in Å."""
    return ndimage.gaussian_filter(np.asarray(image, np.float32), sigma / pixel_size, mode="reflect")


def wiener(image: np.ndarray, signal: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Apply the Wiener filter, `S / (S + N)` in every ring (Wiener 1949).

    Args:
        image: `(y, x)`.
        signal: `(rings,)`, power of the signal, such as the covariance of two half-exposures; below 0 counts as 0.
        noise: `(rings,)`, power of the noise of the image: half of that of a half-exposure.
    """
    signal, noise = (np.maximum(np.asarray(power, np.float64), 0) for power in (signal, noise))
    total = signal + noise
    factors = np.divide(signal, total, out=np.zeros_like(total), where=total > 0)
    factors[0] = 1
    return _filter(image, factors)


def nonlocal_means(
    image: np.ndarray, noise: float, *, patch: int = 7, distance: int = 11, strength: float = 0.8
) -> np.ndarray:
    """Apply non-local means (Buades, Coll & Morel 2005) in scikit-image's fast mode.

    Args:
        image: `(y, x)`.
        noise: standard deviation of its noise, in its units.
        patch: side of the patches that are compared, pixels.
        distance: largest distance at which patches are searched, pixels.
        strength: filter strength h, in standard deviations of the noise.

    Raises:
        UserError: scikit-image is not installed, or the noise is not above 0.
    """
    restoration = _import("skimage.restoration", "scikit-image", "nonlocal_means")
    scaled, mean = _scaled(image, noise)
    out = restoration.denoise_nl_means(
        scaled, patch_size=patch, patch_distance=distance, h=strength, sigma=1.0, fast_mode=True, preserve_range=True
    )
    return (out * noise + mean).astype(np.float32)


def total_variation(image: np.ndarray, noise: float, *, weight: float = 2.0) -> np.ndarray:
    """Minimize total variation (Rudin, Osher & Fatemi 1992) by Chambolle's algorithm.

    Args:
        image: `(y, x)`.
        noise: standard deviation of its noise, in its units.
        weight: of the total variation, in standard deviations of the noise.

    Raises:
        UserError: scikit-image is not installed, or the noise is not above 0.
    """
    restoration = _import("skimage.restoration", "scikit-image", "total_variation")
    scaled, mean = _scaled(image, noise)
    out = restoration.denoise_tv_chambolle(scaled, weight=weight)
    return (out * noise + mean).astype(np.float32)


def learned_dictionary(
    images: np.ndarray, *, patch: int = 8, atoms: int = 64, patches: int = 20000, seed: int = 0
) -> np.ndarray:
    """Learn a dictionary of patches from noisy images, in the manner of K-SVD (Aharon, Elad & Bruckstein 2006).

    scikit-learn's `MiniBatchDictionaryLearning` takes gradient steps in place of singular value decompositions.

    Args:
        images: `(images, y, x)`.
        patch: side of the patches, pixels.
        atoms: number of atoms.
        patches: random patches to learn from.
        seed: random seed.

    Returns:
        `(atoms, patch²)`.

    Raises:
        UserError: scikit-learn is not installed.
    """
    decomposition = _import("sklearn.decomposition", "scikit-learn", "learned_dictionary")
    random = np.random.default_rng(seed)
    images = np.asarray(images, np.float32)
    size = len(images), *(side - patch + 1 for side in images.shape[1:])
    places = zip(*(random.integers(n, size=patches) for n in size), strict=True)
    data = np.stack([images[i, y : y + patch, x : x + patch].ravel() for i, y, x in places])
    data -= data.mean(1, keepdims=True)
    data /= data.std()
    learner = decomposition.MiniBatchDictionaryLearning(
        n_components=atoms, alpha=1.0, max_iter=10, batch_size=256, random_state=seed, transform_algorithm="omp"
    )
    return learner.fit(data).components_


def sparse(image: np.ndarray, dictionary: np.ndarray, noise: float, *, gain: float = 1.1) -> np.ndarray:
    """Denoise an image by sparse codes of its patches, each coded until the rest is as strong as the noise.

    Orthogonal matching pursuit up to a residual of `(gain noise)²` for each pixel; overlapping patches are averaged
    (Elad & Aharon 2006).

    Args:
        image: `(y, x)`.
        dictionary: from `learned_dictionary`.
        noise: standard deviation of its noise, in its units.
        gain: on the noise.

    Raises:
        UserError: scikit-learn is not installed, or the noise is not above 0.
    """
    linear_model = _import("sklearn.linear_model", "scikit-learn", "sparse")
    scaled, mean = _scaled(image, noise)
    side = round(np.sqrt(dictionary.shape[1]))
    windows = np.lib.stride_tricks.sliding_window_view(scaled, (side, side))
    step = max(1, side // 2)
    rows, columns = (sorted({*range(0, n, step), n - 1}) for n in windows.shape[:2])
    patches = windows[np.ix_(rows, columns)].reshape(-1, side * side).astype(np.float64)
    levels = patches.mean(1, keepdims=True)
    atoms = (dictionary / np.linalg.norm(dictionary, axis=1, keepdims=True)).T
    codes = np.zeros((len(patches), atoms.shape[1]))
    limit = side**2 * gain**2
    busy = np.sum((patches - levels) ** 2, 1) > limit  # of the others the mean is enough
    if busy.any():
        found = linear_model.orthogonal_mp(atoms, (patches - levels)[busy].T, tol=limit)
        codes[busy] = np.asarray(found).reshape(atoms.shape[1], -1).T
    found = (codes @ atoms.T + levels).reshape(len(rows), len(columns), side, side)
    total, count = (np.zeros(image.shape) for _ in range(2))
    for i, y in enumerate(rows):
        for j, x in enumerate(columns):
            total[y : y + side, x : x + side] += found[i, j]
            count[y : y + side, x : x + side] += 1
    return (total / count * noise + mean).astype(np.float32)


def _filter(image, factors):
    return filter_shells(np.asarray(image, np.float32)[np.newaxis], factors)[0]


def _scaled(image, noise):
    """Return an image with mean 0 and noise of standard deviation 1, float32, and its mean."""
    if not noise > 0:
        raise UserError(f"images: expected noise above 0, found a standard deviation of {noise:g}; check the images")
    mean = float(np.mean(image, dtype=np.float64))
    return (np.subtract(image, mean, dtype=np.float64) / noise).astype(np.float32), mean


def _import(module, package, name):
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"{name}: needs {package}, which is not installed; pip install 'crefjax[images]', or leave it out"
        ) from error


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
        return learned_dictionary((self.even + self.odd) / 2)


def _each(function):
    return lambda images, context: np.stack([function(image, context) for image in images])


METHODS: dict[str, Method] = {
    RAW: lambda images, context: images,
    "low-pass": _each(lambda image, c: lowpass(image, c.pixel_size, c.resolution)),
    "Gaussian": _each(lambda image, c: gaussian(image, c.pixel_size, c.resolution * _GAUSSIAN)),
    "Wiener": _each(lambda image, c: wiener(image, *c.rings)),
    "non-local means": _each(lambda image, c: nonlocal_means(image, c.noise)),
    "total variation": _each(lambda image, c: total_variation(image, c.noise)),
    "dictionary": _each(lambda image, c: sparse(image, c.dictionary, c.noise)),
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
        if loaded.label in methods:
            text = f"expected weights of other names, found {loaded.label} twice; rename the folder"
            raise UserError(text, path=loaded.path)
        methods[loaded.label] = network_method(loaded)
    return methods
