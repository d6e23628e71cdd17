"""A task and a source small enough to compute by hand: a straight line through points, and its training in NumPy."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from crefjax.training.config import default
from crefjax.training.loop import train
from crefjax.training.task import DataSource, NamedBatch, TaskDescription

POINTS = 3  # unknowns of the line


def config(**fields):
    """Return the default config with small numbers and changed fields, such as `optimizer__b1`."""
    c = default()
    c.batch = 4
    c.epochs = 2
    c.epoch_steps = 5
    c.log_every = 1
    c.devices = 2
    c.schedule.name = "constant"
    c.schedule.rate = 0.05
    c.checkpoint.every_minutes = 0.0
    for name, value in fields.items():
        *folders, last = name.split("__")
        inner = c
        for folder in folders:
            inner = inner[folder]
        inner[last] = value
    return c


class Line:
    """Task: squared difference of `x · w + b` to `y`."""

    name = "line"

    def init(self, key):
        return {"w": jnp.zeros(POINTS), "b": jnp.zeros(())}

    def loss(self, parameters, batch, key):
        error = batch["x"] @ parameters["w"] + parameters["b"] - batch["y"]
        return error**2, {"absolute": jnp.abs(error)}

    def metrics(self, parameters, batch):
        losses, more = self.loss(parameters, batch, None)
        return {"loss": losses, **more}

    def describe(self, config):
        return TaskDescription("points", {"task": self.name})

    def export(self, folder: Path, parameters, about):
        folder.mkdir(exist_ok=True)
        numbers = {name: np.asarray(value).tolist() for name, value in parameters.items()}
        (folder / "weights.json").write_text(json.dumps({"parameters": numbers, **about}))


def sample(number):
    """Return a sample and its entry's name."""
    random = np.random.default_rng([11, number])
    x = random.standard_normal(POINTS).astype(np.float32)
    y = np.float32(x @ np.array([1.0, -2.0, 0.5]) + 0.25 + 0.1 * random.standard_normal())
    return {"x": x, "y": y}, f"entry_{number % 3}"


def batch_of(numbers):
    """Return the samples of these numbers as a batch."""
    points, entries = zip(*(sample(number) for number in numbers), strict=True)
    return NamedBatch({name: np.stack([point[name] for point in points]) for name in ("x", "y")}, entries)


class CountingBatches:
    """Iterator of consecutive batches; `hook(step, batch)` is called with each, and may change it."""

    def __init__(self, batch, hook=None, make=batch_of):
        self.batch, self.hook, self.make, self.position = batch, hook, make, 0

    def __iter__(self):
        return self

    def __next__(self):
        numbers = range(self.position * self.batch, (self.position + 1) * self.batch)
        self.position += 1
        samples = self.make(numbers)
        if self.hook:
            self.hook(self.position, samples.batch)
        return samples

    def get_state(self):
        return {"position": self.position}

    def set_state(self, state):
        self.position = state["position"]


def held_out_numbers(count):
    return range(10_000, 10_000 + count)


def source(*, batch=4, held_out=6, size=None, hook=None, evaluated=None, make=batch_of):
    """Return a source with `held_out` samples, whose last batch is short; `evaluated(batch)` may change them."""

    def once():
        numbers = list(held_out_numbers(held_out))
        for first in range(0, held_out, batch):
            samples = make(numbers[first : first + batch])
            if evaluated:
                evaluated(samples.batch)
            yield samples

    training = CountingBatches(batch, hook, make)
    return DataSource(size, lambda: training, once if held_out else None, "points near a line")


def exported(folder):
    """Read what `Line.export` wrote."""
    return json.loads((folder / "weights.json").read_text())


def rows(workdir, kind=None):
    """Return the lines of metrics.jsonl, of one kind or all."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if kind in (None, line["kind"])]


class NumpyAdam:
    """Adam by its paper (Kingma & Ba 2015, algorithm 1) on the line, in float64, with gradients by hand."""

    def __init__(self, rate, b1=0.9, b2=0.999, eps=1e-8, clip=0.0):
        self.rate, self.b1, self.b2, self.eps, self.clip = rate, b1, b2, eps, clip
        self.p = np.zeros(POINTS + 1)
        self.m, self.v, self.t = np.zeros(POINTS + 1), np.zeros(POINTS + 1), 0

    def losses(self, batch):
        x = np.concatenate([batch["x"].astype(float), np.ones((len(batch["y"]), 1))], axis=1)
        error = x @ self.p - batch["y"]
        return error**2, 2 * (x * error[:, None]).mean(0)

    def step(self, batch):
        """Return the losses before the step and the norm of the gradient."""
        losses, gradient = self.losses(batch)
        norm = np.linalg.norm(gradient)
        if self.clip and norm > self.clip:
            gradient = gradient * self.clip / norm
        self.t += 1
        self.m = self.b1 * self.m + (1 - self.b1) * gradient
        self.v = self.b2 * self.v + (1 - self.b2) * gradient**2
        rate = self.rate(self.t) if callable(self.rate) else self.rate
        m, v = self.m / (1 - self.b1**self.t), self.v / (1 - self.b2**self.t)
        self.p = self.p - rate * m / (np.sqrt(v) + self.eps)
        return losses, norm


def run(folder, data=None, task=None, lines=None, **fields):
    """Train on the line, or on another source or task."""
    say = (lambda line: None) if lines is None else lines.append
    return train(config(**fields), folder, task or Line(), data or source(), say=say)


def parameters(folder, name="last"):
    found = exported(folder / name)["parameters"]
    return [*found["w"], found["b"]]


def numpy_run(steps, held_out=6):
    """Return mean loss and norm of the gradient of each step, held-out loss after each step, and last parameters."""
    slow, numbers, evaluated = NumpyAdam(0.05), [], []
    held = batch_of(held_out_numbers(held_out)).batch
    for k in range(steps):
        losses, norm = slow.step(batch_of(range(4 * k, 4 * k + 4)).batch)
        numbers.append((losses.mean(), norm))
        evaluated.append(slow.losses(held)[0].mean())
    return numbers, evaluated, slow.p
