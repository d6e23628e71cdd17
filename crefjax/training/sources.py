"""Sources of batches of maps: a prepared dataset, the simulator's stream, or half-maps of entry folders.

All give batches with `half_map_1`, `half_map_2`, and, if known, `truth`, `(samples, z, y, x)`, standardized and masked
(the stream in part, and then with `mask`), and the name of the entry of every sample.
"""

import glob
from dataclasses import dataclass
from pathlib import Path

import jax
from ml_collections import ConfigDict

from crefjax.errors import UserError
from crefjax.simulate.stream import StreamConfig, config_fields
from crefjax.simulate.stream.batches import stream_half_maps
from crefjax.training.config import split_commas
from crefjax.training.processes import current_of_batch
from crefjax.training.stream_source import (
    MixedBatches,
    StreamBatches,
    held_out_phantoms,
    make_standardizer,
    stream_models,
)
from crefjax.training.task import DataSource, NamedBatch


@dataclass(frozen=True)
class MapSource(DataSource):
    """Batches of half-maps.

    Attributes:
        patch: Side of the patches, voxels.
        truth: Whether the batches have a truth.
    """

    patch: int
    truth: bool


class NamedBatches:
    """Batches of NumPy arrays with an index of the entry, as `NamedBatch`."""

    def __init__(self, batches):
        self._batches = batches
        self.get_state, self.set_state, self.close = batches.get_state, batches.set_state, batches.close

    def __iter__(self):
        return self

    def __next__(self):
        batch = dict(next(self._batches))
        entries = batch.pop("entry")
        return NamedBatch(batch, tuple(self._batches.names[int(entry)] for entry in entries))


def make_source(config: ConfigDict) -> MapSource:
    """Return the source that a config names.

    Raises:
        UserError: It cannot be read, or has too few samples.
    """
    makers = {"dataset": _dataset_source, "stream": _stream_source, "entries": _entries_source}
    return makers[config.data.source](config)


def _dataset_source(config):
    from crefjax.data.dataset_batches import dataset_batches, load_manifest  # loads Grain

    chosen = config.data.dataset
    manifest = load_manifest(chosen.folder)
    if manifest.grid != config.data.grid:
        raise UserError(
            f"{chosen.folder}: expected a dataset for data.grid = {config.data.grid:g}, found one for "
            f"{manifest.grid:g}; set data.grid to {manifest.grid:g}, or prepare the dataset with the config's grid"
        )
    settings = {"batch": config.batch, "threads": chosen.threads, "process": tuple(current_of_batch(config.batch))}

    def training():
        return NamedBatches(
            dataset_batches(chosen.folder, split="training", seed=config.seed, rotations=chosen.rotations, **settings)
        )

    def held_out():
        once = {"rotations": False, "shuffle": False, "repeat": False}
        return NamedBatches(dataset_batches(chosen.folder, split="validation", **once, **settings))

    sizes = manifest.patches
    if sizes["training"] < config.batch:
        raise UserError(
            f"{chosen.folder}: expected at least a batch of {config.batch} patches to train on, found "
            f"{sizes['training']}; prepare more entries, or use a smaller batch"
        )
    return MapSource(
        size=sizes["training"],
        training=training,
        held_out=held_out if sizes["validation"] else None,
        description=f"{sizes['training']} patches of a prepared dataset of half-maps",
        divided=True,
        held_out_size=sizes["validation"],
        patch=manifest.patch,
        truth=manifest.truth,
    )


def _entries_source(config):
    return specimen_source(_load_specimens(config), config)


def _load_specimens(config):
    from crefjax.data.specimen_batches import load_entry

    named = config.data.entries.folders
    folders = matching_folders(named)
    if not folders:
        raise UserError(
            f"config: data.entries.folders: expected entry folders, found none matching {named!r}; name at least one"
        )
    return [load_entry(folder, voxels=config.data.grid) for folder in folders]


def matching_folders(text: str) -> list[Path]:
    """Return the folders that a field names, between commas, as `expand_pattern` has them."""
    return [Path(folder) for pattern in split_commas(text) for folder in expand_pattern(pattern)]


def expand_pattern(pattern: str) -> list[str]:
    """Return the folders of a pattern with *, or a name as it is: reading it reports whether it is missing."""
    return sorted(glob.glob(pattern)) if "*" in pattern else [pattern]


