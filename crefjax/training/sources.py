"""Where batches come from: a prepared dataset, the simulator's stream, or half-maps of entry folders.

All give the same: batches with `half_map_1`, `half_map_2` and, where known, `truth`, `(samples, z, y, x)`, standardized
and masked, and of every sample the entry it is from.
"""

import glob
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from crefjax.errors import UserError
from crefjax.io.entries import find_entry
from crefjax.simulate.phantom import phantom
from crefjax.simulate.stream import PHANTOM_RESIDUES, stream
from crefjax.simulate.stream_draw import Variety
from crefjax.training.task import Batch

_HELD_OUT_SEED = 2**20
_VARIETY = (
    *("voxel_size", "resolution", "b_factor", "falloff", "noise_b", "noise_power", "unevenness"),
    *("belt", "belt_strength", "centre", "solvent"),
)


class Samples(NamedTuple):
    """A batch with the names of its samples' entries."""

    batch: Batch
    entries: tuple[str, ...]


class Position(Protocol):
    """An endless iterator of `Samples` whose position can be saved and gone back to."""

    def __next__(self) -> Samples: ...

    def get_state(self) -> dict:
        """The position, as JSON can hold it."""

    def set_state(self, state: dict) -> None:
        """Go to a position."""


@dataclass(frozen=True)
class Source:
    """Batches to train on and batches to evaluate on.

    Attributes:
        kind: one of `config.SOURCES`.
        patch: voxels a side.
        truth: whether the batches have one.
        size: samples in an epoch; None for an endless source.
        training: gives the iterator of training batches.
        held_out: gives an iterator once over the samples that are never trained on, the last batch perhaps short;
            None where there are none.
        about: what the data are, in words, for the card of the weights.
    """

    kind: str
    patch: int
    truth: bool
    size: int | None
    training: Callable[[], Position]
    held_out: Callable[[], Iterator[Samples]] | None
    about: str


class _Named:
    """Batches of NumPy arrays with an index of the entry, as `Samples`."""

    def __init__(self, batches):
        self._batches = batches
        self.get_state, self.set_state = batches.get_state, batches.set_state

    def __iter__(self):
        return self

    def __next__(self):
        batch = dict(next(self._batches))
        entries = batch.pop("entry")
        return Samples(batch, tuple(self._batches.names[int(one)] for one in entries))


def make_source(config: ConfigDict) -> Source:
    """The source that a config names.

    Raises:
        UserError: it cannot be read, or has too little in it.
    """
    makers = {"dataset": _dataset_source, "stream": _stream_source, "entries": _entries_source}
    return makers[config.data.source](config, config.batch)


def _dataset_source(config, batch):
    from crefjax.data.pipeline import dataset_batches, load_manifest  # loads Grain

    chosen = config.data.dataset
    manifest = load_manifest(chosen.folder)

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
    from crefjax.data.entry_patches import load_specimen

    chosen = config.data.entries
    folders = names_in(chosen.folders)
    if not folders:
        raise UserError("config: data.entries.folders: expected entry folders, found none; name some")
    specimens = []
    for folder in folders:
        entry = find_entry(folder)
        specimens.append(load_specimen(entry.half_map_1, entry.half_map_2, entry.mask, truth_path=entry.truth))
    return specimen_source(specimens, config, batch)


def specimen_source(specimens, config: ConfigDict, batch: int, *, held_out_specimens=None) -> Source:
    """Patches of half-maps that are in memory.

    Args:
        specimens: from `crefjax.data.entry_patches.load_specimen`.
        config: of the run.
        batch: samples in a step.
        held_out_specimens: whose patches are evaluated; None for those that are held out of `specimens`, as the
            config says.
    """
    from crefjax.data.entry_patches import specimen_batches

    chosen = config.data.entries
    settings = {"patch": config.data.patch, "seed": config.seed, "batch": batch}
    share = 0.0 if held_out_specimens else chosen.held_out

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
    variety = Variety(**{name: getattr(chosen, name) for name in _VARIETY})
    prepare = _standardizing(chosen.masked, chosen.gain)
    settings = {"patch": config.data.patch, "variety": variety}

    def training():
        batches = stream(training_files, phantoms=chosen.phantoms, batch=batch, seed=config.seed, **settings)
        return _Streamed(batches, prepare)

    def held_out():
        count = chosen.held_out_samples
        models = [*held_out_files, *_held_out_phantoms(chosen.held_out_phantoms)]
        batches = stream(models, batch=batch, seed=(2**31 + config.seed) % 2**32, **settings)
        streamed = _Streamed(batches, prepare)
        for first in range(0, count, batch):
            batch_of, entries = next(streamed)
            keep = min(batch, count - first)
            yield Samples(jax.tree.map(lambda one, keep=keep: one[:keep], batch_of), entries[:keep])

    wanted = chosen.held_out_samples > 0 and (held_out_files or chosen.held_out_phantoms)
    about = f"simulated patches of {len(training_files)} atomic models"
    if chosen.phantoms:
        about += f" and {chosen.phantoms} phantoms"
    return Source("stream", config.data.patch, True, None, training, held_out if wanted else None, about)


