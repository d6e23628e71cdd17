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
from crefjax.training.task import NamedBatch, close

_HELD_OUT_SEED = 2**20


def stream_models(config: ConfigDict) -> tuple[dict[Path, float], list[Path]]:
    """Files of the models to train on with how often each is drawn, and files of those to evaluate on.

    Models of one pattern are drawn alike, all of them together as often as the pattern's share says.

    Raises:
        UserError: there are none, two have the same name, a name is of none of them, shares do not fit, or one has two.
    """
    chosen = config.data.stream
    files, patterns = [], {}
    for number, pattern in enumerate(names_in(chosen.models)):
        found = sorted(glob.glob(pattern))
        if not found:
            raise UserError(f"config: data.stream.models: expected files of atomic models, {pattern} finds none")
        files += [Path(one) for one in found]
        for path in files[-len(found) :]:
            if patterns.setdefault(path, number) != number and chosen.shares:
                raise UserError(
                    f"config: data.stream.shares: expected one share for each model, {path} is of two patterns; take "
                    "it out of one"
                )
    by_name = {}
    for path in files:
        if (other := by_name.setdefault(path.name.split(".")[0], path)) != path:
            raise UserError(
                f"config: data.stream.models: expected names that differ, found {other} and {path}; rename one"
            )
    excluded, held_out = names_in(chosen.exclude), names_in(chosen.held_out)
    for field, names in (("exclude", excluded), ("held_out", held_out)):
        if unknown := next((name for name in names if name not in by_name), None):
            raise UserError(f"config: data.stream.{field}: no model is named {unknown}; there are {', '.join(by_name)}")
    training = [path for name, path in by_name.items() if name not in {*excluded, *held_out}]
    if not training and not chosen.phantoms:
        raise UserError("config: data.stream: expected models or phantoms to train on, found none; name some")
    return _with_shares(training, patterns, chosen), [by_name[name] for name in held_out]


def _with_shares(training, patterns, chosen):
    if not chosen.shares:
        return dict.fromkeys(training, 1.0)
    try:
        shares = [float(one) for one in names_in(chosen.shares)]
    except ValueError:
        shares = []
    if len(shares) != len(names_in(chosen.models)) or not all(0 < one < math.inf for one in shares):
        raise UserError(
            f"config: data.stream.shares: expected a number above 0 for each of {chosen.models}, found "
            f"{chosen.shares!r}; correct it"
        )
    sizes = Counter(patterns[path] for path in training)
    return {path: shares[patterns[path]] / sizes[patterns[path]] for path in training}


