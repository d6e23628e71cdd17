"""An endless iterator over batches of half-map pairs with known truth, to train on.

Sample `k` of the stream is a function of the seed and `k` alone, whatever the batch size, so that interrupted training
continues with the next sample, and each of several processes makes its own samples alone. The host draws the parameters
and atoms of samples a few batches ahead, in threads; the maps are computed on the device asynchronously.
"""

import hashlib
import operator
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from crefjax.errors import UserError
from crefjax.simulate.atoms import Atoms, read_atoms
from crefjax.simulate.phantom import phantom
from crefjax.simulate.stream import StreamConfig
from crefjax.simulate.stream.draw import Info, SampleSpec, collate, draw_sample
from crefjax.simulate.stream.models import atom_table, prepare_models
from crefjax.simulate.stream.render import EXTRAS, body_side, render_batch

SMALLEST_PATCH = 16  # voxels
PHANTOM_RESIDUES = (150, 1500)


class Batch(NamedTuple):
    """Patches of half-map pairs, on the device, and their parameters, on the host.

    Attributes:
        half_map_1: `(batch, z, y, x)`, float32, Å of scattering length per Å³: `truth` and independent noise, both
            low-passed in samples that have a low-pass.
        half_map_2: the same, with other noise of the same power.
        mask: 0 to 1; the soft mask around the truth, cut as the maps are, without a taper at the patch's borders.
        truth: the signal of both half-maps, before any low-pass.
        noise_std: `(batch,)`, standard deviation of the noise in either half-map, before any low-pass.
        info: see `Info`.
    """

    half_map_1: jax.Array
    half_map_2: jax.Array
    mask: jax.Array
    truth: jax.Array
    noise_std: jax.Array
    info: Info


class Stream(Iterator[Batch]):
    """The iterator of `stream_half_maps`; its state is the position of the next sample.

    Attributes:
        names: of the models, indexed by `Info.model`.
        spectra: names of the noise spectra, indexed by `Info.spectrum`.
        models_on_device: the atoms of all models.
    """

    def __init__(
        self,
        models: list[Atoms],
        shares: np.ndarray,
        config: StreamConfig,
        patch: int,
        batch: int,
        seed: int,
        start: int,
        ahead: int,
        process: tuple[int, int],
    ):
        self.names = tuple(model.source for model in models)
        self.spectra = tuple(kind if isinstance(kind, str) else kind.name or "measured" for kind in config.spectra)
        self._config, self._patch, self._batch, self._seed, self._ahead = config, patch, batch, seed, ahead
        self._shares, self._own = shares, batch // process[1]
        self._first = process[0] * self._own
        self._models = prepare_models(models, config.voxel_size[0])
        self.models_on_device = jax.device_put(atom_table(self._models))
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="stream")
        self._pending = deque()
        self.set_state({"seed": seed, "position": start})

    def __next__(self) -> Batch:
        """Return the next batch, before the device has computed it."""
        while len(self._pending) <= self._ahead:
            position = self._position + len(self._pending) * self._batch
            self._pending.append(self._threads.submit(self.draw_batch, position))
        samples = self._pending.popleft().result()
        self._position += self._batch
        maps = render_batch(
            self.models_on_device,
            samples,
            np.uint32(self._seed),
            patch=self._patch,
            extras=frozenset(name for name in EXTRAS if getattr(self._config, name) > 0),
            vectorize=jax.default_backend() != "cpu",
            whole_map=self._config.whole_map,
        )
        return Batch(*maps, samples.info)

    def get_state(self) -> dict[str, int | str]:
        """Return the state for `set_state`, of this stream or one of another batch size.

        It has the seed, the position in samples (those of all processes count), and a fingerprint of the models' names
        in their order.
        """
        return {"seed": self._seed, "position": self._position, "models": _fingerprint(self.names)}

    def set_state(self, state: dict) -> None:
        """Continue at a position.

        Raises:
            UserError: the state is of another seed or of other models, or has no position.
        """
        if state.get("seed") != self._seed:
            raise UserError(
                f"stream: expected a position saved with seed {self._seed}, found {state.get('seed')}; use that seed"
            )
        if state.get("models", mine := _fingerprint(self.names)) != mine:  # states of earlier versions have none
            raise UserError(
                "stream: expected a position saved with these models, found one of others; use the models that it was "
                "saved with, in files of the same names"
            )
        self._position = _integer(state.get("position"), "a position", 0, 2**32 - 1)
        self._pending.clear()

    def draw_batch(self, first: int) -> SampleSpec:
        """Draw the samples of this process of a batch that begins at a position; changes nothing."""
        reach = 2 * body_side(self._patch)  # voxels
        samples = [
            draw_sample(self._models, self._shares, self._config, self._patch, reach, self._seed, position)
            for position in range(first + self._first, first + self._first + self._own)
        ]
        return collate(samples, sum(len(model.positions) for model in self._models))


