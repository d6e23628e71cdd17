"""Half-map pairs a second of the simulated training stream, and the time of its parts.

    python -m experiments.benchmarks.simulate_stream --patches 64 96 --batches 1 8 -o simulate_stream.json

takes about three minutes on two CPU cores; on a GPU use batches of 8 to 64. Models are files given with --models, or
phantoms of 150 to 1500 residues. A row gives the longest wait for a batch, which is compilation; pairs a second after
that; milliseconds of the host to draw a sample, in other threads meanwhile; and the shares of the device's time that
go into the density and into the noise, each measured alone, with the rest (mask, level, unevenness) as the difference;
in the JSON file also the peak memory on the device so far, unless it is a CPU.
"""

import argparse
import os
import sys
import time

from experiments.benchmarks.common import device_peak, median_seconds, write_rows


def main(argv=None) -> int:
    """Measure what the command line asks for and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, nargs="+", default=[64, 96], help="sides of cubic patches, voxels")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8], help="samples in a batch")
    parser.add_argument("--models", nargs="*", default=[], help="PDB or mmCIF files")
    parser.add_argument("--phantoms", type=int, default=4, help="number of phantoms without --models")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each row is measured")
    parser.add_argument("-o", "--output", help="JSON file to write")
    arguments = parser.parse_args(argv)
    import jax

    load = os.getloadavg()[0]
    print(f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, load {load:.1f} before the start")
    print(f"{'patch':>5} {'batch':>5} {'longest s':>9} {'pairs/s':>8} {'draw ms':>8}  density  noise   rest")
    rows = []
    for patch in arguments.patches:
        for batch in arguments.batches:
            row = measure(arguments, patch, batch)
            rows.append(row | {"device": jax.devices()[0].device_kind, "load": load})
            shares = "  ".join(f"{row[name]:5.0%}" for name in ("density", "noise", "rest"))
            numbers = f"{row['longest_seconds']:9.1f} {row['pairs_per_second']:8.2f} {row['draw_ms']:8.2f}"
            print(f"{patch:5d} {batch:5d} {numbers}  {shares}", flush=True)
    write_rows(arguments.output, rows)
    return 0


def measure(arguments, patch: int, batch: int) -> dict:
    """Return a row of the table."""
    from crefjax.simulate.stream.batches import stream_half_maps

    pairs = stream_half_maps(
        arguments.models, phantoms=0 if arguments.models else arguments.phantoms, patch=patch, batch=batch
    )
    longest = warm_up(pairs, batch)
    pairs.set_state({"seed": 0, "position": 0})
    rate = pairs_per_second(pairs, batch, arguments.seconds)
    start = time.thread_time()
    drawn = [pairs.draw_batch(position) for position in range(0, 8 * batch, batch)]
    draw_ms = 1e3 * (time.thread_time() - start) / (8 * batch)
    row = {"patch": patch, "batch": batch, "longest_seconds": longest, "pairs_per_second": rate, "draw_ms": draw_ms}
    return row | stage_shares(pairs, drawn[0], patch) | device_peak()


def warm_up(pairs, batch: int) -> float:
    """Make a few batches, so that all numbers of atoms are compiled for; return the longest time of one, seconds."""
    import jax

    seconds = []
    for _ in range(max(4, 64 // batch)):
        start = time.perf_counter()
        jax.block_until_ready(next(pairs).half_map_2)
        seconds.append(time.perf_counter() - start)
        if sum(seconds) > 60:
            break
    return max(seconds)


def pairs_per_second(pairs, batch: int, seconds: float) -> float:
    """Return the rate over batches that were made before; two are under way at a time, as in training."""
    import jax

    start, made, last = time.perf_counter(), 0, next(pairs)
    while time.perf_counter() - start < seconds and made < max(3 * batch, 64):
        following = next(pairs)
        jax.block_until_ready(last.half_map_2)
        last, made = following, made + batch
    return made / (time.perf_counter() - start)


def stage_shares(pairs, drawn, patch: int) -> dict:
    """Return the shares of the whole time that the density and the noise take alone."""
    import jax
    from jax import lax

    from crefjax.simulate.stream import render as device

    def density(models, sample):
        return device.patch_density(device.patch_atoms(models, sample), sample, patch)

    def noise(models, sample):
        key = jax.random.fold_in(jax.random.key(0), sample.info.position)
        return device.unit_noises(jax.random.split(key), sample, patch)

    vectorize = jax.default_backend() != "cpu"

    def timed(stage):
        def every(models, drawn):
            one = lambda sample: stage(models, sample)  # noqa: E731
            return jax.vmap(one)(drawn) if vectorize else lax.map(one, drawn)

        return median_seconds(jax.jit(every), pairs.models_on_device, drawn)

    whole = median_seconds(
        lambda *given: device.render_batch(*given, 0, patch=patch, extras=frozenset(), vectorize=vectorize),
        pairs.models_on_device, drawn,
    )  # fmt: skip
    shares = {"density": timed(density) / whole, "noise": timed(noise) / whole}
    return shares | {"rest": 1 - sum(shares.values())}


if __name__ == "__main__":
    sys.exit(main())
