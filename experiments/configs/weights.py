"""What weights for the package are trained on; models and entries are looked for beside the project.

    export XLA_FLAGS=--xla_force_host_platform_device_count=2  # on two cores: shorter steps
    python -m experiments.training_entries ../shared/models -o runs/entries
    crefjax train --config=experiments/configs/weights.py --workdir=runs/truth

and by half-maps alone:

    crefjax train --config=experiments/configs/weights.py --workdir=runs/cref --config.losses.truth_fsc=0 \
        --config.losses.truth_l2=0 --config.losses.cref_l1=0.5 --config.losses.cref_l1_masked=0.5 \
        --config.losses.gain_l1=0.3 --config.steps=2000 --config.schedule.cycle_steps=1000
"""

from crefjax.training.config import default

# Those of `analysis/simulated_benchmark.py`, and the two that are the same proteins as one of them (6rn3, 1KXP).
NEVER = "8tze,7yc8,9jmb,8tsq,6bqn,7a4m,7l2j,6rn2,6rn3," + ",".join(
    f"{name}_target" for name in ("1GP2", "2VDB", "4GAM", "1H1V", "1EXB", "1KXP")
)
HELD_OUT = "1T6B_target,4FQI_target,3LVK_target,4LW4_target"  # on which settings are chosen


def get_config():
    """The paper's network, taught by the truth of an endless stream of simulated half-maps."""
    c = default()
    c.batch = 2
    c.steps = 2100
    c.epoch_steps = 300
    c.average = 0.995
    c.losses.cref_l1 = 0.0
    c.losses.truth_fsc = 1.0
    c.losses.truth_l2 = 0.3  # without it the lowest frequencies of whole maps grow without limit
    c.data.source = "stream"
    c.data.patch = 64
    c.data.entries.folders = "runs/entries/*"
    c.data.entries.held_out = 0.0
    s = c.data.stream
    s.models = "../shared/models/cryoem/*.cif.gz,../shared/models/docking/*.pdb.gz"
    s.shares = "2,1"
    s.exclude = NEVER
    s.held_out = HELD_OUT
    s.held_out_samples = 6  # as large as many whole maps: patches of 64³ do not show what breaks in those
    s.held_out_patch = 128
    s.entries = 0.05
    s.masked = 0.5
    s.gain = (0.9, 2.2)
    s.level = (0.1, 1.0)
    s.voxel_size = (0.6, 2.2)
    s.resolution = (2.1, 5.0)
    s.resolution_limits = (1.8, 8.0)
    s.b_factor = (10.0, 150.0)
    s.belt = 0.15
    s.flexible = 0.25
    s.sharpened = 0.25
    s.low_passed = 0.1
    c.optimizer.name = "muon"
    c.optimizer.clip = 1.0
    c.schedule.name = "cycles"
    c.schedule.cycle_steps = 2100
    c.schedule.rate = 2e-3
    c.schedule.decay = 0.6
    c.schedule.warmup = 20
    return c
