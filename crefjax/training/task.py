"""What the loop trains: anything that gives first parameters, a loss for every sample, and metrics."""

from pathlib import Path
from typing import Any, Protocol

import jax

# A tree of arrays whose first axis runs over samples.
Batch = Any
# A tree of arrays.
Parameters = Any


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
