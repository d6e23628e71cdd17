"""Compare spectrum and solvent of simulated half-maps to those of real maps.

    python -m analysis spectra MAP... --pair ENTRY -o DIR --noise-map MAP

simulates a pair of one model by each method (and, with --noise-map, by additive noise of that map's spectrum), takes
the full map of each, and writes

    spectra.json         settings, versions, and the measurements of every map and pair
    spectra.png, .svg    radial power of map and solvent; the solvent's histogram and its standard deviation from the
                         middle of the box outwards; signal and noise of the pairs

The solvent is found in every map in the same way: outside the particle, which is above a threshold in the map
low-passed to 15 Å, and a margin, and not where the map has one and the same value. The radial power is the mean of
`|F|²` over a shell, divided by the sum of the squared weights of the voxels that were taken, so that white noise has
its variance at every frequency; every map is first scaled so that its solvent has a standard deviation of 1. Of a pair,
the signal is the covariance of the masked half-maps per shell and the noise their mean power less this; both are
divided by the mean noise.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy import ndimage

from analysis.framework.output import unique_handles
from analysis.framework.simulation import add_simulation_arguments, read_model, simulation_settings
from analysis.framework.study import Study
from crefjax.errors import UserError
from crefjax.io.entries import find_entry, load_mask, load_pair
from crefjax.io.maps import Map, full_map, read_map
from crefjax.plotting import BLACK, BLUE, GRAY, GREEN, ORANGE, PINK, SKY, resolution_axis
from crefjax.simulate.half_maps import simulate_half_maps
from crefjax.simulate.noise import measured_spectrum, solvent_distance
from crefjax.spectral.curves import shell_frequencies, solvent_level
from crefjax.spectral.shells import box_shells, half_spectrum, shell_means

BINS = np.linspace(-6, 6, 61)  # of the solvent's histogram, standard deviations
_ANGSTROM = (40.0, 20.0, 10.0)  # at which the power of the solvent is reported
_BLOCK = 8  # voxels, in which the local standard deviation of the solvent is taken
_DISTANCES = 20  # bins from the middle of the box outwards
_FEWEST_VOXELS = 500  # in a bin


def solvent(map_: Map) -> np.ndarray:
    """Return the voxels outside the particle and a margin, bool `(z, y, x)`.

    Raises:
        UserError: less than 5 % of the box is solvent, or the map is masked.
    """
    distance, lowpass = solvent_distance(map_.array, map_.voxel_size)
    outside = distance > lowpass / 2
    if outside.mean() < 0.05:
        raise UserError(
            f"{map_.path or 'the simulated map'}: expected unmasked solvent in at least 5% of the box, found "
            f"{outside.mean():.1%}; give a map that was not masked"
        )
    return outside


def radial_power(array: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """Return the mean of `|F|²` in every shell over the sum of squared weights, `(shells,)`: white noise's variance."""
    weight = np.ones(array.shape, np.float32) if weight is None else weight
    mean = np.average(array, weights=weight) if weight.any() else 0
    spectrum = half_spectrum(np.asarray((array - mean) * weight, np.float32))
    power = shell_means(abs(spectrum) ** 2, box_shells(array.shape))
    return np.asarray(power, np.float64) / np.sum(np.square(weight, dtype=np.float64))


def measure_map(map_: Map) -> dict:
    """Return radial power and solvent of one map; lists, ready for JSON."""
    where = solvent(map_)
    values = map_.array[where].astype(np.float64)
    scaled = ((map_.array - values.mean()) / values.std()).astype(np.float32)
    edge = np.clip(ndimage.distance_transform_edt(where) / 4, 0, 1).astype(np.float32)
    power = radial_power(scaled, edge)
    frequency = shell_frequencies(scaled.shape, map_.voxel_size)
    inside = scaled[where].astype(np.float64)
    counts = np.histogram(inside, BINS)[0]
    distance, spread = _std_by_distance(scaled, where, map_.voxel_size)
    return {
        "box": list(scaled.shape),
        "voxel_size": map_.voxel_size,
        "frequency": _rounded(frequency),
        "power": _rounded(radial_power(scaled)),
        "solvent_power": _rounded(power),
        "solvent_fraction": float(where.mean()),
        "solvent_skewness": float(np.mean(inside**3)),
        "solvent_excess_kurtosis": float(np.mean(inside**4) - 3),
        "solvent_density": _rounded(counts / inside.size / np.diff(BINS)),
        "solvent_distance": _rounded(distance),
        "solvent_deviation": _rounded(spread),
        "solvent_unevenness": _inhomogeneity(scaled, where),
        "solvent_power_at": {
            f"{at:g} Å": float(np.interp(1 / at, frequency, power)) for at in _ANGSTROM if 1 / at <= frequency[-1]
        },
        "solvent_power_at_half_nyquist": float(np.interp(frequency[-1] / 2, frequency, power)),
        "solvent_power_at_0.9_nyquist": float(np.interp(0.9 * frequency[-1], frequency, power)),
    }


