"""Where batches come from: a prepared dataset, the simulator's stream, or half-maps of entry folders.

All give the same: batches with `half_map_1`, `half_map_2` and, where known, `truth`, `(samples, z, y, x)`, standardized
and masked (the stream in part, and then with `mask`), and of every sample the entry it is from.
"""

import glob
from pathlib import Path

import jax
from ml_collections import ConfigDict

from crefjax.errors import UserError
from crefjax.io.entries import find_entry
from crefjax.simulate.stream import StreamConfig, config_fields
from crefjax.simulate.stream.batches import stream_half_maps
from crefjax.training.stream_source import (
    MixedBatches,
    StreamBatches,
    held_out_phantoms,
    names_in,
    standardizing,
    stream_models,
)
from crefjax.training.task import NamedBatch, Source


class _Named:
    """Batches of NumPy arrays with an index of the entry, as `NamedBatch`."""

    def __init__(self, batches):
        self._batches = batches
        self.get_state, self.set_state, self.close = batches.get_state, batches.set_state, batches.close

    def __iter__(self):
        return self

    def __next__(self):
        batch = dict(next(self._batches))
        entries = batch.pop("entry")
        return NamedBatch(batch, tuple(self._batches.names[int(one)] for one in entries))


def make_source(config: ConfigDict) -> Source:
    """The source that a config names.

    Raises:
        UserError: it cannot be read, or has too little in it.
    """
    makers = {"dataset": _dataset_source, "stream": _stream_source, "entries": _entries_source}
    return makers[config.data.source](config, config.batch)


def _dataset_source(config, batch):
    from crefjax.data.dataset_batches import dataset_batches, load_manifest  # loads Grain

    chosen = config.data.dataset
    manifest = load_manifest(chosen.folder)
    if manifest.grid != config.data.grid:
        raise UserError(
            f"{chosen.folder}: expected a dataset for data.grid = {config.data.grid:g}, found one for "
            f"{manifest.grid:g}; set data.grid alike, or prepare the dataset with another --grid"
        )

    def training():
        return _Named(
            dataset_batches(
                chosen.folder,
                split="training",
                batch=batch,
                seed=config.seed,
                rotations=chosen.rotations,
                threads=chosen.threads,
            )
        )

    def held_out():
        once = {"rotations": False, "shuffle": False, "repeat": False}
        return _Named(dataset_batches(chosen.folder, split="validation", batch=batch, threads=chosen.threads, **once))

    sizes = manifest.patches
    if sizes["training"] < config.batch:
        raise UserError(
            f"{chosen.folder}: expected at least a batch of {config.batch} patches to train on, found "
            f"{sizes['training']}; prepare more entries, or take a smaller batch"
        )
    about = f"{sizes['training']} patches of a prepared dataset of half-maps"
    return Source(
        "dataset",
        manifest.patch,
        manifest.truth,
        sizes["training"],
        training,
        held_out if sizes["validation"] else None,
        about,
    )


def _entries_source(config, batch):
    return specimen_source(_specimens(config), config, batch)


def _specimens(config):
    from crefjax.data.specimen_batches import load_specimen

    folders = [Path(one) for pattern in names_in(config.data.entries.folders) for one in _found(pattern)]
    if not folders:
        named = config.data.entries.folders
        raise UserError(f"config: data.entries.folders: expected entry folders, found none by {named!r}; name some")
    specimens = []
    for folder in folders:
        entry = find_entry(folder)
        files = entry.half_map_1, entry.half_map_2, entry.mask
        specimens.append(load_specimen(*files, truth_path=entry.truth, voxels=config.data.grid))
    return specimens


def _found(pattern):
    """Folders of a pattern with *, or a name as it is: what is not there is told of when it is read."""
    return sorted(glob.glob(pattern)) if "*" in pattern else [pattern]


