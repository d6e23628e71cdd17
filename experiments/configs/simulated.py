"""Endless simulated half-maps of atomic models, with known truth.

crefjax train --config=experiments/configs/simulated.py --workdir=runs/simulated
"""

from crefjax.training.config import default


def get_config():
    """Self-supervised by default: the truth is there for evaluation alone."""
    c = default()
    c.batch = 2
    c.steps = 1000
    c.epoch_steps = 250
    c.average = 0.99
    c.data.source = "stream"
    c.data.patch = 64
    c.data.stream.models = "../shared/models/cryoem/*.cif.gz"
    c.data.stream.exclude = "8tze,7yc8,9be6,9jmb,8tsq,6bqn"  # those of analysis/simulated_denoised.py
    c.data.stream.held_out = "9nhz,6mmm"
    c.data.stream.held_out_samples = 32
    c.data.stream.masked = 0.5
    c.data.stream.gain = (1.0, 1.6)
    c.optimizer.clip = 1.0
    c.schedule.name = "cosine"
    c.schedule.rate = 2e-3
    c.schedule.warmup = 20
    return c
