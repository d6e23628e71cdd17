"""The raised cosine, the soft edge of masks and filters; NumPy alone, no JAX."""

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
