"""The network averaged over rotations of the cube, under which its input and its output turn alike."""

from collections.abc import Callable

import jax
import numpy as np

from crefjax.data.patches import ROTATIONS, rotate
from crefjax.errors import UserError
from crefjax.inference.streaming import padded_shape, run_network, slab_sizes
from crefjax.weights.store import Weights

NUMBERS = (1, 4, 24)
_AFFORDED = 0.9  # share of the time that the network takes on the map's own grid


def choose_rotations(number: int | None, working: tuple[int, int, int], shape: tuple[int, int, int]) -> int:
    """How many rotations to average over: the number given, or as many as the working grid has made time for.

    Args:
        number: one of `NUMBERS`, or None.
        working: `(z, y, x)` of the working grid.
        shape: of the map.

    Raises:
        UserError: there is no such number.
    """
    if number is None:
        share = float(np.prod(working, dtype=float) / np.prod(shape, dtype=float))
        return max(n for n in NUMBERS if n == 1 or n * share <= _AFFORDED)
    if number not in NUMBERS:
        raise UserError(f"--rotations: expected one of {', '.join(map(str, NUMBERS))}, found {number}")
    return number


def cube_rotations(number: int) -> list[int]:
    """Indices into `crefjax.data.patches.ROTATIONS`: the identity; the half turns about each axis; or all.

    The half turns keep the shape of every box.

    Args:
        number: one of `NUMBERS`.
    """
    unmoved = [index for index, (axes, _) in enumerate(ROTATIONS) if axes == (0, 1, 2)]
    return {1: [0], 4: unmoved, 24: list(range(len(ROTATIONS)))}[number]


def turned_back(array: np.ndarray, index: int) -> np.ndarray:
    """What `crefjax.data.patches.rotate` makes, undone; a view."""
    axes, flips = ROTATIONS[index]
    return array[tuple(slice(None, None, -1 if flip else None) for flip in flips)].transpose(np.argsort(axes))


def run_rotated(
    weights: Weights,
    array: np.ndarray,
    number: int,
    *,
    slab: int,
    device: jax.Device,
    progress: Callable[[float], None] | None = None,
) -> np.ndarray:
    """The mean of the network's outputs for a standardized map, `(z, y, x)`, over rotations of the cube.

    Args:
        weights: of the network.
        array: `(z, y, x)`, float32, standardized.
        number: one of `NUMBERS`.
        slab: planes of a slab; of a box that is no cube, as many as divide its depth when it is turned.
        device: to compute on.
        progress: called with the share of the work that is done, 0 to 1.
    """
    total = None
    for done, index in enumerate(cube_rotations(number)):
        share = None if progress is None else lambda part, done=done: progress((done + part) / number)
        x = np.ascontiguousarray(rotate(array, index))
        planes = max(n for n in slab_sizes(padded_shape(x.shape, weights.config)[0]) if n <= slab or n == 2)
        y = run_network(weights.parameters, x, weights.config, slab=planes, device=device, progress=share)
        y = turned_back(y, index)
        total = y if total is None else total + y
    return total if number == 1 else total / np.float32(number)
