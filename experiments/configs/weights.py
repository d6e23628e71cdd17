"""Train the included weights, on half-maps simulated from the atomic models in `../shared/models`.

    export XLA_FLAGS=--xla_force_host_platform_device_count=2  # on two cores: shorter steps
    crefjax train --config=experiments/configs/weights.py --workdir=runs/truth

One cycle is 12,000 patches (6,800 took 46 minutes on two CPU cores); `last` has the weights at its end. The same
command with `--config.steps` larger by 6000 continues the run for another cycle, at lower rates. From half-maps alone:

    crefjax train --config=experiments/configs/weights.py --workdir=runs/cref --config.losses.truth_fsc=0 \
        --config.losses.truth_l2=0 --config.losses.fsc=1 --config.losses.n2n_l2=0.3 --config.losses.cref_l1=0.5 \
        --config.losses.cref_l1_masked=0.5 --config.losses.gain_l1=0.3
"""

from crefjax.training.config import default

# The models of `analysis/weights/simulated_benchmark.py`, and one that is the same protein as one of them (6rn3).
NEVER = "8tze,7yc8,9jmb,8tsq,6bqn,7a4m,7l2j,6rn2,6rn3,6m15,9c0g,8d3m,6gyn,7kmx,5gjv"
# The models that settings are chosen by.
HELD_OUT = "6o1p,7pbl,6out,7nsg"
# The same proteins as in real maps that results are measured on: T20S, and the protein of EMD-3186.
REAL = "3c91,3j9i,5fj6"
# One of each family is enough: tubulins, CFTR, Hfq with its partners, VgrG1.
RELATIVES = "6cvn,6e7c,3j8x,5ij0,6b0l,6o1l,6o1m,6h3l,5uak,7sv7,7svr"
EXCLUDE = f"{NEVER},{REAL},{RELATIVES}"


def get_config():
    """Return the configuration: a network of three levels, trained on the truth of an endless simulated stream."""
    c = default()
    c.batch = 2
    c.steps = 6000
    c.epoch_steps = 1000
    c.average = 0.998
    c.losses.cref_l1 = 0.0
    c.losses.truth_fsc = 1.0
    c.losses.truth_l2 = 0.3  # without it, the lowest frequencies of whole maps grow without limit
    c.data.source = "stream"
    c.data.patch = 64
    c.data.grid = 3.3
    # In patches of 64³, deeper levels see nothing but borders, and break whole maps.
    c.network.depth = 3
    c.network.growth = 2
    s = c.data.stream
    s.models = "../shared/models/cryoem/*.cif.gz,../shared/models/em/*.gz"
    s.exclude = EXCLUDE
    s.held_out = HELD_OUT
    s.held_out_samples = 6  # as large as many whole maps, whose faults patches of 64³ do not show
    s.held_out_patch = 128
    s.whole_map = True
    s.masked = 0.3
    s.gain = (0.8, 1.25)
    s.voxel_size = (0.6, 3.4)
    s.resolution = (3.0, 3.7)  # as maps have it on the working grid
    s.resolution_limits = (1.7, 12.0)
    s.b_factor = (5.0, 500.0)
    s.falloff = 14.0
    s.best_falloff = True
    s.falloff_spread = 1.5
    s.belt = 0.15
    s.flexible = 0.25
    s.bulk_solvent = 0.3
    s.sharpened = 0.3
    s.low_passed = 0.3
    s.low_pass = (1.0, 1.6)
    s.low_pass_edge = (0.05, 0.3)
    c.optimizer.name = "muon"
    c.optimizer.clip = 1.0
    c.schedule.name = "cycles"
    c.schedule.cycle_steps = 6000
    c.schedule.rate = 2e-3
    c.schedule.decay = 0.8
    c.schedule.warmup = 30
    c.schedule.final = 0.03
    return c
