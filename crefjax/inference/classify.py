"""Structure and noise told apart: a classifier's probability for every voxel of a map, and the map without its noise.

The network works on a grid of 1 Å (`crefjax.data.unit_grid`); its output, the logit of the probability that a voxel is
structure, is brought back to the map's own grid by padding or cropping its spectrum, so that no voxel is shifted.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from crefjax.data.pair_check import validate_maps
from crefjax.data.unit_grid import on_unit_grid, unit_grid
from crefjax.errors import UserError
from crefjax.inference.memory_plan import InferencePlan, plan_run
from crefjax.inference.network import run_network
from crefjax.io.maps import Map
from crefjax.masking.threshold import has_inverted_contrast, otsu_threshold, sample
from crefjax.spectral.resample import fourier_resample
from crefjax.utils.memory import find_device
from crefjax.weights.store import Weights

# Modes, with the probability of structure below which a voxel is removed, as in the paper; used for weights whose card
# has none of their own.
THRESHOLDS = {"background": 0.035, "structural": 0.495}
_LOGITS = (-12.0, 12.0)  # kept within, so that the resampling of a steep edge does not ring
_MAPS = 8  # float32 arrays of the map's size that are in memory besides the network's own


@dataclass(frozen=True, eq=False)
class Classified:
    """A map whose noise was removed.

    Attributes:
        map: the map, with the solvent's density in the voxels that are noise.
        probability: that a voxel is structure, 0 to 1, on the same grid.
        removed: share of the positive density, relative to the solvent, that was removed.
        pieces: number of connected pieces (by faces, edges, or corners) in which structure remains.
        notes: one line for each thing that the user should know.
    """

    map: Map
    probability: Map
    removed: float
    pieces: int
    notes: tuple[str, ...]


def mode_thresholds(weights: Weights) -> dict[str, float]:
    """Return the threshold of each mode for a classifier: those on its card, else `THRESHOLDS`."""
    return {mode: float(value) for mode, value in weights.card.get("thresholds", THRESHOLDS).items()}


def plan_classify(
    map_: Map, weights: Weights, *, device: str | None = None, max_memory: float | None = None
) -> InferencePlan:
    """Plan what `classify_map` takes: device, slabs, memory, and time.

    Raises:
        UserError: no such device, or not enough memory.
    """
    shape = unit_grid(map_.array.shape, map_.voxel_size)
    share = float(np.prod(shape)) / map_.array.size
    maps = _MAPS / min(share, 1.0)
    return plan_run(shape, weights.config, find_device(device), host_maps=maps, max_memory=max_memory)


def classify_map(
    map_: Map,
    weights: Weights,
    plan: InferencePlan,
    *,
    threshold: float,
    progress: Callable[[float], None] | None = None,
) -> Classified:
    """Remove the noise from a map, as a classifier of voxels sees it, and replace its hot voxels.

    Args:
        map_: a map, sharpened or not, of light particles in dark solvent.
        weights: of a classifier.
        plan: from `plan_classify`.
        threshold: probability of structure, 0 to 1, below which a voxel is removed.
        progress: called with the share of the work that is done, 0 to 1.

    Raises:
        UserError: the threshold is not between 0 and 1, the contrast is inverted, or the map has no density.
    """
    if not 0 < threshold < 1:
        raise UserError(f"`threshold`: expected a probability between 0 and 1, found {threshold:g}; correct it")
    validated = validate_maps((map_,))
    (map_,), notes = validated.pair, validated.notes
    if has_inverted_contrast(map_.array, map_.voxel_size):
        raise UserError(
            "expected a particle that is lighter than the solvent, found a darker one (inverted contrast); multiply "
            "the map by -1"
        )
    solvent = solvent_density(map_.array)
    x = on_unit_grid(map_.array, map_.voxel_size, solvent)
    logits = run_network(weights.parameters, x, weights.config, slab=plan.slab, device=plan.device, progress=progress)
    logits = fourier_resample(np.clip(logits, *_LOGITS), map_.array.shape)
    probability = 1 / (1 + np.exp(-logits))
    structure = probability >= threshold
    density = np.maximum(map_.array - np.float32(solvent), 0)
    total = float(density.sum(dtype=np.float64))
    removed = 1 - float(density[structure].sum(dtype=np.float64)) / total if total else 0.0
    pieces = int(ndimage.label(structure, np.ones((3, 3, 3)))[1])
    if not structure.any():
        notes = (*notes, "no voxel is taken for structure; a lower threshold may show some")
    kept = np.where(structure, map_.array, np.float32(solvent))
    return Classified(map_.replace_array(kept), map_.replace_array(probability), removed, pieces, notes)


def solvent_density(array: np.ndarray) -> float:
    """Estimate the density of the solvent: the median of the voxels that Otsu's threshold leaves below it."""
    values = sample(array)
    return float(np.median(values[values <= otsu_threshold(values)]))
