"""The training of the paper (Agarwal et al. 2024), on a dataset of half-maps of your own.

    crefjax prepare ENTRY... -o dataset
    crefjax train --config=experiments/configs/paper.py --workdir=runs/paper --config.data.dataset.folder=dataset

Time: 55,176 patches of 96 voxels a side for 195 epochs took the authors about 120 hours on three A100 GPUs with 80 GB.
For as many GPUs as divide the batch of 6: all that JAX sees are used.

Result: `runs/paper/best`, a weights folder for `crefjax denoise --weights`.
"""

from crefjax.training.config import default


def get_config():
    """The defaults are the paper's."""
    return default()
