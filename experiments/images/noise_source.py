"""Batches of crops of noise patches, which `crefjax images extract-noise` cut out of micrographs.

A batch is `{"noise": (samples, 1, p, p)}`, float32, on the scale of its stack: mean 0 and standard deviation 1 over all
its patches, particles bright as in the other batches, though the patches show none.
"""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from crefjax.data.dataset_batches import THREADS, Batches, batches_of_process
from crefjax.errors import UserError, path_error
from crefjax.images.batches import ENDLESS, random_turn, random_window
from crefjax.io.stacks import ImageStack
from crefjax.training.image_denoising import HELD_OUT_SEED
from crefjax.training.processes import current_of_batch
from crefjax.training.sources import NamedBatches, expand_pattern
from crefjax.training.stream_source import split_commas
from crefjax.training.task import DataSource

_SAME_SIZE = 0.01  # relative difference below which pixel sizes count as equal


def noise_source(config: ConfigDict, named: str, pixel_sizes: tuple[float, float]) -> DataSource:
    """Return batches of noise; the last patches of every stack are held out, a share of `data.images.held_out`.

    Args:
        config: Config of the run.
        named: Stacks, names or patterns with *, separated by commas.
        pixel_sizes: Least and largest pixel size of the images to be denoised, Å.

    Raises:
        UserError: There are no stacks, one cannot be read or has too few or too small patches, or its pixels are of
            another size.
    """
    paths = [Path(path) for pattern in split_commas(named) for path in expand_pattern(pattern)]
    if not paths:
        raise UserError(
            f"config: settings.noise: expected stacks of noise, found none matching {named!r}; cut some with crefjax "
            "images extract-noise"
        )
    stacks = [_open(path, config.data.patch, pixel_sizes) for path in paths]
    chosen, count = config.data.images, sum(stack.count for stack in stacks)
    evaluates = chosen.held_out > 0 and chosen.held_out_patches > 0
    share = 1 - chosen.held_out if evaluates else 1.0
    # One patch at least on either side.
    kept = [max(1, min(round(share * stack.count), stack.count - evaluates)) for stack in stacks]

    def training():
        return NamedBatches(_batches(stacks, [range(n) for n in kept], config, config.seed, None))

    def held_out():
        others = [range(n, stack.count) for n, stack in zip(kept, stacks, strict=True)]
        return NamedBatches(_batches(stacks, others, config, HELD_OUT_SEED, chosen.held_out_patches))

    return DataSource(
        size=None,
        training=training,
        held_out=held_out if evaluates else None,
        description=f"crops of {count} patches of noise",
        held_out_size=chosen.held_out_patches,
        divided=True,
    )


def _open(path, patch, pixel_sizes):
    stack = ImageStack(path)
    if min(stack.shape) < patch:
        text = f"expected patches of at least {patch} pixels a side, found {stack.shape}; set data.patch to less"
        raise path_error(path, text)
    if stack.count < 2:
        raise path_error(path, "expected at least 2 patches of noise, found 1; cut out more")
    least, largest = pixel_sizes
    if stack.pixel_size and not least * (1 - _SAME_SIZE) <= stack.pixel_size <= largest * (1 + _SAME_SIZE):
        raise path_error(
            path,
            f"expected pixels of {least:.4g} Å, as the images have, found {stack.pixel_size:.4g} Å; take noise of the "
            "same micrographs",
        )
    return stack


def _batches(stacks, parts, config, seed, count):
    """Return this process's part of batches of crops of the patches in parts, one range of numbers for each stack."""
    images = [(number, image) for number, part in enumerate(parts) for image in part]
    scales = [_scale(stack) for stack in stacks]
    turns = config.data.images.turns and count is None
    source = _Crops(stacks, images, scales, config.data.patch, seed, turns, count or ENDLESS)
    names = [stack.path.stem for stack in stacks]
    return Batches(
        batches_of_process(source, config.batch, tuple(current_of_batch(config.batch))),
        names=names,
        size=count or 0,
        threads=THREADS,
        fingerprint={
            "patch": config.data.patch,
            "batch": config.batch,
            "seed": seed,
            "parts": [[part.start, part.stop] for part in parts],
            "count": count,
            "turns": turns,
            "stacks": [[*row, stack.count, *stack.shape] for row, stack in zip(scales, stacks, strict=True)],
        },
    )


def _scale(stack):
    """Return mean and standard deviation of a stack, read patch by patch."""
    sums = np.zeros(2)
    for image in range(stack.count):
        values = stack.read([image])[0].astype(np.float64)
        sums += [values.mean(), np.square(values).mean()]
    mean, square = sums / stack.count
    return float(mean), float(max(square - mean**2, 1e-30) ** 0.5)


class _Crops:
    """Random access to random crops; crop `k` depends on the seed and `k` alone."""

    def __init__(self, stacks, images, scales, patch, seed, turns, length):
        self._stacks, self._images, self._scales = stacks, images, scales
        self._patch, self._seed, self._turns, self._length = patch, seed, turns, length

    def __len__(self):
        return self._length

    def __getitem__(self, index):
        random = np.random.default_rng([self._seed, index])
        number, image = self._images[int(random.integers(len(self._images)))]
        stack, (mean, std) = self._stacks[number], self._scales[number]
        crop = stack.read_part(image, random_window(random, stack.shape, self._patch))
        if self._turns:
            crop = random_turn(random)(crop)
        return {"noise": (mean - crop)[np.newaxis] / std, "entry": number}
