"""Classification of structure and noise: a network's probability for every voxel, and the map without its noise.

The network works on a grid of 1 Å (`crefjax.data.grid`); its output, the logit of the probability that a voxel is
structure, is brought back to the map's own grid by padding or cropping its spectrum, so that no voxel is shifted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

import numpy as np
from scipy import ndimage
from scipy.special import expit, logit

from crefjax.data.grid import on_unit_grid, unit_grid
from crefjax.data.map_features import measure_features, standardize_features
from crefjax.data.pair_check import validate_maps
from crefjax.errors import UserError
from crefjax.inference.memory_plan import InferencePlan, plan_network
from crefjax.inference.network import run_network
from crefjax.io.maps import Map
from crefjax.masking.threshold import has_inverted_contrast, otsu_threshold, sample
from crefjax.spectral.resample import fourier_resample
from crefjax.utils.memory import find_device
from crefjax.weights.store import Weights

# Modes, with the probability of structure below which a voxel is removed, as in the paper; used for weights whose card
# does not say how they were trained.
THRESHOLDS = {"background": 0.035, "structural": 0.495}
LEAST_THRESHOLD = 0.5  # of those chosen for a map: in one without structure, even the likeliest voxels are noise
_LOGITS = (-12.0, 12.0)  # kept within, so that the resampling of a steep edge does not ring
_BINS = 2400  # of 0.01 in the logit
_MAPS = 8  # float32 arrays of the map's size that are in memory besides the network's own


@dataclass(frozen=True, eq=False)
class Classified:
    """A map whose noise was removed.

    Attributes:
        map: the map, with the solvent's density in the voxels that are noise.
        probability: that a voxel is structure, 0 to 1, on the same grid; of a network trained with a greater weight for
            structure, this is not its share (`choose_thresholds`).
        threshold: probability below which a voxel was removed.
        removed: share of the positive density, relative to the solvent, that was removed.
        pieces: number of connected pieces (by faces, edges, or corners) in which structure remains.
        notes: one line for each thing that the user should know.
    """

    map: Map
    probability: Map
    threshold: float
    removed: float
    pieces: int
    notes: tuple[str, ...]


def choose_thresholds(weights: Weights, probability: np.ndarray, counted: np.ndarray) -> dict[str, float]:
    """Choose the threshold of each mode for a map: the one with the best G-mean that the network expects.

    A network whose loss weighs structure `w` times gives `p = w s / (w s + 1 - s)` where a share `s` of such voxels is
    structure (the minimum of the weighted cross-entropy). Summed over the map, `s` and `1 - s` above and below a
    threshold are the counts of the confusion matrix that is to be expected. The background's threshold is chosen over
    all voxels that count, the structural one over those that remain.

    Args:
        weights: of a classifier.
        probability: that a voxel is structure, by the network, 0 to 1.
        counted: whether a voxel counts, bool, the same shape.

    Returns:
        A threshold for each mode; `THRESHOLDS` for weights whose card has no `structure_weight`.
    """
    weight = weights.card.get("structure_weight")
    if weight is None:
        return dict(THRESHOLDS)
    values = probability[counted]
    background = _best_expected(values, weight)
    structural = _best_expected(values[values >= background], weight)
    return {"background": background, "structural": max(structural, background)}


def _best_expected(probability, weight):
    """Return the threshold, at least `LEAST_THRESHOLD`, with the best expected G-mean."""
    odds = logit(np.clip(probability, *expit(np.float32(_LOGITS))))
    counts, edges = np.histogram(odds, np.linspace(*_LOGITS, _BINS + 1))
    share = 1 / (1 + weight * np.exp(-(edges[1:] + edges[:-1]) / 2))
    structure, noise = counts * share, counts * (1 - share)
    if not counts.any():
        return LEAST_THRESHOLD
    found, lost = np.cumsum(noise) / noise.sum(), np.cumsum(structure) / structure.sum()
    best = int(np.argmax(np.sqrt(found * np.maximum(1 - lost, 0))))
    return max(float(expit(edges[best + 1])), LEAST_THRESHOLD)


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
    config = weights.config
    if weights.model.condition is not None:
        config = weights.model.condition(weights.parameters, np.zeros(config.conditions), config)[1]
    return plan_network(shape, config, find_device(device), host_maps=maps, max_memory=max_memory)


def classify_map(
    map_: Map,
    weights: Weights,
    plan: InferencePlan,
    *,
    threshold: float | str,
    progress: Callable[[float], None] | None = None,
) -> Classified:
    """Remove the noise from a map by a classifier of voxels, and replace its hot voxels.

    Args:
        map_: a map, sharpened or not, of light particles in dark solvent.
        weights: of a classifier.
        plan: from `plan_classify`.
        threshold: probability of structure, 0 to 1, below which a voxel is removed, or a mode of `choose_thresholds`,
            `background` or `structural`.
        progress: called with the share of the work that is done, 0 to 1.

    Raises:
        UserError: the threshold is neither a mode nor between 0 and 1, the contrast is inverted, or the map has no
            density.
    """
    if threshold not in THRESHOLDS and not (isinstance(threshold, Real) and 0 < threshold < 1):
        raise UserError(f"`threshold`: expected a probability between 0 and 1, found {threshold}; correct it")
    validated = validate_maps((map_,))
    (map_,), notes = validated.pair, validated.notes
    if has_inverted_contrast(map_.array, map_.voxel_size):
        raise UserError(
            "expected a particle that is lighter than the solvent, found a darker one (inverted contrast); multiply "
            "the map by -1"
        )
    solvent = solvent_density(map_.array)
    x = on_unit_grid(map_.array, map_.voxel_size, solvent)
    parameters, config = _network_for(weights, x)
    logits = run_network(parameters, x, config, slab=plan.slab, device=plan.device, progress=progress)
    logits = fourier_resample(np.clip(logits, *_LOGITS), map_.array.shape)
    probability = 1 / (1 + np.exp(-logits))
    density = np.maximum(map_.array - np.float32(solvent), 0)
    if isinstance(threshold, str):
        threshold = choose_thresholds(weights, probability, density > 0)[threshold]
    structure = probability >= threshold
    total = float(density.sum(dtype=np.float64))
    removed = 1 - float(density[structure].sum(dtype=np.float64)) / total if total else 0.0
    pieces = int(ndimage.label(structure, np.ones((3, 3, 3)))[1])
    if not structure.any():
        notes = (*notes, "no voxel is taken for structure; a lower threshold may show some")
    kept = np.where(structure, map_.array, np.float32(solvent))
    maps = map_.replace_array(kept), map_.replace_array(probability)
    return Classified(*maps, float(threshold), removed, pieces, notes)


def _network_for(weights, density):
    """Return the parameters and the config of the network for a map; they depend on it if there are conditions."""
    condition = weights.model.condition
    if condition is None:
        return weights.parameters, weights.config
    return condition(weights.parameters, standardize_features(measure_features(density)), weights.config)


def solvent_density(array: np.ndarray) -> float:
    """Estimate the density of the solvent: the median of the voxels that Otsu's threshold leaves below it."""
    values = sample(array)
    return float(np.median(values[values <= otsu_threshold(values)]))
