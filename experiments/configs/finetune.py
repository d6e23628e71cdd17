"""What `crefjax finetune` trains, on entry folders: either denoised half-map against the other half-map, no truth.

    crefjax train --config=experiments/configs/finetune.py --workdir=runs/finetune --config.weights=WEIGHTS \
        --config.data.entries.folders=ENTRY,ENTRY

Time: ten minutes at most, less if five evaluations in a row bring nothing.

Result: `runs/finetune/best`. Whether it is a gain beyond the scatter only `crefjax finetune` says, which judges by a
part of the particle that neither trains nor chooses.
"""

from crefjax.training.config import REQUIRED, finetune_config


def get_config():
    """As `crefjax finetune` has it, but that its weights are named by hand."""
    c = finetune_config()
    c.weights = REQUIRED
    return c
