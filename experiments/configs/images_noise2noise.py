"""Train a 2D U-Net by Noise2Noise on pairs of half-exposures of simulated images.

    crefjax images simulate phantom -o runs/images/particles --count 2000 --pixel-size 3 --side 64
    crefjax train --config=experiments/configs/images_noise2noise.py --workdir=runs/images_noise2noise

`crefjax images denoise` uses the result.
"""

from crefjax.training.config import default


def get_config():
    """Return the config of Noise2Noise on images."""
    c = default("unet2d")
    c.task = "images"
    c.batch = 8
    c.steps = 800
    c.epoch_steps = 100
    c.average = 0.98
    c.data.patch = 64
    c.data.images.folders = "runs/images/*"
    c.network.depth = 4
    c.losses.cref_l1 = 0.0
    c.losses.n2n_l2 = 1.0
    c.optimizer.clip = 1.0
    c.schedule.name = "cosine"
    c.schedule.rate = 3e-3
    c.schedule.warmup = 30
    c.schedule.final = 0.02
    return c
