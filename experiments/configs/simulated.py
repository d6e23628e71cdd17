"""Endless simulated half-maps of atomic models; the truth is known, and by default used for evaluation alone.

    crefjax train --config=experiments/configs/simulated.py --workdir=runs/cref
    crefjax train --config=experiments/configs/simulated.py --workdir=runs/truth \
        --config.losses.cref_l1=0 --config.losses.truth_fsc=1

The models are looked for in ../shared/models/cryoem; --config.data.stream.models=PATTERN names others.

Time: 26 to 31 minutes on two CPU cores with other work on them; 18 at the highest rate seen, 1.9 patches a second.

Result: mean FSC to the truth of eight entries of models that it never saw (`python -m analysis.simulated_denoised`):
0.692 full map, 0.736 by `cref_l1`, 0.802 by `truth_fsc`. The README has them entry by entry.
"""

from crefjax.training.config import default


def get_config():
    """The paper's network and loss, with a short schedule."""
    c = default()
    c.batch = 2
    c.steps = 1000
    c.epoch_steps = 250
    c.average = 0.99
    c.data.source = "stream"
    c.data.patch = 64
    c.data.stream.models = "../shared/models/cryoem/*.cif.gz"
    c.data.stream.exclude = "8tze,7yc8,9be6,9jmb,8tsq,6bqn"  # those of analysis/simulated_denoised.py
    c.data.stream.held_out = "9nhz,6mmm"
    c.data.stream.held_out_samples = 32
    c.data.stream.masked = 0.5
    c.data.stream.gain = (1.0, 1.6)
    c.optimizer.clip = 1.0
    c.schedule.name = "cosine"
    c.schedule.rate = 2e-3
    c.schedule.warmup = 20
    return c