def specimen_source(
    specimens, config: ConfigDict, batch: int, *, held_out_specimens=None, whole: bool = False
) -> Source:
    """Patches of half-maps that are in memory.

    Args:
        specimens: from `crefjax.data.specimen_batches.load_specimen`.
        config: of the run.
        batch: samples in a step.
        held_out_specimens: whose patches are evaluated; None for those that are held out of `specimens`, as the
            config says.
        whole: whether to train on all of them, and hold out nothing.
    """
    from crefjax.data.specimen_batches import specimen_batches

    chosen = config.data.entries
    settings = {"patch": config.data.patch, "seed": config.seed, "batch": batch}
    share = 0.0 if held_out_specimens or whole else chosen.held_out

    def training():
        return _Named(specimen_batches(specimens, rotations=chosen.rotations, held_out=share, **settings))

    def held_out():
        if held_out_specimens:
            count = chosen.held_out_patches * len(held_out_specimens)
            return _Named(specimen_batches(held_out_specimens, region="all", count=count, **settings))
        count = chosen.held_out_patches * len(specimens)
        return _Named(specimen_batches(specimens, region="held_out", held_out=share, count=count, **settings))

    wanted = (held_out_specimens or share > 0) and chosen.held_out_patches > 0
    about = f"patches of {len(specimens)} half-map pair" + ("s" if len(specimens) > 1 else "")
    truth = all(one.truth is not None for one in specimens)
    return Source("entries", config.data.patch, truth, None, training, held_out if wanted else None, about)


def _stream_source(config, batch):
    chosen = config.data.stream
    training_files, held_out_files = stream_models(config)
    stream_config = StreamConfig(**{name: chosen[name] for name in config_fields()})
    prepare = standardizing(chosen.masked, chosen.gain, chosen.level, whole_map=chosen.whole_map)
    specimens = _specimens(config) if chosen.entries else []
    if any(one.truth is None for one in specimens):
        raise UserError("config: data.stream.entries: expected entries with a truth.mrc, as the stream has one")

    def training():
        files, shares = list(training_files), list(training_files.values())
        settings = {"patch": config.data.patch, "batch": batch, "seed": config.seed, "config": stream_config}
        streamed = StreamBatches(stream_half_maps(files, shares=shares, phantoms=chosen.phantoms, **settings), prepare)
        if not specimens:
            return streamed
        others = specimen_source(specimens, config, batch, whole=True).training()
        return MixedBatches(streamed, others, chosen.entries, chosen.gain, config.seed)

    wanted = chosen.held_out_samples > 0 and (held_out_files or chosen.held_out_phantoms)
    held_out = _held_out_of_stream(config, batch, held_out_files, stream_config, prepare) if wanted else None
    about = f"simulated patches of {len(training_files)} atomic models"
    if chosen.phantoms:
        about += f" and {chosen.phantoms} phantoms"
    if specimens:
        about += f", and ({chosen.entries:.0%} of the batches) of {len(specimens)} simulated entries"
    return Source("stream", config.data.patch, True, None, training, held_out, about)


def _held_out_of_stream(config, batch, files, stream_config, prepare):
    """Gives the same few samples whenever it is called; made now, as a mistake is better told before the training."""
    chosen = config.data.stream
    models = [*files, *held_out_phantoms(chosen.held_out_phantoms)]
    side, seed = chosen.held_out_patch or config.data.patch, (2**31 + config.seed) % 2**32
    try:
        batches = stream_half_maps(models, patch=side, batch=batch, seed=seed, config=stream_config)
    except UserError as error:
        raise UserError(
            f"config: data.stream: held-out patches of {side} voxels a side cannot be made: {error}"
        ) from error
    begin = batches.get_state()
    # Those of another size stand for whole maps, of which each is standardized by itself.
    whole = standardizing(chosen.masked, (1.0, 1.0), whole_map=chosen.whole_map)
    streamed = StreamBatches(batches, whole if chosen.held_out_patch else prepare)

    def held_out():
        batches.set_state(begin)
        for first in range(0, chosen.held_out_samples, batch):
            batch_of, entries = next(streamed)
            keep = min(batch, chosen.held_out_samples - first)
            yield NamedBatch(jax.tree.map(lambda one, keep=keep: one[:keep], batch_of), entries[:keep])

    return held_out
