"""The optimizer and the schedule of its rate."""

import optax
from ml_collections import ConfigDict


def make_schedule(config: ConfigDict, *, epoch_steps: int, steps: int) -> optax.Schedule:
    """The learning rate of every step.

    Args:
        config: of the run.
        epoch_steps: steps in an epoch.
        steps: of the whole run.
    """
    chosen = config.schedule
    if chosen.name == "exponential":
        after = optax.exponential_decay(chosen.rate, max(1, round(chosen.decay_epochs * epoch_steps)), chosen.decay)
    elif chosen.name == "cosine":
        after = optax.cosine_decay_schedule(chosen.rate, max(1, steps - chosen.warmup), chosen.final)
    else:
        after = optax.constant_schedule(chosen.rate)
    if not chosen.warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, chosen.rate, chosen.warmup), after], [chosen.warmup])


def make_optimizer(config: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    """The optimizer of a config."""
    chosen = config.optimizer
    if chosen.name == "adam":
        rule = optax.adam(schedule, chosen.b1, chosen.b2, chosen.eps)
    elif chosen.name == "adamw":
        rule = optax.adamw(schedule, chosen.b1, chosen.b2, chosen.eps, weight_decay=chosen.weight_decay)
    else:
        rule = optax.sgd(schedule, momentum=chosen.b1 or None)
    return optax.chain(optax.clip_by_global_norm(chosen.clip), rule) if chosen.clip else rule
