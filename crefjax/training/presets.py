"""Configs that commands use by themselves; `experiments/configs/` gives them to `crefjax train` too."""

from ml_collections import ConfigDict

from crefjax.training.config import default


def demo() -> ConfigDict:
    """A small network on small patches of phantoms, which learns something in two minutes on two CPU cores."""
    c = default()
    c.batch = 4
    c.steps = 220
    c.epoch_steps = 110
    c.network.depth = 3
    c.data.source = "stream"
    c.data.patch = 32
    c.data.stream.phantoms = 24
    c.data.stream.held_out_phantoms = 4
    c.data.stream.held_out_samples = 16
    c.data.stream.voxel_size = (1.2, 1.8)
    c.data.stream.resolution = (2.4, 4.0)
    c.data.stream.gain = (1.0, 1.5)
    c.losses.cref_l1 = 0.0
    c.losses.truth_fsc = 1.0
    c.optimizer.clip = 1.0
    c.schedule.name = "cosine"
    c.schedule.rate = 4e-3
    c.schedule.warmup = 10
    c.checkpoint.every_minutes = 0.0
    return c


def finetune() -> ConfigDict:
    """Weights adapted to one specimen without truth: either denoised half-map against the other half-map."""
    c = default()
    c.batch = 2
    c.steps = 2000
    c.epoch_steps = 20
    c.minutes = 10.0
    c.average = 0.98
    c.data.source = "entries"
    c.data.patch = 64
    c.data.entries.held_out = 0.3
    c.data.entries.held_out_patches = 16
    c.losses.cref_l1 = 0.0
    c.losses.fsc = 1.0
    c.optimizer.clip = 1.0
    c.schedule.name = "constant"
    c.schedule.rate = 2e-4
    c.schedule.warmup = 20
    c.evaluation.patience = 5
    c.checkpoint.every_minutes = 0.0
    c.checkpoint.keep = 1
    return c
