"""Time and peak memory of `crefjax classify` on a whole map, beside one run of the denoiser's network.

    python -m experiments.benchmarks.classify --boxes 128 256 -o classify.json

takes about two minutes on two CPU cores. Every measurement is a process of its own. The map is noise with a ball, in
voxels of 1 Å, which is the grid of the classifier. Methods:

    classify    all that the command does but reading and writing files
    network     the network of the denoiser (weights `truth`) over the same box, without rotations
    denoise     `crefjax denoise` of two half-maps, without reading and writing files

A row gives the first run of a process, with compilation; the second run; the peak resident memory; the memory that the
plan announced; and the ratios to `network` in the same box.
"""

import argparse
import json
import sys
import time

import numpy as np

from experiments.benchmarks.common import GIB, peak_gib, run_worker, write_rows
from experiments.benchmarks.whole_map import add_ratios, line

METHODS = ("network", "classify", "denoise")


def main(argv=None) -> int:
    """Measure what the command line asks for and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", type=int, nargs="+", default=[128, 256], help="cubic boxes, voxels")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("-o", "--output", help="JSON file to write")
    parser.add_argument("--worker", nargs=2, metavar=("METHOD", "BOX"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.worker:
        method, box = arguments.worker
        print(json.dumps(measure(method, int(box))))
        return 0
    rows = []
    print(f"{'box':>5} {'method':8} {'first s':>8} {'second s':>8} {'GiB':>6} {'device':>6} {'planned':>7}  ratios")
    for box in arguments.boxes:
        reference = None
        for method in sorted(arguments.methods, key=METHODS.index):
            row = {"box": box, "method": method} | run_worker("classify", "--worker", method, box)
            rows.append(add_ratios(row, reference))
            reference = row if method == "network" else reference
            print(line(row), flush=True)
    write_rows(arguments.output, rows)
    return 0


def measure(method: str, box: int) -> dict:
    """Run a method twice over a box in this process."""
    run, plan = {"classify": _classify, "network": _network, "denoise": _denoise}[method](box)
    row = {"planned_gib": plan.host_bytes / GIB, "planned_seconds": plan.seconds}
    for name in ("first_seconds", "second_seconds"):
        start = time.perf_counter()
        run()
        row[name] = time.perf_counter() - start
    return row | {"peak_gib": peak_gib()}


def _ball(box, seed):
    """Return a soft ball in noise."""
    squared = sum(axis.astype(np.float32) ** 2 for axis in np.ogrid[tuple(slice(-box / 2, box / 2) for _ in range(3))])
    noise = np.random.default_rng(seed).standard_normal((box,) * 3, dtype=np.float32)
    return 5 * np.exp(-squared / np.float32(2 * (box / 6) ** 2)) + noise


def _classify(box):
    from crefjax.inference.classify import classify_map, plan_classify
    from crefjax.io.maps import Map
    from crefjax.weights.store import load_weights

    weights = load_weights(None, "classification")
    map_ = Map.from_array(_ball(box, 0), 1.0)
    plan = plan_classify(map_, weights)
    return lambda: classify_map(map_, weights, plan, threshold="background"), plan


def _network(box):
    from crefjax.inference.memory_plan import plan_network
    from crefjax.inference.network import run_network
    from crefjax.utils.memory import find_device
    from crefjax.weights.store import load_weights

    weights = load_weights("truth")
    x = _ball(box, 0)
    plan = plan_network(x.shape, weights.config, find_device(), host_maps=2)
    return lambda: run_network(weights.parameters, x, weights.config, slab=plan.slab, device=plan.device), plan


def _denoise(box):
    from crefjax.inference.denoise import denoise_maps
    from crefjax.inference.memory_plan import plan_denoise
    from crefjax.inference.request import read_request
    from crefjax.io.maps import Map

    pair = [Map.from_array(_ball(box, seed), 1.0) for seed in (0, 1)]
    request = read_request(*pair, None, "truth")
    plan = plan_denoise(request)
    return lambda: denoise_maps(request, plan), plan


if __name__ == "__main__":
    sys.exit(main())
