"""Atomic models: read with gemmi."""

from pathlib import Path

import gemmi

from crefjax.errors import UserError


def read_structure(path: Path) -> gemmi.Structure:
    """Read the first model of a PDB or mmCIF file, plain or `.gz`.

    Raises:
        UserError: the file is missing or not a model.
    """
    if not path.is_file():
        raise UserError(f"{path}: expected an atomic model (PDB or mmCIF), found no such file; check the path")
    try:
        structure = gemmi.read_structure(str(path))
    except (OSError, RuntimeError, ValueError, UnicodeDecodeError) as error:
        why = " ".join(str(error).replace(str(path), "").split())
        raise UserError(f"{path}: expected an atomic model (PDB or mmCIF), cannot be read: {why}") from error
    if len(structure) == 0:
        raise no_atoms(path)
    del structure[1:]
    return structure


def no_atoms(path) -> UserError:
    """Return the error for a model without usable atoms."""
    return UserError(
        f"{path}: expected an atomic model (PDB or mmCIF), found no atoms but hydrogens and waters; give another"
    )
