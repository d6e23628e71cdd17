"""The raised cosine, the soft edge of masks, filters, and boxes; NumPy alone, no JAX."""

from types import ModuleType

import numpy as np


def raised_cosine(position, *, rising: bool = False, xp: ModuleType = np):
    """Return a smooth step, `0.5 + 0.5 cos(pi x)`, with the position x clipped to 0 to 1.

    Args:
        position: any shape; the step begins at 0 and ends at 1.
        rising: from 0 up to 1 (`0.5 - 0.5 cos(pi x)`); else from 1 down to 0.
        xp: `numpy` or `jax.numpy`.
    """
    half = 0.5 * xp.cos(xp.pi * xp.clip(position, 0, 1))
    return 0.5 - half if rising else 0.5 + half


def border_window(side: int, edge: float) -> np.ndarray:
    """Return a window along one axis of a box that falls to 0 at both ends, a raised cosine.

    Args:
        side: voxels.
        edge: width of the cosine in voxels, counted from the face of the box; 0 for none.

    Returns:
        `(side,)`, float64.
    """
    if edge == 0:
        return np.ones(side)
    place = np.arange(side) + 0.5
    return raised_cosine(np.minimum(place, side - place) / edge, rising=True)
