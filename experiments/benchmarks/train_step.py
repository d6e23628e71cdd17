"""Patches a second of training the paper's network, the time of the parts of a step, and the same step in Keras.

    python -m experiments.benchmarks.train_step --batches 1 2 4 --dtypes float32 bfloat16 -o train_step.json
    python -m experiments.benchmarks.train_step --batches 1 --keras PYTHON

runs on whatever device JAX finds: on two CPU cores the first takes some five minutes, on a GPU take larger batches.
PYTHON is an interpreter that has TensorFlow (the extra `published`); without a value it is this one. Keras sums
shells in two ways: by segments of half-spectra, as crefjax does, and by a mask for every shell, as one writes the
formula down. Every measurement is a process of its own. The step is the one of `crefjax train` with the paper's loss
and Adam, on all devices. A row gives the median step, patches a second, the peak resident memory of the process, the
peak on the device, and the time of its parts, each run by itself: the network forward; forward and backward; the loss
with its gradient; the optimizer; a batch of the simulator's stream. The parts overlap, and what XLA fuses away is in
none of them: they show where to look, and do not add up. `--no-parts` leaves them out: each is compiled again.
"""

import argparse
import json
import statistics
import sys
import time

from experiments.benchmarks.common import device_peak, median_seconds, peak_gib, run_worker, write_rows


