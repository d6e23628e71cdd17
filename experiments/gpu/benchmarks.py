"""The benchmarks, their order, and the rows of their results."""

import itertools
import math
from pathlib import Path
from typing import NamedTuple


class Sizes(NamedTuple):
    """Sizes of patches, batches, and maps, and the shares of the time.

    Attributes:
        patch: Side of the training patches, voxels.
        batches: Batch sizes to rehearse.
        few: Number of models for the rehearsal and for the stream.
        steps: Number of steps to time.
        maps: Sides of the whole maps, voxels.
        train_steps: Patch, batch, and type of every training step.
        streams: Patch and batch of every stream.
        stream_seconds: Duration of the measurement of a stream.
        shares: Largest shares of the total time for the tests and for the benchmarks.
        fields: Fields of the training configuration, `FIELD=VALUE`.
    """

    patch: int
    batches: tuple[int, ...]
    few: int
    steps: int
    maps: tuple[int, ...]
    train_steps: tuple[tuple[int, int, str], ...]
    streams: tuple[tuple[int, int], ...]
    stream_seconds: float
    shares: tuple[float, float]
    fields: tuple[str, ...] = ()


FULL = Sizes(
    patch=96,
    batches=(4, 8, 16, 32),
    few=12,
    steps=8,
    maps=(256, 512),
    train_steps=((96, 4, "float32"), (64, 8, "bfloat16"), (64, 8, "float32"), (96, 4, "bfloat16")),
    streams=((96, 8), (64, 16)),
    stream_seconds=4.0,
    shares=(0.15, 0.4),
)
SMOKE = Sizes(
    patch=32,
    batches=(1, 2),
    few=2,
    steps=1,
    maps=(32, 64),
    train_steps=((32, 1, "float32"), (32, 1, "bfloat16")),
    streams=((32, 2),),
    stream_seconds=0.2,
    shares=(0.1, 0.6),
    fields=("data.stream.held_out_patch=32", "data.stream.held_out_samples=2", "log_every=1"),
)


class Benchmark(NamedTuple):
    """A module of `experiments.benchmarks`, with arguments for which it writes one row.

    Attributes:
        name: Name of the part.
        module: Name of the module.
        arguments: Arguments without `-o`.
    """

    name: str
    module: str
    arguments: tuple[str, ...]

    def result(self, row: dict) -> dict:
        """Return a row of the results, including `flops`, from a row that the benchmark wrote."""
        result = {"what": self.name, "raw": row}
        if "failed" in row:
            return result | {"failed": row["failed"]}
        result |= {"device_gib": row["device_gib"]} if "device_gib" in row else {}
        if self.module == "whole_map":
            return result | {"dtype": "float32", "seconds": row["second_seconds"], "flops": flops(row["box"])}
        if self.module == "simulate_stream":
            per_second = row["pairs_per_second"]
            return result | {"batch": row["batch"], "per_second": per_second, "seconds": row["batch"] / per_second}
        patch = int(self.arguments[self.arguments.index("--patch") + 1])
        result |= {name: row[name] for name in ("dtype", "batch", "seconds")}
        return result | {"per_second": row["patches_per_second"], "flops": 3 * row["batch"] * flops(patch)}


def flops(side: int) -> float:
    """Return the floating point operations of a forward pass of the published network over a cubic box.

    Forward and backward pass together take three times as many.
    """
    from crefjax.models.unet3d import UNet3DConfig
    from crefjax.models.unet3d_slabs import count_flops

    config = UNet3DConfig()
    return count_flops((side,) * 3, config)


def benchmarks(sizes: Sizes, models: list[Path]) -> list[Benchmark]:
    """Return the benchmarks, the most informative first, because the time may not suffice for all.

    Args:
        sizes: Sizes of patches, batches, and maps.
        models: Files of atomic models, for the stream.
    """
    maps = [
        Benchmark(f"whole map, {side}³", "whole_map", ("--boxes", str(side), "--methods", "slabs"))
        for side in sizes.maps
    ]
    steps = [
        Benchmark(
            f"train step, {patch}³, batch {batch}, {dtype}",
            "train_step",
            (
                *("--patch", str(patch), "--batches", str(batch), "--dtypes", dtype),
                *("--steps", str(sizes.steps), "--no-parts"),
            ),
        )
        for patch, batch, dtype in sizes.train_steps
    ]
    # A few files of all sizes, including the largest; reading many takes longer than the measurement.
    sample = sorted(models, key=lambda path: -path.stat().st_size)[:: max(1, math.ceil(len(models) / sizes.few))]
    streams = [
        Benchmark(
            f"stream, {patch}³, batch {batch}",
            "simulate_stream",
            (
                *("--patches", str(patch), "--batches", str(batch), "--seconds", str(sizes.stream_seconds)),
                *("--models", *map(str, sample)),
            ),
        )
        for patch, batch in sizes.streams
    ]
    interleaved = itertools.chain.from_iterable(itertools.zip_longest(maps, steps, streams))
    return [benchmark for benchmark in interleaved if benchmark is not None]
