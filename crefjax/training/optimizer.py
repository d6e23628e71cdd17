"""The optimizer and the schedule of its learning rate."""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from crefjax.errors import UserError


def make_schedule(config: ConfigDict, *, epoch_steps: int, steps: int) -> optax.Schedule:
    """Return the learning rate as a function of the step.

    `cycles` is a cosine that restarts after every `cycle_steps`, each time with its warmup and `decay` times the rate
    (warm restarts; Loshchilov & Hutter 2017): a run is complete at the end of every cycle, and can be continued.

    Args:
        config: Config of the run.
        epoch_steps: Steps in an epoch.
        steps: Steps of the whole run.

    Raises:
        UserError: Cycles are not longer than their warmup.
    """
    chosen = config.schedule
    if chosen.name == "cycles":
        return _cycles(chosen)
    if chosen.name == "exponential":
        schedule = optax.exponential_decay(chosen.rate, max(1, round(chosen.decay_epochs * epoch_steps)), chosen.decay)
    elif chosen.name == "cosine":
        schedule = optax.cosine_decay_schedule(chosen.rate, max(1, steps - chosen.warmup), chosen.final)
    else:
        schedule = optax.constant_schedule(chosen.rate)
    if not chosen.warmup:
        return schedule
    return optax.join_schedules([optax.linear_schedule(0.0, chosen.rate, chosen.warmup), schedule], [chosen.warmup])


def _cycles(chosen):
    length = chosen.cycle_steps
    if not length > chosen.warmup:
        raise UserError(
            f"config: schedule.cycle_steps: expected more than schedule.warmup, {chosen.warmup} steps, found "
            f"{length}; set the length of a cycle"
        )

    def rate(step):
        number, within = step // length, step % length
        rising = within / max(chosen.warmup, 1)
        falling = 0.5 + 0.5 * jnp.cos(jnp.pi * (within - chosen.warmup) / (length - chosen.warmup))
        share = jnp.where(within < chosen.warmup, rising, chosen.final + (1 - chosen.final) * falling)
        return chosen.rate * chosen.decay**number * share

    return rate


def make_optimizer(config: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Return the optimizer of a config.

    With `accumulate` above 1, the parameters change after that number of steps, by the mean of their gradients.

    Args:
        config: Config of the run.
        schedule: Learning rate of every step of the run.
    """
    chosen = config.optimizer
    if chosen.accumulate > 1:
        every = chosen.accumulate
        inner = config.copy_and_resolve_references()
        inner.optimizer.accumulate = 1
        # The rule inside counts its own updates.
        rule = make_optimizer(inner, lambda update: schedule(update * every))
        return optax.MultiSteps(rule, every).gradient_transformation()
    if chosen.name == "adam":
        rule = optax.adam(schedule, chosen.b1, chosen.b2, chosen.eps)
    elif chosen.name == "adamw":
        rule = optax.adamw(schedule, chosen.b1, chosen.b2, chosen.eps, weight_decay=chosen.weight_decay)
    elif chosen.name == "muon":
        rule = optax.contrib.muon(
            schedule,
            eps=chosen.eps,
            adam_b1=chosen.b1,
            adam_b2=chosen.b2,
            consistent_rms=0.2,  # steps as large as Adam's, so that the same rates suit both
            muon_weight_dimension_numbers=_as_matrices,
        )
    else:
        rule = optax.sgd(schedule, momentum=chosen.b1 or None)
    return optax.chain(optax.clip_by_global_norm(chosen.clip), rule) if chosen.clip else rule


def _as_matrices(parameters):
    """Treat each kernel of several outputs as a matrix of inputs by outputs for Muon; Adam updates the other arrays."""
    dimensions = optax.contrib.MuonDimensionNumbers((0, 1, 2, 3), (4,))
    return jax.tree.map(lambda array: dimensions if array.ndim == 5 and array.shape[-1] > 1 else None, parameters)