def stream_half_maps(
    models: Sequence[Atoms | str | Path] = (),
    *,
    shares: Sequence[float] = (),
    phantoms: int = 0,
    patch: int = 64,
    batch: int = 8,
    seed: int = 0,
    start: int = 0,
    config: StreamConfig | None = None,
    ahead: int = 2,
    process: tuple[int, int] = (0, 1),
) -> Stream:
    """Return an endless iterator of `Batch`: half-map pairs with mask and truth, with `get_state` and `set_state`.

    The half-maps are not standardized: their signal is the truth in its own units, low-passed in some samples.
    How training standardizes them is up to `crefjax.training.stream_source.make_standardizer`.

    The same seed, models, settings and position give the same sample to the last bit on a CPU; on a GPU, sums over
    atoms have no fixed order and samples agree to rounding.

    Args:
        models: atomic models, or files of them.
        shares: weight of each of `models`, relative to 1 of every phantom; empty for equal weights.
        phantoms: number of phantoms of different size to add.
        patch: side of the patches in voxels, even.
        batch: samples in a batch.
        seed: random seed.
        start: position of the first sample.
        config: ranges of the samples' parameters.
        ahead: number of batches that are drawn ahead.
        process: index of this process and number of processes, each of which draws and computes its part of every
            batch alone; sample `k` and the position are the same for any number of them.

    Raises:
        UserError: there are no models, a file is not a model (see `read_atoms`), the patch is odd or too small, the
            resolution is beyond Nyquist, the batch does not divide among the processes, or another parameter is out of
            its range.
    """
    config = config or StreamConfig()
    patch = _integer(patch, "patches", SMALLEST_PATCH, 512)
    if patch % 2:
        raise UserError(f"stream: expected patches with an even side, found {patch}; take {patch + 1}")
    batch, seed = _integer(batch, "a batch", 1, 4096), _integer(seed, "a seed", 0, 2**32 - 1)
    phantoms, ahead = _integer(phantoms, "phantoms", 0, 1000), _integer(ahead, "batches ahead", 0, 1000)
    if batch % process[1]:
        raise UserError(f"batch: expected a multiple of the {process[1]} processes, found {batch}; change it")
    config.check(patch)
    if isinstance(models, (Atoms, str, Path)):
        models = [models]
    atoms = [model if isinstance(model, Atoms) else read_atoms(model) for model in models]
    low, high = np.log(PHANTOM_RESIDUES)
    sizes = np.exp(low + (high - low) * (np.arange(phantoms) + 0.5) / max(phantoms, 1)).astype(int)
    atoms += [replace(phantom(int(size), seed=k), source=f"phantom {k}") for k, size in enumerate(sizes)]
    if not atoms:
        raise UserError("stream: expected atomic models or phantoms, found none; give a model file or phantoms=1")
    probabilities = _probabilities(shares, len(models), phantoms)
    return Stream(atoms, probabilities, config, patch, batch, seed, start, ahead, process)


def _probabilities(shares, models, phantoms):
    """Return the probability of every model and phantom, from the shares of the models, 1 each if there are none."""
    weights = np.array([*(shares if len(shares) else np.ones(models)), *np.ones(phantoms)], np.float64)
    sound = np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0
    if len(weights) != models + phantoms or not sound:
        found = tuple(shares)
        raise UserError(f"stream: expected shares of 0 or more for {models} models, found {found}; correct them")
    return weights / weights.sum()


def _fingerprint(names):
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


def _integer(value, what, least, most):
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if not least <= number <= most:
        raise UserError(f"stream: expected {what} of {least} to {most}, found {value!r}; correct it")
    return number
