"""Test whether the local maps separate a rigid core from a flexible part and from false density.

    python -m analysis local_maps MODELS -o DIR --weights W [W ...] [--cryoridge PROGRAM]

MODELS is a folder with the `cryoem/` models of `ENTRIES`, on which the weights of the package were not trained.
Pairs are simulated with 30% of the atoms in a part that moves by 4 degrees (kept in DIR/entries), and both half-maps
are denoised. Then balls of false density are planted beside the particle in both denoised half-maps, not in the noisy
ones: each is a piece of the denoised core itself, so that amplitude and spectrum are those of true density, and touches
the particle. The regions are

    flexible    within 2 Å of an atom that moves, including those at the hinge, as resolved as the core
    false       within a ball, where the density is that of structure, and not within 2 Å of an atom
    core        within 2 Å of an atom at rest, and at least 6 Å, half a window, from the former two
    border      the same, but nearer to them: a window there sees both

With `--cryoridge`, the score of that program (`analysis.baselines.external.reliability`) is tested on the same voxels:
`cryoridge` made from the half-maps, `cryoridge_denoised` from the denoised ones that hold the false density.

It writes

    local_maps.csv          a row for each entry, weights, map and region: voxels, 5, 50 and 95 % quantiles
    local_maps.json         settings, versions, AUC: how often a voxel of the core is above (for change: below) one of
                            another region
    local_maps.png, .svg    for the first weights: a slice of each entry, its local maps, their values, ROC curves
"""

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from scipy import ndimage
from scipy.spatial import cKDTree
from scipy.stats import rankdata

from analysis.baselines.external import find_program, reliability
from analysis.framework.simulation import simulate_entry
from analysis.framework.study import Study, add_weights
from crefjax.errors import UserError
from crefjax.inference.denoise import denoise_maps
from crefjax.inference.request import DenoiseRequest
from crefjax.io.entries import Entry, find_entry, load_mask, load_pair
from crefjax.plotting import BLUE, GRAY, GREEN, ORANGE
from crefjax.simulate.atoms import read_atoms
from crefjax.simulate.half_maps import Flexible, SimulationConfig
from crefjax.simulate.specimen import sample_conformations
from crefjax.spectral.local_maps import LocalMaps, local_maps
from crefjax.weights.store import Weights, load_weights

SEED = 5
FLEXIBLE = Flexible(fraction=0.3, angle=4.0, b_factor=50.0)
# Model, voxel size and resolution in Å. Window, bands and balls were chosen on the first two entries; the others were
# tried once, afterwards.
ENTRIES = {
    model: SimulationConfig(voxel_size, resolution, seed=SEED, flexible=FLEXIBLE, unevenness=0.2)
    for model, voxel_size, resolution in (
        ("cryoem/7yc8.cif.gz", 1.4, 3.8),
        ("cryoem/8tze.cif.gz", 1.4, 3.6),
        ("cryoem/6bqn.cif.gz", 1.4, 3.8),
        ("cryoem/8tsq.cif.gz", 1.4, 3.8),
        ("cryoem/9jmb.cif.gz", 1.6, 4.4),
    )
}
APART = 6.0  # Å, from another region, about half a window: nearer parts of the core are the border
NEAR = 2.0  # Å, of an atom's center: its density
RADIUS = 9.0  # Å, of a ball of false density: a helix is 10 Å wide
BALLS = 3
_BALL_EDGE = 2.0  # Å, no sharper than the map is
_MARGIN = 4.0  # Å, by which the mask reaches beyond a ball
_STRONG = 0.3  # of the core's density (its 90 % quantile), that counts as structure
_COLORS = {"core": BLUE, "border": GRAY, "flexible": GREEN, "false": ORANGE}
_OTHERS = ("false", "flexible", "border")
_MAPS = ("agreement", "change")


