"""The training loop does not depend on maps: it trains a small convolutional network to classify images."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from helpers.cli import error_line, run_crefjax, run_ok
from helpers.toy_task import CountingBatches, Line, held_out_numbers, rows

from crefjax.training.task import TASKS, DataSource, NamedBatch

SIDE = 12
KINDS = ("rows", "columns", "dots")


def image(number):
    """Stripes across, stripes along or both, of any phase and strength, in noise."""
    random = np.random.default_rng([7, number])
    kind = number % len(KINDS)
    wave = np.sin(np.arange(SIDE) * 1.5 + random.uniform(0, 2 * np.pi))
    other = np.sin(np.arange(SIDE) * 1.5 + random.uniform(0, 2 * np.pi))
    patterns = (wave[:, None] + 0 * wave, 0 * wave[:, None] + wave, wave[:, None] * other)[kind]
    return (random.uniform(0.5, 2) * patterns + 0.7 * random.standard_normal((SIDE, SIDE))).astype(np.float32), kind


def images(numbers):
    pairs = [image(number) for number in numbers]
    batch = {
        "image": np.stack([picture for picture, _ in pairs]),
        "kind": np.array([kind for _, kind in pairs], np.int32),
    }
    return NamedBatch(batch, tuple(KINDS[kind] for _, kind in pairs))


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
        logits = Network().apply({"params": parameters}, batch["image"])
        right = (logits.argmax(-1) == batch["kind"]).astype(jnp.float32)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["kind"]), {"accuracy": right}

    def export(self, folder, parameters, about):
        folder.mkdir(exist_ok=True)
        flat = jax.tree_util.tree_leaves_with_path(parameters)
        np.savez(folder / "weights.npz", **{jax.tree_util.keystr(path): leaf for path, leaf in flat})


def make_classifier(config):
    """The task and its data, as `crefjax train` asks for them."""

    def held_out():
        numbers = held_out_numbers(200)
        for first in range(0, 200, 48):
            yield images(numbers[first : first + 48])

    return Classify(), DataSource(None, lambda: CountingBatches(config.batch, make=images), held_out, "stripes")


CONFIG = """
from crefjax.training.config import default


def get_config():
    c = default()
    c.task = "stripes"
    c.batch, c.epochs, c.epoch_steps, c.devices, c.log_every = 48, 2, 60, 2, 20
    c.schedule.name, c.schedule.rate = "constant", 0.03
    c.checkpoint.every_minutes = 0.0
    return c
"""


def test_a_task_of_ones_own_is_trained_by_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(TASKS, "stripes", make_classifier)
    (tmp_path / "classify.py").write_text(CONFIG)
    run = tmp_path / "run"
    outcome = run_ok("train", "--config", tmp_path / "classify.py", "--workdir", run)
    first, last = rows(run, "evaluation")[0], rows(run, "evaluation")[-1]
    assert last["accuracy"] > 0.9
    assert last["samples"] == 200
    assert set(last["entries"]) == set(KINDS)
    assert last["loss"] < first["loss"]
    assert f"trained 120 steps; weights: {run}/best" in outcome.err
    assert [row["step"] for row in rows(run, "training")] == [20, 40, 60, 80, 100, 120]
    assert rows(run, "training")[-1]["accuracy"] > rows(run, "training")[0]["accuracy"]
    assert len(np.load(run / "best" / "weights.npz").files) == 4


def test_an_unknown_task_is_refused(tmp_path):
    (tmp_path / "classify.py").write_text(CONFIG)
    outcome = run_crefjax("train", "--config", tmp_path / "classify.py", "--workdir", tmp_path / "run")
    message = error_line(outcome.err, outcome.status)
    assert "config: task: expected one of denoising, classification, images, or a module" in message
    assert not (tmp_path / "run").exists()
