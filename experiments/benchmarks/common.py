"""Tools of all benchmarks: worker processes, times, peak memory, the network in Keras, and the JSON file.

It needs nothing but the standard library at import, so that an interpreter with TensorFlow alone can use it.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

GIB = 2**30


def run_worker(module: str, *arguments, python: str = sys.executable) -> dict:
    """Run a benchmark in a process of its own, and return its last line, which is JSON.

    Args:
        module: of this package.
        arguments: of its command line.
        python: interpreter.

    Returns:
        The numbers, or `failed` with the reason.
    """
    command = [python, "-m", f"experiments.benchmarks.{module}", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["killed: out of memory?"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def run_command(command: list[str], *, cwd: str, env: dict | None = None) -> tuple[float, float, str]:
    """Run a command in a folder; return its seconds, its peak memory in GiB, and its last line of error if it failed.

    Args:
        command: program and arguments.
        cwd: folder.
        env: environment; that of this process if None.
    """
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=cwd, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    with process.stderr:
        errors = process.stderr.read().decode(errors="replace").strip().splitlines()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    error = (errors or [f"exit status {process.returncode}"])[-1] if process.returncode else ""
    return seconds, peak_gib(usage), error


def median_seconds(function, *arguments, calls: int = 5) -> float:
    """Return the median time of calls of a JAX function after the first, which compiles."""
    import jax

    times = []
    for _ in range(calls + 1):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def peak_gib(usage=None) -> float:
    """Return the peak resident memory of this process, or of one that ended with this resource usage."""
    usage = usage or resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / GIB


def device_peak(device=None) -> dict:
    """Return the peak memory on a JAX device (the first if None) as `device_gib`; nothing for a CPU."""
    import jax

    stats = (device or jax.devices()[0]).memory_stats() or {}
    return {"device_gib": stats["peak_bytes_in_use"] / GIB} if "peak_bytes_in_use" in stats else {}


def write_rows(path: str | None, rows: list[dict]) -> None:
    """Write rows to a JSON file, unless the path is None."""
    if path:
        Path(path).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def keras_network():
    """Return the paper's 3D U-Net in Keras, `(batch, z, y, x, 1)` to the same shape; sides are multiples of 32."""
    import keras
    from keras import layers

    def convolve(x, width):
        x = layers.Conv3D(width, 3, padding="same", kernel_initializer="he_normal")(x)
        return layers.LeakyReLU(negative_slope=0.1)(x)

    start = x = keras.Input((None, None, None, 1))
    skips = [start]
    for level in range(5):
        for _ in range(2 if level == 0 else 1):
            x = convolve(x, 16)
        x = layers.MaxPooling3D(2)(x)
        skips.append(x)
    x = convolve(x, 16)
    skips.pop()
    for widths in [(32, 32)] * 4 + [(16, 8)]:
        x = layers.Concatenate()([skips.pop(), layers.UpSampling3D(2)(x)])
        for width in widths:
            x = convolve(x, width)
    return keras.Model(start, layers.Conv3D(1, 3, padding="same", kernel_initializer="he_normal")(x))
