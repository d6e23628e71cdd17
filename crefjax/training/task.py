"""What the training loop works with: a task to train, and a source of batches."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax

# A tree of arrays whose first axis runs over samples.
Batch = Any
# A tree of arrays.
Parameters = Any


class NamedBatch(NamedTuple):
    """A batch with the names of its samples' entries."""

    batch: Batch
    entries: tuple[str, ...]


class Position(Protocol):
    """An endless iterator of `NamedBatch` whose position can be saved and gone back to."""

    def __next__(self) -> NamedBatch: ...

    def get_state(self) -> dict:
        """The position, as JSON can hold it."""

    def set_state(self, state: dict) -> None:
        """Go to a position."""


def close(batches: Iterator[NamedBatch] | Position) -> None:
    """End the threads of an iterator of batches, if it has any; nothing can be had from it after that."""
    if end := getattr(batches, "close", None):
        end()


@dataclass(frozen=True)
class Source:
    """Batches to train on and batches to evaluate on.

    Attributes:
        kind: one of `config.SOURCES`.
        patch: voxels a side.
        truth: whether the batches have one.
        size: samples in an epoch; None for an endless source.
        training: gives the iterator of training batches.
        held_out: gives an iterator once over samples never trained on, the last batch perhaps short; None: none.
        about: what the data are, in words, for the card of the weights.
    """

    kind: str
    patch: int
    truth: bool
    size: int | None
    training: Callable[[], Position]
    held_out: Callable[[], Iterator[NamedBatch]] | None
    about: str


class Task(Protocol):
    """A network with its losses; the loop knows no more of it than this.

    Attributes:
        name: for people.
        before: a sentence of how its first parameters were trained; a task whose are random needs none.
    """

    name: str

    def init(self, key: jax.Array) -> Parameters:
        """The first parameters."""

    def loss(self, parameters: Parameters, batch: Batch, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The loss of every sample, `(samples,)`, whose mean is trained on, and further numbers of that shape.

        Args:
            parameters: of the network.
            batch: the samples of one device.
            key: for what is random in a step; differs between steps and devices.
        """

    def metrics(self, parameters: Parameters, batch: Batch) -> dict[str, jax.Array]:
        """What an evaluation tells of every sample, `(samples,)` each; `loss` among it, by which the best is chosen."""

    def export(self, folder: Path, parameters: Parameters, about: dict) -> None:
        """Write parameters where they can be used; what is there is replaced.

        Args:
            folder: to write.
            parameters: host arrays.
            about: `training`, a sentence, and numbers to note with it.
        """
