"""Noise levels of the conditional diffusion: the schedules, and what the training draws from them.

A level is gamma, the share of the clean image in the power of a partly noised one.
"""

import jax
import jax.numpy as jnp

SCHEDULES = ("linear", "cosine")
# Limits of the rate at which the share of the signal falls, for a time from 0 to 1: those of SR3, 1e-6 to 1e-2 in each
# of 2000 steps.
_FIRST_RATE, _LAST_RATE = 0.002, 20.0
_COSINE_OFFSET, _LEAST_SHARE = 0.008, 1e-4


def noise_levels(schedule: str, steps: int) -> jax.Array:
    """Return the levels gamma of a schedule after each step from the clean image to noise, `(steps,)`, falling.

    With the time `s = t / steps`, `linear` is the limit of many steps whose noise grows linearly (Ho et al. 2020, in
    the closed form of Song et al. 2021), `gamma = exp(-(a s + (b - a) s^2 / 2))` with a = 0.002 and b = 20, and
    `cosine` is `cos^2(pi / 2 (s + 0.008) / 1.008)`, divided by its value at 0 and at least 1e-4 (Nichol & Dhariwal
    2021).

    Args:
        schedule: `linear` or `cosine`.
        steps: Number of levels.
    """
    s = jnp.arange(1, steps + 1) / steps
    if schedule == "linear":
        return jnp.exp(-(_FIRST_RATE * s + (_LAST_RATE - _FIRST_RATE) * s**2 / 2))
    angle = jnp.pi / 2 / (1 + _COSINE_OFFSET)
    share = (jnp.cos(angle * (s + _COSINE_OFFSET)) / jnp.cos(angle * _COSINE_OFFSET)) ** 2
    return jnp.maximum(share, _LEAST_SHARE)


def draw_levels(key: jax.Array, count: int, levels: jax.Array) -> jax.Array:
    """Draw noise levels: a pair of neighbors of a schedule, and uniformly between the two, as SR3; `(count,)`."""
    first, second = jax.random.split(key)
    index = jax.random.randint(first, (count,), 0, len(levels))
    upper = jnp.concatenate([jnp.ones(1), levels[:-1]])[index]
    return levels[index] + (upper - levels[index]) * jax.random.uniform(second, (count,))
