"""Batches of the patches of a prepared dataset, read with Grain: shuffled, rotated, and resumed exactly.

Grain loads JAX, so it is imported where it is used: worker processes import this subpackage without it.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from crefjax.data import shards
from crefjax.data.manifest import SPLITS, Manifest, all_shards, load_manifest
from crefjax.data.patches import CUBE_ROTATIONS, rotate
from crefjax.errors import UserError, path_error

__all__ = ["Batches", "dataset_batches", "load_manifest"]

THREADS = 4
ENDLESS = 2**62  # random patches
_MAX_SEED = 2**32 - 1
_SIGN_AND_VALUE, _SCALE = np.uint32(0x8FFFE000).view(np.int32), np.float32(2.0**112)


class Batches:
    """An iterator of batches whose position can be saved and restored exactly.

    Each batch is a dict of NumPy arrays: `half_map_1`, `half_map_2` and, if present, `truth`, float32
    `(batch, p, p, p)`, standardized and masked; and `entry`, int32 `(batch,)`, an index into `names`.

    Attributes:
        names: names of the entries.
        size: number of patches in one epoch, of all processes together; 0 for random patches, which have no epoch.
    """

    def __init__(self, dataset, *, names: Sequence[str], size: int, threads: int, fingerprint: dict):
        """Wrap a `grain.MapDataset` whose elements are batches.

        Args:
            dataset: the batches.
            names: see the class.
            size: see the class.
            threads: number of threads that prepare batches, two more than it in advance; 0 prepares each on demand.
            fingerprint: settings, as JSON, for which a saved position is valid.
        """
        import grain

        self.names, self.size = tuple(names), size
        ahead = threads + 2 if threads else 0
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
        self._batches = iter(dataset.to_iter_dataset(options))
        text = json.dumps(fingerprint, sort_keys=True)
        self._fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        return next(self._batches)

    def get_state(self) -> dict:
        """Return the position after the last batch, as JSON; the same in every process."""
        return {"next_batch": int(self._batches.get_state()["next_index"]), "of": self._fingerprint}

    def set_state(self, state: dict) -> None:
        """Restore a saved position.

        Raises:
            UserError: it was saved with other patches or other settings.
        """
        if state.get("of") != self._fingerprint:
            raise UserError(
                "the saved position in the training data belongs to other patches, or to another batch size or "
                "seed; resume with the settings of the saved run"
            )
        self._batches.set_state({"next_index": int(state["next_batch"])})

    def close(self) -> None:
        """End the threads; there are no batches after that."""
        self._batches.close()


def collate(samples: Sequence[dict]) -> dict[str, np.ndarray]:
    """Return a batch of samples: float32 arrays `(batch, p, p, p)` or of other shapes, and int32 `entry`.

    Rotated views of any float type are copied and converted; float16, which must be finite, by `widen`.
    """
    batch = {"entry": np.array([sample["entry"] for sample in samples], np.int32)}
    for name in (name for name in samples[0] if name != "entry"):
        batch[name] = np.empty((len(samples), *samples[0][name].shape), np.float32)
        for place, sample in zip(batch[name], samples, strict=True):
            if place.ndim == 3:
                widen(sample[name], place)
            else:
                place[...] = sample[name]
    return batch


def widen(array: np.ndarray, out: np.ndarray) -> None:
    """Copy a finite array of any float type into a contiguous float32 array.

    float16 is converted by integer arithmetic, in half of NumPy's time on average over the rotated views: its exponent
    and mantissa are the upper ones of a float32 that is too small by a factor of 2^112, even if it is subnormal.
    """
    array = fast_copy_layout(array)
    if array.dtype.itemsize != 2:
        out[...] = array
        return
    bits = out.view(np.int32)
    bits[...] = array.view(array.dtype.str.replace("f2", "i2"))
    np.left_shift(bits, 13, out=bits)
    np.bitwise_and(bits, _SIGN_AND_VALUE, out=bits)
    np.multiply(out, _SCALE, out=out)


def fast_copy_layout(array: np.ndarray) -> np.ndarray:
    """Return the content of a rotated view `(z, y, x)`, laid out in memory so that copying it is fast.

    Copying voxels that lie one plane apart takes up to six times as long as copying whole rows, or as exchanging rows
    and columns within planes, so the rotation is made of copies of these two kinds; the last one is left to the caller.
    Rows are not reversed while planes are exchanged, which would be as slow.
    """
    slow_to_fast = sorted(range(3), key=lambda axis: -abs(array.strides[axis]))
    stored, places = array.transpose(slow_to_fast), tuple(slow_to_fast.index(axis) for axis in range(3))
    if places[0] == 0:
        return array
    if places[0] == 2:  # rows become planes
        planes = np.ascontiguousarray(stored.transpose(0, 2, 1)).transpose(1, 0, 2)
        return planes if places[1] == 0 else np.ascontiguousarray(planes).transpose(0, 2, 1)
    ahead = slice(None, None, -1 if stored.strides[2] < 0 else 1)
    if places[1] == 0 and ahead.step == 1:  # planes and rows are exchanged, which takes one copy
        return array
    planes = np.ascontiguousarray(stored[..., ahead].transpose(1, 0, 2))[..., ahead]
    return planes if places[1] == 0 else planes.transpose(0, 2, 1)


def random_rotation(sample: dict, random: np.random.Generator) -> dict:
    """Return a sample with all its maps rotated alike, to a random one of the 24 orientations of the cube."""
    index = int(random.integers(len(CUBE_ROTATIONS)))
    return {name: value if name == "entry" else rotate(value, index) for name, value in sample.items()}


def check_common(
    *, batch: int, seed: int, threads: int, process: tuple[int, int] = (0, 1), count: int | None = None
) -> None:
    """Raise UserError if a setting that all kinds of batches share is out of range."""
    index, processes = process
    if not 0 <= index < processes:
        text = f"an index from 0 to below the number of processes, found {index} of {processes}"
        raise UserError(f"process: expected {text}")
    if batch < 1:
        raise UserError(f"batch: expected 1 patch or more, found {batch}; change it")
    if batch % processes:
        raise UserError(f"batch: expected a multiple of the {processes} processes, found {batch}; change it")
    if count is not None and count < 1:
        raise UserError(f"count: expected 1 patch or more, found {count}; change it")
    if threads < 0:
        raise UserError(f"threads: expected 0 or more, found {threads}; change it")
    if not 0 <= seed <= _MAX_SEED:
        raise UserError(f"seed: expected 0 to {_MAX_SEED}, found {seed}; change it")


class _Patches:
    """Random access to the patches of one side of the split, in the order of the manifest."""

    def __init__(self, manifest: Manifest, split: str):
        self._patch, self._dtype = manifest.patch, manifest.dtype
        self._maps = shards.MAPS if manifest.truth else shards.MAPS[:2]
        files = [(number, s) for number, s in all_shards(manifest.entries) if manifest.entries[number].split == split]
        self._entries = [number for number, _ in files]
        self._paths = [manifest.folder / shard.file for _, shard in files]
        lengths = [shard.records for _, shard in files]
        self._starts = np.cumsum([0, *lengths])
        self._reader = shards.ShardReader(list(zip(self._paths, lengths, strict=True)))

    def __len__(self):
        return int(self._starts[-1])

    def __getitem__(self, index):
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        within = int(index - self._starts[shard])
        raw = self._reader.read(shard, within)
        try:
            maps = shards.decode(raw, within, self._patch, self._dtype, len(self._maps))
        except ValueError as error:
            raise shards.damaged_error(self._paths[shard], f"record {within} is {error}") from error
        return {**dict(zip(self._maps, maps, strict=True)), "entry": self._entries[shard]}


def dataset_batches(
    folder: str | Path,
    *,
    split: str = "training",
    batch: int,
    seed: int = 0,
    rotations: bool = True,
    shuffle: bool = True,
    repeat: bool = True,
    process: tuple[int, int] = (0, 1),
    threads: int = THREADS,
) -> Batches:
    """Return batches of the patches of a prepared dataset.

    The batches depend neither on the number of threads nor on that of processes. Each process has its part of every
    batch: together they have the batches of a single process, and a position that was saved with one
    number of processes can be restored with another.

    Args:
        folder: a dataset of `crefjax prepare`.
        split: `training` or `validation`.
        batch: number of patches per batch, of all processes together; a multiple of their number.
        seed: random seed of order and orientations.
        rotations: whether each sample is rotated to one of the cube's 24 orientations; no mirror images.
        shuffle: whether the order over the whole split is random, another in each epoch; nothing is held in memory.
        repeat: whether epochs follow each other without end, and batches cross their borders; else there is one epoch,
            whose last batch may be shorter.
        process: index of this process and number of processes. Of a batch, the first one has the first patches, and so
            on; of a last, shorter one, the last processes may have none.
        threads: number of threads that prepare batches in advance.

    Raises:
        UserError: not a complete dataset; fewer patches on this side than processes; a setting out of range. While
            iterating: a shard that is damaged or missing.
    """
    check_common(batch=batch, seed=seed, threads=threads, process=process)
    if split not in SPLITS:
        raise UserError(f"split: expected one of {', '.join(SPLITS)}, found {split}; choose one")
    manifest = load_manifest(folder)
    patches = _Patches(manifest, split)
    if len(patches) < process[1]:
        text = f"expected at least one {split} patch for each of {process[1]} processes, found {len(patches)}"
        raise path_error(folder, f"{text}; prepare more entries")
    data = _in_order(patches, seed, rotations, shuffle, repeat)
    checksums = [shard.sha256 for entry in manifest.of_split(split) for shard in entry.shards]
    settings = {"batch": batch, "seed": seed, "rotations": rotations, "shuffle": shuffle, "repeat": repeat}
    return Batches(
        # Endless data has no remainder, and Grain's division that would keep one is inexact for its length, 2^63 - 1.
        batches_of_process(data, batch, process, drop_remainder=repeat),
        names=[entry.name for entry in manifest.entries],
        size=len(patches),
        threads=threads,
        # "processes" is of earlier versions, whose batches depended on their number.
        fingerprint={**settings, "split": split, "processes": 1, "shards": checksums},
    )


def batches_of_process(samples, batch: int, process: tuple[int, int], *, drop_remainder: bool = False):
    """Return the batches of one process as a `grain.MapDataset`; no sample of another process is made.

    Args:
        samples: a `grain.MapDataset`, or any sequence, of the samples of all processes in their order.
        batch: number of samples of all processes in a batch.
        process: index of this process and number of processes, which divides the batch.
        drop_remainder: whether to leave out a last, shorter batch.
    """
    import grain

    if process[1] > 1:
        samples = _Share(samples, batch, *process)
    if not isinstance(samples, grain.MapDataset):
        samples = grain.MapDataset.source(samples)
    return samples.batch(batch // process[1], drop_remainder=drop_remainder, batch_fn=collate)


class _Share:
    """Random access to the samples of one process, of all samples in their order.

    Sample `k` of process `p`, whose part of a batch of `b` is `b / n`, is sample `k // (b/n) * b + p * b/n + k % (b/n)`
    of all.
    """

    def __init__(self, data, batch, index, count):
        self._data, self._batch, self._local = data, batch, batch // count
        self._first = index * self._local
        whole, rest = divmod(len(data), batch)
        self._length = whole * self._local + min(max(rest - self._first, 0), self._local)

    def __len__(self):
        return self._length

    def __getitem__(self, index):
        step, within = divmod(index, self._local)
        return self._data[step * self._batch + self._first + within]


def _in_order(patches, seed, rotations, shuffle, repeat):
    """Return the patches of every epoch, as a `grain.MapDataset` of samples."""
    import grain

    data = grain.MapDataset.source(patches).seed(seed)
    if shuffle:
        data = data.shuffle()
    if rotations:
        data = data.random_map(random_rotation)
    return data.repeat() if repeat else data
