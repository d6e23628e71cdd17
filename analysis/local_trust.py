"""Whether the local maps tell a rigid core from a flexible part and from density that is false.

    python -m analysis.local_trust MODELS -o DIR --weights W [W ...]

MODELS is a folder with the `cryoem/` models of `ENTRIES`, on which the weights of the package were not trained.
Pairs are simulated with 30% of the atoms in a part that moves by 4 degrees (kept in DIR/entries), and both half-maps
are denoised. Then balls of false density are planted beside the particle in both denoised half-maps, not in the noisy
ones: each is a piece of the denoised core itself, so that amplitude and spectrum are those of true density, and touches
the particle. The regions are

    flexible    within 2 Å of an atom that moves, from the hinge on, where it hardly does and is as resolved as the core
    false       within a ball, where the density is that of structure, and not within 2 Å of an atom
    core        within 2 Å of an atom at rest, and at least 6 Å, half a window, from the former two
    border      the same, but nearer to them: a window there sees both

It writes

    local_trust.csv          a row for each entry, weights, map and region: voxels, 5, 50 and 95 % quantiles
    local_trust.json         settings, versions, AUC: how often a voxel of the core is above (for change: below) one of
                             another region
    local_trust.png, .svg    for the first weights: a slice of each entry, its local maps, their values, ROC curves
"""

import argparse
import csv
import io
import json
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure
from scipy import ndimage
from scipy.stats import rankdata

from analysis.files import check_output, put
from analysis.local_regions import BALLS, RADIUS, atoms_regions, false_density
from crefjax import __version__
from crefjax.errors import UserError
from crefjax.inference.denoise import denoise_maps
from crefjax.inference.request import DenoiseRequest
from crefjax.io.entries import find_entry, load_mask, load_pair
from crefjax.plotting import BLUE, GREEN, GREY, ORANGE, figure_bytes
from crefjax.simulate.atoms import read_atoms
from crefjax.simulate.half_maps import Flexible, SimulationConfig, simulate_half_maps, write_entry
from crefjax.spectral.local_maps import LocalMaps, local_maps
from crefjax.weights.store import load_weights

NAME = "local_trust"
SEED = 5
FLEXIBLE = Flexible(fraction=0.3, angle=4.0, b_factor=50.0)
APART = 6.0  # Å, from another region, about half a window: the core that is nearer is told apart
_STRONG = 0.3  # of the core's density (its 90 % quantile), that counts as structure
_COLOURS = {"core": BLUE, "border": GREY, "flexible": GREEN, "false": ORANGE}
_OTHERS = ("false", "flexible", "border")
_MAPS = ("agreement", "change")


class Planned(NamedTuple):
    """An entry to simulate: a model, its voxels and its FSC-0.143 in Å."""

    model: str
    voxel_size: float
    resolution: float


# Window, bands and balls were chosen on the first two; the others were tried once, afterwards.
ENTRIES = (
    Planned("cryoem/7yc8.cif.gz", 1.4, 3.8),
    Planned("cryoem/8tze.cif.gz", 1.4, 3.6),
    Planned("cryoem/6bqn.cif.gz", 1.4, 3.8),
    Planned("cryoem/8tsq.cif.gz", 1.4, 3.8),
    Planned("cryoem/9jmb.cif.gz", 1.6, 4.4),
)


class Trial(NamedTuple):
    """What the local maps say of one entry, denoised with one network, with false density in it."""

    entry: str
    weights: str
    denoised: np.ndarray
    local: LocalMaps
    regions: dict[str, np.ndarray]
    mask: np.ndarray
    plane: tuple[int, int]

    def values(self, name: str, region: str) -> np.ndarray:
        """A local map's values in a region."""
        return getattr(self.local, name)[self.regions[region]]

    def auc(self, name: str, region: str) -> float:
        """How often a voxel of the core agrees better, or is changed less, than one of a region."""
        core, other = self.values(name, "core"), self.values(name, region)
        return auc(core, other) if name == "agreement" else auc(other, core)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study; returns 0, or 2 after a mistake of the user's, told in one line."""
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as stop:
        return stop.code or 0
    try:
        return _run(arguments)
    except UserError as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return 2


def _parser():
    parser = argparse.ArgumentParser(prog=f"python -m analysis.{NAME}", description=__doc__.splitlines()[0])
    parser.add_argument("models", metavar="MODELS", help="folder with the models")
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="folder to write")
    parser.add_argument("--weights", nargs="+", required=True, metavar="W", help="names or folders of weights")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run; its entries are used again")
    return parser


