"""Train as published (Agarwal et al. 2024), on a dataset of your own half-maps.

    crefjax prepare ENTRY... -o dataset
    crefjax train --config=experiments/configs/paper.py --workdir=runs/paper --config.data.dataset.folder=dataset

Time: 55,176 patches of 96 voxels a side for 195 epochs took the authors about 120 hours on three A100 GPUs with 80 GB.
All GPUs that JAX sees are used if their number divides the batch size of 6.

Result: `runs/paper/best`, a weights folder for `crefjax denoise --weights`.
"""

from crefjax.training.config import default


def get_config():
    """Return the defaults, which are those of the paper."""
    return default()