def measure_pair(half_map_1: np.ndarray, half_map_2: np.ndarray, mask: np.ndarray) -> dict:
    """Return signal and noise per shell of two half-maps under a mask, over the mean noise."""
    shells = box_shells(half_map_1.shape)
    f1, f2 = (half_spectrum(half_map * mask) for half_map in (half_map_1, half_map_2))
    cross, p1, p2 = (
        np.asarray(shell_means(products, shells), np.float64)
        for products in (f1.real * f2.real + f1.imag * f2.imag, abs(f1) ** 2, abs(f2) ** 2)
    )
    noise = np.sqrt(p1 * p2) - cross
    scale = noise[1:-1].mean()
    return {
        "of_nyquist": _rounded(np.linspace(0, 1, len(noise))),
        "signal": _rounded(cross / scale),
        "noise": _rounded(noise / scale),
        "fsc": _rounded(cross / np.sqrt(p1 * p2)),
    }


def _std_by_distance(scaled, where, voxel_size):
    """Return the solvent's standard deviation by distance from the middle of the box, where voxels are enough."""
    grid = np.meshgrid(*((np.arange(side) - side // 2) * voxel_size for side in scaled.shape), indexing="ij")
    distance = np.sqrt(sum(axis**2 for axis in grid))[where]
    bins = np.minimum((distance / distance.max() * _DISTANCES).astype(int), _DISTANCES - 1)
    count = np.bincount(bins, minlength=_DISTANCES)
    squares = np.bincount(bins, scaled[where].astype(np.float64) ** 2, minlength=_DISTANCES)
    kept = count > _FEWEST_VOXELS
    centers = (np.arange(_DISTANCES)[kept] + 0.5) / _DISTANCES * distance.max()
    return centers, np.sqrt(squares[kept] / count[kept])


def _inhomogeneity(scaled, where):
    """Return standard deviation over mean of the local one, in blocks that are all solvent; None if they are few."""
    blocks = [side // _BLOCK for side in scaled.shape]
    cut = tuple(slice(0, number * _BLOCK) for number in blocks)
    shape = [part for number in blocks for part in (number, _BLOCK)]
    inside = where[cut].reshape(shape).all(axis=(1, 3, 5))
    local = scaled[cut].reshape(shape).std(axis=(1, 3, 5))[inside]
    return float(local.std() / local.mean()) if len(local) >= 8 else None


def _rounded(values):
    return [float(f"{value:.6g}") for value in values]


def figure(maps: dict, pairs: dict, real: Sequence[str]) -> Figure:
    """Draw five panels; simulated maps are solid lines, real ones (named in `real`) dashed.

    Args:
        maps: results of `measure_map` by name.
        pairs: results of `measure_pair` by name.
        real: names of real maps and pairs.
    """
    styles = _styles([*maps, *pairs], real)
    page = Figure(figsize=(11.5, 7), layout="constrained")
    panels = page.subplots(2, 3).ravel()
    highest = max(of_map["frequency"][-1] for of_map in maps.values())
    for axes, field, title in ((panels[0], "power", "whole map"), (panels[1], "solvent_power", "solvent")):
        for name, of_map in maps.items():
            axes.plot(of_map["frequency"][1:], of_map[field][1:], **styles[name])
        axes.set(yscale="log", title=f"Power of the {title}", ylabel="Power (variance of the solvent = 1)")
        resolution_axis(axes, highest)
    middle = (BINS[1:] + BINS[:-1]) / 2
    for name, of_map in maps.items():
        panels[2].plot(middle, np.maximum(of_map["solvent_density"], 1e-9), **styles[name])
        panels[3].plot(of_map["solvent_distance"], of_map["solvent_deviation"], **styles[name])
    gaussian = np.exp(-(middle**2) / 2) / np.sqrt(2 * np.pi)
    panels[2].plot(middle, gaussian, color=GRAY, linestyle=":", label="Gaussian")
    panels[2].set(yscale="log", ylim=(1e-6, 1), title="Voxels of the solvent")
    panels[2].set(xlabel="Density (standard deviations)", ylabel="Probability density")
    panels[3].set(title="Standard deviation of the solvent", ylim=(0, None))
    panels[3].set(xlabel="Distance from the middle (Å)", ylabel="Standard deviation")
    for name, pair in pairs.items():
        x, signal = pair["of_nyquist"][1:], np.where(np.array(pair["fsc"]) > 0.05, pair["signal"], np.nan)
        panels[4].plot(x, pair["noise"][1:], **styles[name])
        panels[4].plot(x, signal[1:], **styles[name] | {"label": None, "linestyle": "", "marker": "."})
    panels[4].set(yscale="log", xlim=(0, 1), title="Pairs: noise (line), signal (points)")
    panels[4].set(xlabel="Frequency over Nyquist", ylabel="Power (mean noise = 1)")
    handles = unique_handles(panels[:5])
    panels[5].axis("off")
    panels[5].legend(handles.values(), handles.keys(), loc="center", frameon=False)
    return page


def _styles(names, real):
    colors = {True: itertools.cycle((BLACK, PINK, SKY, GRAY)), False: itertools.cycle((BLUE, ORANGE, GREEN))}
    styles = {}
    for name in dict.fromkeys(names):
        line = "--" if name in real else "-"
        styles[name] = {"color": next(colors[name in real]), "linestyle": line, "label": name, "linewidth": 1.4}
    return styles


def _add_arguments(parser):
    parser.add_argument("maps", metavar="MAP", nargs="*", help="real map with unmasked solvent")
    parser.add_argument("--pair", metavar="ENTRY", action="append", default=[], help="entry folder of a real pair")
    parser.add_argument("--model", default="phantom", help="PDB or mmCIF file, or phantom (default: %(default)s)")
    parser.add_argument("--noise-map", metavar="MAP", help="also simulate additive noise of this map's spectrum")
    parser.add_argument("--noise-until", type=float, help="Å, finer than which that noise is taken to be level")
    add_simulation_arguments(
        parser,
        **{"voxel_size": 1.742, "resolution": 6.6, "box": None, "seed": 0, "residues": 400},
        **{"particles": 1000, "pose_error": 0.0, "refinements": 1},
    )


def _run(arguments, output):
    real = {path.name.split(".")[0]: read_map(path) for path in map(Path, arguments.maps)}
    real_pairs = {Path(path).name: _load_entry(path) for path in arguments.pair}
    if len(real) < len(arguments.maps) or len(real_pairs) < len(arguments.pair):
        raise UserError("expected every map and pair once, under a name of its own; leave one out")
    simulations = _simulate(arguments)
    maps, pairs = {}, {}
    for name, simulation in simulations.items():
        first, second = simulation.half_map_1, simulation.half_map_2
        maps[name] = measure_map(Map.from_array(full_map(first, second), simulation.voxel_size))
        pairs[name] = measure_pair(first, second, simulation.mask)
    maps |= {name: measure_map(map_) for name, map_ in real.items()}
    pairs |= {name: measure_pair(*pair) for name, pair in real_pairs.items()}
    for name, of_map in maps.items():
        unevenness = math.nan if of_map["solvent_unevenness"] is None else of_map["solvent_unevenness"]
        print(
            f"{name}: solvent {of_map['solvent_fraction']:.0%} of the box, skewness {of_map['solvent_skewness']:.2f}, "
            f"excess kurtosis {of_map['solvent_excess_kurtosis']:.2f}, unevenness {unevenness:.2f}"
        )
    curves = ("frequency", "fsc")
    reports = {
        name: {key: value for key, value in simulation.report.items() if key not in curves}
        for name, simulation in simulations.items()
    }
    settings = {key: value for key, value in vars(arguments).items() if key not in ("output", "overwrite")}
    output.write_json({"settings": settings, "simulated": reports, "maps": maps, "pairs": pairs})
    output.write_figure(figure(maps, pairs, [*real, *real_pairs]))
    print(f"wrote {output.folder / output.name}.json, .png, .svg")


def _simulate(arguments):
    settings = simulation_settings(arguments)
    settings.particles.check()
    variants = {"additive, white": {}}
    if arguments.noise_map:
        spectrum = measured_spectrum(read_map(arguments.noise_map), until=arguments.noise_until)
        variants[f"additive, {Path(arguments.noise_map).name.split('.')[0]}'s spectrum"] = {"noise": spectrum}
    variants["reconstruction"] = {"method": "reconstruction"}
    atoms = read_model(arguments.model, arguments.residues)
    return {
        name: simulate_half_maps(atoms, dataclasses.replace(settings, **changes)) for name, changes in variants.items()
    }


def _load_entry(path):
    """Return the arrays of a real pair, less their solvent levels, and its mask; the whole box without one."""
    entry = find_entry(path)
    first, second = load_pair(entry.half_map_1, entry.half_map_2)
    mask = load_mask(entry.mask, first).array if entry.mask else np.ones_like(first.array)
    halves = [half_map.array - np.float32(solvent_level(half_map.array, mask)) for half_map in (first, second)]
    return *halves, mask


STUDY = Study(__name__, _run, _add_arguments)
