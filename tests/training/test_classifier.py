"""The loop knows nothing of maps: it trains a small convolutional network to tell images apart."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from helpers.toy_task import Counted, Line, config, held_out_numbers, rows

from crefjax.training.loop import train
from crefjax.training.task import NamedBatch, Source

SIDE = 12
KINDS = ("rows", "columns", "dots")


def image(number):
    """Stripes across, stripes along or both, of any phase and strength, in noise."""
    random = np.random.default_rng([7, number])
    kind = number % len(KINDS)
    wave = np.sin(np.arange(SIDE) * 1.5 + random.uniform(0, 2 * np.pi))
    other = np.sin(np.arange(SIDE) * 1.5 + random.uniform(0, 2 * np.pi))
    made = (wave[:, None] + 0 * wave, 0 * wave[:, None] + wave, wave[:, None] * other)[kind]
    return (random.uniform(0.5, 2) * made + 0.7 * random.standard_normal((SIDE, SIDE))).astype(np.float32), kind


def images(numbers):
    made = [image(number) for number in numbers]
    batch = {"image": np.stack([one for one, _ in made]), "kind": np.array([kind for _, kind in made], np.int32)}
    return NamedBatch(batch, tuple(KINDS[kind] for _, kind in made))


class Network(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(8, (5, 5))(x[..., None]))
        return nn.Dense(len(KINDS))(x.mean((1, 2)))


class Classify(Line):
    name = "classify"

    def init(self, key):
        return Network().init(key, jnp.zeros((1, SIDE, SIDE)))["params"]

    def loss(self, parameters, batch, key):
        told = Network().apply({"params": parameters}, batch["image"])
        right = (told.argmax(-1) == batch["kind"]).astype(jnp.float32)
        return optax.softmax_cross_entropy_with_integer_labels(told, batch["kind"]), {"accuracy": right}

    def export(self, folder, parameters, about):
        folder.mkdir(exist_ok=True)
        flat = jax.tree_util.tree_leaves_with_path(parameters)
        np.savez(folder / "weights.npz", **{jax.tree_util.keystr(path): leaf for path, leaf in flat})


def test_a_classifier_is_trained_by_the_same_loop(tmp_path):
    def held_out():
        numbers = held_out_numbers(200)
        for first in range(0, 200, 48):
            yield images(numbers[first : first + 48])

    source = Source("images", SIDE, False, None, lambda: Counted(48, make=images), held_out, "stripes")
    c = config(batch=48, epoch_steps=60, epochs=2, schedule__rate=0.03, log_every=20)
    result = train(c, tmp_path, Classify(), source, say=lambda line: None)
    first, last = rows(tmp_path, "evaluation")[0], rows(tmp_path, "evaluation")[-1]
    assert last["accuracy"] > 0.9
    assert last["samples"] == 200
    assert set(last["entries"]) == set(KINDS)
    assert last["loss"] < first["loss"]
    assert result.best_loss == last["loss"]
    assert [row["step"] for row in rows(tmp_path, "training")] == [20, 40, 60, 80, 100, 120]
    assert rows(tmp_path, "training")[-1]["accuracy"] > rows(tmp_path, "training")[0]["accuracy"]
    assert len(np.load(result.weights / "weights.npz").files) == 4
