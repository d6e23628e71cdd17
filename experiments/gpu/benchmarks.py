"""Which benchmarks are run, in which order, and what of their rows is told."""

import itertools
import math
from pathlib import Path
from typing import NamedTuple


class Sizes(NamedTuple):
    """How large everything is.

    Attributes:
        patch: voxels a side, of the training.
        batches: to rehearse.
        few: models for the rehearsal and for the stream.
        steps: timed, of every step.
        maps: sides of whole maps.
        train_steps: patch, batch and type of every train step.
        streams: patch and batch of every stream.
        stream_seconds: for which one is measured.
        shares: of all the time that tests and that benchmarks have at most.
        fields: of the training's config, `FIELD=VALUE`.
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
    """One of `experiments.benchmarks`, with arguments that make it write one row.

    Attributes:
        name: of the part.
        module: of the benchmark.
        arguments: but for `-o`.
    """

    name: str
    module: str
    arguments: tuple[str, ...]

    def told(self, row: dict) -> dict:
        """A row of the results, `flops` among it, from one that the benchmark wrote."""
        told = {"what": self.name, "raw": row}
        if "failed" in row:
            return told | {"failed": row["failed"]}
        told |= {"device_gib": row["device_gib"]} if "device_gib" in row else {}
        if self.module == "whole_map":
            return told | {"dtype": "float32", "seconds": row["second_seconds"], "flops": flops(row["box"])}
        if self.module == "simulate_stream":
            per_second = row["pairs_per_second"]
            return told | {"batch": row["batch"], "per_second": per_second, "seconds": row["batch"] / per_second}
        patch = int(self.arguments[self.arguments.index("--patch") + 1])
        told |= {name: row[name] for name in ("dtype", "batch", "seconds")}
        return told | {"per_second": row["patches_per_second"], "flops": 3 * row["batch"] * flops(patch)}


def flops(side: int) -> float:
    """Of the paper's network over a cubic box, forward; forward and backward are three times as many."""
    from crefjax.inference.slabs import count_flops, padded_shape
    from crefjax.models.unet3d import UNet3DConfig

    config = UNet3DConfig()
    return count_flops(padded_shape((side,) * 3, config), config)


def benchmarks(sizes: Sizes, models: list[Path]) -> list[Benchmark]:
    """All of them, in the order of how much they tell: the time may end before the last.

    Args:
        sizes: see there.
        models: files, for the stream.
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
    # A few files of all sizes, the largest among them: reading many takes longer than the measurement.
    some = sorted(models, key=lambda path: -path.stat().st_size)[:: max(1, math.ceil(len(models) / sizes.few))]
    streams = [
        Benchmark(
            f"stream, {patch}³, batch {batch}",
            "simulate_stream",
            (
                *("--patches", str(patch), "--batches", str(batch), "--seconds", str(sizes.stream_seconds)),
                *("--models", *map(str, some)),
            ),
        )
        for patch, batch in sizes.streams
    ]
    in_turns = itertools.chain.from_iterable(itertools.zip_longest(maps, steps, streams))
    return [one for one in in_turns if one is not None]
