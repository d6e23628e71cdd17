"""Train the Wasserstein GAN with a gray constraint of Ouyang et al. 2020 on simulated particle images.

    export PYTHONPATH=$PWD  # in the folder of the project, so that crefjax finds the networks
    crefjax images simulate phantom -o runs/images256/particles --count 1000 --pixel-size 1.5 --side 256
    crefjax train --config=experiments/configs/images_wgan.py --workdir=runs/images_wgan

The networks are as large as the paper's, 54 million parameters, and want a GPU; `--config.network.width=16` makes them
16 times smaller. `crefjax images denoise` uses the result.
"""

from crefjax.training.config import default

NAME = "experiments.images.wgan"


def get_config():
    """Return the config of the GAN."""
    c = default(network=NAME, task=NAME)
    c.batch = 4
    c.steps = 50000
    c.epoch_steps = 1000
    c.data.patch = 256
    c.data.images.folders = "runs/images256/*"
    c.optimizer.name = "adam"
    c.schedule.name = "constant"
    c.schedule.rate = 1e-4
    return c