def _held_out_phantoms(count):
    """Phantoms of seeds that the stream does not give to its own, and of sizes between theirs."""
    low, high = np.log(PHANTOM_RESIDUES)
    sizes = np.exp(np.linspace(low, high, count + 2)[1:-1]).astype(int)
    made = [phantom(int(size), seed=_HELD_OUT_SEED + number) for number, size in enumerate(sizes)]
    return [replace(one, source=f"held-out phantom {number}") for number, one in enumerate(made)]


class _Streamed:
    """The simulator's stream, standardized and masked on the device."""

    def __init__(self, batches, prepare):
        self._batches, self._prepare = batches, prepare
        self.get_state, self.set_state = batches.get_state, batches.set_state

    def __iter__(self):
        return self

    def __next__(self):
        made = next(self._batches)
        maps = (made.half_map_1, made.half_map_2, made.truth, made.mask)
        seed = np.uint32(self._batches.get_state()["seed"])
        batch = self._prepare(*maps, jnp.asarray(made.info.position), seed)
        return Samples(batch, tuple(self._batches.names[int(one)] for one in made.info.model))


def _standardizing(masked: float, gain: tuple[float, float]):
    """A function of a stream's batch: standardized by the full map's mean and deviation in the patch, and masked.

    The truth has the solvent at 0. A patch in the midst of a particle has a larger deviation than the whole map, by
    which maps are standardized when they are denoised: the gain, drawn evenly in its logarithm, makes up for it.
    """

    @jax.jit
    def prepare(half_map_1, half_map_2, truth, mask, position, seed) -> dict[str, Any]:
        keys = jax.vmap(lambda one: jax.random.fold_in(jax.random.key(seed), one))(position)
        chance = jax.vmap(lambda one: jax.random.uniform(one, (2,)))(jax.vmap(lambda k: jax.random.fold_in(k, 7))(keys))
        full = (half_map_1 + half_map_2) / 2
        axes = (1, 2, 3)
        mean, deviation = full.mean(axes, keepdims=True), full.std(axes, keepdims=True)
        low, high = np.log(gain[0]), np.log(gain[1])
        scale = jnp.exp(low + (high - low) * chance[:, 1]).reshape(mean.shape) / jnp.maximum(deviation, 1e-30)
        window = jnp.where((chance[:, 0] < masked).reshape(mean.shape), mask, 1)
        return {
            "half_map_1": (half_map_1 - mean) * scale * window,
            "half_map_2": (half_map_2 - mean) * scale * window,
            "truth": truth * scale * mask,
        }

    return prepare


def stream_models(config: ConfigDict) -> tuple[list[Path], list[Path]]:
    """Files of the models to train on, and of those to evaluate on.

    Raises:
        UserError: there are none, two have the same name, or a name is of none of them.
    """
    chosen = config.data.stream
    files = []
    for pattern in names_in(chosen.models):
        found = sorted(glob.glob(pattern))
        if not found:
            raise UserError(f"config: data.stream.models: expected files of atomic models, {pattern} finds none")
        files += [Path(one) for one in found]
    by_name = {}
    for path in files:
        if (other := by_name.setdefault(path.name.split(".")[0], path)) != path:
            raise UserError(
                f"config: data.stream.models: expected names that differ, found {other} and {path}; rename one"
            )
    excluded, held_out = names_in(chosen.exclude), names_in(chosen.held_out)
    for field, names in (("exclude", excluded), ("held_out", held_out)):
        if unknown := next((name for name in names if name not in by_name), None):
            raise UserError(f"config: data.stream.{field}: no model is named {unknown}; there are {', '.join(by_name)}")
    training = [path for name, path in by_name.items() if name not in {*excluded, *held_out}]
    if not training and not chosen.phantoms:
        raise UserError("config: data.stream: expected models or phantoms to train on, found none; name some")
    return training, [by_name[name] for name in held_out]


def names_in(text: str) -> list[str]:
    """The parts of a text that are separated by commas."""
    return [part.strip() for part in text.split(",") if part.strip()]
