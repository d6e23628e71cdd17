"""Weights adapted to one specimen, and whether that was a gain."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from crefjax.data.patches import SMALLEST_PATCH
from crefjax.data.specimen_batches import Specimen, specimen_batches, split_off
from crefjax.errors import UserError
from crefjax.masking import bounding_box
from crefjax.models.unet3d import apply_network
from crefjax.spectral.fsc import fsc_curve
from crefjax.spectral.shells import box_shells, shell_voxels
from crefjax.training.denoising import DenoisingTask, denoising_task
from crefjax.training.loop import train
from crefjax.training.sources import specimen_source
from crefjax.weights.store import Weights, load_weights

# A gain is real if it is so many standard errors above 0: chance alone gives that in one case of forty.
SIGNIFICANT = 1.96
_LARGEST_BOX = 128  # voxels a side, of what is judged by


@dataclass(frozen=True)
class Gain:
    """FSC of a denoised half-map with the other half-map where nothing was trained nor chosen, by old and new weights.

    Attributes:
        before: mean over shells.
        after: likewise.
        error: standard error of the difference, from the noise of the half-maps.
        step: of the new weights; 0 if no evaluated step was better than the start, None if none was evaluated, and
            then the numbers above mean nothing.
        steps: trained.
    """

    before: float
    after: float
    error: float
    step: int | None
    steps: int

    @property
    def real(self) -> bool:
        """Whether the difference is a gain beyond its scatter."""
        return bool(self.step) and self.after - self.before > SIGNIFICANT * self.error

    def describe(self) -> str:
        """One line for the user."""
        if self.step is None:
            return f"stopped at step {self.steps}, before any evaluation was over: nothing can be said of a gain"
        if not self.step:
            return f"no evaluated step of {self.steps} was better than the start"
        return (
            "FSC of denoised half-maps with the other half-map, where nothing was trained: "
            f"{self.before:.4f} before, {self.after:.4f} after ({self.after - self.before:+.4f} ± {self.error:.4f}): "
            + ("a real gain" if self.real else "no gain beyond the scatter")
        )


class Parts(NamedTuple):
    """A specimen in three: to train on, to choose the step by, and to judge by; no voxel has weight in two."""

    training: Specimen
    choosing: Specimen
    judging: Specimen


def finetune(
    specimen: Specimen,
    weights: Weights,
    config: ConfigDict,
    workdir: Path,
    *,
    say: Callable[[str], None] = print,
) -> tuple[dict, Gain, int | None]:
    """Adapt weights to one specimen, without truth.

    One end of the particle is held out. One part of it chooses the step at which the weights are best, another
    one judges the gain. (In a particle with symmetry the held-out end may be a copy of what is trained on.)

    Args:
        specimen: standardized and masked.
        weights: to start from.
        config: such as `config.finetune_config()`; its network and weights are set here.
        workdir: for the run.
        say: takes a line for the user.

    Returns:
        The new parameters, the gain, and the signal that stopped it early, if one did.

    Raises:
        UserError: the specimen is too small, or what `train` raises.
    """
    config = config.copy_and_resolve_references().unlock()
    config.weights = str(weights.path)
    config.data.grid = weights.grid
    for name in ("depth", "down_width", "up_width", "last_widths", "negative_slope"):
        config.network[name] = getattr(weights.config, name)
    config.lock()
    parts = split(specimen, config)
    source = specimen_source([parts.training], config, config.batch, held_out_specimens=[parts.choosing])
    task = denoising_task(config, truth=False)
    result = train(config, workdir, task, source, say=say)
    best = load_weights(result.weights).parameters
    if result.best_step is None:
        return best, Gain(*[math.nan] * 3, step=None, steps=result.step), result.stopped
    gain = judge(parts.judging, task, weights.parameters, best)
    return best, Gain(*gain, step=result.best_step, steps=result.step), result.stopped


def split(specimen: Specimen, config: ConfigDict) -> Parts:
    """The parts of a specimen.

    Raises:
        UserError: one of them is too small for any patch.
    """
    training, held_out = split_off(specimen, config.data.entries.held_out)
    parts = Parts(training, *split_off(held_out, 0.5))
    for part in parts:
        try:
            specimen_batches([part], patch=config.data.patch, batch=1, region="all").close()
        except UserError as error:
            smallest = config.data.patch <= SMALLEST_PATCH
            raise UserError(
                f"{specimen.name}: expected a particle large enough to train on one part and to judge by "
                f"others, in patches of {config.data.patch} voxels a side; "
                + ("this one is too small to adapt weights to" if smallest else "take smaller patches")
            ) from error
    return parts


def judge(specimen: Specimen, task: DenoisingTask, before: dict, after: dict) -> tuple[float, float, float]:
    """How well denoised half-maps agree with the other half-map, by two sets of weights.

    Let `a` and `b` be a half-map denoised by either, and `m` the other half-map, each scaled to a power of 1 in
    a shell. The difference of their FSC with `m` is `Re <(a - b) conj(m)>`. The noise in `m`, a share `1 - FSC(M1, M2)`
    of its power, knows nothing of `a` and `b`, and gives it the variance `(1 - FSC(M1, M2)) <|a - b|²> / n` over `n`
    independent voxels of the whole spectrum's shell, with `<|a - b|²> = 2 (1 - FSC(a, b))`. The mask leaves the share
    `(mean m²)² / mean m⁴` of the voxels independent. The other direction has other noise, and halves the variance.

    Args:
        specimen: the judging part.
        task: with the network.
        before: parameters.
        after: parameters.

    Returns:
        Mean over shells before and after, and the standard error of the difference.
    """
    where = _box_around(specimen.mask)
    mask = specimen.mask[where].astype(np.float64)
    maps = [specimen.half_map_1[where], specimen.half_map_2[where]]
    denoised = [
        [np.asarray(_denoised(one, half[None, ..., None], task.network))[0, ..., 0] for half in maps]
        for one in (before, after)
    ]

    def curve(first, second):
        return fsc_curve(first, second, specimen.voxel_size).fsc[1:-1]

    old, new = ((curve(one, maps[1]) + curve(other, maps[0])) / 2 for one, other in denoised)
    alike = sum(curve(*both) for both in zip(*denoised, strict=True)) / 2
    noise = np.clip(1 - curve(*maps), 0, 1)
    independent = np.mean(mask**2) ** 2 / np.mean(mask**4) * np.asarray(shell_voxels(box_shells(mask.shape)))[1:-1]
    variance = noise * 2 * np.clip(1 - alike, 0, 2) / independent / 2
    return float(old.mean()), float(new.mean()), float(np.sqrt(variance.sum()) / len(variance))


_denoised = jax.jit(apply_network, static_argnums=2)


def _box_around(mask):
    """Slices of the part of a box in which a mask is not 0; of a large one, its middle."""
    slices = []
    for part in bounding_box(mask):
        over = max(0, part.stop - part.start - _LARGEST_BOX)
        slices.append(slice(part.start + over // 2, part.stop - (over - over // 2)))
    return tuple(slices)
