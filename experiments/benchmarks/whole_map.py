"""Time and peak memory of the paper's network over whole maps, beside other ways to run the same network.

    python -m experiments.benchmarks.whole_map --boxes 96 128 192 256 -o whole_map.json

takes about four minutes on two CPU cores. Every measurement is a process of its own. Methods:

    slabs     crefjax: every level slab by slab, computed by JAX
    openvino  the same, computed by OpenVINO, if it is installed (the extra `cpu`)
    at_once   the same network in one call, with crefjax's convolutions
    plain     the same network in one call, with XLA's 3D convolutions
    keras     the same network in Keras, if TensorFlow is installed (the extra `published`)

A row gives the first run of a process, with compilation; the second run; the peak resident memory of the process;
the peak on the device, unless it is a CPU; for slabs, the plan's prediction; and the ratios to the method named by
--against in the same box.
"""

import argparse
import json
import os
import sys
import time

import numpy as np

from experiments.benchmarks.common import GIB, device_peak, keras_network, peak_gib, run_worker, write_rows

METHODS = ("slabs", "openvino", "at_once", "plain", "keras")


def main(argv=None) -> int:
    """Measure what the command line asks for and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", type=int, nargs="+", default=[96, 128, 192, 256], help="cubic boxes, voxels")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--against", choices=METHODS, default="plain", help="method that ratios are taken to")
    parser.add_argument("--slab", type=int, help="planes of a slab (default: as `crefjax denoise` chooses)")
    parser.add_argument("--largest-at-once", type=int, default=192, help="largest box of the methods without slabs")
    parser.add_argument("-o", "--output", help="JSON file to write")
    parser.add_argument("--worker", nargs=2, metavar=("METHOD", "BOX"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.worker:
        method, box = arguments.worker
        print(json.dumps(measure(method, int(box), arguments.slab)))
        return 0
    rows = []
    print(f"{'box':>5} {'method':8} {'first s':>8} {'second s':>8} {'GiB':>6} {'device':>6} {'planned':>7}  ratios")
    for box in arguments.boxes:
        for method in sorted(arguments.methods, key=lambda name: name != arguments.against):
            if method in ("slabs", "openvino") or box <= arguments.largest_at_once:
                slab = ["--slab", arguments.slab] if arguments.slab else []
                row = {"box": box, "method": method} | run_worker("whole_map", "--worker", method, box, *slab)
                reference = next((r for r in rows if r["box"] == box and r["method"] == arguments.against), None)
                rows.append(add_ratios(row, reference))
                print(line(row), flush=True)
    write_rows(arguments.output, rows)
    return 0


def measure(method: str, box: int, slab: int | None) -> dict:
    """Run a method twice over a box of noise in this process."""
    x = np.random.default_rng(0).standard_normal((box, box, box), dtype=np.float32)
    row = {"box": box, "method": method}
    if method == "keras":
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        model = keras_network()

        def run(x):
            return np.asarray(model(x[None, ..., None], training=False))
    else:
        run, about = jax_network(method, x.shape, slab)
        row |= about
    for name in ("first_seconds", "second_seconds"):
        start = time.perf_counter()
        run(x)
        row[name] = time.perf_counter() - start
    row["peak_gib"] = peak_gib()
    if method != "keras":
        row |= device_peak()
    return row


def jax_network(method: str, shape: tuple, slab: int | None):
    """Return the network with random weights as a function of a map, and the plan for it."""
    import jax
    import jax.numpy as jnp

    from crefjax.inference.memory_plan import plan_network
    from crefjax.inference.network import run_network
    from crefjax.models.unet3d import UNet3D, UNet3DConfig
    from crefjax.models.unet3d_openvino import is_installed
    from crefjax.utils.memory import find_device

    if method == "openvino":
        os.environ.pop("CREFJAX_ENGINE", None)
        if not is_installed():
            raise SystemExit("OpenVINO is not installed; pip install 'crefjax[cpu]'")
    else:
        os.environ["CREFJAX_ENGINE"] = "jax"
    if method == "plain":
        jax.lax.platform_dependent = lambda *arguments, default, **_: default(*arguments)
    config = UNet3DConfig()
    parameters = jax.jit(UNet3D(config).init)(jax.random.key(0), jnp.zeros((1, 32, 32, 32, 1)))["params"]
    plan = plan_network(shape, config, find_device(), host_maps=2)
    about = {"device": plan.device.device_kind}
    if method in ("slabs", "openvino"):
        about |= {"slab": slab or plan.slab, "planned_gib": plan.host_bytes / GIB, "planned_seconds": plan.seconds}
        return lambda x: run_network(parameters, x, config, slab=slab or plan.slab), about
    apply = jax.jit(UNet3D(config).apply)
    return lambda x: np.asarray(apply({"params": parameters}, x[None, ..., None])), about


def add_ratios(row: dict, reference: dict | None) -> dict:
    """Add the ratios of time and memory to another method's."""
    if reference and "failed" not in reference and "failed" not in row:
        for name in ("second_seconds", "peak_gib"):
            row[f"{name}_ratio"] = row[name] / reference[name]
    return row


def line(row: dict) -> str:
    """Return a row of the table."""
    if "failed" in row:
        return f"{row['box']:5d} {row['method']:8} failed: {row['failed']}"

    def number(name, width):
        return f"{row[name]:{width}.2f}" if name in row else " " * width

    ratios = ""
    if "peak_gib_ratio" in row:
        ratios = f"time {row['second_seconds_ratio']:.2f}, memory {row['peak_gib_ratio']:.2f}"
    return (
        f"{row['box']:5d} {row['method']:8} {row['first_seconds']:8.2f} {row['second_seconds']:8.2f} "
        f"{number('peak_gib', 6)} {number('device_gib', 6)} {number('planned_gib', 7)}  {ratios}"
    )


if __name__ == "__main__":
    sys.exit(main())