def _run(arguments):
    folder = Path(arguments.output)
    check_output(folder, f"{NAME}.csv", overwrite=arguments.overwrite)
    weights = [load_weights(one) for one in arguments.weights]
    (folder / "entries").mkdir(parents=True, exist_ok=True)
    start, trials = time.monotonic(), []
    for planned in ENTRIES:
        entry = find_entry(simulated(planned, Path(arguments.models), folder / "entries"))
        for one in weights:
            trials.append(trial(entry, one))
            print(_told(trials[-1]), flush=True)
    put(folder / f"{NAME}.csv", _csv(trials))
    summary = _summary(trials, weights, time.monotonic() - start)
    put(folder / f"{NAME}.json", (json.dumps(summary, indent=2) + "\n").encode())
    shown = [one for one in trials if one.weights == str(weights[0].path)]
    for kind in ("png", "svg"):
        put(folder / f"{NAME}.{kind}", _figure(shown, kind))
    return 0


def simulated(planned: Planned, models: Path, folder: Path) -> Path:
    """The folder of an entry with a flexible part, simulated if it is not there yet."""
    path = folder / Path(planned.model).name.split(".")[0]
    if not path.is_dir():
        settings = SimulationConfig(
            voxel_size=planned.voxel_size,
            resolution=planned.resolution,
            seed=SEED,
            flexible=FLEXIBLE,
            unevenness=0.2,
        )
        write_entry(path, simulate_half_maps(read_atoms(models / planned.model), settings))
    return path


def trial(entry, weights) -> Trial:
    """Denoise an entry's half-maps, plant false density, and make the local maps."""
    pair = load_pair(entry.half_map_1, entry.half_map_2)
    mask, voxel_size = load_mask(entry.mask, pair[0]).array, pair[0].voxel_size
    found = denoise_maps(DenoiseRequest(pair, weights, scale="none", half_maps=True))
    denoised = [found.half_map_1.array, found.half_map_2.array]
    regions = atoms_regions(entry.model, FLEXIBLE, SEED, mask.shape, voxel_size)
    planted, room, centers = false_density(sum(denoised) / 2, regions, voxel_size, seed=SEED)
    strong = planted > _STRONG * np.quantile(sum(denoised)[regions["core"]] / 2, 0.9)
    regions["false"] = strong & ~regions["core"] & ~regions["flexible"]
    away = ndimage.distance_transform_edt(~(regions["flexible"] | regions["false"])) * voxel_size > APART
    regions |= {"core": regions["core"] & away, "border": regions["core"] & ~away}
    denoised = [one + planted for one in denoised]
    mask = np.maximum(mask, room)
    local = local_maps(*(one.array for one in pair), *denoised, voxel_size, mask)
    return Trial(
        entry.name, str(weights.path), sum(denoised) / 2, local, regions, mask, _telling_plane(regions, centers)
    )


def _telling_plane(regions, centers):
    """Axis and number of the plane through a ball that has most of both the core and the flexible part."""
    planes = [(axis, int(center[axis])) for center in centers for axis in range(3)]
    return max(planes, key=lambda one: min(_cut(regions[name], one).sum() for name in ("core", "flexible")))


def _cut(array, plane):
    axis, number = plane
    return np.take(array, number, axis)


def auc(high: np.ndarray, low: np.ndarray) -> float:
    """How often one of the first is above one of the second, ties counted as halves."""
    ranks = rankdata(np.concatenate([high, low]))[: len(high)]
    return float((ranks.sum() - len(high) * (len(high) + 1) / 2) / (len(high) * len(low)))


def _told(one):
    parts = [f"{name} {region} {one.auc(name, region):.3f}" for name in _MAPS for region in _OTHERS]
    medians = [f"{region} {np.median(one.values('agreement', region)):.2f}" for region in _COLOURS]
    return f"{one.entry}, {one.weights}: AUC of the core: {', '.join(parts)}; agreement: {', '.join(medians)}"


def _csv(trials):
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["entry", "weights", "map", "region", "voxels", "5%", "50%", "95%"])
    for one in trials:
        for name in _MAPS:
            for region in _COLOURS:
                values = one.values(name, region)
                quantiles = [f"{value:.4f}" for value in np.quantile(values, [0.05, 0.5, 0.95])]
                writer.writerow([one.entry, one.weights, name, region, len(values), *quantiles])
    return stream.getvalue().encode()


