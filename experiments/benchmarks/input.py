"""Speed of a prepared dataset: patches a second up to batches for the device, beside reading the same bytes with NumPy.

    python -m experiments.benchmarks.input --patches 192

takes about two minutes on two CPU cores and 2 GiB of disk space in the temporary folder. It makes a dataset of random
maps (noise, as most of a half-map is), and measures, each in a process of its own, the mean of six passes through all
files after a first one, so that they are in the memory of the system. Batches are read in advance, so that a single
pass would not do: it may begin with batches that the one before has made.

    numpy         np.fromfile of every shard, into new memory
    numpy float32 the same, and every value converted to float32, as a network needs it: the fair comparison
    zstd float32  decompression of the patches from memory, and conversion: the least that compressed shards can take
                  (only with --ball, and where the package zstandard is installed)
    batches N     `dataset_batches` with N worker threads: shuffled, checked, rotated, float32, (batch, z, y, x)

`CPU ms` is the processor time of a patch, in all threads, which other work on the machine hardly changes. Grain takes
longer to shuffle few patches (0.7 ms each of 24, 0.1 ms each of 192). Without --ball the mask is 1 everywhere, and
shards are not compressed; with it, most of the box is 0, as in a real dataset, and they are.
"""

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from experiments.benchmarks.common import peak_gib, run_worker, write_rows

_PASSES = 6
WAYS = ("numpy", "numpy float32", "zstd float32", "batches 1", "batches 2", "batches 4")


def main(argv=None) -> int:
    """Measure what the command line asks for and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, default=192, help="number of patches in the dataset")
    parser.add_argument("--patch", type=int, default=96, help="side of the patches, voxels")
    parser.add_argument("--batch", type=int, default=6, help="patches in a batch")
    parser.add_argument("--dtype", choices=("float16", "float32"), nargs="+", default=["float16", "float32"])
    parser.add_argument("--ball", action="store_true", help="mask: a ball of 80 %% of the box's side")
    parser.add_argument("--json", metavar="F", help="also write the rows to a JSON file")
    parser.add_argument("--worker", nargs=3, metavar=("WAY", "DATASET", "BATCH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.worker:
        way, dataset, batch = arguments.worker
        print(json.dumps(measure(way, Path(dataset), int(batch))))
        return 0
    rows = []
    print(f"{'type':8} {'way':14} {'patches/s':>10} {'MiB/s':>7} {'CPU ms':>7} {'of float32':>11} {'GiB':>5}")
    for dtype in arguments.dtype:
        with tempfile.TemporaryDirectory() as folder:
            dataset = make_dataset(Path(folder), arguments.patches, arguments.patch, dtype, arguments.ball)
            first = None
            for way in WAYS:
                if way.startswith("zstd") and not (arguments.ball and importlib.util.find_spec("zstandard")):
                    continue
                row = {"dtype": dtype, "way": way, **run_worker("input", "--worker", way, dataset, arguments.batch)}
                if "failed" in row:
                    raise SystemExit(f"{way}: {row['failed']}")
                if way == "numpy float32":
                    first = row["cpu_ms"]
                rows.append(row)
                share = f"{first / row['cpu_ms']:11.2f}" if first else " " * 11
                print(
                    f"{dtype:8} {way:14} {row['patches_per_second']:10.0f} {row['bytes_per_second'] / 2**20:7.0f} "
                    f"{row['cpu_ms']:7.2f} {share} {row['gib']:5.2f}",
                    flush=True,
                )
    write_rows(arguments.json, rows)
    return 0


def make_dataset(folder: Path, patches: int, patch: int, dtype: str, ball: bool, *, validation: float = 0.0) -> Path:
    """Write a dataset of entries of eight patches of noise, a share of them held out, and return its folder."""
    from crefjax.data.prepare import prepare
    from crefjax.io.maps import Map, write_map

    side, entries = 2 * patch, []
    for number in range(-(-patches // 8)):
        entries.append(folder / f"entry_{number}")
        entries[-1].mkdir()
        random = np.random.default_rng(number)
        signal = random.standard_normal((side,) * 3, np.float32)
        maps = {f"half_map_{half}": signal + random.standard_normal(signal.shape, np.float32) for half in (1, 2)}
        axis = np.linspace(-1, 1, side, dtype=np.float32)
        radius = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
        maps["mask"] = (radius < (0.8 if ball else 9)).astype(np.float32)
        for name, array in maps.items():
            write_map(entries[-1] / f"{name}.mrc", Map.from_array(array, 1.0), label="noise")
    prepare(entries, folder / "dataset", patch=patch, dtype=dtype, validation=validation, report=lambda line: None)
    for entry in entries:
        for path in entry.iterdir():
            path.unlink()
    return folder / "dataset"


def measure(way: str, dataset: Path, batch: int) -> dict:
    """Return patches and bytes on disk per second of one way, the mean of several passes."""
    from crefjax.data.manifest import load_manifest

    manifest = load_manifest(dataset)
    shards = [(dataset / shard.file, shard.bytes) for entry in manifest.entries for shard in entry.shards]
    count = manifest.patches["training"]
    if count % batch:
        raise SystemExit(f"--batch: expected a divisor of {count} patches, found {batch}")
    if way.startswith("batches"):
        passes = _read_batches(dataset, batch, int(way.split()[1]), count)
    elif way == "zstd float32":
        passes = _decompress(manifest)
    else:
        passes = _read_files([path for path, _ in shards], manifest.dtype if way == "numpy float32" else None)
    next(passes)  # loads what it needs
    start, cpu = time.perf_counter(), time.process_time()
    for _ in range(_PASSES):
        next(passes)
    seconds, cpu = (time.perf_counter() - start) / _PASSES, (time.process_time() - cpu) / _PASSES
    return {
        "patches_per_second": count / seconds,
        "cpu_ms": 1e3 * cpu / count,
        "bytes_per_second": sum(size for _, size in shards) / seconds,
        "gib": peak_gib(),
    }


def _read_files(paths, dtype):
    """Read files once at every step, and convert them to float32 if they have a type."""
    while True:
        for path in paths:
            content = np.fromfile(path, np.uint8)
            if dtype is not None:
                content[: content.size // 4 * 4].view(dtype).astype(np.float32)
        yield


def _decompress(manifest):
    """Decompress the patches once at every step, and convert them to float32."""
    import zstandard

    from crefjax.data.manifest import all_shards
    from crefjax.data.shards import ShardReader

    shards = [(manifest.folder / shard.file, shard.records) for _, shard in all_shards(manifest.entries)]
    reader, compressor = ShardReader(shards), zstandard.ZstdCompressor(level=1)  # as the shards
    records = [reader.read(number, index) for number, (_, count) in enumerate(shards) for index in range(count)]
    packed, decompressor = [compressor.compress(record) for record in records], zstandard.ZstdDecompressor()
    while True:
        for content in packed:
            record = decompressor.decompress(content)
            np.frombuffer(record, manifest.dtype, len(record) // 4 * 4 // np.dtype(manifest.dtype).itemsize).astype(
                np.float32
            )
        yield


def _read_batches(dataset, batch, threads, count):
    """Read a dataset once at every step."""
    from crefjax.data.dataset_batches import dataset_batches

    batches = dataset_batches(dataset, batch=batch, threads=threads)
    while True:
        for _ in range(count // batch):
            next(batches)
        yield


if __name__ == "__main__":
    sys.exit(main())
