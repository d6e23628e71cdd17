"""Train the classifier of voxels on simulated labeled maps.

    python -m experiments.voxel_classifier.simulate_maps MODEL... -o runs/labeled_maps
    python -m experiments.voxel_classifier.simulate_maps SMALL_MODEL... --filaments -o runs/labeled_maps
    export PYTHONPATH=$PWD  # so that this file can import from experiments/
    export XLA_FLAGS=--xla_force_host_platform_device_count=2  # on two cores: shorter steps
    crefjax train --config=experiments/configs/classifier.py --workdir=runs/classifier

Maps that do not fit their models are left out by their similarity. 3,000 steps of four patches take about an hour on
two CPU cores.
"""

from pathlib import Path

from crefjax.training.config import default
from experiments.voxel_classifier.simulate_maps import RECORD, usable_maps

FOLDER = Path("runs/labeled_maps")
HELD_OUT = "7kjr,5ni1,6hbu"  # models whose maps are evaluated during the training


def get_config():
    """Return the config of the classifier's training."""
    c = default("conditioned_unet3d")
    c.task = "classification"
    c.batch = 4
    c.steps = 3000
    c.epoch_steps = 500
    c.average = 0.995
    c.seed = 1
    c.data.patch = 64
    # Without any map the training says what is missing.
    folders = usable_maps(FOLDER)[0] if any(FOLDER.glob(f"*/{RECORD}")) else [FOLDER / "*"]
    c.data.labeled.folders = ",".join(map(str, folders))
    c.data.labeled.held_out = HELD_OUT
    c.data.labeled.gain = (0.7, 1.5)
    c.network.depth = 3
    c.optimizer.name = "muon"
    c.optimizer.clip = 1.0
    c.schedule.name = "cosine"
    c.schedule.rate = 1.5e-3
    c.schedule.warmup = 30
    c.schedule.final = 0.02
    return c
