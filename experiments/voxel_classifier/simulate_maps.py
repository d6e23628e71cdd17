"""Simulate labeled maps for the voxel classifier: deposited-like maps with the labels of their models.

    python -m experiments.voxel_classifier.simulate_maps ../shared/models/cryoem/*.gz ../shared/models/em/*.gz -o DIR

For each model and variant, half-maps are simulated on the grid of 1 Å with FSC-0.143 at 2.5 to 10 Å. Their mean is
weighted by C_ref, sharpened, low-passed, and sometimes high-passed, as deposited maps are. Besides the model and the
solvent's noise it shows, by chance: a belt of disordered density, blobs like contaminating ice, and flexible parts;
some maps are masked. In some pairs a part of the chains is left out of the model; these are to be found by the
similarity of map and model. With `--filaments`, the model is repeated along a helix that runs through the box; with
`--plain`, the maps show the model and the noise alone. Maps that are there already are kept. About 10 s a map of 180 Å
on two cores.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
import scipy.fft

from analysis.framework.command import run_command
from crefjax.data.grid import UNIT_VOXEL, scale_density
from crefjax.data.labeled_maps import MAP, STRUCTURE
from crefjax.errors import UserError
from crefjax.masking.threshold import estimate_contour
from crefjax.simulate.atoms import Atoms, from_structure, read_atoms
from crefjax.simulate.half_maps import Simulation, SimulationConfig, simulate_half_maps
from crefjax.simulate.noise import b_factor_spectrum
from crefjax.simulate.specimen import Belt, Flexible
from crefjax.simulate.voxel_labels import atom_density, similarity, similarity_threshold
from crefjax.spectral.fsc import fsc_curve
from experiments.configs.weights import EXCLUDE, HELD_OUT
from experiments.voxel_classifier.filament import build_filament, filament_box

RESOLUTIONS = (2.5, 10.0)  # Å
LARGEST = 180.0  # Å, of a model: larger ones take minutes
# Shares of the maps in which each of these is to be seen.
CHANCES = {"belt": 0.35, "blobs": 0.5, "flexible": 0.25, "masked": 0.15, "incomplete": 0.12, "high_pass": 0.3}
HIGH_PASS = (15.0, 60.0)  # Å, above which a high-passed map has lost its density
MOST_BLUR = 900.0  # Å²
RECORD = "pair.json"
LEAST_MAPS = 3  # for a threshold of the similarity


@dataclass(frozen=True, eq=False)
class LabeledPair:
    """A simulated map with the labels of its model.

    Attributes:
        map: float32 `(z, y, x)`, 0 to 1, on the grid of 1 Å.
        structure: whether a voxel is structure, bool, the same shape.
        half_maps: the two half-maps that it was made of.
        mask: soft, 0 to 1, around the particle.
        record: `resolution`, `similarity`, `complete`, and what was drawn.
    """

    map: np.ndarray
    structure: np.ndarray
    half_maps: tuple[np.ndarray, np.ndarray]
    mask: np.ndarray
    record: dict


def simulate_pair(
    atoms: Atoms, random: np.random.Generator, *, filament: bool = False, plain: bool = False
) -> LabeledPair:
    """Simulate a map as one would be deposited, with the labels of its model.

    Args:
        atoms: the model.
        random: of all that is drawn.
        filament: whether the model is repeated along a helix that runs through the box.
        plain: whether the map shows the model and the noise alone, with no belt, blobs, flexible parts, or mask.
    """
    if filament:
        atoms = build_filament(atoms, random)
    resolution = float(np.exp(random.uniform(*np.log(RESOLUTIONS))))
    drawn = {name: bool(random.random() < share) and not plain for name, share in CHANCES.items()}
    settings = SimulationConfig(
        voxel_size=UNIT_VOXEL,
        resolution=resolution,
        seed=int(random.integers(2**31)),
        margin=float(random.uniform(10, 35)),
        b_factor=min(float(random.uniform(2, 14)) * resolution**2, MOST_BLUR),
        noise=b_factor_spectrum(float(random.uniform(-2, 6) * resolution**2)),
        unevenness=float(random.uniform(0, 0.4)),
        belt=Belt(strength=float(random.uniform(0.3, 0.9))) if drawn["belt"] else None,
        flexible=Flexible(fraction=0.2) if drawn["flexible"] else None,
    )
    simulation = simulate_half_maps(atoms, settings)
    blobs = _blobs(simulation, random) if drawn["blobs"] else np.float32(0)
    half_maps = simulation.half_map_1 + blobs, simulation.half_map_2 + blobs
    array = _deposited(simulation, (half_maps[0] + half_maps[1]) / 2, resolution, drawn["high_pass"], random)
    if drawn["masked"]:
        array *= simulation.mask
    model = _without_chains(simulation.atoms, random) if drawn["incomplete"] else simulation.atoms
    density, structure = atom_density(model, array.shape, UNIT_VOXEL, (0.0, 0.0, 0.0), resolution)
    found = similarity(array, density, estimate_contour(array))
    record = {
        "model": atoms.source,
        "resolution": round(resolution, 3),
        "complete": len(model) == len(atoms),
        "similarity": round(found.value, 5),
        "core": round(found.core, 5),
        "settings": {name: simulation.report["parameters"][name] for name in ("seed", "margin", "b_factor", "belt")},
        "drawn": drawn,
    }
    box = (slice(None),) * 3
    if filament:
        box = filament_box(simulation.mask, round(settings.margin / UNIT_VOXEL), random)
    half_maps = half_maps[0][box], half_maps[1][box]
    return LabeledPair(scale_density(array[box], UNIT_VOXEL), structure[box], half_maps, simulation.mask[box], record)


def _deposited(simulation: Simulation, full: np.ndarray, resolution: float, high_pass: bool, random) -> np.ndarray:
    """The full map weighted by C_ref, sharpened, low-passed, and maybe high-passed, with the solvent at 0."""
    fsc = fsc_curve(simulation.half_map_1, simulation.half_map_2, UNIT_VOXEL, simulation.mask).fsc
    fsc = np.convolve(np.pad(np.clip(fsc, 0, 1), 1, "edge"), np.ones(3) / 3, "valid")
    weight = np.sqrt(2 * fsc / (1 + fsc))
    frequency = np.arange(len(fsc)) / (max(full.shape) * UNIT_VOXEL)
    sharpen = float(random.uniform(0, 1.1)) * simulation.report["parameters"]["b_factor"]
    edge = np.clip((frequency * resolution * float(random.uniform(0.85, 1.1)) - 0.95) / 0.2, 0, 1)
    factor = weight * np.exp(sharpen * np.minimum(frequency, 1 / resolution) ** 2 / 4)
    factor *= 0.5 + 0.5 * np.cos(np.pi * edge)
    if high_pass:
        length, depth = float(random.uniform(*HIGH_PASS)), float(random.uniform(0.4, 1))
        factor *= 1 - depth * np.exp(-((frequency * length) ** 2))
    radius = np.sqrt(
        sum(
            np.square(k).reshape([-1 if axis == other else 1 for other in range(3)])
            for axis, k in enumerate(
                [
                    *(scipy.fft.fftfreq(side, UNIT_VOXEL) for side in full.shape[:2]),
                    scipy.fft.rfftfreq(full.shape[2], UNIT_VOXEL),
                ]
            )
        )
    )
    spectrum = scipy.fft.rfftn(full, workers=-1) * np.interp(radius, frequency, factor, right=0).astype(np.float32)
    out = scipy.fft.irfftn(spectrum, s=full.shape, workers=-1).astype(np.float32)
    return out - np.float32(np.median(out[simulation.mask == 0])) if (simulation.mask == 0).any() else out


def _blobs(simulation: Simulation, random) -> np.ndarray:
    """Round blobs in the solvent, away from the particle, as ice contamination leaves them."""
    total = np.zeros(simulation.truth.shape, np.float32)
    solvent = np.flatnonzero(simulation.mask == 0)
    if not len(solvent):
        return total
    top = float(np.quantile(simulation.truth[simulation.mask > 0.5], 0.9))
    for _ in range(int(random.integers(3, 25))):
        center = np.unravel_index(solvent[random.integers(len(solvent))], total.shape)
        width, height = float(random.uniform(1.5, 5)), top * float(random.uniform(0.2, 1.2))
        reach = int(np.ceil(4 * width))
        spans = zip(map(int, center), total.shape, strict=True)
        box = tuple(slice(max(c - reach, 0), min(c + reach + 1, side)) for c, side in spans)
        grid = np.ogrid[box]
        squared = sum((axis - c) ** 2 for axis, c in zip(grid, center, strict=True))
        total[box] += (height * np.exp(-squared / (2 * width**2))).astype(np.float32)
    return total


def _without_chains(atoms: Atoms, random) -> Atoms:
    """The model without about two thirds of its atoms: whole chains, or the end of a model of one chain."""
    structure = atoms.structure.clone()
    names = [chain.name for chain in structure[0]]
    if len(names) > 2:
        for name in random.permutation(names)[: round(2 * len(names) / 3)]:
            structure[0].remove_chain(str(name))
    else:
        for chain in structure[0]:
            del chain[len(chain) // 3 :]
    structure.remove_empty_chains()
    return from_structure(structure, atoms.source)


def simulate_maps(
    models: Sequence[Path],
    folder: Path,
    *,
    variants: int,
    seed: int,
    half_maps: bool = False,
    filaments: bool = False,
    plain: bool = False,
) -> None:
    """Simulate the labeled maps of models that are not in a folder yet.

    Args:
        models: files of atomic models.
        folder: to write a folder for each map into.
        variants: of every model.
        seed: of all that is drawn; a map depends on it, on its model's name, and on its variant alone.
        half_maps: whether half-maps and a mask are written too, so that each folder is an entry for denoisers.
        filaments: whether the models are repeated along a helix; the names of their folders end in `_filament`.
        plain: whether the maps show the model and the noise alone; the names of their folders end in `_plain`.
    """
    ending = ("_filament" if filaments else "") + ("_plain" if plain else "")
    for path in models:
        name = path.name.split(".")[0]
        atoms = None
        for variant in range(variants):
            target = folder / f"{name}_{variant}{ending}"
            if (target / RECORD).is_file():
                continue
            atoms = atoms or read_atoms(path)
            if max(atoms.extent) > LARGEST:
                print(f"skipped {name}: {max(atoms.extent):.0f} Å long, more than {LARGEST:g} Å")
                break
            random = np.random.default_rng([seed, variant, *name.encode()])
            try:
                pair = simulate_pair(atoms, random, filament=filaments, plain=plain)
            except UserError as error:
                print(f"skipped {target.name}: {error}")
                continue
            target.mkdir(parents=True, exist_ok=True)
            _write(target / MAP, pair.map.astype(np.float16))
            _write(target / STRUCTURE, pair.structure.astype(np.int8))
            if half_maps:
                for number, half_map in enumerate(pair.half_maps, start=1):
                    _write(target / f"half_map_{number}.mrc", half_map.astype(np.float32))
                _write(target / "mask.mrc", pair.mask.astype(np.float16))
            (target / RECORD).write_text(json.dumps(pair.record, indent=1) + "\n")  # last: with it the map is whole
            print(f"{target.name}: {pair.record['resolution']:.2f} Å, similarity {pair.record['similarity']:.3f}")


def _write(path: Path, array: np.ndarray) -> None:
    with mrcfile.new(path, array, overwrite=True) as mrc:  # of half the size of what `write_map` writes
        mrc.voxel_size = UNIT_VOXEL


def usable_maps(folder: Path) -> tuple[list[Path], float, int]:
    """Return the folders of the maps that fit their models, the threshold of the similarity, and how many do not.

    Raises:
        UserError: there are too few maps to tell what is usual.
    """
    records = {path.parent: json.loads(path.read_text()) for path in sorted(folder.glob(f"*/{RECORD}"))}
    if len(records) < LEAST_MAPS:
        raise UserError(
            f"{folder}: expected {LEAST_MAPS} maps or more to compare similarities, found {len(records)}; simulate more"
        )
    threshold = similarity_threshold([record["similarity"] for record in records.values()])
    kept = [path for path, record in records.items() if record["similarity"] >= threshold]
    return kept, threshold, len(records) - len(kept)


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate the maps; return 0, or 2 after a user's mistake, reported in one line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.voxel_classifier.simulate_maps", description=__doc__.splitlines()[0]
    )
    parser.add_argument("models", metavar="MODEL", type=Path, nargs="+", help="atomic models")
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, required=True, help="folder to write")
    parser.add_argument("--variants", metavar="N", type=int, default=1, help="maps of every model (default: 1)")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="random seed (default: 0)")
    parser.add_argument("--half-maps", action="store_true", help="also write half-maps and masks, for evaluation")
    parser.add_argument("--filaments", action="store_true", help="repeat the models along helices through the box")
    parser.add_argument("--plain", action="store_true", help="simulate the model and the noise alone")
    parser.add_argument(
        "--exclude",
        metavar="NAMES",
        default=f"{EXCLUDE},{HELD_OUT}",
        help="names of models to leave out, with commas (default: those that the denoiser was not trained on)",
    )
    return run_command("simulate_maps", parser, _run, argv)


def _run(arguments):
    excluded = set(arguments.exclude.split(","))
    models = [path for path in arguments.models if path.name.split(".")[0] not in excluded]
    simulate_maps(
        models,
        arguments.output,
        variants=arguments.variants,
        seed=arguments.seed,
        half_maps=arguments.half_maps,
        filaments=arguments.filaments,
        plain=arguments.plain,
    )
    kept, threshold, dropped = usable_maps(arguments.output)
    print(f"{len(kept)} maps fit their models (similarity at least {threshold:.3f}); {dropped} do not")


if __name__ == "__main__":
    sys.exit(main())