def _summary(trials, weights, seconds):
    return {
        "crefjax": __version__,
        "jax": jax.__version__,
        "python": platform.python_version(),
        "seconds": round(seconds, 1),
        "entries": {planned.model: planned._asdict() for planned in ENTRIES},
        "flexible": {"fraction": FLEXIBLE.fraction, "angle": FLEXIBLE.angle, "b_factor": FLEXIBLE.b_factor},
        "false": {"balls": BALLS, "radius": RADIUS},
        "weights": [{"path": str(one.path), "sha256": one.card["sha256"]} for one in weights],
        "trials": [
            {
                "entry": one.entry,
                "weights": one.weights,
                "window": one.local.window,
                "resolution": one.local.resolution,
                "auc": {name: {region: one.auc(name, region) for region in _OTHERS} for name in _MAPS},
            }
            for one in trials
        ],
    }


def _figure(trials, kind):
    figure = Figure(figsize=(17, 4.3 * len(trials)), layout="constrained")
    panels = figure.subplots(len(trials), 5, squeeze=False, width_ratios=[1, 1.15, 1.15, 1, 1])
    for row, one in zip(panels, trials, strict=True):
        _slices(figure, row[:3], one)
        _distributions(row[3], one)
        _roc(row[4], one)
    return figure_bytes(figure, kind)


def _slices(figure, row, one):
    """A slice through a ball of the denoised map and of the local maps, with the regions' outlines."""
    plane = _cut(one.denoised, one.plane)
    row[0].imshow(plane, cmap="gray", vmin=0, vmax=np.quantile(plane, 0.998), origin="lower")
    row[0].set_title(f"{one.entry}, denoised")
    for axes, name, colours in zip(row[1:], _MAPS, ("viridis", "magma"), strict=True):
        shown = _cut(getattr(one.local, name), one.plane)
        image = axes.imshow(
            np.where(_cut(one.mask, one.plane) >= 0.5, shown, np.nan), cmap=colours, vmin=0, vmax=1, origin="lower"
        )
        axes.set_title(f"{name}, window {one.local.window:.1f} Å")
        figure.colorbar(image, ax=axes, shrink=0.8)
    for axes in row:
        for region, color in _COLOURS.items():
            if region == "border":
                continue
            outline = ndimage.binary_closing(np.pad(_cut(one.regions[region], one.plane), 3), iterations=3)[3:-3, 3:-3]
            if outline.any():
                axes.contour(outline, [0.5], colors=color, linewidths=1.2)
        axes.set(xticks=[], yticks=[], facecolor="white")


def _distributions(axes, one):
    """Median and 5 to 95 % of both maps in each region."""
    for offset, name, marker in ((0.15, "agreement", "o"), (-0.15, "change", "s")):
        for height, (region, color) in enumerate(reversed(_COLOURS.items())):
            low, middle, high = np.quantile(one.values(name, region), [0.05, 0.5, 0.95])
            axes.plot([low, high], [height + offset] * 2, color=color, linewidth=3, alpha=0.6)
            axes.plot(middle, height + offset, marker, color=color, markersize=7)
            axes.annotate(name, (middle, height + offset), xytext=(0, 6), textcoords="offset points", ha="center")
    axes.set_yticks(range(len(_COLOURS)), list(reversed(_COLOURS)))
    axes.set(xlim=(-0.2, 1.2), ylim=(-0.5, len(_COLOURS) - 0.4), xlabel="median, 5 to 95 % of the voxels")


def _roc(axes, one):
    """How much of the core is kept, by how much of another region is let through."""
    for name, line in (("agreement", "-"), ("change", "--")):
        for region in ("false", "flexible"):
            if name == "change" and region == "flexible":
                continue  # nothing was changed there that should not have been
            sign = 1 if name == "agreement" else -1
            levels = np.linspace(-1, 1, 801)
            core, other = (sign * one.values(name, part) for part in ("core", region))
            kept, through = ([float(np.mean(part >= level)) for level in levels] for part in (core, other))
            label = f"{name}: core or {region}, AUC {one.auc(name, region):.3f}"
            axes.plot(through, kept, line, color=_COLOURS[region], label=label)
    axes.set(xlabel="share of the other region let through", ylabel="share of the core kept", ylim=(-0.02, 1.02))
    axes.legend(loc="lower right", fontsize=8)


if __name__ == "__main__":
    sys.exit(main())
