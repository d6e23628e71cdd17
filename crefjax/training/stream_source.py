"""The simulator as a data source: its models, phantoms, standardization, and batches."""

import glob
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from crefjax.errors import UserError
from crefjax.simulate.atoms import Atoms
from crefjax.simulate.phantom import phantom
from crefjax.simulate.stream.batches import PHANTOM_RESIDUES
from crefjax.training.config import split_commas
from crefjax.training.task import NamedBatch, close

_HELD_OUT_SEED = 2**20


def stream_models(config: ConfigDict) -> tuple[dict[Path, float], list[Path]]:
    """Return the files of the models to train on with their shares, and the files of those to evaluate on.

    The models of a pattern are drawn equally often, all of them together as often as the pattern's share says.

    Raises:
        UserError: There are no models, two have the same name, a name is not among them, the shares do not fit the
            patterns, or a model has two shares.
    """
    chosen = config.data.stream
    files, patterns = [], {}
    for number, pattern in enumerate(split_commas(chosen.models)):
        matches = [Path(path) for path in sorted(glob.glob(pattern))]
        if not matches:
            raise UserError(
                f"config: data.stream.models: expected files of atomic models, found none for {pattern}; "
                "correct the pattern"
            )
        files += matches
        for path in matches:
            if patterns.setdefault(path, number) != number and chosen.shares:
                raise UserError(
                    f"config: data.stream.shares: expected one share for each model, but two patterns match {path}; "
                    "change one of them"
                )
    by_name = {}
    for path in files:
        if (other := by_name.setdefault(path.name.split(".")[0], path)) != path:
            raise UserError(
                f"config: data.stream.models: expected models of different names, found {other} and {path}; rename one"
            )
    excluded, held_out = split_commas(chosen.exclude), split_commas(chosen.held_out)
    for field, names in (("exclude", excluded), ("held_out", held_out)):
        if unknown := next((name for name in names if name not in by_name), None):
            raise UserError(
                f"config: data.stream.{field}: no model is named {unknown}; choose from {', '.join(by_name)}"
            )
    training = [path for name, path in by_name.items() if name not in {*excluded, *held_out}]
    if not training and not chosen.phantoms:
        raise UserError("config: data.stream: expected models or phantoms to train on, found none; name at least one")
    return _with_shares(training, patterns, chosen), [by_name[name] for name in held_out]


def _with_shares(training, patterns, chosen):
    if not chosen.shares:
        return dict.fromkeys(training, 1.0)
    try:
        shares = [float(share) for share in split_commas(chosen.shares)]
    except ValueError:
        shares = []
    if len(shares) != len(split_commas(chosen.models)) or not all(0 < share < math.inf for share in shares):
        raise UserError(
            f"config: data.stream.shares: expected one number above 0 for each pattern of {chosen.models}, found "
            f"{chosen.shares!r}; correct it"
        )
    sizes = Counter(patterns[path] for path in training)
    return {path: shares[patterns[path]] / sizes[patterns[path]] for path in training}


def held_out_phantoms(count: int) -> list[Atoms]:
    """Return phantoms of seeds that the stream does not use for its own, and of sizes between theirs."""
    low, high = np.log(PHANTOM_RESIDUES)
    sizes = np.exp(np.linspace(low, high, count + 2)[1:-1]).astype(int)
    return [
        replace(phantom(int(size), seed=_HELD_OUT_SEED + number), source=f"held-out phantom {number}")
        for number, size in enumerate(sizes)
    ]


