"""Measure whether ligands, glycans, lipids, nucleic acids, and ions are kept, lost, or made up.

    python -m analysis kept MODELS -o DIR --weights truth cref [--resolutions 2 3 4.5]

MODELS is a folder with the models of `ENTRIES`, on which the weights of the package were not trained. Half-maps are
simulated at every resolution, with the end of the longest protein chain at an occupancy of 30 % and, for membrane
proteins, a belt of disordered density. Copies of a ligand's density are added beside the particle as noise: to one
half-map, twice as strong, so that the full map shows them like ligands.

What is left of a part is found by least squares within 2 Å of its atoms: map = a part + b rest + c, where part and rest
are those of the truth with the gain of every shell that the map has against the truth, so that a low-pass or another
scale of the whole map counts for nothing. `kept` is `a`: 1 is as much as the structure in all, 0 nothing. A piece
(a residue, an ion) is *lost* if its own `a` is below 0.5; a piece is *made up* if the same fit at an empty place beside
the particle gives more than 0.5. The noise that looks like a ligand is a part like the others, but should not be kept.
It writes

    kept.csv          a row for each entry, resolution, map, and kind
    kept.json         settings, versions, means over the entries
    kept.png, .svg    share kept, share lost, and share made up, by kind and resolution
"""

import itertools
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from scipy import ndimage
from scipy.spatial import cKDTree

from analysis.framework.output import FULL
from analysis.framework.simulation import entry_name
from analysis.framework.study import Study, add_weights, load_named
from analysis.validation.specimen_parts import PARTIAL, Pieces, find_pieces, lower_occupancy
from crefjax.inference.denoise import denoise_maps
from crefjax.inference.request import read_request
from crefjax.io.maps import Map, full_map
from crefjax.plotting import PALETTE
from crefjax.simulate.atoms import Atoms, read_atoms, with_least_b_factor
from crefjax.simulate.density import Scatterers, density, scatterers
from crefjax.simulate.half_maps import Simulation, SimulationConfig, simulate_half_maps
from crefjax.simulate.specimen import Belt
from crefjax.spectral.curves import shell_products, solvent_level
from crefjax.spectral.shells import filter_shells
from crefjax.weights.store import Weights

SEED = 11
# Models, with whether they have a belt.
ENTRIES = {
    "em/7nsg.cif.gz": True,
    "em/9c0g.cif.gz": True,
    "em/6gyn.pdb.gz": True,
    "em/7pbl.pdb.gz": False,
    "em/8d3m.cif.gz": False,
    "em/6o1l.pdb.gz": False,
    "em/6m15.pdb.gz": False,
}
RESOLUTIONS = (2.0, 3.0, 4.5)  # Å
VOXELS = 3.0  # to the resolution
B_FACTOR = 10.0  # Å² for every Å² of the squared resolution
BELT, NOISE = "belt", "ligand-shaped noise"
KINDS = ("protein", PARTIAL, "RNA", "DNA", "ligand", "glycan", "lipid", "ion", BELT, NOISE)
NEAR = 2.0  # Å, of an atom: the region of a part
LOST = MADE_UP = 0.5
_NOISE_COPIES = 8
_PLACES = 30_000  # candidates for empty places
_MOST_PIECES = 150  # of a kind, drawn at random
_BESIDE = (3.0, 25.0)  # Å, from the truth's mask, of empty places


class Row(NamedTuple):
    """How much of one kind a map of an entry shows; shares are None if there are too few pieces."""

    entry: str
    resolution: float
    map: str
    kind: str
    pieces: int
    kept: float
    correlation: float
    lost: float | None
    made_up: float | None


@dataclass(frozen=True, eq=False)
class Specimen:
    """A simulated pair whose parts are known; arrays are `(z, y, x)`.

    Attributes:
        simulation: with the noise that looks like ligands in its half-maps.
        pieces: of the model's atoms.
        parts: by kind, its own density in the truth.
        planted: centers of the copies of a ligand in voxels, and the density of one around its own center.
    """

    simulation: Simulation
    pieces: Pieces
    parts: dict[str, np.ndarray]
    planted: tuple[list[np.ndarray], np.ndarray]


