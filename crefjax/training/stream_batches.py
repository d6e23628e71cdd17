"""The simulator's stream as batches to train on, alone or mixed with patches of a few entries."""

import jax.numpy as jnp
import numpy as np

from crefjax.training.samples import Samples, close


class Mixed:
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
        return Samples(_as_streamed(batch, self._gain, random), entries)

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


class Streamed:
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
        return Samples(batch, tuple(self._batches.names[int(one)] for one in made.info.model))
