"""Compare the prediction of `crefjax plan` for a training of about two minutes with that training.

    python -m experiments.benchmarks.plan

takes about four minutes on two CPU cores; run it when the machine is otherwise idle. A dataset of 32 patches of 32³ is
made, and a network of three levels trained on it with batches of 4, on the CPU, with an evaluation and a checkpoint
every 50 steps. A first, short plan says how many steps fill the time; a second one, of as many steps, is the
prediction. The time taken is that of the whole command `crefjax train`. The last line compares a step: its mean time by
the plan, and by the throughput in `metrics.jsonl`, in which evaluations and checkpoints are left out.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from experiments.benchmarks.common import run_command, write_rows
from experiments.benchmarks.input import make_dataset

EPOCH_STEPS, LOG_EVERY = 50, 10
_CONFIG = """
from crefjax.training.config import default


def get_config():
    c = default()
    c.batch = 4
    c.epoch_steps = {epoch_steps}
    c.epochs = 1
    c.log_every = {log_every}
    c.platform = "cpu"
    c.network.depth = 3
    c.data.dataset.threads = 1
    return c
"""


def main(argv=None) -> int:
    """Plan, train, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0, help="of the training, about")
    parser.add_argument("--measure", type=float, default=20.0, help="--seconds of crefjax plan")
    parser.add_argument("--json", metavar="F", help="also write the numbers to a JSON file")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.py").write_text(_CONFIG.format(epoch_steps=EPOCH_STEPS, log_every=LOG_EVERY))
        make_dataset(folder, 32, 32, "float16", False, validation=0.25)
        epochs = count_epochs(plan(folder, 1, 5.0), arguments.seconds)
        planned = plan(folder, epochs, arguments.measure)
        words = ["train", "--workdir", "run", f"--config.epochs={epochs}", "--quiet"]
        taken, _, error = run_command(_command(words), cwd=str(folder), env=_environment())
        if error:
            raise SystemExit(f"crefjax train: {error}")
        lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").open()]
    row = {"steps": planned["steps"], "predicted": planned["seconds"], "taken": taken, "plan": planned}
    row["step_seconds"] = step_seconds([line for line in lines if line["kind"] == "training"])
    print(f"{'steps':>6} {'predicted s':>12} {'taken s':>8} {'predicted / taken':>18}")
    print(f"{row['steps']:6d} {row['predicted']:12.1f} {taken:8.1f} {row['predicted'] / taken:18.2f}")
    print(f"a step: planned {planned['step_seconds']:.4f} s, taken {row['step_seconds']:.4f} s")
    write_rows(arguments.json, [row])
    return 0


def count_epochs(planned: dict, seconds: float) -> int:
    """Return the number of epochs that fill a time, by the numbers of a plan."""
    each = EPOCH_STEPS * planned["step_seconds"]
    each += planned["evaluation_seconds"] + planned["export_seconds"] + planned["save_seconds"]
    return max(1, round((seconds - planned["start_seconds"] - planned["first_seconds"]) / each))


def step_seconds(lines: list[dict]) -> float:
    """Return the mean time of a step, by the throughput of all lines but the first, which has seen the first steps."""
    return 4 * statistics.fmean(1 / line["patches_per_second"] for line in lines[1:])


def plan(folder: Path, epochs: int, seconds: float) -> dict:
    """Run `crefjax plan`, and return its numbers."""
    words = ["plan", "--json", "plan.json", "--seconds", str(seconds), f"--config.epochs={epochs}"]
    _, _, error = run_command(_command(words), cwd=str(folder), env=_environment())
    if error:
        raise SystemExit(f"crefjax plan: {error}")
    numbers = json.loads((folder / "plan.json").read_text())
    (folder / "plan.json").unlink()
    return numbers


def _command(words):
    config = ["--config", "config.py", "--config.data.dataset.folder=dataset"]
    return [sys.executable, "-m", "crefjax", words[0], *config, *words[1:]]


def _environment():
    root = str(Path(__file__).parents[2])
    return os.environ | {"PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])}


if __name__ == "__main__":
    sys.exit(main())
