"""Simulate the entries that a training with `experiments/configs/weights.py` can use beside the endless stream.

    python -m experiments.simulate_training_entries MODELS -o DIR

MODELS is a folder with PDB entries in `cryoem/` and `docking/`. The entries have what the stream cannot simulate: the
noise of reconstructed images, with preferred views and pose errors, and whole flexible ends of particles. Existing
entries are left unchanged. 15 minutes on two cores.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.framework.command import run_command
from analysis.framework.simulation import simulate_entry

NAME = "simulate_training_entries"
# Models, and the arguments of `crefjax simulate`.
ENTRIES = {
    "cryoem/9n5j.cif.gz": "--voxel-size 1.3 --resolution 3.4 --method reconstruction --seed 7001",
    "cryoem/8eow.cif.gz": "--voxel-size 1.6 --resolution 4.8 --method reconstruction --seed 7002 --preferred-views 2",
    "cryoem/9be6.cif.gz": "--voxel-size 1.1 --resolution 2.9 --b-factor 40 --method reconstruction --seed 7003",
    "cryoem/9chx.cif.gz": (
        "--voxel-size 1.2 --resolution 3.6 --method reconstruction --seed 7004 --pose-error 1 --shift-error 0.5"
    ),
    "cryoem/6mmm.cif.gz": (
        "--voxel-size 2.1 --resolution 6.5 --b-factor 150 --method reconstruction --seed 7005 --pose-error 2 "
        "--shift-error 1 --flexible 0.3"
    ),
    "cryoem/8bk7.cif.gz": "--voxel-size 1.5 --resolution 3.3 --b-factor 40 --method reconstruction --seed 7006",
    "docking/1BGX_target.pdb.gz": (
        "--voxel-size 1.0 --resolution 2.5 --b-factor 30 --method reconstruction --seed 7007"
    ),
    "docking/1ZM4_target.pdb.gz": (
        "--voxel-size 1.8 --resolution 5.5 --b-factor 100 --method reconstruction --seed 7008 --preferred-views 3"
    ),
    "docking/4JCV_target.pdb.gz": (
        "--voxel-size 0.9 --resolution 3.2 --method reconstruction --seed 7009 --pose-error 1 --no-ctf"
    ),
    "cryoem/5ara.cif.gz": (
        "--voxel-size 2.0 --resolution 7 --b-factor 150 --seed 7010 --flexible 0.25 --noise-power 0.5"
    ),
    "cryoem/9chv.cif.gz": "--voxel-size 1.1 --resolution 3 --seed 7011 --belt 0.5 --unevenness 0.3",
    "docking/3BP8_target.pdb.gz": "--voxel-size 0.8 --resolution 2.4 --b-factor 30 --seed 7012 --flexible 0.3",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate the missing entries; return 0, or 2 after a mistake by the user."""
    parser = argparse.ArgumentParser(prog=f"python -m experiments.{NAME}", description=__doc__.splitlines()[0])
    parser.add_argument("models", metavar="MODELS", type=Path, help="folder with cryoem/ and docking/")
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, required=True, help="folder to write")
    return run_command(NAME, parser, _run, argv)


def _run(arguments):
    for model, options in ENTRIES.items():
        simulate_entry(arguments.models / model, options, arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
