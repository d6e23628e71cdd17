"""Batches with the names of where they are from, and iterators of them that can go on where they were."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from crefjax.training.task import Batch


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
