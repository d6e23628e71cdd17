"""What a step changes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from crefjax.training.task import Parameters


class State(NamedTuple):
    """The state of a run; with its source's position all that the next step depends on.

    Attributes:
        step: steps done, int32.
        parameters: of the network.
        optimizer: the optimizer's own.
        average: of the parameters, exponential; None where none is kept.
    """

    step: jax.Array
    parameters: Parameters
    optimizer: Any
    average: Parameters | None

    @property
    def best_parameters(self) -> Parameters:
        """Those to evaluate and to ship."""
        return self.parameters if self.average is None else self.average


def first_state(parameters: Parameters, optimizer: optax.GradientTransformation, *, average: bool) -> State:
    """The state before the first step."""
    return State(
        jnp.zeros((), jnp.int32),
        parameters,
        optimizer.init(parameters),
        jax.tree.map(jnp.copy, parameters) if average else None,  # a copy: the state's buffers are donated
    )


def updated_average(average: Parameters, parameters: Parameters, step: jax.Array, decay: float) -> Parameters:
    """The exponential average with new parameters in it.

    Early on the decay is `(1 + step) / (10 + step)`, so that the random first parameters are soon forgotten.
    """
    now = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda old, new: old + (1 - now) * (new - old), average, parameters)
