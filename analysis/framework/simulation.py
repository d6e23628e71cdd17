"""Simulated entries: their names, the arguments of studies that simulate, and simulation unless it was done before."""

import argparse
from pathlib import Path

from crefjax.errors import UserError
from crefjax.simulate.atoms import Atoms, read_atoms
from crefjax.simulate.half_maps import SimulationConfig, simulate_half_maps, write_entry
from crefjax.simulate.imaging import Particles
from crefjax.simulate.phantom import phantom

METHODS = ("additive", "reconstruction")
_ARGUMENTS = {
    "voxel_size": (float, "Å"),
    "resolution": (float, "where the FSC of the half-maps crosses 0.143, Å"),
    "b_factor": (float, "blur of the signal, Å²"),
    "box": (int, "voxels a side; None for one that fits"),
    "seed": (int, "random seed; does not affect the phantom"),
    "residues": (int, "residues of the phantom"),
    "particles": (int, "images in each half"),
    "pose_error": (float, "standard deviation of orientations, degrees about each axis"),
    "shift_error": (float, "standard deviation of positions, Å along each axis"),
    "preferred_views": (float, "how closely views gather around z"),
    "refinements": (int, "refinements of the reconstruction"),
}
_OF_PARTICLES = {"particles": "count", "pose_error": "pose_error", "shift_error": "shift_error"}
_OF_PARTICLES["preferred_views"] = "preferred"


def add_simulation_arguments(parser: argparse.ArgumentParser, **defaults) -> None:
    """Add the arguments of a simulation that a study leaves to its user.

    Args:
        parser: to add to.
        defaults: of the arguments, by the names in `_ARGUMENTS`.
    """
    for name, default in defaults.items():
        kind, text = _ARGUMENTS[name]
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=kind, default=default, help=f"{text} (default: %(default)s)")


def simulation_settings(arguments: argparse.Namespace, **changes) -> SimulationConfig:
    """Return the settings that `add_simulation_arguments` asked for.

    Args:
        arguments: as parsed.
        changes: other fields of the settings.
    """
    given = vars(arguments)
    particles = Particles(**{field: given[name] for name, field in _OF_PARTICLES.items() if name in given})
    fields = ("voxel_size", "resolution", "seed", "box", "b_factor", "refinements")
    settings = {name: given[name] for name in fields if name in given}
    return SimulationConfig(**settings | {"particles": particles} | changes)


def read_model(model: str, residues: int) -> Atoms:
    """Return the atoms of a PDB or mmCIF file, or of a phantom of so many residues if the model is `phantom`."""
    return phantom(residues) if model == "phantom" else read_atoms(model)


def entry_name(model: str | Path) -> str:
    """Return the name of a model's entry: `8tze` of `8tze.cif.gz`, `1gp2` of `1GP2_target.pdb.gz`."""
    return Path(model).name.split(".")[0].removesuffix("_target").lower()


def check_models(folder: Path, models) -> None:
    """Check that models are in a folder.

    Raises:
        UserError: one is missing.
    """
    for model in models:
        if not (folder / model).is_file():
            raise UserError(f"{folder / model}: expected a model, found none; give the folder that has {model}")


def simulate_entry(model: Path, settings: SimulationConfig | str, folder: Path) -> Path:
    """Return the folder of a model's entry, simulated unless it exists.

    Args:
        model: its file.
        settings: of the simulation, or arguments of `crefjax simulate`.
        folder: of all entries; made if it is missing.

    Raises:
        UserError: it cannot be simulated.
    """
    from crefjax.cli.main import main as crefjax

    path = folder / entry_name(model)
    folder.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        return path
    if isinstance(settings, SimulationConfig):
        write_entry(path, simulate_half_maps(read_atoms(model), settings))
    elif crefjax(["simulate", str(model), "-o", str(path), *settings.split()]) != 0:
        raise UserError(f"{path}: the entry could not be simulated, see above")
    return path