def main(argv=None) -> int:
    """Measure what the command line asks for and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patch", type=int, default=96, help="voxels a side")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2], help="patches in a step, over all devices")
    parser.add_argument("--dtypes", nargs="+", choices=("float32", "bfloat16"), default=["float32"])
    parser.add_argument("--steps", type=int, default=5, help="timed steps, after one that is not")
    parser.add_argument("--no-parts", action="store_true", help="time the whole step alone")
    parser.add_argument("--keras", nargs="?", const=sys.executable, metavar="PYTHON", help="compare with Keras")
    parser.add_argument("-o", "--output", help="JSON file to write")
    parser.add_argument("--worker", nargs=2, metavar=("BATCH", "DTYPE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.worker:
        batch, dtype = arguments.worker
        with_parts = not arguments.no_parts
        print(json.dumps(measure(arguments.patch, int(batch), dtype, arguments.steps, with_parts=with_parts)))
        return 0
    rows = []
    sizes = ["--patch", arguments.patch, "--steps", arguments.steps]
    no_parts = ["--no-parts"] if arguments.no_parts else []
    print(f"patches of {arguments.patch} voxels a side")
    for batch in arguments.batches:
        others = {}
        for shells in ("segments", "masks") if arguments.keras else ():
            others[shells] = run_worker(
                "train_step_keras", "--batch", batch, "--shells", shells, *sizes, python=arguments.keras
            )
            rows.append({"program": f"keras ({shells})", "batch": batch, **others[shells]})
            print(line(rows[-1]), flush=True)
        for dtype in arguments.dtypes:
            row = {"program": "crefjax", "batch": batch, "dtype": dtype}
            row |= run_worker("train_step", "--worker", batch, dtype, *no_parts, *sizes)
            for shells, keras in others.items():
                if "failed" not in keras and "failed" not in row:
                    row |= {f"{name}_to_keras_{shells}": row[name] / keras[name] for name in ("seconds", "peak_gib")}
            rows.append(row)
            print(line(row), flush=True)
    write_rows(arguments.output, rows)
    return 0


def measure(patch: int, batch: int, dtype: str, steps: int, *, with_parts: bool = True) -> dict:
    """Time the train step, and its parts if wanted, in this process."""
    import jax

    from crefjax.training import step as training
    from crefjax.training.config import default
    from crefjax.training.denoising import denoising_task
    from crefjax.training.optimizer import make_optimizer, make_schedule
    from crefjax.training.step import init_state

    config = default().unlock()
    config.network.compute_dtype = dtype
    devices = training.find_devices(0, "", batch)
    task = denoising_task(config, truth=False)
    optimizer = make_optimizer(config, make_schedule(config, epoch_steps=1000, steps=1000))
    train_step = training.make_train_step(task, optimizer, decay=0.0, seed=0, devices=devices)
    parameters = task.init(jax.random.key(0))
    state = training.replicate(init_state(parameters, optimizer, average=False), devices)
    pair = half_maps(batch, patch)
    batch_shards = training.shard(pair, devices)
    start = time.perf_counter()
    compiled = train_step.lower(state, batch_shards).compile()
    row = {"device": devices[0].device_kind, "devices": len(devices), "compile_seconds": time.perf_counter() - start}
    times = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        state, told = compiled(state, batch_shards)
        jax.block_until_ready((state, told))
        times.append(time.perf_counter() - start)
    seconds = statistics.median(times[1:])
    row |= {
        "seconds": seconds,
        "patches_per_second": batch / seconds,
        "peak_gib": peak_gib(),
        **device_peak(devices[0]),
    }
    if not with_parts:
        return row
    return row | {"parts": parts(task, optimizer, parameters, pair, patch, batch, max(3, steps // 2))}


def half_maps(batch: int, patch: int) -> dict:
    """Return patches with a signal and noise; the time does not depend on them."""
    import jax

    keys = jax.random.split(jax.random.key(1), 3)
    signal, *noises = (jax.random.normal(key, (batch, patch, patch, patch)) for key in keys)
    return {f"half_map_{number}": signal + noise for number, noise in enumerate(noises, 1)}


def parts(task, optimizer, parameters, pair, patch, batch, steps) -> dict:
    """Return the seconds of the parts of a step, each compiled by itself on one device."""
    import jax
    import jax.numpy as jnp

    from crefjax import losses
    from crefjax.models.unet3d import apply_network
    from crefjax.simulate.stream.batches import stream_half_maps

    first, second = pair.values()
    full = ((first + second) / 2)[..., None]
    state = optimizer.init(parameters)

    def forward(p):
        return apply_network(p, full, task.network)

    def update(gradients, state):
        return optimizer.update(gradients, state, parameters)

    runs = {
        "forward": (jax.jit(forward), parameters),
        "forward_backward": (jax.jit(jax.grad(lambda p: jnp.square(forward(p)).mean())), parameters),
        "loss": (jax.jit(jax.value_and_grad(lambda d: losses.cref_l1(d, first, second)[0].mean())), full[..., 0]),
        "optimizer": (jax.jit(update), parameters, state),
    }
    seconds = {name: median_seconds(function, *arguments, calls=steps) for name, (function, *arguments) in runs.items()}
    batches = stream_half_maps(phantoms=2, patch=patch, batch=batch)
    return seconds | {"stream": median_seconds(lambda: next(batches)[:4], calls=steps)}


def line(row: dict) -> str:
    """Return a row of the table."""
    what = f"batch {row['batch']:3d} {row['program']:16} {row.get('dtype', 'float32'):8}"
    if "failed" in row:
        return f"{what} failed: {row['failed']}"
    text = f"{what} {row['seconds']:8.3f} s  {row['batch'] / row['seconds']:8.2f} patches/s  {row['peak_gib']:5.2f} GiB"
    if "device_gib" in row:
        text += f"  {row['device_gib']:5.2f} GiB on {row['devices']} x {row['device']}"
    for shells in ("segments", "masks"):
        if f"seconds_to_keras_{shells}" in row:
            ratios = (row[f"{name}_to_keras_{shells}"] for name in ("seconds", "peak_gib"))
            text += "  to Keras ({}): time {:.2f}, memory {:.2f}".format(shells, *ratios)
    if "parts" in row:
        text += "\n" + " " * 28 + ", ".join(f"{name} {1e3 * value:.0f} ms" for name, value in row["parts"].items())
    return text


if __name__ == "__main__":
    sys.exit(main())
