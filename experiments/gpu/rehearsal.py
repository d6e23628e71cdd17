"""A rehearsal of training: a few steps with every batch, with and without the stream, timed.

    python -m experiments.gpu.rehearsal SETTINGS

writes a row of JSON for each batch, and ends at the first that is not faster by a twentieth, or does not fit.
"""

import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path

import jax

from analysis.files import put
from crefjax.errors import UserError
from crefjax.inference.slabs import count_flops
from crefjax.training.denoising import denoising_task
from crefjax.training.loop import make_plan
from crefjax.training.sources import make_source
from crefjax.training.step import compile_step, divided, init_state, make_train_step, on_devices
from experiments.benchmarks.train_step import device_peak
from experiments.gpu.settings import PAYS, Settings, make_config
from experiments.gpu.state import take

_WARM = 3  # batches of the stream before any is timed


def main(file: str) -> int:
    """Rehearse as the settings say; 2 after a mistake of the user's."""
    settings = Settings.read(file)
    rows, fastest = [], settings.faster
    try:
        with tempfile.TemporaryDirectory() as scratch:
            goes_on = take(dataclasses.replace(settings, few=0), Path(scratch) / "checkpoints").config
        for batch in [goes_on.batch] if goes_on else settings.batches:
            if time.time() > settings.until:
                break
            row = rehearse(settings, batch) | {"goes_on": goes_on is not None}
            rows.append(row)
            put(Path(settings.output), json.dumps(rows).encode())
            print(told(row), flush=True)
            if "failed" in row or row["per_second"] < PAYS * fastest:
                break
            fastest = row["per_second"]
    except UserError as error:
        print(f"UserError: {error}", file=sys.stderr)
        return 2
    return 0


def told(row: dict) -> str:
    """A row in a line."""
    if "failed" in row:
        return f"batch {row['batch']}: {row['failed']}"
    return f"batch {row['batch']}: {row['per_second']:.3g} patches a second"


def rehearse(settings: Settings, batch: int) -> dict:
    """A row of the table; what does not fit is `failed`.

    Args:
        settings: see there.
        batch: patches in a step.
    """
    row = {"what": f"{settings.patch}³", "dtype": "bfloat16", "batch": batch}
    config = make_config(settings, batch)
    try:
        return row | _timed(config, settings, batch)
    except Exception as error:  # out of memory is of several kinds
        text = " ".join(str(error).split())
        return row | {"failed": f"{type(error).__name__}: {text[:200]}"}


def _timed(config, settings, batch):
    source = make_source(config)
    task = denoising_task(config, truth=source.truth)
    plan = make_plan(config, source, say=print)
    first = init_state(task.init(jax.random.key(0)), plan.optimizer, average=config.average > 0)
    state, batches = on_devices(first, plan.devices), source.training()
    step = make_train_step(task, plan.optimizer, decay=config.average, seed=0, devices=plan.devices)
    for _ in range(_WARM):
        samples = next(batches)
    one = divided(samples.batch, plan.devices)
    start = time.perf_counter()
    step = compile_step(step, state, one, plan.devices, f"a step of {batch} patches")
    found = {"compile_seconds": time.perf_counter() - start}
    state, _ = jax.block_until_ready(step(state, one))

    def alone(state):
        return step(state, one)[0]

    def streamed(state):
        return step(state, divided(next(batches).batch, plan.devices))[0]

    found["seconds"], state = _seconds(alone, state, settings.steps)
    found["stream_seconds"], _ = _seconds(lambda _: next(batches).batch, None, settings.steps)
    found["both_seconds"], _ = _seconds(streamed, state, settings.steps)
    found["per_second"] = batch / found["both_seconds"]
    found["flops"] = 3 * batch * count_flops((settings.patch,) * 3, task.network)
    return found | device_peak(plan.devices[0])


def _seconds(function, given, count):
    """Of one of `count` calls, each given what the one before gave, and what the last gave."""
    start = time.perf_counter()
    for _ in range(count):
        given = function(given)
    jax.block_until_ready(given)
    return (time.perf_counter() - start) / count, given


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
