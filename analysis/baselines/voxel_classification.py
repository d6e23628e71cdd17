"""Compare the voxel classifier to a dust filter, the automatic mask, and thresholded denoised maps.

    python -m analysis voxel_classification ENTRY... -o DIR [--denoisers truth cref]
        [--map MAP MODEL RESOLUTION [TWIST RISE]]

Every ENTRY is a labeled map (`python -m experiments.voxel_classifier.simulate_maps`); with half-maps, made by
`--half-maps`, it is denoised and masked too. `--map` adds a map with its atomic model, which is labeled here; the model
of one subunit of a filament along z is repeated with a twist in degrees and a rise in Å. By the definitions of
DeepTracer-Denoising (Guan and Si 2022), noise is the positive class, and voxels whose density is not above the solvent
are left out. Structural noise is counted with the background removed, over the voxels that the background mode keeps.
The classifier chooses its thresholds for each map without the labels, as the command does. Those of the other methods
are the ones with the best G-mean on that very map, which favors them; a row shows what the classifier does with such a
threshold, and another what the dust filter does at a contour that is estimated from the map, without pieces of less
than `DUST_SIZE`. It writes

    voxel_classification.csv          a row for each map and method
    voxel_classification.json         settings, versions, means over the maps, and thresholds with the best G-mean
    voxel_classification.png, .svg    histograms, precision and recall, G-mean by threshold and by map
    voxel_classification.maps.png     sections through the maps of `--map`, before and after
"""

import json
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from scipy.special import expit, logit

from analysis.baselines.voxel_counts import (
    LOG_ODDS,
    Confusion,
    Scores,
    add_scores,
    best_dust_filter,
    confusion,
    hide_dust,
    log_odds,
    score_histograms,
)
from analysis.framework.study import Study, load_named
from crefjax.data.grid import UNIT_VOXEL, on_unit_grid
from crefjax.data.labeled_maps import load_labeled_map
from crefjax.errors import UserError
from crefjax.inference.classify import THRESHOLDS, choose_thresholds, classify_map, plan_classify, solvent_density
from crefjax.io.maps import Map, read_map
from crefjax.masking import make_mask
from crefjax.masking.threshold import estimate_contour
from crefjax.plotting import BLUE, GRAY, ORANGE, PALETTE, figure_bytes
from crefjax.simulate.atoms import helical_copies, read_atoms, translate_atoms
from crefjax.simulate.voxel_labels import atom_density
from crefjax.weights.store import load_weights

BINS = ((2.5, 3.0), *((float(low), low + 1.0) for low in range(3, 10)))  # Å, of the paper's table I
BACKGROUND, STRUCTURAL, BEST = "classifier, background", "classifier, structural", "classifier, best threshold"
DUST, MASK, CONTOUR = "dust filter", "automatic mask", "contour"
AUTOMATIC_DUST = "dust filter, automatic contour"
DUST_SIZE = 125  # voxels of 1 Å³: pieces of less than about 5 Å


class Row(NamedTuple):
    """The result of one method on one map; `resolution` in Å, `threshold` in the units of its score."""

    entry: str
    resolution: float
    method: str
    threshold: float | None
    counts: Confusion

    def cells(self) -> list:
        """Return the cells of the CSV file."""
        rates = [getattr(self.counts, name) for name in ("tpr", "fpr", "fnr", "precision", "accuracy", "g_mean")]
        return [self.entry, self.resolution, self.method, self.threshold, *self.counts_in_order(), *rates]

    def counts_in_order(self) -> list[int]:
        """Return TP, FN, FP, and TN."""
        return [self.counts.tp, self.counts.fn, self.counts.fp, self.counts.tn]


HEADER = ["entry", "resolution", "method", "threshold", "tp", "fn", "fp", "tn"]
HEADER += ["tpr", "fpr", "fnr", "precision", "accuracy", "g_mean"]


