"""Train the conditional diffusion of Zhang et al. 2024 on simulated particle images, and then its post-processing.

    export PYTHONPATH=$PWD  # in the folder of the project, so that crefjax finds the networks
    crefjax images simulate phantom -o runs/images/particles --count 2000 --pixel-size 3 --side 64
    crefjax train --config=experiments/configs/images_diffusion.py --workdir=runs/images_diffusion
    crefjax train --config=experiments/configs/images_diffusion.py --workdir=runs/images_diffusion_post \
        --config.weights=runs/images_diffusion/best --config.settings.stage=post --config.steps=1000

`crefjax images denoise` uses the result of either; `python -m experiments.images.set_schedule` sets the steps of its
refinement.
"""

from crefjax.training.config import default

NAME = "experiments.images.diffusion"


def get_config():
    """Return the config of the diffusion."""
    c = default(network=NAME, task=NAME)
    c.batch = 8
    c.steps = 20000
    c.epoch_steps = 1000
    c.average = 0.999
    c.data.patch = 64
    c.data.images.folders = "runs/images/*"
    c.data.images.held_out_patches = 32
    c.network.width = 32
    c.network.clean_scale = 8.0  # the signal-to-noise ratio of such a set is 0.014, whose root is about 1 / 8
    c.optimizer.clip = 1.0
    c.schedule.name = "cosine"
    c.schedule.rate = 3e-4
    c.schedule.warmup = 500
    return c
