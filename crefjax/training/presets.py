"""Configs that commands use by themselves; `experiments/configs/` gives them to `crefjax train` too."""

from ml_collections import ConfigDict

from crefjax.training.config import default


def demo() -> ConfigDict:
    """A small network on small patches of phantoms, which learns something in two minutes on two CPU cores."""
    c = _short(steps=220, epoch_steps=110, loss="truth_fsc", schedule="cosine", rate=4e-3, warmup=10)
    c.batch = 4
    c.network.depth = 3
    c.data.source = "stream"
    c.data.patch = 32
    c.data.stream.phantoms = 24
    c.data.stream.held_out_phantoms = 4
    c.data.stream.held_out_samples = 16
    c.data.stream.voxel_size = (1.2, 1.8)
    c.data.stream.resolution = (2.4, 4.0)
    c.data.stream.gain = (1.0, 1.5)
    return c


def finetune() -> ConfigDict:
    """Weights adapted to one specimen without truth: either denoised half-map against the other half-map."""
    c = _short(steps=2000, epoch_steps=20, loss="fsc", schedule="constant", rate=2e-4, warmup=20)
    c.batch = 2
    c.minutes = 10.0
    c.average = 0.98
    c.data.source = "entries"
    c.data.patch = 64
    c.data.entries.held_out = 0.3
    c.data.entries.held_out_patches = 16
    c.evaluation.patience = 5
    c.checkpoint.keep = 1
    return c


def _short(*, steps, epoch_steps, loss, schedule, rate, warmup) -> ConfigDict:
    """A run of minutes, by one loss: gradients are clipped, and only epochs end with a checkpoint."""
    c = default()
    c.steps, c.epoch_steps = steps, epoch_steps
    c.losses.cref_l1 = 0.0
    c.losses[loss] = 1.0
    c.optimizer.clip = 1.0
    c.schedule.name, c.schedule.rate, c.schedule.warmup = schedule, rate, warmup
    c.checkpoint.every_minutes = 0.0
    return c
