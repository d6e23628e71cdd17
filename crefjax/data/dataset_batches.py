"""Batches for training: patches of a prepared dataset, read with Grain, shuffled, turned, and resumed exactly.

Grain loads JAX, so it is imported where it is used: worker processes import this room without it.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from crefjax.data import shards
from crefjax.data.manifest import SPLITS, Manifest, all_shards, load_manifest
from crefjax.data.patches import ROTATIONS, rotate
from crefjax.errors import UserError, path_error

__all__ = ["Batches", "dataset_batches", "load_manifest"]

THREADS = 4
_MAX_SEED = 2**32 - 1


class Batches:
    """An iterator of batches whose position can be saved and set, exactly.

    Each batch is a dict of NumPy arrays: `half_map_1`, `half_map_2` and, where there is one, `truth`, float32
    `(batch, p, p, p)`, standardized and masked; and `entry`, int32 `(batch,)`, an index into `names`.

    Attributes:
        names: of the entries.
        size: patches in one epoch, of all processes together; 0 if there is no epoch, for random crops.
    """

    def __init__(self, dataset, *, names: Sequence[str], size: int, threads: int, fingerprint: dict):
        """Wrap a `grain.MapDataset` whose elements are batches.

        Args:
            dataset: the batches.
            names: see the class.
            size: see the class.
            threads: that make batches ahead, as many plus two; 0 makes each batch when it is asked for.
            fingerprint: JSON-able; what a saved position is true for.
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
        """The position after the last batch that was given, JSON-able; the same in every process."""
        return {"next_batch": int(self._batches.get_state()["next_index"]), "of": self._fingerprint}

    def set_state(self, state: dict) -> None:
        """Go to a saved position; the following batches are the ones that followed it.

        Raises:
            UserError: it was saved by batches of other patches or other settings.
        """
        if state.get("of") != self._fingerprint:
            raise UserError(
                "position in the data: expected one saved with the same patches, batch size, seed and number of "
                "processes, found another; resume with the settings that it was saved with"
            )
        self._batches.set_state({"next_index": int(state["next_batch"])})

    def close(self) -> None:
        """End the threads; no batch can be had after that."""
        self._batches.close()


def stack(samples: Sequence[dict]) -> dict[str, np.ndarray]:
    """A batch of samples: float32 arrays `(batch, p, p, p)`, and int32 `entry`.

    Turned views of any float type are turned, converted and put side by side in one pass.
    """
    batch = {"entry": np.array([sample["entry"] for sample in samples], np.int32)}
    for name in (name for name in samples[0] if name != "entry"):
        batch[name] = np.empty((len(samples), *samples[0][name].shape), np.float32)
        for place, sample in zip(batch[name], samples, strict=True):
            place[...] = sample[name]
    return batch


def turned(sample: dict, random: np.random.Generator) -> dict:
    """A sample with all its maps in one of the 24 orientations, drawn at random."""
    index = int(random.integers(len(ROTATIONS)))
    return {name: value if name == "entry" else rotate(value, index) for name, value in sample.items()}


def check_common(*, batch: int, seed: int, threads: int) -> None:
    """Raises UserError where a setting that all batches have is out of range."""
    if batch < 1:
        raise UserError(f"batch: expected 1 patch or more, found {batch}; change it")
    if threads < 0:
        raise UserError(f"threads: expected 0 or more, found {threads}; change it")
    if not 0 <= seed <= _MAX_SEED:
        raise UserError(f"seed: expected 0 to {_MAX_SEED}, found {seed}; change it")


class _Patches:
    """Random access to the patches of one side of the split, in the order of the manifest."""

    def __init__(self, manifest: Manifest, split: str):
        self._patch, self._dtype = manifest.patch, manifest.dtype
        self._maps = shards.MAPS if manifest.truth else shards.MAPS[:2]
        listed = [found for found in all_shards(manifest.entries) if manifest.entries[found[0]].split == split]
        self._entries = [number for number, _ in listed]
        self._paths = [manifest.folder / shard.file for _, shard in listed]
        lengths = [shard.records for _, shard in listed]
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
            raise shards.damaged(self._paths[shard], f"record {within} is {error}") from error
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
    """Batches of the patches of a prepared dataset.

    With the same arguments the batches are the same, whatever the number of threads. A sample's orientation depends on
    seed, epoch and place in the shuffled order, not on the number of processes.

    Args:
        folder: a dataset of `crefjax prepare`.
        split: `training` or `validation`.
        batch: patches a batch; each process gets as many.
        seed: of order and orientations.
        rotations: whether each sample is turned to one of the cube's 24 orientations; no mirror images.
        shuffle: whether the order is a random one, another each epoch, over the whole split; nothing is held in memory.
        repeat: whether epochs follow without end, batches running on over their borders; else one epoch, its last
            batch as short as need be.
        process: index of this process and number of processes; each has a share of its own of each epoch, all of the
            same length: what does not divide is left out of the epoch, another part each epoch if shuffled.
        threads: that read and make batches ahead.

    Raises:
        UserError: no whole dataset; no patch on this side, or fewer than processes; a setting out of range. While
            iterating: a shard that is damaged or gone.
    """
    check_common(batch=batch, seed=seed, threads=threads)
    _check(split, *process)
    manifest = load_manifest(folder)
    patches = _Patches(manifest, split)
    if len(patches) < process[1]:
        text = f"expected a patch for {split} for each of {process[1]} processes, found {len(patches)}"
        raise path_error(folder, f"{text}; prepare more entries")
    data = _in_order(patches, seed, rotations, shuffle, repeat, process)
    checksums = [shard.sha256 for entry in manifest.of_split(split) for shard in entry.shards]
    settings = {"batch": batch, "seed": seed, "rotations": rotations, "shuffle": shuffle, "repeat": repeat}
    return Batches(
        data.batch(batch, drop_remainder=False, batch_fn=stack),
        names=[entry.name for entry in manifest.entries],
        size=len(patches),
        threads=threads,
        fingerprint={**settings, "split": split, "processes": process[1], "shards": checksums},
    )


def _check(split, index, count):
    if not 0 <= index < count:
        raise UserError(f"process: expected an index from 0 to below the number of processes, found {index} of {count}")
    if split not in SPLITS:
        raise UserError(f"split: expected one of {', '.join(SPLITS)}, found {split}; choose one")


def _in_order(patches, seed, rotations, shuffle, repeat, process):
    """A process's share of the patches of every epoch, as a `grain.MapDataset` of samples."""
    import grain

    index, count = process
    data = grain.MapDataset.source(patches).seed(seed)
    if shuffle:
        data = data.shuffle()
    if rotations:
        data = data.random_map(turned)
    data = data[: len(patches) // count * count][index::count]
    return data.repeat() if repeat else data