def make_specimen(atoms: Atoms, resolution: float, *, belt: bool, seed: int = SEED) -> Specimen:
    """Simulate an entry with all of its parts.

    Args:
        atoms: the model.
        resolution: Å, where the FSC of the half-maps crosses 0.143.
        belt: whether it has a belt of disordered density.
        seed: of all that is drawn.
    """
    atoms, partial = lower_occupancy(atoms)
    config = SimulationConfig(
        resolution / VOXELS,
        resolution,
        seed=seed,
        b_factor=B_FACTOR * resolution**2,
        belt=Belt() if belt else None,
        unevenness=0.2,
    )
    simulation = simulate_half_maps(atoms, config)
    pieces = find_pieces(simulation.atoms, partial)
    shape, blur = simulation.truth.shape, config.b_factor
    everything = scatterers(with_least_b_factor(simulation.atoms, blur), config.voxel_size)

    def density_of(chosen):
        weights = everything.weights * chosen[:, np.newaxis]
        part = Scatterers(everything.positions, weights, everything.widths)
        return np.asarray(density(part, shape, config.voxel_size, b_factor=blur))

    kinds = [kind for kind in KINDS if pieces.atoms_of(kind).any() and kind != "protein"]
    parts = {kind: density_of(pieces.atoms_of(kind)) for kind in kinds}
    parts["protein"] = density_of(pieces.atoms_of("protein"))
    if belt:
        parts[BELT] = simulation.truth - density_of(np.ones(len(partial), bool))
    template = _template(pieces)
    return _plant(simulation, pieces, parts, density_of(template), simulation.atoms.positions[template], seed)


def _template(pieces):
    """Return the atoms of the piece that noise is to look like: the largest ligand, else glycan, lipid, or residue."""
    order = ("ligand", "glycan", "lipid", "RNA", "DNA", "protein")
    kind = next(kind for kind in order if pieces.atoms_of(kind).any())
    return max(pieces.pieces_of(kind), key=np.count_nonzero)


def _plant(simulation, pieces, parts, ligand, positions, seed):
    """Add copies of a ligand's density to one half-map each, at empty places."""
    voxel_size, random = simulation.voxel_size, np.random.default_rng(seed)
    center = np.round(positions.mean(0)[::-1] / voxel_size).astype(int)
    extent = np.abs(positions[:, ::-1] - positions.mean(0)[::-1]).max()
    reach = int(np.ceil((extent + 1.5 * NEAR) / voxel_size))
    around = tuple(slice(max(c - reach, 0), c + reach + 1) for c in center)
    template = ligand[around]
    halves = [simulation.half_map_1.copy(), simulation.half_map_2.copy()]
    places = EmptyPlaces(simulation.mask, voxel_size, random).draw(template.shape, _NOISE_COPIES)
    for number, place in enumerate(places):
        halves[number % 2][_box(place, template.shape)] += 2 * template
    simulation = replace(simulation, half_map_1=halves[0], half_map_2=halves[1])
    return Specimen(simulation, pieces, parts, (places, template))


def _box(first, shape):
    return tuple(slice(at, at + side) for at, side in zip(first, shape, strict=True))


