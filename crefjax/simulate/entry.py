"""A simulated pair of half-maps, and the entry folder that it is written to."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crefjax.errors import UserError
from crefjax.io.maps import Map, write_map
from crefjax.simulate.atoms import Atoms, write_model
from crefjax.utils.atomic import DISK_FULL, atomic_directory

_REPORT = "entry.json"


@dataclass(frozen=True, eq=False)
class Simulation:
    """Half-maps with their truth; all arrays float32 `(z, y, x)` of one cubic box, whose first voxel is at 0, 0, 0.

    Attributes:
        half_map_1: signal and noise.
        half_map_2: the same signal, other noise.
        mask: soft, 0 to 1, under which the FSC was set.
        truth: the signal without any noise.
        voxel_size: Å.
        atoms: the model at the box's coordinates.
        report: every parameter, and the FSC reached: what `entry.json` says.
    """

    half_map_1: np.ndarray
    half_map_2: np.ndarray
    mask: np.ndarray
    truth: np.ndarray
    voxel_size: float
    atoms: Atoms
    report: dict


def check_folder(folder, *, overwrite: bool = False) -> None:
    """Check, before long work, that an entry can be written; writes nothing.

    Raises:
        UserError: the folder is there and is not to be replaced, or is no simulated entry; or its parent is
            missing or not writable.
    """
    folder = Path(folder)
    if os.path.lexists(folder):
        if not overwrite:
            raise UserError(f"{folder}: exists and is not replaced; choose another name or give --overwrite")
        if folder.is_symlink() or not (folder / _REPORT).is_file():
            raise UserError(
                f"{folder}: expected a simulated entry to replace, found no {_REPORT} in it; choose another name"
            )
    parent = folder.absolute().parent
    if not parent.is_dir():
        raise UserError(f"{folder}: the folder {parent} does not exist; make it first")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"{folder}: the folder {parent} is not writable; choose another one")


def write_entry(folder, simulation: Simulation, *, overwrite: bool = False) -> None:
    """Write `half_map_1.mrc`, `half_map_2.mrc`, `mask.mrc`, `truth.mrc`, `model.cif` and `entry.json` as a folder.

    Written beside its place and renamed into it, whole or not at all. The same simulation gives the same bytes.

    Args:
        folder: where to; its parent must be there.
        simulation: what to write.
        overwrite: whether an entry that is there, and was simulated, is replaced with all that is in it.

    Raises:
        UserError: `check_folder` refuses, or the file system does; then nothing has been left behind.
    """
    folder = Path(folder)
    check_folder(folder, overwrite=overwrite)
    try:
        with atomic_directory(folder) as hidden:
            _write_files(hidden, simulation)
            check_folder(folder, overwrite=overwrite)
    except OSError as error:
        no_space = error.errno in DISK_FULL
        what = "make room or choose another folder" if no_space else "check the disk"
        raise UserError(
            f"{folder}: cannot be written ({error.strerror or error}), nothing was left behind; {what}"
        ) from error
    except UserError as error:  # tells of a file in the hidden folder, which nobody knows
        raise UserError(re.sub(r"\S*\.crefjax-\w+\.tmp", lambda _: str(folder), str(error))) from error


def _write_files(folder, simulation):
    for name in ("half_map_1", "half_map_2", "mask", "truth"):
        map_ = Map.from_array(getattr(simulation, name), simulation.voxel_size)
        write_map(folder / f"{name}.mrc", map_, label=f"crefjax simulate: {name}")
    sides = tuple(side * simulation.voxel_size for side in reversed(simulation.truth.shape))
    write_model(folder / "model.cif", simulation.atoms, sides)
    text = json.dumps(simulation.report, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    (folder / _REPORT).write_text(text, encoding="utf-8", errors="backslashreplace")  # a file's name may be any bytes