def make_standardizer(
    masked: float,
    gain: tuple[float, float],
    level: tuple[float, float] = (1.0, 1.0),
    *,
    whole_map: bool = False,
) -> Callable[..., dict[str, Any]]:
    """Return a function that standardizes and masks a batch of the stream.

    Patches are standardized by the mean and the standard deviation of the full map in the patch. With `whole_map` they
    are standardized as `crefjax denoise` standardizes a whole map on the working grid: nothing is subtracted,
    because the solvent is at 0, and all is divided by the root mean square of the full map within its mask.

    The truth has the solvent at 0. A patch in the middle of a particle has a larger standard deviation than the whole
    map, by which maps are standardized when they are denoised: the gain, drawn uniformly in its logarithm, compensates
    for it. It has a larger mean too, of which only the level, drawn uniformly, is subtracted.

    Args:
        masked: Share of the samples whose input is masked.
        gain: Smallest and largest gain.
        level: Smallest and largest share of the patch's mean.
        whole_map: Whether to standardize by the numbers of the whole map.

    Returns:
        `(half_map_1, half_map_2, truth, mask, position, seed, whole_std=None) -> batch`; maps `(samples, z, y, x)`,
        `whole_std` `(samples,)` of the whole maps, needed with `whole_map`.
    """

    @jax.jit
    def standardize(half_map_1, half_map_2, truth, mask, position, seed, whole_std=None) -> dict[str, Any]:
        """Standardize a batch; `position` is that of each sample in the stream."""
        keys = jax.vmap(lambda number: jax.random.fold_in(jax.random.key(seed), number))(position)
        chance = jax.vmap(lambda k: jax.random.uniform(k, (2,)))(jax.vmap(lambda k: jax.random.fold_in(k, 7))(keys))
        full = (half_map_1 + half_map_2) / 2
        axes = (1, 2, 3)
        mean, std = full.mean(axes, keepdims=True), full.std(axes, keepdims=True)
        low, high = np.log(gain[0]), np.log(gain[1])
        levels = jax.vmap(lambda k: jax.random.uniform(jax.random.fold_in(k, 8), (), jnp.float32, *level))(keys)
        mean *= levels.reshape(mean.shape)
        if whole_map:
            mean, std = jnp.zeros_like(mean), whole_std.reshape(mean.shape)
        scale = jnp.exp(low + (high - low) * chance[:, 1]).reshape(mean.shape) / jnp.maximum(std, 1e-30)
        is_masked = (chance[:, 0] < masked).reshape(mean.shape)
        window = jnp.where(is_masked, mask, 1)
        return {
            "half_map_1": (half_map_1 - mean) * scale * window,
            "half_map_2": (half_map_2 - mean) * scale * window,
            "truth": truth * scale * mask,
            "mask": jnp.where(is_masked, 1, mask),
        }

    return standardize


class MixedBatches:
    """Batches of the stream or, at random, of entries; batch `k` depends on the seed and `k` alone.

    If a network could distinguish the few entries from the endless stream, it would learn their noise by heart.
    Therefore their patches are scaled as those of the stream, and the sign of their noise is random.
    """

    def __init__(self, stream_batches, entry_batches, share, gain, seed, place):
        self._parts, self._place = (stream_batches, entry_batches), place
        self._share, self._gain, self._seed, self._position = share, gain, seed, 0

    def __iter__(self):
        return self

    def __next__(self):
        random = np.random.default_rng([self._seed, self._position, 1])
        self._position += 1
        if not random.random() < self._share:
            return next(self._parts[0])
        batch, entries = next(self._parts[1])
        return NamedBatch(_scale_as_stream(batch, self._gain, random, self._place), entries)

    def get_state(self):
        """Return the position among all batches, and those of both parts."""
        return {"position": self._position, "parts": [part.get_state() for part in self._parts]}

    def set_state(self, state):
        """Go to a position."""
        for part, part_state in zip(self._parts, state["parts"], strict=True):
            part.set_state(part_state)
        self._position = state["position"]

    def close(self):
        """End the threads of both parts."""
        for part in self._parts:
            close(part)


def _scale_as_stream(batch, gain, random, place):
    """Scale the samples of one process; numbers are drawn for the samples of all, as a single process would do."""
    truth = batch["truth"]
    own, shape = slice(place.index * len(truth), (place.index + 1) * len(truth)), (place.count * len(truth), 1, 1, 1)
    sign = random.choice(np.array([-1, 1], np.float32), shape)[own]
    half_maps = [truth + sign * (batch[name] - truth) for name in ("half_map_1", "half_map_2")]
    std = ((half_maps[0] + half_maps[1]) / 2).std((1, 2, 3), keepdims=True)
    scale = np.exp(random.uniform(*np.log(gain), shape)[own]) / np.maximum(std, 1e-30)
    arrays = [np.asarray(array * scale, np.float32) for array in (*half_maps, truth)]
    arrays.append(np.ones_like(truth))  # the maps are masked already
    return dict(zip(("half_map_1", "half_map_2", "truth", "mask"), arrays, strict=True))


class StreamBatches:
    """The simulator's stream, standardized and masked on the device."""

    def __init__(self, batches, standardize):
        self._batches, self._standardize = batches, standardize
        self.get_state, self.set_state = batches.get_state, batches.set_state

    def __iter__(self):
        return self

    def __next__(self):
        sample = next(self._batches)
        maps = (sample.half_map_1, sample.half_map_2, sample.truth, sample.mask)
        seed = np.uint32(self._batches.get_state()["seed"])
        # Root mean square of the full map of the whole model, within its mask.
        std = np.sqrt(sample.info.signal**2 + sample.info.noise**2 / 2)
        batch = self._standardize(*maps, jnp.asarray(sample.info.position), seed, jnp.asarray(std))
        return NamedBatch(batch, tuple(self._batches.names[int(number)] for number in sample.info.model))
