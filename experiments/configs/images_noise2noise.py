"""Train a 2D U-Net by Noise2Noise on pairs of half-exposures of simulated images.

    crefjax images simulate 3j9i.pdb.gz -o runs/images/3j9i --count 500 --pixel-size 3 --side 80 --seed 2
    crefjax train --config=experiments/configs/images_noise2noise.py --workdir=runs/images_noise2noise

The weights `images` are from five such sets, of PDB entries 6RN2, 3J9I, 8BK7, 7L2J, and 9N5J with the seeds 1 to 5; a
phantom does as well for a trial. Time: 15 minutes on two CPU cores that other programs also used. Result: a mean ring
correlation with the clean signal of 0.291 on held-out images (noisy images: 0.256).
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
