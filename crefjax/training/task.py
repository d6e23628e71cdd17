"""The interface of the training loop: a task to train and a source of batches; it knows nothing else of either."""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from crefjax.errors import UserError
from crefjax.models import NetworkConfig, import_own, load_model
from crefjax.weights.store import Weights, save_weights

# A tree of arrays whose first axis runs over samples.
Batch = Any
# A tree of arrays.
Parameters = Any


class NamedBatch(NamedTuple):
    """A batch with the names of its samples' entries."""

    batch: Batch
    entries: tuple[str, ...]


class ResumableIterator(Protocol):
    """An endless iterator of `NamedBatch` whose position can be saved and restored."""

    def __next__(self) -> NamedBatch: ...

    def get_state(self) -> dict:
        """Return the position in a form that JSON can hold."""

    def set_state(self, state: dict) -> None:
        """Go to a position."""


def close(batches: Iterator[NamedBatch] | ResumableIterator) -> None:
    """End the threads of an iterator of batches, if it has any; it yields nothing afterwards."""
    if end := getattr(batches, "close", None):
        end()


@dataclass(frozen=True)
class DataSource:
    """Batches to train on and batches to evaluate on.

    Attributes:
        size: Samples in an epoch; None for an endless source.
        training: Returns the iterator of training batches.
        held_out: Returns an iterator that passes once over samples that are never trained on, the last batch perhaps
            short; None if there are none.
        description: The data in words, for the card of the weights.
        held_out_size: Number of held-out samples; None if it is not known.
        divided: Whether the iterators give only the samples of this process; otherwise they give whole batches, and
            every process takes its part of each.
    """

    size: int | None
    training: Callable[[], ResumableIterator]
    held_out: Callable[[], Iterator[NamedBatch]] | None
    description: str
    held_out_size: int | None = field(default=None, kw_only=True)
    divided: bool = field(default=False, kw_only=True)


class TaskDescription(NamedTuple):
    """A task in words.

    Attributes:
        samples: What a batch consists of, such as "patches of 64 voxels a side".
        card: Fields of the weights card about the training, such as its losses.
    """

    samples: str
    card: dict


class Task(Protocol):
    """Parameters, their loss, and their metrics.

    Attributes:
        name: Name for messages.
        pretraining: A sentence about how its initial parameters were trained; a task that starts from random ones
            does not need it.
        optimizer: `(config, schedule) -> optax.GradientTransformation`, for a task with rules of its own, such as
            several networks trained in turn; without it the rule is `crefjax.training.optimizer.make_optimizer`.
    """

    name: str

    def init(self, key: jax.Array) -> Parameters:
        """Return the initial parameters."""

    def loss(self, parameters: Parameters, batch: Batch, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the loss of every sample, `(samples,)`, whose mean is minimized, and further numbers of that shape.

        Args:
            parameters: Parameters of the task.
            batch: Samples of one device.
            key: Key for random choices in a step; differs between steps and devices.
        """

    def metrics(self, parameters: Parameters, batch: Batch) -> dict[str, jax.Array]:
        """Return the metrics of every held-out sample, `(samples,)` each; the best step has the lowest mean `loss`."""

    def describe(self, config: ConfigDict) -> TaskDescription:
        """Describe the training for messages and for the card of the weights."""

    def export(self, folder: Path, parameters: Parameters, about: dict) -> None:
        """Write parameters so that they can be used; an existing folder is replaced.

        Args:
            folder: Folder to write.
            parameters: Host arrays.
            about: Fields of the card: `training`, a sentence, and others.
        """


@dataclass(frozen=True)
class NetworkTask:
    """Base of tasks that train one network of the registry, from maps to maps.

    Attributes:
        network: Hyperparameters of the network.
        patch: Side of the patches, voxels.
        conditions: Number of conditions that the task has for a network that depends on some.
        start: Initial parameters; None for random ones.
        pretraining: How the initial parameters were trained.
        license: License of the resulting weights.
        origin: Origin of the resulting weights.
    """

    network: NetworkConfig
    patch: int = field(default=0, kw_only=True)
    conditions: ClassVar[int] = 0
    start: Parameters | None = field(default=None, kw_only=True)
    pretraining: str | None = field(default=None, kw_only=True)
    license: str = field(default="yours to choose: trained from your own data", kw_only=True)
    origin: str = field(default="trained with crefjax", kw_only=True)

    def __post_init__(self):
        wanted = getattr(self.network, "conditions", 0)
        if wanted not in (0, self.conditions):
            raise UserError(
                f"config: network.conditions: expected {self.conditions} for this task, found {wanted}; "
                + ("correct it" if self.conditions else "choose a network without conditions")
            )

    def init(self, key: jax.Array) -> Parameters:
        """Return random parameters, or those to start from."""
        if self.start is not None:
            return jax.tree.map(jnp.asarray, self.start)
        return load_model(self.network.network).init(key, self.network)

    def apply(self, parameters: Parameters, maps: jax.Array) -> jax.Array:
        """Return the network's output for `(samples, z, y, x)`, of the same shape."""
        return load_model(self.network.network).apply(parameters, maps[..., None], self.network)[..., 0]

    def started_from(self, weights: Weights) -> Self:
        """Return the task with weights of its network as initial parameters; their license holds for the result."""
        return replace(
            self,
            start=weights.parameters,
            pretraining=weights.card.get("training"),
            license=weights.card["license"],
            origin=f"trained with crefjax from {weights.name}: {weights.card['source']}",
        )

    def card(self) -> dict:
        """Return the task's own fields of the card, `expected_input` among them."""
        raise NotImplementedError

    def export(self, folder: Path, parameters: Parameters, about: dict) -> None:
        """Write a weights folder; `about` adds to the task's own fields of the card, and replaces them."""
        card = {"source": self.origin, "license": self.license, **self.card(), **about}
        save_weights(folder, parameters, self.network, card, overwrite=True)


# By the name in `config.task` a module with `make_task`, or such a function itself, `(config) -> (task, source)`.
# To add a task to the package, add its module here; a task elsewhere is named by its module, which may also define
# `SETTINGS`, the fields of `config.settings` with their defaults.
TASKS: dict[str, str | Callable[[ConfigDict], tuple[Task, DataSource]]] = {
    "denoising": "crefjax.training.denoising",
    "classification": "crefjax.training.voxel_classification",
    "images": "crefjax.training.image_denoising",
}


def make_task(config: ConfigDict) -> tuple[Task, DataSource]:
    """Return the task that a config names, and its data.

    Raises:
        UserError: There is no such task, its settings are invalid, or its data cannot be read.
    """
    if config.task in TASKS:
        maker = TASKS[config.task]
        return (importlib.import_module(maker).make_task if isinstance(maker, str) else maker)(config)
    maker = getattr(import_own(config.task), "make_task", None)
    if maker is None:
        text = f"one of {', '.join(TASKS)}, or a module that can be imported and defines make_task"
        fix = "; put its folder on PYTHONPATH" if "." in config.task else ""
        raise UserError(f"config: task: expected {text}, found {config.task!r}{fix}")
    return maker(config)