def specimen_source(specimens, config: ConfigDict, *, held_out_specimens=None, whole: bool = False) -> MapSource:
    """Return a source of patches of half-maps in memory.

    Args:
        specimens: From `crefjax.data.patches.load_specimen`.
        config: Config of the run.
        held_out_specimens: Specimens whose patches are evaluated; None for parts of `specimens`, as the config says.
        whole: Whether to train on all of `specimens`, and hold out nothing.
    """
    from crefjax.data.specimen_batches import specimen_batches

    chosen = config.data.entries
    settings = {"patch": config.data.patch, "seed": config.seed, "batch": config.batch}
    settings["process"] = tuple(current_of_batch(config.batch))
    share = 0.0 if held_out_specimens or whole else chosen.held_out

    def training():
        return NamedBatches(specimen_batches(specimens, rotations=chosen.rotations, held_out=share, **settings))

    def held_out():
        region = {"region": "all"} if held_out_specimens else {"region": "held_out", "held_out": share}
        evaluated = held_out_specimens or specimens
        count = chosen.held_out_patches * len(evaluated)
        return NamedBatches(specimen_batches(evaluated, count=count, **region, **settings))

    evaluates = (held_out_specimens or share > 0) and chosen.held_out_patches > 0
    return MapSource(
        size=None,
        training=training,
        held_out=held_out if evaluates else None,
        held_out_size=chosen.held_out_patches * len(held_out_specimens or specimens),
        description=f"patches of {len(specimens)} half-map pair" + ("s" if len(specimens) > 1 else ""),
        divided=True,
        patch=config.data.patch,
        truth=all(specimen.truth is not None for specimen in specimens),
    )


def _stream_source(config):
    chosen, place = config.data.stream, current_of_batch(config.batch)
    training_files, held_out_files = stream_models(config)
    stream_config = StreamConfig(**{name: chosen[name] for name in config_fields()})
    standardize = make_standardizer(chosen.masked, chosen.gain, chosen.level, whole_map=chosen.whole_map)
    specimens = _load_specimens(config) if chosen.entries else []
    if any(specimen.truth is None for specimen in specimens):
        raise UserError("config: data.stream.entries: expected entries with a truth.mrc, as the stream has one")

    def training():
        """Return batches of the stream, mixed with patches of the entries if there are any."""
        files, shares = list(training_files), list(training_files.values())
        settings = {"patch": config.data.patch, "batch": config.batch, "seed": config.seed, "config": stream_config}
        batches = stream_half_maps(files, shares=shares, phantoms=chosen.phantoms, process=tuple(place), **settings)
        stream_batches = StreamBatches(batches, standardize)
        if not specimens:
            return stream_batches
        entry_batches = specimen_source(specimens, config, whole=True).training()
        return MixedBatches(stream_batches, entry_batches, chosen.entries, chosen.gain, config.seed, place)

    evaluates = chosen.held_out_samples > 0 and (held_out_files or chosen.held_out_phantoms)
    description = f"simulated patches of {len(training_files)} atomic models"
    if chosen.phantoms:
        description += f" and {chosen.phantoms} phantoms"
    if specimens:
        description += f", and ({chosen.entries:.0%} of the batches) of {len(specimens)} simulated entries"
    return MapSource(
        size=None,
        training=training,
        held_out=_held_out_of_stream(config, held_out_files, stream_config, standardize, place) if evaluates else None,
        held_out_size=chosen.held_out_samples,
        divided=True,
        description=description,
        patch=config.data.patch,
        truth=True,
    )


def _held_out_of_stream(config, files, stream_config, standardize, place):
    """Return a function that yields this process's part of the same few samples at every call.

    The stream is created here, so that a mistake is reported before the training.
    """
    chosen, batch, own = config.data.stream, config.batch, place.local_batch(config.batch)
    models = [*files, *held_out_phantoms(chosen.held_out_phantoms)]
    side, seed = chosen.held_out_patch or config.data.patch, (2**31 + config.seed) % 2**32
    try:
        batches = stream_half_maps(
            models, patch=side, batch=batch, seed=seed, config=stream_config, process=tuple(place)
        )
    except UserError as error:
        raise UserError(
            f"config: data.stream: held-out patches of {side} voxels a side cannot be made: {error}"
        ) from error
    start = batches.get_state()
    # Patches of another size stand for whole maps, each of which is standardized by itself.
    whole = make_standardizer(chosen.masked, (1.0, 1.0), whole_map=chosen.whole_map)
    stream_batches = StreamBatches(batches, whole if chosen.held_out_patch else standardize)

    def held_out():
        batches.set_state(start)
        for first in range(0, chosen.held_out_samples, batch):
            keep = min(own, chosen.held_out_samples - first - place.index * own)
            if keep < 1:  # of a last, short batch, other processes have all samples
                return
            samples, entries = next(stream_batches)
            yield NamedBatch(jax.tree.map(lambda array, keep=keep: array[:keep], samples), entries[:keep])

    return held_out