def atoms_regions(
    model: Path, flexible: Flexible, seed: int, shape: tuple[int, int, int], voxel_size: float
) -> dict[str, np.ndarray]:
    """Return the voxels near atoms of a simulated entry's model, bool: `core` for atoms at rest, `flexible` for others.

    Args:
        model: the entry's own, at the coordinates of its box.
        flexible: as it was simulated.
        seed: as it was simulated.
        shape: `(z, y, x)` of the box.
        voxel_size: Å.
    """
    atoms = read_atoms(model)
    moving = sample_conformations(atoms, flexible, seed).moving
    grid = np.indices(shape).reshape(3, -1).T * voxel_size
    nearest = cKDTree(atoms.positions[:, ::-1]).query(grid, distance_upper_bound=NEAR)[1]
    kind = np.append(np.where(moving, 2, 1), 0)[nearest].reshape(shape)
    return {"core": kind == 1, "flexible": kind == 2}


def false_density(
    denoised: np.ndarray, regions: dict, voxel_size: float, *, seed: int
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Copy balls of a map's core beside the particle where it is rigid.

    Args:
        denoised: `(z, y, x)`, from which the balls are copied.
        regions: `core` and `flexible`, bool.
        voxel_size: Å.
        seed: of places and pieces.

    Returns:
        The density to add, the mask around it, and the centers of the balls in voxels.

    Raises:
        UserError: the box is too small for them.
    """
    random, radius = np.random.default_rng(seed), RADIUS / voxel_size
    reach = int(np.ceil((RADIUS + _MARGIN + 2 * _BALL_EDGE) / voxel_size))
    offsets = np.indices((2 * reach + 1,) * 3) - reach
    apart = np.sqrt(sum(axis.astype(float) ** 2 for axis in offsets)) * voxel_size
    ball, around_ball = (0.5 - 0.5 * np.tanh((apart - r) / _BALL_EDGE) for r in (RADIUS, RADIUS + _MARGIN))
    to_core, to_flexible = (ndimage.distance_transform_edt(~regions[name]) for name in ("core", "flexible"))
    inner = ndimage.distance_transform_edt(ndimage.binary_closing(regions["core"], iterations=3))
    # Beside the particle: the ball's surface touches the density of atoms.
    beside = (np.abs(np.minimum(to_core, to_flexible) - radius) < 1) & (to_flexible > to_core + radius)
    places, sources = (_within(voxels, reach) for voxels in (beside, inner > 0.8 * min(inner.max(), radius)))
    added, mask, centers = np.zeros_like(denoised), np.zeros_like(denoised), []
    for place in random.permutation(places):
        if any(np.linalg.norm(place - center) < 4 * radius for center in centers):
            continue
        around = tuple(slice(at - reach, at + reach + 1) for at in place)
        source = tuple(slice(at - reach, at + reach + 1) for at in sources[random.integers(len(sources))])
        added[around] += denoised[source] * ball
        mask[around] = np.maximum(mask[around], around_ball)
        centers.append(place)
        if len(centers) == BALLS:
            return added, mask, centers
    raise UserError(f"the box has no room for {BALLS} balls of false density; use another model or a larger margin")


def _within(voxels, reach):
    """Return places `(n, 3)` of true voxels that are not near the border."""
    places = np.argwhere(voxels)
    return places[(places >= reach).all(1) & (places < np.array(voxels.shape) - reach).all(1)]


class Trial(NamedTuple):
    """The local maps of one entry, denoised with one network, with false density in it.

    `scores` has agreement and change by name, and those of another program.
    """

    entry: str
    weights: str
    denoised: np.ndarray
    local: LocalMaps
    scores: dict[str, np.ndarray]
    regions: dict[str, np.ndarray]
    mask: np.ndarray
    plane: tuple[int, int]

    def values(self, name: str, region: str) -> np.ndarray:
        """Return a local map's values in a region."""
        return self.scores[name][self.regions[region]]

    def auc(self, name: str, region: str) -> float:
        """Return how often a voxel of the core agrees better, or is changed less, than one of a region."""
        core, other = self.values(name, "core"), self.values(name, region)
        return auc(other, core) if name == "change" else auc(core, other)


def run_trial(entry: Entry, weights: Weights, cryoridge: str | None = None) -> Trial:
    """Denoise an entry's half-maps, plant false density, and make the local maps.

    Args:
        entry: with model and mask, as it was simulated.
        weights: of the network.
        cryoridge: path of that program, or None to leave it out.
    """
    pair = load_pair(entry.half_map_1, entry.half_map_2)
    mask, voxel_size = load_mask(entry.mask, pair[0]).array, pair[0].voxel_size
    output = denoise_maps(DenoiseRequest(pair, weights, scale="none", half_maps=True))
    denoised = [output.half_map_1.array, output.half_map_2.array]
    regions = atoms_regions(entry.model, FLEXIBLE, SEED, mask.shape, voxel_size)
    planted, around, centers = false_density(sum(denoised) / 2, regions, voxel_size, seed=SEED)
    strong = planted > _STRONG * np.quantile(sum(denoised)[regions["core"]] / 2, 0.9)
    regions["false"] = strong & ~regions["core"] & ~regions["flexible"]
    away = ndimage.distance_transform_edt(~(regions["flexible"] | regions["false"])) * voxel_size > APART
    regions |= {"core": regions["core"] & away, "border": regions["core"] & ~away}
    denoised = [half_map + planted for half_map in denoised]
    mask = np.maximum(mask, around)
    local = local_maps(*(half_map.array for half_map in pair), *denoised, voxel_size, mask)
    scores = {name: getattr(local, name) for name in _MAPS}
    if cryoridge is not None:
        with_false_density = tuple(
            half_map.replace_array(array) for half_map, array in zip(pair, denoised, strict=True)
        )
        scores["cryoridge"] = reliability(pair, cryoridge)
        scores["cryoridge_denoised"] = reliability(with_false_density, cryoridge)
    plane = _choose_plane(regions, centers)
    return Trial(entry.name, str(weights.path), sum(denoised) / 2, local, scores, regions, mask, plane)


def _choose_plane(regions, centers):
    """Return axis and number of the plane through a ball that has most of both the core and the flexible part."""
    planes = [(axis, int(center[axis])) for center in centers for axis in range(3)]
    return max(planes, key=lambda plane: min(_cut(regions[name], plane).sum() for name in ("core", "flexible")))


def _cut(array, plane):
    axis, number = plane
    return np.take(array, number, axis)


def auc(high: np.ndarray, low: np.ndarray) -> float:
    """Return how often one of the first is above one of the second, ties counted as halves."""
    ranks = rankdata(np.concatenate([high, low]))[: len(high)]
    return float((ranks.sum() - len(high) * (len(high) + 1) / 2) / (len(high) * len(low)))


def _add_arguments(parser):
    parser.add_argument("models", metavar="MODELS", type=Path, help="folder with the models")
    add_weights(parser)
    parser.add_argument("--cryoridge", metavar="PROGRAM", help="also test the score of cryoRIDGE: its name or path")


def _run(arguments, output):
    cryoridge = None if arguments.cryoridge is None else find_program(arguments.cryoridge)
    weights = [load_weights(name) for name in arguments.weights]
    start, trials = time.monotonic(), []
    for model, settings in ENTRIES.items():
        entry = find_entry(simulate_entry(arguments.models / model, settings, output.folder / "entries"))
        for each in weights:
            trials.append(run_trial(entry, each, cryoridge))
            print(_line(trials[-1]), flush=True)
    output.write_csv(["entry", "weights", "map", "region", "voxels", "5%", "50%", "95%"], _rows(trials))
    output.write_json(_report(trials, weights), seconds=time.monotonic() - start)
    output.write_figure(_figure([trial for trial in trials if trial.weights == str(weights[0].path)]))


def _line(trial):
    parts = [f"{name} {region} {trial.auc(name, region):.3f}" for name in trial.scores for region in _OTHERS]
    medians = [f"{region} {np.median(trial.values('agreement', region)):.2f}" for region in _COLORS]
    return f"{trial.entry}, {trial.weights}: AUC of the core: {', '.join(parts)}; agreement: {', '.join(medians)}"


def _rows(trials):
    for trial in trials:
        for name in trial.scores:
            for region in _COLORS:
                values = trial.values(name, region)
                quantiles = [f"{value:.4f}" for value in np.quantile(values, [0.05, 0.5, 0.95])]
                yield [trial.entry, trial.weights, name, region, len(values), *quantiles]


def _report(trials, weights):
    return {
        "entries": {
            model: {"model": model, "voxel_size": settings.voxel_size, "resolution": settings.resolution}
            for model, settings in ENTRIES.items()
        },
        "flexible": {"fraction": FLEXIBLE.fraction, "angle": FLEXIBLE.angle, "b_factor": FLEXIBLE.b_factor},
        "false": {"balls": BALLS, "radius": RADIUS},
        "weights": [{"path": str(each.path), "sha256": each.card["sha256"]} for each in weights],
        "trials": [
            {
                "entry": trial.entry,
                "weights": trial.weights,
                "window": trial.local.window,
                "resolution": trial.local.resolution,
                "auc": {name: {region: trial.auc(name, region) for region in _OTHERS} for name in trial.scores},
            }
            for trial in trials
        ],
    }


def _figure(trials):
    figure = Figure(figsize=(17, 4.3 * len(trials)), layout="constrained")
    panels = figure.subplots(len(trials), 5, squeeze=False, width_ratios=[1, 1.15, 1.15, 1, 1])
    for row, trial in zip(panels, trials, strict=True):
        _slices(figure, row[:3], trial)
        _distributions(row[3], trial)
        _roc(row[4], trial)
    return figure


def _slices(figure, row, trial):
    """Draw a slice through a ball of the denoised map and of the local maps, with the regions' outlines."""
    plane = _cut(trial.denoised, trial.plane)
    row[0].imshow(plane, cmap="gray", vmin=0, vmax=np.quantile(plane, 0.998), origin="lower")
    row[0].set_title(f"{trial.entry}, denoised")
    inside = _cut(trial.mask, trial.plane) >= 0.5
    for axes, name, colormap in zip(row[1:], _MAPS, ("viridis", "magma"), strict=True):
        values = np.where(inside, _cut(getattr(trial.local, name), trial.plane), np.nan)
        image = axes.imshow(values, cmap=colormap, vmin=0, vmax=1, origin="lower")
        axes.set_title(f"{name}, window {trial.local.window:.1f} Å")
        figure.colorbar(image, ax=axes, shrink=0.8)
    for axes in row:
        for region, color in _COLORS.items():
            if region == "border":
                continue
            padded = np.pad(_cut(trial.regions[region], trial.plane), 3)
            outline = ndimage.binary_closing(padded, iterations=3)[3:-3, 3:-3]
            if outline.any():
                axes.contour(outline, [0.5], colors=color, linewidths=1.2)
        axes.set(xticks=[], yticks=[], facecolor="white")


def _distributions(axes, trial):
    """Draw median and 5 to 95 % of both maps in each region."""
    for offset, name, marker in ((0.15, "agreement", "o"), (-0.15, "change", "s")):
        for height, (region, color) in enumerate(reversed(_COLORS.items())):
            low, middle, high = np.quantile(trial.values(name, region), [0.05, 0.5, 0.95])
            axes.plot([low, high], [height + offset] * 2, color=color, linewidth=3, alpha=0.6)
            axes.plot(middle, height + offset, marker, color=color, markersize=7)
            axes.annotate(name, (middle, height + offset), xytext=(0, 6), textcoords="offset points", ha="center")
    axes.set_yticks(range(len(_COLORS)), list(reversed(_COLORS)))
    axes.set(xlim=(-0.2, 1.2), ylim=(-0.5, len(_COLORS) - 0.4), xlabel="median, 5 to 95 % of the voxels")


def _roc(axes, trial):
    """Draw the share of the core that is kept by the share of another region that passes."""
    for name, line in (("agreement", "-"), ("change", "--")):
        for region in ("false", "flexible"):
            if name == "change" and region == "flexible":
                continue  # nothing false was planted there
            sign = 1 if name == "agreement" else -1
            levels = np.linspace(-1, 1, 801)
            core, other = (sign * trial.values(name, part) for part in ("core", region))
            kept, passed = ([float(np.mean(part >= level)) for level in levels] for part in (core, other))
            label = f"{name}: core or {region}, AUC {trial.auc(name, region):.3f}"
            axes.plot(passed, kept, line, color=_COLORS[region], label=label)
    axes.set(xlabel="share of the other region let through", ylabel="share of the core kept", ylim=(-0.02, 1.02))
    axes.legend(loc="lower right", fontsize=8)


STUDY = Study(__name__, _run, _add_arguments)
