"""Fine-tuning: weights adapted to one specimen, and a test of the improvement."""

import functools
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
from crefjax.models import Parameters, load_model
from crefjax.spectral.fsc import fsc_curve
from crefjax.spectral.shells import box_shells, shell_voxels
from crefjax.training.config import network_fields
from crefjax.training.denoising import DenoisingTask, denoising_task
from crefjax.training.loop import train
from crefjax.training.sources import specimen_source
from crefjax.weights.store import Weights, load_weights

# An improvement is significant if it is this number of standard errors above 0; by chance one in forty is.
SIGNIFICANT = 1.96
_LARGEST_BOX = 128  # side of the box of the test, voxels


@dataclass(frozen=True)
class Improvement:
    """FSC of a denoised half-map with the other half-map in the test part, by the old and the new weights.

    Attributes:
        before: Mean over shells, old weights.
        after: Mean over shells, new weights.
        error: Standard error of the difference, from the noise of the half-maps.
        step: Step of the new weights; 0 if no evaluated step was better than the start. None if no step was evaluated;
            the numbers above are then meaningless.
        steps: Number of trained steps.
    """

    before: float
    after: float
    error: float
    step: int | None
    steps: int

    @property
    def significant(self) -> bool:
        """Whether the difference is an improvement beyond its scatter."""
        return bool(self.step) and self.after - self.before > SIGNIFICANT * self.error

    def describe(self) -> str:
        """Return one line for the user."""
        if self.step is None:
            return f"stopped at step {self.steps}, before any evaluation was finished; whether it helps is unknown"
        if not self.step:
            return f"no evaluated step of {self.steps} was better than the start"
        return (
            "FSC of denoised half-maps with the other half-map, where nothing was trained: "
            f"{self.before:.4f} before, {self.after:.4f} after ({self.after - self.before:+.4f} ± {self.error:.4f}): "
            + ("a real gain" if self.significant else "no gain beyond the scatter")
        )


class SpecimenSplit(NamedTuple):
    """Parts of a specimen for training, for choosing the step, and for the test; no voxel has weight in two of them."""

    train: Specimen
    validation: Specimen
    test: Specimen


def finetune(
    specimen: Specimen,
    weights: Weights,
    config: ConfigDict,
    workdir: Path,
    *,
    say: Callable[[str], None] = print,
) -> tuple[Parameters, Improvement, int | None]:
    """Adapt weights to one specimen, without a truth.

    One end of the particle is held out. A part of it selects the step of the best weights, another tests the
    improvement. (In a particle with symmetry the held-out end may be a copy of what is trained on.)

    Args:
        specimen: Standardized and masked half-maps.
        weights: Weights to start from.
        config: Config such as `finetune_config()`; its network and weights are set here.
        workdir: Folder for the run.
        say: Receives a line for the user.

    Returns:
        The new parameters, the improvement, and the signal that stopped it early, if one did.

    Raises:
        UserError: The specimen is too small, or as `train`.
    """
    config = config.copy_and_resolve_references().unlock()
    config.weights = str(weights.path)
    config.data.grid = weights.grid
    dtype = {"compute_dtype": "float32"} if hasattr(weights.config, "compute_dtype") else {}
    config.network = network_fields(weights.config, **dtype)
    config.lock()
    parts = split(specimen, config)
    source = specimen_source([parts.train], config, held_out_specimens=[parts.validation])
    task = denoising_task(config, truth=False)
    result = train(config, workdir, task, source, say=say)
    best = load_weights(result.weights).parameters
    if result.best_step is None:
        return best, Improvement(*[math.nan] * 3, step=None, steps=result.step), result.stopped
    numbers = evaluate_improvement(parts.test, task, weights.parameters, best)
    return best, Improvement(*numbers, step=result.best_step, steps=result.step), result.stopped


def split(specimen: Specimen, config: ConfigDict) -> SpecimenSplit:
    """Split a specimen into its parts.

    Raises:
        UserError: One of them is too small for any patch.
    """
    training, held_out = split_off(specimen, config.data.entries.held_out)
    parts = SpecimenSplit(training, *split_off(held_out, 0.5))
    for part in parts:
        try:
            specimen_batches([part], patch=config.data.patch, batch=1, region="all").close()
        except UserError as error:
            smallest = config.data.patch <= SMALLEST_PATCH
            raise UserError(
                f"{specimen.name}: expected a particle large enough to train on one part and to judge by "
                f"others, in patches of {config.data.patch} voxels a side; "
                + ("this one is too small to adapt weights to" if smallest else "use smaller patches")
            ) from error
    return parts


def evaluate_improvement(
    specimen: Specimen, task: DenoisingTask, before: Parameters, after: Parameters
) -> tuple[float, float, float]:
    """Compare two sets of weights by the FSC of denoised half-maps with the other half-map.

    Let `a` and `b` be a half-map denoised by either, and `m` the other half-map, each scaled to a power of 1 in
    a shell. The difference of their FSC with `m` is `Re <(a - b) conj(m)>`. The noise in `m`, a share `1 - FSC(M1, M2)`
    of its power, is independent of `a` and `b`, and gives it the variance `(1 - FSC(M1, M2)) <|a - b|²> / n` over `n`
    independent voxels of the whole spectrum's shell, with `<|a - b|²> = 2 (1 - FSC(a, b))`. The mask leaves the share
    `(mean m²)² / mean m⁴` of the voxels independent. The other direction has other noise, and halves the variance.

    Args:
        specimen: The test part.
        task: Task with the network.
        before: Old parameters.
        after: New parameters.

    Returns:
        Mean over shells before and after, and the standard error of the difference.
    """
    box = _box_around(specimen.mask)
    mask = specimen.mask[box].astype(np.float64)
    half_maps = [specimen.half_map_1[box], specimen.half_map_2[box]]

    def curve(first, second):
        return fsc_curve(first, second, specimen.voxel_size).fsc[1:-1]

    denoised = [
        [np.asarray(_denoise(parameters, half_map, task.network)) for half_map in half_maps]
        for parameters in (before, after)
    ]
    old, new = ((curve(first, half_maps[1]) + curve(second, half_maps[0])) / 2 for first, second in denoised)
    similarity = sum(curve(*pair) for pair in zip(*denoised, strict=True)) / 2
    noise = np.clip(1 - curve(*half_maps), 0, 1)
    independent = np.mean(mask**2) ** 2 / np.mean(mask**4) * np.asarray(shell_voxels(box_shells(mask.shape)))[1:-1]
    variance = noise * 2 * np.clip(1 - similarity, 0, 2) / independent / 2
    return float(old.mean()), float(new.mean()), float(np.sqrt(variance.sum()) / len(variance))


@functools.partial(jax.jit, static_argnames="network")
def _denoise(parameters, half_map, network):
    return load_model(network.network).apply(parameters, half_map[None, ..., None], network)[0, ..., 0]


def _box_around(mask):
    """Return the slices of the box in which a mask is not 0, at most the middle `_LARGEST_BOX` voxels of a side."""
    slices = []
    for part in bounding_box(mask):
        over = max(0, part.stop - part.start - _LARGEST_BOX)
        slices.append(slice(part.start + over // 2, part.stop - (over - over // 2)))
    return tuple(slices)
