"""Weights adapted to one specimen, and whether that was a gain."""

import dataclasses
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from crefjax.data.entry_patches import Specimen, specimen_batches
from crefjax.errors import UserError
from crefjax.training.denoising import Denoising, denoising_task
from crefjax.training.loop import train
from crefjax.training.sources import specimen_source
from crefjax.training.step import divided, find_devices, joined, make_evaluation_step, on_devices
from crefjax.weights.store import Weights, load_weights

# A gain counts if it is so many standard errors above 0.
SIGNIFICANT = 2.0


@dataclass(frozen=True)
class Gain:
    """Held-out FSC of a denoised half-map with the other half-map, by the old weights and by the new.

    Attributes:
        before: mean over shells and patches.
        after: likewise.
        error: standard error of the difference, from its scatter over the patches.
        patches: that were judged by, none of which chose when to stop.
        step: of the new weights; 0 if none was better.
        steps: trained.
    """

    before: float
    after: float
    error: float
    patches: int
    step: int
    steps: int

    @property
    def real(self) -> bool:
        """Whether the difference is a gain beyond its scatter."""
        return self.after - self.before > SIGNIFICANT * self.error and self.step > 0

    def describe(self) -> str:
        """One line for the user."""
        change = self.after - self.before
        verdict = "a real gain" if self.real else "no gain beyond the scatter"
        return (
            f"held-out FSC of denoised half-maps with the other half-map: {self.before:.4f} before, {self.after:.4f} "
            f"after ({change:+.4f} ± {self.error:.4f} over {self.patches} patches): {verdict}"
        )


def finetune(
    specimen: Specimen, weights: Weights, config: ConfigDict, *, say: Callable[[str], None] = print
) -> tuple[dict, Gain, int | None]:
    """Adapt weights to one specimen, without truth.

    Patches of one end of the particle are held out. Half of them choose the step at which the weights are best, the
    other half, which lie between those, judge the gain.

    Args:
        specimen: standardized and masked.
        weights: to start from.
        config: such as `presets.finetune()`; its network and weights are set here.
        say: takes a line for the user.

    Returns:
        The new parameters, the gain, and the signal that stopped it early, if one did.

    Raises:
        UserError: the specimen is too small, or what `train` raises.
    """
    config = config.copy_and_resolve_references().unlock()
    config.weights = str(weights.path)
    for name in ("depth", "down_width", "up_width", "last_widths", "negative_slope"):
        config.network[name] = getattr(weights.config, name)
    config.lock()
    _check_held_out(specimen, config)
    source = specimen_source([specimen], config, config.batch, every_other=0)
    task = denoising_task(config, truth=False)
    with tempfile.TemporaryDirectory(prefix="crefjax-finetune-") as folder:
        result = train(config, Path(folder), task, source, say=say)
        best = load_weights(result.weights).parameters
    gain = judge(specimen, task, weights.parameters, best, config)
    return best, Gain(*gain, step=result.best_step, steps=result.step), result.stopped


def _check_held_out(specimen, config):
    held_out = specimen_source([specimen], config, 1, every_other=1).held_out()
    if next(held_out, None) is None:
        raise UserError(
            f"{specimen.name}: expected at least 2 held-out patches of {config.data.patch} voxels a side, one "
            "to choose and one to judge, found 1; take smaller patches"
        )


def judge(specimen: Specimen, task: Denoising, before: dict, after: dict, config: ConfigDict) -> tuple:
    """Mean FSC before and after, the error of the difference, and the number of patches, none of which chose."""
    devices = find_devices(1, config.platform, 1)
    step = make_evaluation_step(dataclasses.replace(task, factors={"fsc": 1.0}), devices)
    both = [on_devices(one, devices) for one in (before, after)]
    losses = []
    for samples in specimen_source([specimen], config, 1, every_other=1).held_out():
        batch = divided(samples.batch, devices)
        losses.append([float(joined(step(one, batch))["fsc"][0]) for one in both])
    fsc = 1 - np.array(losses)
    difference = fsc[:, 1] - fsc[:, 0]
    # Patches that overlap tell the same twice: as many count as lie side by side.
    side_by_side = specimen_batches(
        [specimen], patch=config.data.patch, batch=1, held_out=config.data.entries.held_out, region="held_out"
    ).size
    scatter = difference.std(ddof=1) if len(fsc) > 1 else abs(float(difference[0]))
    error = scatter / np.sqrt(max(1, min(len(fsc), side_by_side)))
    return float(fsc[:, 0].mean()), float(fsc[:, 1].mean()), float(error), len(fsc)
