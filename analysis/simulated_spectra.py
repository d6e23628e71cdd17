"""Spectrum and solvent of simulated half-maps beside those of real maps.

    python -m analysis.simulated_spectra MAP... --pair ENTRY -o DIR --noise-map MAP

simulates a pair of one model by each method (and, with --noise-map, by additive noise of that map's colour), takes the
full map of each, and writes

    simulated_spectra.json         settings, versions, and what was measured of every map and pair
    simulated_spectra.png, .svg    radial power of map and solvent; the solvent's histogram and its deviation from the
                                   middle of the box outwards; signal and noise of the pairs

What is measured of a map and of a pair is told in `map_spectra.py`.
"""

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure

from analysis.files import check_output, put, run_study
from analysis.map_spectra import BINS, measure_map, measure_pair
from crefjax import __version__
from crefjax.errors import UserError
from crefjax.io.entries import find_entry, load_mask, load_pair
from crefjax.io.maps import Map, read_map
from crefjax.plotting import BLUE, GREEN, GREY, ORANGE, figure_bytes, resolution_axis
from crefjax.simulate.atoms import read_atoms
from crefjax.simulate.half_maps import SimulationConfig, simulate_half_maps
from crefjax.simulate.imaging import Particles
from crefjax.simulate.noise import measured_spectrum
from crefjax.simulate.phantom import phantom
from crefjax.spectral.curves import solvent_level

NAME = "simulated_spectra"
SKY, PURPLE, BLACK = "#56B4E9", "#CC79A7", "#000000"  # further colours of Okabe & Ito
_SIMULATED, _REAL = (BLUE, ORANGE, GREEN), (BLACK, PURPLE, SKY, GREY)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study; returns 0, or 2 after a mistake of the user's, told in one line."""
    return run_study(NAME, _parser(), _run, argv)


def figure(maps: dict, pairs: dict, real: Sequence[str]) -> Figure:
    """Five panels; simulated maps are solid lines, real ones (named in `real`) dashed.

    Args:
        maps: results of `measure_map` by name.
        pairs: results of `measure_pair` by name.
        real: names of what is real.
    """
    styles = _styles([*maps, *pairs], real)
    drawn = Figure(figsize=(11.5, 7), layout="constrained")
    panels = drawn.subplots(2, 3).ravel()
    highest = max(one["frequency"][-1] for one in maps.values())
    for axes, field, title in ((panels[0], "power", "whole map"), (panels[1], "solvent_power", "solvent")):
        for name, one in maps.items():
            axes.plot(one["frequency"][1:], one[field][1:], **styles[name])
        axes.set(yscale="log", title=f"Power of the {title}", ylabel="Power (variance of the solvent = 1)")
        resolution_axis(axes, highest)
    middle = (BINS[1:] + BINS[:-1]) / 2
    for name, one in maps.items():
        panels[2].plot(middle, np.maximum(one["solvent_density"], 1e-9), **styles[name])
        panels[3].plot(one["solvent_distance"], one["solvent_deviation"], **styles[name])
    gaussian = np.exp(-(middle**2) / 2) / np.sqrt(2 * np.pi)
    panels[2].plot(middle, gaussian, color=GREY, linestyle=":", label="Gaussian")
    panels[2].set(
        yscale="log",
        ylim=(1e-6, 1),
        title="Voxels of the solvent",
        xlabel="Density (deviations)",
        ylabel="Probability density",
    )
    panels[3].set(
        title="Deviation of the solvent", xlabel="Distance from the middle (Å)", ylabel="Deviation", ylim=(0, None)
    )
    for name, one in pairs.items():
        panels[4].plot(one["of_nyquist"][1:], one["noise"][1:], **styles[name])
        signal = np.where(np.array(one["fsc"]) > 0.05, one["signal"], np.nan)
        panels[4].plot(
            one["of_nyquist"][1:], signal[1:], **styles[name] | {"label": None, "linestyle": "", "marker": "."}
        )
    panels[4].set(
        yscale="log",
        xlim=(0, 1),
        title="Pairs: noise (line), signal (points)",
        xlabel="Frequency over Nyquist",
        ylabel="Power (mean noise = 1)",
    )
    handles = {}
    for axes in panels[:5]:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    panels[5].axis("off")
    panels[5].legend(handles.values(), handles.keys(), loc="center", frameon=False)
    return drawn


def _styles(names, real):
    colours = {True: iter(_REAL * 9), False: iter(_SIMULATED * 9)}
    made = {}
    for name in dict.fromkeys(names):
        is_real = name in real
        made[name] = {
            "color": next(colours[is_real]),
            "linestyle": "--" if is_real else "-",
            "label": name,
            "linewidth": 1.4,
        }
    return made


