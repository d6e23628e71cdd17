"""Train NT2C (Li et al. 2022) in its three stages on simulated micrographs.

    export PYTHONPATH=$PWD  # in the folder of the project, so that crefjax finds the networks
    crefjax images simulate phantom -o runs/micrographs/a --micrographs --count 20 --pixel-size 3 --side 1024
    crefjax train --config=experiments/configs/images_nt2c.py --workdir=runs/images_nt2c/coarse
    crefjax images extract-noise runs/micrographs/a/images.mrcs -o runs/images_nt2c/noise.mrcs \
        --weights runs/images_nt2c/coarse/best
    crefjax train --config=experiments/configs/images_nt2c.py --workdir=runs/images_nt2c/noise \
        --config.settings.stage=noise --config.weights=runs/images_nt2c/coarse/best \
        --config.settings.noise=runs/images_nt2c/noise.mrcs --config.schedule.name=constant --config.schedule.rate=1e-4
    crefjax train --config=experiments/configs/images_nt2c.py --workdir=runs/images_nt2c/fine \
        --config.settings.stage=fine --config.weights=runs/images_nt2c/noise/best

`crefjax images denoise` uses the result of the first stage or the last.
"""

from crefjax.training.config import default

NAME = "experiments.images.nt2c"


def get_config():
    """Return the config of the first stage."""
    c = default(network=NAME, task=NAME)
    c.batch = 8
    c.steps = 4000
    c.epoch_steps = 500
    c.data.patch = 128
    c.data.images.folders = "runs/micrographs/*"
    c.optimizer.clip = 1.0
    c.schedule.name = "cosine"
    c.schedule.rate = 1e-3
    c.schedule.warmup = 100
    c.schedule.final = 0.02
    return c