class EmptyPlaces:
    """Draws boxes beside the particle.

    Args:
        mask: of the truth, `(z, y, x)`.
        voxel_size: Å.
        random: of the places.
    """

    def __init__(self, mask: np.ndarray, voxel_size: float, random: np.random.Generator):
        distance = ndimage.distance_transform_edt(mask == 0) * voxel_size
        places = np.flatnonzero(distance > _BESIDE[0])
        places = random.choice(places, min(len(places), _PLACES), replace=False)
        self._places = np.stack(np.unravel_index(places, mask.shape), 1)
        self._distance, self._shape, self._voxel_size = distance.ravel()[places], mask.shape, voxel_size

    def draw(self, shape: tuple[int, int, int], count: int) -> list[np.ndarray]:
        """Return the first voxels of at most so many boxes that do not overlap and do not touch the particle."""
        half = np.array(shape) // 2
        first = self._places - half
        radius = float(np.linalg.norm(half)) * self._voxel_size
        fits = (first >= 0).all(1) & (first + shape <= self._shape).all(1)
        fits &= (self._distance > _BESIDE[0] + radius) & (self._distance < _BESIDE[1] + radius)
        chosen = []
        for place in first[fits]:
            if all(np.abs(place - other).max() >= max(shape) for other in chosen):
                chosen.append(place)
                if len(chosen) == count:
                    break
        return chosen


def measure(specimen: Specimen, maps: dict[str, np.ndarray], entry: str, resolution: float) -> list[Row]:
    """Measure every kind in every map.

    Args:
        specimen: a simulated pair and its parts.
        maps: by name, `(z, y, x)`, on the scale of the truth or any other.
        entry: its name.
        resolution: Å.
    """
    simulation = specimen.simulation
    regions = {kind: _regions(specimen, kind) for kind in specimen.parts}
    occupied = simulation.mask.copy()
    for place in specimen.planted[0]:
        occupied[_box(place, specimen.planted[1].shape)] = 1
    empty = EmptyPlaces(occupied, simulation.voxel_size, np.random.default_rng(SEED))
    rows = []
    for name, array in maps.items():
        array = array - np.float32(solvent_level(array, simulation.mask))
        gain = shell_gain(array, simulation.truth, simulation.mask)
        truth = filter_shells(simulation.truth, gain)
        for kind, part in specimen.parts.items():
            part = filter_shells(part, gain)
            whole, pieces = regions[kind]
            fits = [fit(array[region], part[region], truth[region])[0] for region in pieces]
            kept, correlation = fit(array[whole], part[whole], truth[whole])
            decoys = [] if kind in ("protein", PARTIAL) else _fits_at_empty_places(array, part, pieces, empty)
            rows.append(
                Row(
                    *(entry, resolution, name, kind, len(pieces), kept, correlation),
                    float(np.mean(np.array(fits) < LOST)) if fits else None,
                    float(np.mean(np.array(decoys) > MADE_UP)) if decoys else None,
                )
            )
        rows.append(_noise_row(specimen, array, gain, (entry, resolution, name)))
    return rows


def _regions(specimen, kind):
    """Return the voxels near a kind's atoms, and near the atoms of its pieces, as index arrays."""
    if kind == BELT:
        belt = specimen.parts[BELT]
        return np.nonzero(np.abs(belt) > 0.2 * np.abs(belt).max()), []
    voxel_size, positions = specimen.simulation.voxel_size, specimen.simulation.atoms.positions[:, ::-1]
    pieces = specimen.pieces.pieces_of(kind)
    if len(pieces) > _MOST_PIECES:
        chosen = np.random.default_rng(SEED).choice(len(pieces), _MOST_PIECES, replace=False)
        pieces = [pieces[number] for number in chosen]
    shape = specimen.simulation.truth.shape
    regions = [_near(positions[atoms], voxel_size, shape) for atoms in pieces]
    flat = np.unique(np.concatenate([np.ravel_multi_index(region, shape) for region in regions]))
    return np.unravel_index(flat, shape), regions


def _near(positions, voxel_size, shape):
    """Return the voxels within `NEAR` of positions `(n, 3)`, Å, as index arrays."""
    first = np.maximum(np.floor((positions.min(0) - NEAR) / voxel_size).astype(int), 0)
    last = np.minimum(np.ceil((positions.max(0) + NEAR) / voxel_size).astype(int) + 1, shape)
    grid = np.stack(np.meshgrid(*map(np.arange, first, last), indexing="ij"), -1).reshape(-1, 3)
    near = cKDTree(positions).query(grid * voxel_size, distance_upper_bound=NEAR)[0] <= NEAR
    return tuple(grid[near].T)