def _add_arguments(parser):
    parser.add_argument("entries", nargs="*", metavar="ENTRY", type=Path, help="folder of a labeled map")
    parser.add_argument("--weights", metavar="W", help="name or folder of a classifier's weights")
    parser.add_argument("--denoisers", nargs="*", default=[], metavar="W", help="weights of denoisers to compare with")
    parser.add_argument(
        "--map",
        nargs="+",
        action="append",
        default=[],
        metavar=("MAP", "MODEL RESOLUTION [TWIST RISE]"),
        help="map with its model and its resolution, Å, and for a filament its helix, degrees and Å; repeatable",
    )


def _run(arguments, output):
    start = time.monotonic()
    if not arguments.entries and not arguments.map:
        raise UserError("expected labeled maps, found none; name folders, or a map and its model with --map")
    classifier = load_weights(arguments.weights, "classification")
    denoisers = load_named(arguments.denoisers)
    rows, background, structural = [], [], []
    subjects = [_labeled(folder) for folder in arguments.entries]
    subjects += [_with_model(*words) for words in arguments.map]
    sections = []
    for name, resolution, density, structure, folder in subjects:
        found, scores, kept = classifier_rows(name, resolution, density, structure, classifier)
        if folder is None:
            sections.append((name, *(array[:, array.shape[1] // 2] for array in (density, structure, *kept))))
        rows += found + _baseline_rows(name, resolution, density, structure, folder, denoisers)
        background.append(scores[0])
        structural.append(scores[1])
        print(f"{name}: " + ", ".join(f"{row.method} {row.counts.g_mean:.3f}" for row in rows if row.entry == name))
    output.write_csv(HEADER, [row.cells() for row in rows])
    summary = _summary(rows)
    totals = [add_scores(scores) for scores in (background, structural)]
    modes = dict(zip(THRESHOLDS, (BACKGROUND, STRUCTURAL), strict=True))
    thresholds = {mode: [row.threshold for row in rows if row.method == method] for mode, method in modes.items()}
    best = {mode: float(expit(totals[number].best()[0])) for number, mode in enumerate(thresholds)}
    content = {"weights": classifier.name, "thresholds": thresholds, "best_thresholds": best, "means": summary}
    output.write_json(content, seconds=time.monotonic() - start)
    output.write_figure(_figure(rows, totals, thresholds))
    if sections:
        output.write("maps.png", figure_bytes(_sections_figure(sections), "png"))
    print("\n".join(_lines(summary, best)))


def _labeled(folder):
    labeled = load_labeled_map(folder)
    record = folder / "pair.json"
    resolution = json.loads(record.read_text())["resolution"] if record.is_file() else float("nan")
    return labeled.name, resolution, labeled.density.astype(np.float32), labeled.structure, folder


def _with_model(*words):
    try:
        path, model, resolution, *helix = words
        resolution, helix = float(resolution), [float(number) for number in helix]
    except ValueError:
        helix = None
    if helix is None or len(helix) not in (0, 2):
        raise UserError(
            f"--map: expected a map, its model, the resolution in Å, and maybe twist and rise, found {' '.join(words)}"
        )
    map_ = read_map(path)
    density = on_unit_grid(map_.array, map_.voxel_size, solvent_density(map_.array))
    voxel_size = max(map_.array.shape) * map_.voxel_size / max(density.shape)
    atoms = read_atoms(model)
    if helix:
        atoms = _filament(atoms, *helix, map_)
    _, structure = atom_density(atoms, density.shape, voxel_size, map_.origin, resolution)
    if not structure.any():
        raise UserError(f"{model}: expected a model within {path}, found no atom in the box; check that they belong")
    return Path(path).name.split(".")[0], resolution, density, structure, None


def _filament(atoms, twist, rise, map_):
    """Repeat a subunit until the filament leaves the box; the helix is around the middle of the box in x and y."""
    length = map_.array.shape[0] * map_.voxel_size
    middle = np.array(
        [o + side * map_.voxel_size / 2 for o, side in zip(map_.origin, map_.array.shape[::-1], strict=True)]
    )
    middle[2] = 0
    reach = int(np.ceil((length + atoms.extent[2]) / abs(rise)))
    return translate_atoms(
        helical_copies(translate_atoms(atoms, -middle), twist, rise, range(-reach, reach + 1)), middle
    )


def classifier_rows(
    name, resolution, density, structure, weights
) -> tuple[list[Row], tuple[Scores, Scores], tuple[np.ndarray, np.ndarray]]:
    """Classify a map on the grid of 1 Å, and count voxels in both modes.

    Args:
        name: of the map.
        resolution: Å.
        density: `(z, y, x)`, 0 to 1.
        structure: whether a voxel is structure, bool.
        weights: of the classifier.

    Returns:
        Rows of both modes and of the best threshold; the histograms of the log-odds, over all voxels that count and
        with the background removed; and the maps that remain in both modes.
    """
    map_ = Map.from_array(density, UNIT_VOXEL)
    classified = classify_map(map_, weights, plan_classify(map_, weights), threshold="background")
    probability, counted = classified.probability.array, density > 0
    background, structural = choose_thresholds(weights, probability, counted).values()
    kept = counted & (probability >= background)
    rows = [
        Row(name, resolution, BACKGROUND, background, confusion(kept, structure, counted)),
        Row(name, resolution, STRUCTURAL, structural, confusion(probability >= structural, structure, kept)),
    ]
    odds = log_odds(probability)
    scores = tuple(score_histograms(odds, structure, where, LOG_ODDS) for where in (counted, kept))
    best, counts = scores[0].best()
    rows.append(Row(name, resolution, BEST, float(expit(best)), counts))
    remaining = tuple(np.where(probability >= threshold, density, 0) for threshold in (background, structural))
    return rows, scores, remaining


def _baseline_rows(name, resolution, density, structure, folder, denoisers):
    """Rows of the methods that a classifier is compared with; those of half-maps only where a folder has them."""
    counted = density > 0
    threshold, counts = score_histograms(density, structure, counted).best()
    rows = [Row(name, resolution, CONTOUR, threshold, counts)]
    contour, _, counts = best_dust_filter(density, structure, counted)
    rows.append(Row(name, resolution, DUST, contour, counts))
    contour = estimate_contour(density)
    (kept,) = hide_dust(density, contour, (DUST_SIZE,))
    rows.append(Row(name, resolution, AUTOMATIC_DUST, contour, confusion(kept, structure, counted)))
    paths = [] if folder is None else [folder / f"half_map_{number}.mrc" for number in (1, 2)]
    if not all(path.is_file() for path in paths) or not paths:
        return rows
    half_maps = [read_map(path) for path in paths]
    mask, _ = make_mask(*(half_map.array for half_map in half_maps), half_maps[0].voxel_size)
    rows.append(Row(name, resolution, MASK, 0.5, confusion(mask >= 0.5, structure, counted)))
    for denoiser, weights in denoisers.items():
        from crefjax import denoise

        denoised = denoise(*half_maps, weights=weights, insist=True)  # blobs that both share look like one noise
        threshold, counts = score_histograms(denoised.array, structure, counted).best()
        rows.append(Row(name, resolution, f"denoised by {denoiser}", threshold, counts))
    return rows


def _summary(rows):
    """Means over all maps, and over those of each bin of resolution, by method."""
    bins = {"all": (0.0, np.inf)} | {f"{low:g}-{high:g} Å": (low, high) for low, high in BINS}
    summary = {}
    for label, (low, high) in bins.items():
        chosen = [row for row in rows if label == "all" or low <= row.resolution < high]
        for method in dict.fromkeys(row.method for row in chosen):
            counts = [row.counts for row in chosen if row.method == method]
            rates = {
                name: _mean_rate([getattr(c, name) for c in counts])
                for name in ("tpr", "fpr", "fnr", "precision", "accuracy", "g_mean")
            }
            summary.setdefault(label, {})[method] = {"maps": len(counts)} | rates
    return summary


def _mean_rate(rates):
    """Return the mean over the maps that have this rate; a map without noise, or structure, lacks some."""
    defined = [rate for rate in rates if np.isfinite(rate)]
    return round(float(np.mean(defined)), 4) if defined else float("nan")


def _lines(summary, best):
    lines = [f"{'':10}{'method':28}{'maps':>5}{'noise found':>13}{'structure kept':>16}{'accuracy':>10}{'G-mean':>8}"]
    for label, methods in summary.items():
        for method, rates in methods.items():
            line = f"{label:10}{method:28}{rates['maps']:5}{rates['tpr']:13.4f}{1 - rates['fpr']:16.4f}"
            lines.append(line + f"{rates['accuracy']:10.4f}{rates['g_mean']:8.4f}")
    lines.append("thresholds with the best G-mean: " + ", ".join(f"{mode} {value:.3f}" for mode, value in best.items()))
    return lines


def _figure(rows, totals, thresholds):
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    (histograms, recall), (by_threshold, by_map) = figure.subplots(2, 2)
    background = totals[0]
    middles = (background.edges[1:] + background.edges[:-1]) / 2
    for counts, color, label in ((background.noise, GRAY, "noise"), (background.structure, BLUE, "structure")):
        histograms.step(middles, np.maximum(counts / counts.sum(), 1e-6), color=color, label=label, where="mid")
    histograms.set(xlabel="Log-odds of structure", ylabel="Share of the voxels", yscale="log")
    for scores, color, label in zip(totals, (BLUE, ORANGE), thresholds, strict=True):
        curves = scores.curves()
        recall.plot(curves["tpr"], curves["precision"], color=color, label=label)
        by_threshold.plot(curves["threshold"], curves["g_mean"], color=color, label=label)
        by_threshold.axvspan(*logit([min(thresholds[label]), max(thresholds[label])]), color=color, alpha=0.15)
    recall.set(xlabel="Recall: share of the noise found", ylabel="Precision", xlim=(0, 1.02), ylim=(0, 1.05))
    by_threshold.set(xlabel="Threshold of the log-odds (shaded: those chosen)", ylabel="G-mean", ylim=(0, 1.02))
    entries = list(dict.fromkeys(row.entry for row in rows))
    methods = [method for method in dict.fromkeys(row.method for row in rows) if method != STRUCTURAL]
    for number, method in enumerate(methods):
        found = {row.entry: row.counts.g_mean for row in rows if row.method == method}
        places = [entries.index(entry) for entry in found]
        by_map.plot(places, list(found.values()), "o", markersize=4, color=PALETTE[number % len(PALETTE)], label=method)
    by_map.set_xticks(range(len(entries)), entries, rotation=90, fontsize=7)
    by_map.set(ylabel="G-mean", ylim=(None, 1.01))
    for axes in (histograms, recall, by_threshold):
        axes.legend(loc="lower center", fontsize=7, frameon=False)
    by_map.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=7, frameon=False)
    return figure


def _sections_figure(sections):
    """Draw a section through the middle of every map: before, and what remains in both modes."""
    figure = Figure(figsize=(9, 3.2 * len(sections)), layout="constrained")
    titles = ("map, with the outline of its model", "background mode", "structural mode")
    for line, (name, density, structure, *kept) in zip(
        figure.subplots(len(sections), 3, squeeze=False), sections, strict=True
    ):
        for axes, image, title in zip(line, (density, *kept), titles, strict=True):
            axes.imshow(image, cmap="gray", origin="lower", vmin=0, vmax=float(np.percentile(density, 99.5)))
            axes.contour(structure, [0.5], colors=ORANGE, linewidths=0.8)
            axes.set(xticks=[], yticks=[], title=title)
        line[0].set_ylabel(name)
    return figure


STUDY = Study(__name__, _run, _add_arguments)
