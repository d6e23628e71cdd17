"""All that a short time on a machine with a GPU and no network is for, by one command.

    python -m experiments.gpu --models MODELS -o DIR --minutes 11

does, in this order: the tests that need a GPU; a rehearsal of training with growing batches, which chooses the batch;
the benchmarks (whole maps of 256³ and 512³, the train step in float32 and bfloat16 at 64³ and 96³, the stream of
training pairs); and training from the newest state, in bfloat16, for the rest of the time. Each is a process of its own
with a limit of time, and what one of them found is in DIR as soon as it is known, whatever happens to the others:

    results.json, results.md    what was run, for how long, and every number; a table to paste
    log.txt                     what the processes said
    metrics.jsonl               of the training
    run.tar.gz                  its newest checkpoint, config and weights, in pieces (.00, .01, ...) above 15 MiB

The training that comes back goes on, here or there:

    mkdir -p runs/gpu && cat DIR/run.tar.gz* | tar xz -C runs/gpu
    python -m experiments.gpu --models MODELS -o DIR2 --minutes 11 --state runs/gpu/checkpoints

with the batch, the rate and the cycle that it was begun with. A state of another config (of another batch, of float32)
only gives its averaged parameters, from which a new run begins. MODELS has the folders of atomic models that the config
names, such as `cryoem` and `em`.

On a machine without mrcfile, gemmi, ml-collections and tensorboardX, and without a way to install them, they come along
as wheels in a folder that Git ignores, made where there is a network (here for Python 3.12):

    python -m pip download --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux2014_x86_64 \
        -d wheels mrcfile gemmi ml-collections tensorboardX

(3.1 MB; with `grain array_record portpicker` where the stream is mixed with entries), and the models beside them. Then,
on that machine, in the root of the repository:

    python3 -m pip install --no-index --no-deps --target /tmp/site wheels/*.whl
    PYTHONPATH=/tmp/site python3 -m experiments.gpu --models MODELS -o DIR --minutes 9

where the minutes leave one for the start and for what copies DIR. `--smoke` does all of it on a CPU in two minutes, in
boxes too small to mean anything, to see beforehand that it runs.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from analysis.files import check_output, run_study
from crefjax.errors import UserError
from experiments.gpu.parts import PARTS, Work
from experiments.gpu.processes import ROOT

NAME = "gpu"


def main(argv: Sequence[str] | None = None) -> int:
    """Do it; returns 0, 1 if a part failed, 2 after a mistake of the user's, 128 and its number after a signal."""
    return run_study(NAME, _parser(), _run, argv)


def _parser():
    parser = argparse.ArgumentParser(prog=f"python -m experiments.{NAME}", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--models", metavar="MODELS", type=Path, required=True, help="folder of the folders of models, as cryoem/")
    add("-o", "--output", metavar="DIR", type=Path, required=True, help="folder to write")
    add("--minutes", type=float, help="of all; default: 11, with --smoke 2")
    add("--smoke", action="store_true", help="the smallest boxes, on a CPU")
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="only these; default: all")
    state = ROOT / "experiments" / "checkpoints" / "truth"
    add("--state", metavar="FOLDER", type=Path, default=state, help="`checkpoints` of a run, or a folder like it")
    add("--anew", action="store_true", help="begin a new run from the state's parameters even if it could go on")
    config = ROOT / "experiments" / "configs" / "weights.py"
    add("--config", metavar="FILE", type=Path, default=config, help="of the training; default: configs/weights.py")
    add("--patch", type=int, help="voxels a side; default: 96, with --smoke 32")
    add("--batches", type=int, nargs="+", help="to choose from; default: 4 8 16 32, with --smoke 1 2")
    add("--cycle-steps", type=int, default=0, help="of the rate; default: as many as there is time for")
    add("--largest-rate", type=float, default=2.0, help="largest factor on the config's rate for a larger batch")
    add("--test-seconds", type=float, default=90.0, help="longest time of the tests")
    add("--benchmark-seconds", type=float, default=240.0, help="longest time of rehearsal and benchmarks together")
    add("--set", nargs="+", metavar="FIELD=VALUE", default=[], help="other fields of the config, as losses.bias=0.1")
    add("--overwrite", action="store_true", help="replace the results that are in DIR")
    return parser


def _run(arguments):
    _check(arguments)
    with tempfile.TemporaryDirectory(prefix="crefjax-gpu-") as scratch:
        return Work.begin(arguments, Path(scratch)).do()


def _check(arguments):
    """What can be known to be wrong before anything is run."""
    check_output(arguments.output, "results.json", overwrite=arguments.overwrite)
    if not arguments.models.is_dir():
        raise UserError(f"{arguments.models}: expected a folder with folders of atomic models; check --models")
    if not any(one.is_dir() and one.name.isdigit() for one in arguments.state.glob("*")):
        raise UserError(f"{arguments.state}: expected checkpoints of a run, found none; check --state")
    if not arguments.config.is_file():
        raise UserError(f"{arguments.config}: expected a config, found no such file; check --config")
    if arguments.minutes is None:
        arguments.minutes = 2.0 if arguments.smoke else 11.0
    for name, value in (("--minutes", arguments.minutes), ("--largest-rate", arguments.largest_rate)):
        if not 0 < value < float("inf"):
            raise UserError(f"{name}: expected a number above 0, found {value:g}")
    for value in (arguments.patch, *(arguments.batches or [])):
        if value is not None and value < 1:
            raise UserError(f"--patch, --batches: expected whole numbers above 0, found {value}")
    if wrong := next((one for one in arguments.set if "=" not in one), None):
        raise UserError(f"--set: expected FIELD=VALUE, found {wrong}")


if __name__ == "__main__":
    sys.exit(main())
