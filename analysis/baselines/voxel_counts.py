"""Rates of a classification of voxels, as DeepTracer-Denoising defines them (Guan and Si 2022).

Noise is the positive class. Voxels whose density is not above the solvent are left out: there is nothing to remove.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.special import expit, logit

BINS = 1000
LOG_ODDS = (-12.0, 12.0)  # range of the log-odds of a probability


@dataclass(frozen=True)
class Confusion:
    """Counts of voxels, or sums of their weights.

    Attributes:
        tp: noise that is called noise.
        fn: noise that is called structure.
        fp: structure that is called noise.
        tn: structure that is called structure.
    """

    tp: float
    fn: float
    fp: float
    tn: float

    @property
    def tpr(self) -> float:
        """Share of the noise that is found, `TP / (TP + FN)`."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def fnr(self) -> float:
        """Share of the noise that is missed, `FN / (TP + FN)`."""
        return _ratio(self.fn, self.tp + self.fn)

    @property
    def fpr(self) -> float:
        """Share of the structure that is lost, `FP / (FP + TN)`."""
        return _ratio(self.fp, self.fp + self.tn)

    @property
    def precision(self) -> float:
        """Share of noise in the voxels that are classified as noise, `TP / (TP + FP)`."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def accuracy(self) -> float:
        """Share of the voxels that are called what they are."""
        return _ratio(self.tp + self.tn, self.tp + self.fn + self.fp + self.tn)

    @property
    def g_mean(self) -> float:
        """Geometric mean of the shares found and kept, `sqrt(TP / (TP + FN) * TN / (FP + TN))`."""
        return float(np.sqrt(self.tpr * _ratio(self.tn, self.fp + self.tn)))


def _ratio(part, whole):
    return part / whole if whole else float("nan")


def confusion(kept: np.ndarray, structure: np.ndarray, counted: np.ndarray) -> Confusion:
    """Count voxels.

    Args:
        kept: whether a voxel is called structure, bool.
        structure: whether it is, bool.
        counted: whether it counts, bool.
    """
    kept, structure = kept[counted], structure[counted]
    tn = int(np.count_nonzero(kept & structure))
    fn = int(np.count_nonzero(kept)) - tn
    fp = int(np.count_nonzero(structure)) - tn
    return Confusion(tp=len(kept) - tn - fn - fp, fn=fn, fp=fp, tn=tn)


@dataclass(frozen=True, eq=False)
class Scores:
    """Histograms of a score that is high where there is structure.

    Attributes:
        edges: `(BINS + 1,)`, rising, from the lowest to the highest score.
        noise: `(BINS,)`, voxels of noise.
        structure: `(BINS,)`, voxels of structure.
    """

    edges: np.ndarray
    noise: np.ndarray
    structure: np.ndarray

    def at(self, index: int) -> Confusion:
        """Count voxels with the threshold at `edges[index]`: what lies at or above it is called structure."""
        tp, fp = self.noise[:index].sum().item(), self.structure[:index].sum().item()
        return Confusion(tp, self.noise.sum().item() - tp, fp, self.structure.sum().item() - fp)

    def curves(self) -> dict[str, np.ndarray]:
        """Return `threshold`, `tpr`, `fpr`, `precision`, and `g_mean` at all edges, `(BINS + 1,)` each."""
        counts = [self.at(index) for index in range(len(self.edges))]
        names = ("tpr", "fpr", "precision", "g_mean")
        return {"threshold": self.edges} | {name: np.array([getattr(c, name) for c in counts]) for name in names}

    def best(self) -> tuple[float, Confusion]:
        """Return the threshold with the best G-mean, and the counts there; the lowest one if no G-mean is defined."""
        index = int(np.argmax(np.nan_to_num(self.curves()["g_mean"], nan=-1.0)))
        return float(self.edges[index]), self.at(index)


def log_odds(probability: np.ndarray) -> np.ndarray:
    """Return `log(p / (1 - p))` within `LOG_ODDS`: near 0 and 1 it tells more probabilities apart."""
    return logit(np.clip(probability.astype(np.float64), *expit(LOG_ODDS)))


def add_scores(scores: Sequence[Scores]) -> Scores:
    """Add histograms with the same edges over maps, in each of which noise and structure weigh the same."""
    noise = sum(each.noise / max(each.noise.sum(), 1) for each in scores)
    structure = sum(each.structure / max(each.structure.sum(), 1) for each in scores)
    return Scores(scores[0].edges, noise, structure)


def score_histograms(
    score: np.ndarray, structure: np.ndarray, counted: np.ndarray, limits: tuple[float, float] | None = None
) -> Scores:
    """Histogram a score over the voxels of noise and of structure.

    Args:
        score: of every voxel, finite, such as a probability or a density.
        structure: whether a voxel is structure, bool.
        counted: whether it counts, bool.
        limits: lowest and highest edge; None for those of the scores.
    """
    values, labels = score[counted], structure[counted]
    low, high = limits or ((float(values.min()), float(values.max())) if len(values) else (0.0, 1.0))
    edges = np.linspace(low, max(high, np.nextafter(low, np.inf)), BINS + 1)
    noise, structured = (np.histogram(values[labels == kind], edges)[0] for kind in (False, True))
    return Scores(edges, noise, structured)


def hide_dust(density: np.ndarray, contour: float, sizes: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield, for each size, the voxels that a dust filter keeps: components above a contour of at least that size.

    Components are connected by faces, edges, or corners.
    """
    labels, count = ndimage.label(density > contour, np.ones((3, 3, 3)))
    voxels = np.bincount(labels.ravel(), minlength=count + 1)
    for size in sizes:
        large = voxels >= size
        large[0] = False
        yield large[labels]


def best_dust_filter(
    density: np.ndarray, structure: np.ndarray, counted: np.ndarray, *, sizes=(1, 10, 30, 100, 300, 1000)
) -> tuple[float, int, Confusion]:
    """Return the contour, the size, and the counts of the dust filter with the best G-mean of all that are tried.

    The contours are 20 quantiles of the counted density, and 15 more around the best of these, so the baseline is given
    more than a user would have.
    """
    values, best = density[counted], None
    shares = np.linspace(0.4, 0.998, 20)
    step = shares[1] - shares[0]
    for finer in (False, True):
        if finer:
            share = float((values < best[0]).mean())
            shares = np.linspace(max(share - step, 0.0), min(share + step, 0.9999), 15)
        for contour in np.unique(np.quantile(values, shares)):
            for size, kept in zip(sizes, hide_dust(density, float(contour), sizes), strict=True):
                found = confusion(kept, structure, counted)
                if best is None or found.g_mean > best[2].g_mean:
                    best = float(contour), size, found
    return best
