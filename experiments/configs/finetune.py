"""Fine-tune weights on entry folders, each denoised half-map against the other half-map, as `crefjax finetune` does.

    crefjax train --config=experiments/configs/finetune.py --workdir=runs/finetune --config.weights=WEIGHTS \
        --config.data.entries.folders=ENTRY,ENTRY

Time: ten minutes at most, less if five evaluations in a row bring no improvement.

Result: `runs/finetune/best`. Only `crefjax finetune` tests whether the improvement exceeds the scatter, by a part of
the particle that is used neither for training nor for stopping.
"""

from crefjax.training.config import REQUIRED, finetune_config


def get_config():
    """Return the configuration of `crefjax finetune`, without its weights."""
    c = finetune_config()
    c.weights = REQUIRED
    return c
