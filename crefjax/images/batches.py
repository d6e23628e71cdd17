"""Batches of simulated images for training, read with Grain: random crops in random orientations, resumed exactly.

A batch is a dict of float32 arrays `(samples, 1, p, p)`, images being maps of one section:

    half_map_1   the even half of the exposure
    half_map_2   the odd half; the noisy image is the mean of the two
    truth        the clean signal, on the same scale

and `entry`, int32 `(samples,)`, the index of the sample's set in `Batches.names`. Particles are bright, whatever the
contrast of the set. Each crop is standardized as whole images are by `crefjax images denoise`: the mean of the
noisy image is subtracted from the halves, the mean of the signal from the signal, and all are divided by the standard
deviation of the noisy image.
"""

from collections.abc import Callable, Sequence

import numpy as np

from crefjax.data.dataset_batches import ENDLESS, THREADS, Batches, batches_of_process, check_common
from crefjax.errors import UserError
from crefjax.images.sets import CLEAN, EVEN, ODD, ImageSet


def image_batches(
    sets: Sequence[ImageSet],
    *,
    patch: int,
    batch: int,
    seed: int = 0,
    turns: bool = True,
    first: float = 0.0,
    last: float = 1.0,
    count: int | None = None,
    process: tuple[int, int] = (0, 1),
    threads: int = THREADS,
) -> Batches:
    """Return batches of random crops; crop `k` depends on the seed and `k` alone.

    All images of all sets are drawn equally often.

    Args:
        sets: open sets.
        patch: side of the crops, pixels; at most the images' own.
        batch: number of crops per batch; the last one of a finite number may be shorter.
        seed: random seed of the crops.
        turns: whether crops are turned to one of 8 orientations; a mirror image of a projection is one of a view from
            the other side (of a molecule of the other hand, which does not matter to noise).
        first: share of every set, from its beginning, before the images that are used.
        last: share of every set up to which images are used.
        count: number of crops; None for crops without end.
        process: index of this process and number of processes, each of which makes its part of every batch alone;
            crop `k` and the position are the same for any number of them.
        threads: number of threads that prepare batches in advance.

    Raises:
        UserError: a setting is out of range, there are no images, or a set's images are smaller than the crops.
    """
    check_common(batch=batch, seed=seed, threads=threads, process=process)
    if count is not None and count < 1:
        raise UserError(f"count: expected 1 crop or more, found {count}; change it")
    images = _images_in_part(sets, patch, first, last)
    source = _Crops(sets, images, patch, seed, turns, count or ENDLESS)
    names = [each.path.resolve().name for each in sets]
    return Batches(
        batches_of_process(source, batch, process),
        names=names,
        size=count or 0,
        threads=threads,
        fingerprint={
            "patch": patch,
            "batch": batch,
            "seed": seed,
            "turns": turns,
            "part": [first, last],
            "count": count,
            "sets": [[name, each.count, *each.shape, each.record] for name, each in zip(names, sets, strict=True)],
        },
    )


def _images_in_part(sets, patch, first, last):
    """Return the set and the number of every image in a part of the sets, which are checked."""
    if not sets:
        raise UserError("images: expected at least one set, found none; name their folders")
    for each in sets:
        if min(each.shape) < patch:
            raise UserError(
                f"{each.path}: expected images of at least {patch} pixels a side, found {each.shape}; use smaller "
                "patches"
            )
    ranges = [(round(first * each.count), round(last * each.count)) for each in sets]
    images = [(number, image) for number, (start, stop) in enumerate(ranges) for image in range(start, stop)]
    if not images:
        raise UserError("images: expected images in this part of the sets, found none; use larger sets")
    return images


def random_window(random: np.random.Generator, shape: tuple[int, int], side: int) -> tuple[slice, slice]:
    """Draw the place of a square crop in an image of a shape, pixels."""
    corner = [int(random.integers(n - side + 1)) for n in shape]
    return tuple(slice(at, at + side) for at in corner)


def random_turn(random: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """Draw one of the 8 orientations of a square, as a function of an image `(y, x)`."""
    turn, flip = int(random.integers(4)), bool(random.integers(2))
    return lambda image: np.rot90(image[:, ::-1] if flip else image, turn)


def standardize(
    half_map_1: np.ndarray, half_map_2: np.ndarray, truth: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Standardize a crop's halves by its noisy image, and its signal by the same deviation and its own mean."""
    noisy = (half_map_1 + half_map_2) / 2
    mean, std = noisy.mean(dtype=np.float64), noisy.std(dtype=np.float64)
    scale = np.float32(1 / std if std > 0 else 1)
    level = np.float32(mean)
    return (half_map_1 - level) * scale, (half_map_2 - level) * scale, (truth - truth.mean()) * scale


class _Crops:
    """Random access to random crops."""

    def __init__(self, sets, images, patch, seed, turns, length):
        self._sets, self._images, self._patch, self._seed = sets, images, patch, seed
        self._turns, self._length = turns, length

    def __len__(self):
        return self._length

    def __getitem__(self, index):
        random = np.random.default_rng([self._seed, index])
        number, image = self._images[int(random.integers(len(self._images)))]
        chosen = self._sets[number]
        part = random_window(random, chosen.shape, self._patch)
        crops = [chosen.sign * chosen.stack(name).read_part(image, part) for name in (EVEN, ODD, CLEAN)]
        crops = standardize(*crops)
        if self._turns:
            turned = random_turn(random)
            crops = [turned(crop) for crop in crops]
        maps = dict(zip(("half_map_1", "half_map_2", "truth"), crops, strict=True))
        return {name: crop[np.newaxis] for name, crop in maps.items()} | {"entry": number}