def names_in(text: str) -> list[str]:
    """The parts of a text that are separated by commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def held_out_phantoms(count: int) -> list[Atoms]:
    """Phantoms of seeds that the stream does not give to its own, and of sizes between theirs.

    Args:
        count: how many.
    """
    low, high = np.log(PHANTOM_RESIDUES)
    sizes = np.exp(np.linspace(low, high, count + 2)[1:-1]).astype(int)
    made = [phantom(int(size), seed=_HELD_OUT_SEED + number) for number, size in enumerate(sizes)]
    return [replace(one, source=f"held-out phantom {number}") for number, one in enumerate(made)]


def standardizing(
    masked: float,
    gain: tuple[float, float],
    level: tuple[float, float] = (1.0, 1.0),
    *,
    whole_map: bool = False,
) -> Callable[..., dict[str, Any]]:
    """A function of a stream's batch: standardized by the full map's mean and deviation in the patch, and masked.

    With `whole_map` they are standardized as `crefjax.inference.standardize` does with a whole map instead: nothing is
    subtracted, for the solvent is at 0, and all is divided by the root mean square of the full map within its mask.

    The truth has the solvent at 0. A patch in the midst of a particle has a larger deviation than the whole map, by
    which maps are standardized when they are denoised: the gain, drawn evenly in its logarithm, makes up for it. It has
    a larger mean too, of which only the level, drawn evenly, is taken away.

    Args:
        masked: share of the samples whose input is masked.
        gain: the least and the largest.
        level: the same, of the patch's mean.
        whole_map: whether the numbers are those of the whole map.

    Returns:
        `(half_map_1, half_map_2, truth, mask, position, seed, deviation) -> batch`; maps `(samples, z, y, x)`,
        `deviation` `(samples,)` of the whole maps.
    """

    @jax.jit
    def prepare(half_map_1, half_map_2, truth, mask, position, seed, whole=None) -> dict[str, Any]:
        keys = jax.vmap(lambda one: jax.random.fold_in(jax.random.key(seed), one))(position)
        chance = jax.vmap(lambda one: jax.random.uniform(one, (2,)))(jax.vmap(lambda k: jax.random.fold_in(k, 7))(keys))
        full = (half_map_1 + half_map_2) / 2
        axes = (1, 2, 3)
        mean, deviation = full.mean(axes, keepdims=True), full.std(axes, keepdims=True)
        low, high = np.log(gain[0]), np.log(gain[1])
        lift = jax.vmap(lambda k: jax.random.uniform(jax.random.fold_in(k, 8), (), jnp.float32, *level))(keys)
        mean *= lift.reshape(mean.shape)
        if whole_map:
            mean, deviation = jnp.zeros_like(mean), whole.reshape(mean.shape)
        scale = jnp.exp(low + (high - low) * chance[:, 1]).reshape(mean.shape) / jnp.maximum(deviation, 1e-30)
        masked_already = (chance[:, 0] < masked).reshape(mean.shape)
        window = jnp.where(masked_already, mask, 1)
        return {
            "half_map_1": (half_map_1 - mean) * scale * window,
            "half_map_2": (half_map_2 - mean) * scale * window,
            "truth": truth * scale * mask,
            "mask": jnp.where(masked_already, 1, mask),
        }

    return prepare


class MixedBatches:
    """Batches of the stream or, by chance, of entries; batch `k` is a function of the seed and `k` alone.

    A network must not tell the few entries from the endless stream, or it learns their noise by heart. Their patches
    are scaled as those of the stream are, and the sign of the noise is by chance.
    """

    def __init__(self, streamed, entries, share, gain, seed):
        self._parts, self._share, self._gain, self._seed, self._position = (streamed, entries), share, gain, seed, 0

    def __iter__(self):
        return self

    def __next__(self):
        random = np.random.default_rng([self._seed, self._position, 1])
        self._position += 1
        if not random.random() < self._share:
            return next(self._parts[0])
        batch, entries = next(self._parts[1])
        return NamedBatch(_as_streamed(batch, self._gain, random), entries)

    def get_state(self):
        """The position among all, and those of both parts."""
        return {"position": self._position, "parts": [one.get_state() for one in self._parts]}

    def set_state(self, state):
        """Go to a position."""
        for part, one in zip(self._parts, state["parts"], strict=True):
            part.set_state(one)
        self._position = state["position"]

    def close(self):
        """End the threads of both."""
        for part in self._parts:
            close(part)


def _as_streamed(batch, gain, random):
    truth = batch["truth"]
    shape = (len(truth), 1, 1, 1)
    sign = random.choice(np.array([-1, 1], np.float32), shape)
    halves = [truth + sign * (batch[name] - truth) for name in ("half_map_1", "half_map_2")]
    deviation = ((halves[0] + halves[1]) / 2).std((1, 2, 3), keepdims=True)
    gains = np.exp(random.uniform(*np.log(gain), shape)) / np.maximum(deviation, 1e-30)
    scaled = [np.asarray(one * gains, np.float32) for one in (*halves, truth)]
    scaled.append(np.ones_like(truth))  # they are masked: there is nothing left to mask
    return dict(zip(("half_map_1", "half_map_2", "truth", "mask"), scaled, strict=True))


class StreamBatches:
    """The simulator's stream, standardized and masked on the device."""

    def __init__(self, batches, prepare):
        self._batches, self._prepare = batches, prepare
        self.get_state, self.set_state = batches.get_state, batches.set_state

    def __iter__(self):
        return self

    def __next__(self):
        made = next(self._batches)
        maps = (made.half_map_1, made.half_map_2, made.truth, made.mask)
        seed = np.uint32(self._batches.get_state()["seed"])
        # Root mean square of the full map of the whole model, within its mask.
        deviation = np.sqrt(made.info.signal**2 + made.info.noise**2 / 2)
        batch = self._prepare(*maps, jnp.asarray(made.info.position), seed, jnp.asarray(deviation))
        return NamedBatch(batch, tuple(self._batches.names[int(one)] for one in made.info.model))
