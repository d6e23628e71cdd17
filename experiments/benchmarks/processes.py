"""The same training by one process with several devices and by several processes with one: losses and wall time.

    python -m experiments.benchmarks.processes --steps 100

takes about three minutes on two CPU cores. A dataset of 24 patches of 32³ is made, and a network of three levels
trained on it with batches of 4, on the CPU, by

    1 × 2   one process with two devices
    2 × 1   two processes with one device, connected over the loopback address
    4 × 1   four processes with one device

The table, in Markdown as in docs/performance.md, has the seconds of a step (the median of the second half), the wall
time of the whole command, and the largest difference of the loss from that of the first way, relative to it, over steps
1 to 6, and over all steps.
"""

import argparse
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from experiments.benchmarks.common import write_rows
from experiments.benchmarks.input import make_dataset

WAYS = ((1, 2), (2, 1), (4, 1))
_CONFIG = """
from crefjax.training.config import default


def get_config():
    c = default()
    c.batch = 4
    c.steps = {steps}
    c.log_every = 1
    c.platform = "cpu"
    c.network.depth = 3
    c.evaluation.every_epochs = 0
    c.checkpoint.every_minutes = 0.0
    c.epoch_steps = {steps}
    return c
"""


def main(argv=None) -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100, help="steps of each run, at least 8")
    parser.add_argument("--json", metavar="F", help="also write the rows to a JSON file")
    arguments = parser.parse_args(argv)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.py").write_text(_CONFIG.format(steps=arguments.steps))
        dataset = make_dataset(folder, 24, 32, "float16", False)
        print(
            "| processes × devices | seconds of a step | wall time, seconds | "
            f"largest difference of a loss, steps 1 to 6 | steps 1 to {arguments.steps} |\n|---|---|---|---|---|"
        )
        for processes, devices in WAYS:
            seconds = train(folder, dataset, processes, devices)
            lines = [json.loads(line) for line in (folder / f"run{processes}" / "metrics.jsonl").open()]
            row = {"processes": processes, "devices": devices, "wall_seconds": seconds}
            row["losses"] = [line["loss"] for line in lines]
            row["step_seconds"] = step_seconds([line["seconds"] for line in lines])
            rows.append(row)
            differences = [abs(a - b) / b for a, b in zip(row["losses"], rows[0]["losses"], strict=True)]
            shown = [f"{max(some):.1e}" if processes > 1 else "" for some in (differences[:6], differences)]
            print(
                f"| {processes} × {devices} | {row['step_seconds']:.3f} | {seconds:.1f} | {' | '.join(shown)} |",
                flush=True,
            )
    write_rows(arguments.json, rows)
    return 0


def step_seconds(times: list[float]) -> float:
    """Return the median time of the steps of the second half of a run."""
    half = times[len(times) // 2 :]
    return statistics.median(after - before for before, after in itertools.pairwise(half))


def train(folder: Path, dataset: Path, processes: int, devices: int) -> float:
    """Train with a number of processes, and return the wall time, seconds."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    words = [sys.executable, "-m", "crefjax", "train", f"--config={folder / 'config.py'}", "--quiet"]
    words += [f"--workdir={folder / f'run{processes}'}", f"--config.data.dataset.folder={dataset}"]
    environment = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    start, running = time.perf_counter(), []
    for index in range(processes):
        more = ["--coordinator", address, "--processes", str(processes), "--process-id", str(index)]
        running.append(subprocess.Popen([*words, *more], env=environment, stdout=subprocess.DEVNULL))
    statuses = [process.wait() for process in running]
    if any(statuses):
        raise SystemExit(f"{processes} processes: the training failed; the lines above say why")
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
