"""Run tests, benchmarks, and training in a few minutes on a machine with a GPU and without a network.

    python -m experiments.gpu --models MODELS -o DIR --minutes 11

runs, in this order: the tests that need a GPU; a rehearsal of training with growing batches, which chooses the batch
size; the benchmarks (whole maps of 256³ and 512³, the training step in float32 and bfloat16 at 64³ and 96³, the stream
of training pairs); and training from the newest checkpoint, in bfloat16, for the remaining time. Each is a process of
its own with a time limit, and its results are in DIR as soon as they are known, even if other parts fail:

    results.json, results.md    the parts, their durations, and every number; a table to paste
    log.txt                     output of the processes
    metrics.jsonl               metrics of the training
    run.tar.gz                  newest checkpoint, config, and weights, in pieces (.00, .01, ...) above 15 MiB

The training can be continued on any machine:

    mkdir -p runs/gpu && cat DIR/run.tar.gz* | tar xz -C runs/gpu
    python -m experiments.gpu --models MODELS -o DIR2 --minutes 11 --state runs/gpu/checkpoints

with the batch size, the learning rate, and the cycle that it was started with. From a checkpoint of another
configuration (another batch size, or float32), a new run starts with the averaged parameters. MODELS contains the
folders of atomic models that the configuration names, such as `cryoem` and `em`.

For a machine without mrcfile, gemmi, ml-collections, and tensorboardX, download them as wheels on a machine with a
network connection (this example is for Python 3.12), into a folder that Git ignores:

    python -m pip download --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux2014_x86_64 \
        -d wheels mrcfile gemmi ml-collections tensorboardX

(3.1 MB; add `grain array_record portpicker` if the stream is mixed with entries), and copy them with the models. Then,
on the machine with the GPU, in the root of the repository:

    python3 -m pip install --no-index --no-deps --target /tmp/site wheels/*.whl
    PYTHONPATH=/tmp/site python3 -m experiments.gpu --models MODELS -o DIR --minutes 9

with a minute less than available, for the start and for copying DIR. `--smoke` tests all parts on a CPU in two minutes,
in boxes too small for meaningful numbers.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from analysis.framework.command import check_output, run_command
from crefjax.errors import UserError
from experiments.gpu.checkpoints import newest_checkpoint
from experiments.gpu.processes import ROOT
from experiments.gpu.runner import PARTS, Runner

NAME = "gpu"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0, 1 if a part failed, 2 after a mistake by the user, or 128 plus the signal's number."""
    return run_command(NAME, _parser(), _run, argv)


def _parser():
    parser = argparse.ArgumentParser(prog=f"python -m experiments.{NAME}", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add(
        "--models",
        metavar="MODELS",
        type=Path,
        required=True,
        help="folder that contains folders of models, such as cryoem/",
    )
    add("-o", "--output", metavar="DIR", type=Path, required=True, help="folder to write")
    add("--minutes", type=float, help="total time, minutes (default: 11, with --smoke 2)")
    add("--smoke", action="store_true", help="use the smallest boxes, on a CPU")
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run (default: all)")
    state = ROOT / "experiments" / "checkpoints" / "truth"
    add("--state", metavar="FOLDER", type=Path, default=state, help="folder `checkpoints` of a run")
    add(
        "--anew", dest="new_run", action="store_true",
        help="start a new run from the parameters of the checkpoint even if it can be continued",
    )  # fmt: skip
    config = ROOT / "experiments" / "configs" / "weights.py"
    add(
        "--config",
        metavar="FILE",
        type=Path,
        default=config,
        help="training configuration (default: configs/weights.py)",
    )
    add("--patch", type=int, help="side of the patches, voxels (default: 96, with --smoke 32)")
    add("--batches", type=int, nargs="+", help="batch sizes to choose from (default: 4 8 16 32, with --smoke 1 2)")
    add(
        "--cycle-steps",
        type=int,
        default=0,
        help="steps of a cycle of the learning rate (default: as many as the time allows)",
    )
    add("--largest-rate", type=float, default=2.0, help="largest factor on the learning rate for a larger batch")
    add("--test-seconds", type=float, default=90.0, help="time limit of the tests, seconds")
    add(
        "--benchmark-seconds",
        type=float,
        default=240.0,
        help="time limit of rehearsal and benchmarks together, seconds",
    )
    add(
        "--set",
        nargs="+",
        metavar="FIELD=VALUE",
        default=[],
        help="other fields of the configuration, such as losses.bias=0.1",
    )
    add("--overwrite", action="store_true", help="replace existing results in DIR")
    return parser


def _run(arguments):
    _check(arguments)
    with tempfile.TemporaryDirectory(prefix="crefjax-gpu-") as scratch:
        return Runner.start(arguments, Path(scratch)).run_all()


def _check(arguments):
    """Check the arguments before anything is run."""
    check_output(arguments.output, "results.json", overwrite=arguments.overwrite)
    if not arguments.models.is_dir():
        raise UserError(
            f"{arguments.models}: expected a folder with folders of atomic models, found none; check --models"
        )
    if newest_checkpoint(arguments.state) is None:
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
    if wrong := next((field for field in arguments.set if "=" not in field), None):
        raise UserError(f"--set: expected FIELD=VALUE, found {wrong}")


if __name__ == "__main__":
    sys.exit(main())