def _run(arguments):
    folder = Path(arguments.output)
    check_output(folder, f"{NAME}.json", overwrite=arguments.overwrite)
    real = {path.name.split(".")[0]: read_map(path) for path in map(Path, arguments.maps)}
    real_pairs = {Path(path).name: _load_entry(path) for path in arguments.pair}
    if len(real) < len(arguments.maps) or len(real_pairs) < len(arguments.pair):
        raise UserError("expected every map and pair once, under a name of its own; leave one out")
    made = _simulations(arguments)
    pairs = {name: (one.half_map_1, one.half_map_2, one.mask) for name, one in made.items()} | real_pairs
    fulls = {name: Map.from_array((one.half_map_1 + one.half_map_2) / 2, one.voxel_size) for name, one in made.items()}
    maps = {name: measure_map(one) for name, one in (fulls | real).items()}
    measured_pairs = {name: measure_pair(*three) for name, three in pairs.items()}
    for name, one in maps.items():
        print(
            f"{name}: solvent {one['solvent_fraction']:.0%} of the box, skewness {one['solvent_skewness']:.2f}, excess "
            f"kurtosis {one['solvent_excess_kurtosis']:.2f}, unevenness {one['solvent_unevenness']:.2f}"
        )
    report = _report(arguments, made) | {"maps": maps, "pairs": measured_pairs}
    drawn = figure(maps, measured_pairs, [*real, *real_pairs])
    folder.mkdir(exist_ok=True)
    put(folder / f"{NAME}.json", (json.dumps(report, indent=1) + "\n").encode())
    for kind in ("png", "svg"):
        put(folder / f"{NAME}.{kind}", figure_bytes(drawn, kind))
    print(f"wrote {folder}/{NAME}.json, .png, .svg")
    return 0


def _report(arguments, made):
    modules = {module.__name__: module.__version__ for module in (jax, np)}
    return {
        "study": NAME,
        "settings": {key: value for key, value in vars(arguments).items() if key not in ("output", "overwrite")},
        "versions": {"crefjax": __version__, "python": platform.python_version(), **modules},
        "simulated": {name: _without_curves(one.report) for name, one in made.items()},
    }


def _simulations(arguments):
    atoms = phantom(arguments.residues) if arguments.model == "phantom" else read_atoms(arguments.model)
    plain = SimulationConfig(
        voxel_size=arguments.voxel_size,
        resolution=arguments.resolution,
        seed=arguments.seed,
        box=arguments.box,
        particles=Particles(arguments.particles, arguments.pose_error),
        refinements=arguments.refinements,
    )
    plain.particles.check()
    wanted = {"additive, white": {}}
    if arguments.noise_map:
        colour = measured_spectrum(read_map(arguments.noise_map), until=arguments.noise_until)
        wanted[f"additive, {Path(arguments.noise_map).name.split('.')[0]}'s colour"] = {"noise": colour}
    wanted["reconstruction"] = {"method": "reconstruction"}
    return {
        name: simulate_half_maps(atoms, SimulationConfig(**{**vars(plain), **changes}))
        for name, changes in wanted.items()
    }


def _load_entry(path):
    """The arrays of a real pair, less their solvent levels, and its mask; all of the box where there is none."""
    entry = find_entry(path)
    first, second = load_pair(entry.half_map_1, entry.half_map_2)
    mask = load_mask(entry.mask, first).array if entry.mask else np.ones_like(first.array)
    halves = [one.array - np.float32(solvent_level(one.array, mask)) for one in (first, second)]
    return *halves, mask


def _without_curves(report):
    return {key: value for key, value in report.items() if key not in ("frequency", "fsc")}


def _parser():
    parser = argparse.ArgumentParser(
        prog=f"python -m analysis.{NAME}",
        description="Spectrum and solvent of simulated half-maps beside those of real maps.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("maps", metavar="MAP", nargs="*", help="real map with unmasked solvent")
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="folder to write")
    parser.add_argument("--pair", metavar="ENTRY", action="append", default=[], help="entry folder of a real pair")
    parser.add_argument("--model", default="phantom", help="PDB or mmCIF file, or phantom")
    parser.add_argument("--noise-map", metavar="MAP", help="also simulate additive noise of this map's colour")
    for name, kind, default, text in (
        ("--noise-until", float, None, "Å, finer than which that noise is taken to be level"),
        ("--voxel-size", float, 1.742, "Å"),
        ("--resolution", float, 6.6, "where the FSC of the half-maps crosses 0.143, Å"),
        ("--box", int, None, "voxels; none to have it chosen"),
        ("--seed", int, 0, "random seed; does not affect the phantom"),
        ("--residues", int, 400, "of the phantom"),
        ("--particles", int, 1000, "images in each half"),
        ("--pose-error", float, 0.0, "of orientations, degrees about each axis"),
        ("--refinements", int, 1, "of the reconstruction"),
    ):
        parser.add_argument(name, type=kind, default=default, help=text)
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier run wrote")
    return parser


if __name__ == "__main__":
    sys.exit(main())