def shell_gain(array: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the factor of every shell, `(shells,)`, by which a map holds the truth, smoothed over three shells."""
    levels = [solvent_level(each, mask) for each in (array, truth)]
    products = shell_products([array, truth], mask, levels=levels)
    smooth = [np.convolve(np.pad(products[:, i, 1], 1, "edge"), np.ones(3), "valid") for i in (0, 1)]
    return np.maximum(smooth[0] / np.maximum(smooth[1], 1e-12 * smooth[1].max()), 0)


def fit(values: np.ndarray, part: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Fit `values = a part + b (truth - part) + c`; all are `(n,)`.

    Returns:
        `a`, and the correlation of the values with the truth.
    """
    columns = np.stack([part, truth - part, np.ones_like(part)], 1).astype(np.float64)
    scale = np.maximum(np.sqrt(np.mean(columns**2, 0)), 1e-12 * np.abs(part).max() + 1e-30)
    a = np.linalg.lstsq(columns / scale, values, rcond=1e-6)[0][0] / scale[0]
    return float(a), float(np.corrcoef(values, truth)[0, 1])


def _fits_at_empty_places(array, part, regions, empty):
    """Fit every piece's density where there is nothing of it, at other places for every piece."""
    shapes = [tuple(int(np.ptp(axis)) + 1 for axis in region) for region in regions]
    wanted, fits = {shape: shapes.count(shape) for shape in shapes}, []
    places = {shape: empty.draw(shape, count) for shape, count in wanted.items()}
    for region, shape in zip(regions, shapes, strict=True):
        if not places[shape]:
            continue
        place = places[shape].pop()
        there = tuple(axis - axis.min() + first for axis, first in zip(region, place, strict=True))
        fits.append(np.polyfit(part[region].astype(np.float64), array[there], 1)[0])
    return fits


def _noise_row(specimen, array, gain, about):
    """Fit the copies of a ligand that were added as noise."""
    places, template = specimen.planted
    fits, correlations = [], []
    for place in places:
        copy = np.zeros_like(array)
        copy[_box(place, template.shape)] = template
        expected = filter_shells(copy, gain)[_box(place, template.shape)]
        region = template > 0.1 * template.max()
        slope = np.polyfit(expected[region].astype(np.float64), array[_box(place, template.shape)][region], 1)[0]
        fits.append(float(slope))
        correlations.append(np.corrcoef(expected[region], array[_box(place, template.shape)][region])[0, 1])
    made_up = float(np.mean(np.array(fits) > MADE_UP)) if fits else None
    return Row(*about, NOISE, len(fits), _mean(fits), _mean(correlations), None, made_up)


def _mean(values):
    return float(np.mean(values)) if len(values) else float("nan")


def _add_arguments(parser):
    parser.add_argument("models", metavar="MODELS", type=Path, help="folder with the models")
    add_weights(parser)
    parser.add_argument("--resolutions", nargs="+", type=float, default=list(RESOLUTIONS), metavar="R", help="Å")
    parser.add_argument(
        "--entries", nargs="+", choices=ENTRIES, default=list(ENTRIES), metavar="MODEL", help="of ENTRIES"
    )


def _run(arguments, output):
    start, weights, rows = time.monotonic(), load_named(arguments.weights), []
    for model, resolution in itertools.product(arguments.entries, arguments.resolutions):
        specimen = make_specimen(read_atoms(arguments.models / model), resolution, belt=ENTRIES[model])
        maps = _maps(specimen.simulation, weights)
        rows += measure(specimen, maps, entry_name(model), resolution)
        output.write_csv(Row._fields, rows)  # after every entry: all of them take long
        print(f"{entry_name(model)} at {resolution:g} Å, {time.monotonic() - start:.0f} s", flush=True)
    means = _means(rows)
    settings = {"resolutions": arguments.resolutions, "entries": arguments.entries, "b_factor": B_FACTOR, "seed": SEED}
    shas = {name: each.card["sha256"] for name, each in weights.items()}
    output.write_json({"settings": settings, "weights": shas, "means": means}, seconds=time.monotonic() - start)
    output.write_figure(_figure(means))
    print("\n".join(_lines(means)))


def _maps(simulation: Simulation, weights: dict[str, Weights]) -> dict[str, np.ndarray]:
    pair = [Map.from_array(half, simulation.voxel_size) for half in (simulation.half_map_1, simulation.half_map_2)]
    maps = {FULL: full_map(pair[0].array, pair[1].array)}
    for name, each in weights.items():
        maps[name] = denoise_maps(read_request(*pair, None, each)).full.array
    return maps


def _means(rows):
    """Return the means by resolution, map, and kind: over the entries, and of the shares over all their pieces."""
    keys = dict.fromkeys((row.resolution, row.map, row.kind) for row in sorted(rows, key=lambda row: row.resolution))
    means = []
    for key in keys:
        chosen = [row for row in rows if (row.resolution, row.map, row.kind) == key]
        mean = dict(zip(("resolution", "map", "kind"), key, strict=True)) | {
            "pieces": sum(row.pieces for row in chosen)
        }
        for name in ("kept", "correlation", "lost", "made_up"):
            found = [(getattr(row, name), row.pieces) for row in chosen if getattr(row, name) is not None]
            values, pieces = zip(*found, strict=True) if found else ((), ())
            weights = pieces if name in ("lost", "made_up") else None
            mean[name] = round(float(np.average(values, weights=weights)), 4) if found else None
        means.append(mean)
    return means


def _lines(means):
    lines = [f"{'Å':>4} {'kind':20} {'map':14} {'pieces':>6} {'kept':>6} {'corr.':>6} {'lost':>6} {'made up':>8}"]
    order = sorted(means, key=lambda mean: (mean["resolution"], KINDS.index(mean["kind"])))
    for mean in order:
        shares = [f"{mean[name]:.1%}" if mean[name] is not None else "" for name in ("lost", "made_up")]
        lines.append(
            f"{mean['resolution']:4g} {mean['kind']:20} {mean['map']:14} {mean['pieces']:6d} {mean['kept']:6.2f} "
            f"{mean['correlation']:6.2f} {shares[0]:>6} {shares[1]:>8}"
        )
    return lines


def _figure(means):
    resolutions = list(dict.fromkeys(mean["resolution"] for mean in means))
    maps = list(dict.fromkeys(mean["map"] for mean in means))
    kinds = [kind for kind in KINDS if any(mean["kind"] == kind for mean in means)]
    figure = Figure(figsize=(4.2 * len(resolutions), 8.5), layout="constrained")
    panels = figure.subplots(3, len(resolutions), squeeze=False, sharey="row")
    for column, resolution in enumerate(resolutions):
        for row, (name, label) in enumerate(
            (("kept", "share kept"), ("lost", "share lost"), ("made_up", "share made up"))
        ):
            axes = panels[row][column]
            for number, map_name in enumerate(maps):
                found = {m["kind"]: m[name] for m in means if (m["resolution"], m["map"]) == (resolution, map_name)}
                places = [place for place, kind in enumerate(kinds) if found.get(kind) is not None]
                heights = [found[kinds[place]] for place in places]
                offset = (number - (len(maps) - 1) / 2) * 0.12
                axes.plot(np.array(places) + offset, heights, "o", color=PALETTE[number], label=map_name, markersize=5)
            axes.set_xticks(range(len(kinds)), kinds if row == 2 else [], rotation=90)
            axes.set(xlim=(-0.6, len(kinds) - 0.4), ylabel=label if column == 0 else None)
            axes.grid(axis="y", alpha=0.3)
            if row == 0:
                axes.set_title(f"{resolution:g} Å")
                axes.axhline(1, color="black", linewidth=0.8)
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=len(maps))
    return figure


STUDY = Study(__name__, _run, _add_arguments)
