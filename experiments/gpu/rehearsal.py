"""Time a few training steps with every batch size, with and without the stream.

    python -m experiments.gpu.rehearsal SETTINGS

writes a row of JSON for each batch size, and stops at the first that is not faster by 5 % or does not fit into memory.
"""

import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path

import jax

from crefjax.errors import UserError
from crefjax.models.unet3d_slabs import count_flops
from crefjax.training.loop import make_plan
from crefjax.training.step import compile_step, init_state, make_train_step, replicate, shard
from crefjax.training.task import make_task
from crefjax.utils.atomic import write_bytes
from experiments.benchmarks.common import device_peak
from experiments.gpu.checkpoints import copy_checkpoint
from experiments.gpu.settings import PAYS, Settings, make_config

_WARM = 3  # batches of the stream before the first that is timed


def main(file: str) -> int:
    """Time the batches of the settings; return 0, or 2 after a mistake by the user."""
    settings = Settings.read(file)
    rows, fastest = [], settings.faster
    try:
        with tempfile.TemporaryDirectory() as scratch:
            resumed = copy_checkpoint(dataclasses.replace(settings, few=0), Path(scratch) / "checkpoints").config
        for batch in [resumed.batch] if resumed else settings.batches:
            if time.time() > settings.until:
                break
            row = rehearse(settings, batch) | {"resumes": resumed is not None}
            rows.append(row)
            write_bytes(Path(settings.output), json.dumps(rows).encode())
            print(describe(row), flush=True)
            if "failed" in row or row["per_second"] < PAYS * fastest:
                break
            fastest = row["per_second"]
    except UserError as error:
        print(f"UserError: {error}", file=sys.stderr)
        return 2
    return 0


def describe(row: dict) -> str:
    """Return a row as one line of text."""
    if "failed" in row:
        return f"batch {row['batch']}: {row['failed']}"
    return f"batch {row['batch']}: {row['per_second']:.3g} patches a second"


def rehearse(settings: Settings, batch: int) -> dict:
    """Return a row of the table, with `failed` for a batch that does not fit into memory.

    Args:
        settings: Settings of the rehearsal.
        batch: Number of patches in a step.
    """
    row = {"what": f"{settings.patch}³", "dtype": "bfloat16", "batch": batch}
    config = make_config(settings, batch)
    try:
        return row | _timed(config, settings, batch)
    except Exception as error:  # several types mean out of memory
        text = " ".join(str(error).split())
        return row | {"failed": f"{type(error).__name__}: {text[:200]}"}


def _timed(config, settings, batch):
    task, source = make_task(config)
    plan = make_plan(config, source, say=print)
    first = init_state(task.init(jax.random.key(0)), plan.optimizer, average=config.average > 0)
    state, batches = replicate(first, plan.devices), source.training()
    step = make_train_step(task, plan.optimizer, decay=config.average, seed=0, devices=plan.devices)
    for _ in range(_WARM):
        samples = next(batches)
    batch_on_devices = shard(samples.batch, plan.devices)
    start = time.perf_counter()
    step = compile_step(step, state, batch_on_devices, plan.devices, f"a step of {batch} patches")
    timings = {"compile_seconds": time.perf_counter() - start}
    state, _ = jax.block_until_ready(step(state, batch_on_devices))

    def alone(state):
        return step(state, batch_on_devices)[0]

    def streamed(state):
        return step(state, shard(next(batches).batch, plan.devices))[0]

    timings["seconds"], state = _seconds(alone, state, settings.steps)
    timings["stream_seconds"], _ = _seconds(lambda _: next(batches).batch, None, settings.steps)
    timings["both_seconds"], _ = _seconds(streamed, state, settings.steps)
    timings["per_second"] = batch / timings["both_seconds"]
    timings["flops"] = 3 * batch * count_flops((settings.patch,) * 3, task.network)
    return timings | device_peak(plan.devices[0])


def _seconds(function, argument, count):
    """Return the mean time of `count` calls, each with the result of the previous one, and the last result."""
    start = time.perf_counter()
    for _ in range(count):
        argument = function(argument)
    jax.block_until_ready(argument)
    return (time.perf_counter() - start) / count, argument


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
