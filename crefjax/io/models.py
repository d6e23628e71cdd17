"""Atomic models, read with gemmi, and prepared for a page that shows them with maps."""

from pathlib import Path
from typing import NamedTuple

import gemmi
import numpy as np

from crefjax.errors import UserError

MANY_ATOMS = 40_000  # larger models are shown by their backbone
_BACKBONE = frozenset(("N", "CA", "C", "O", "P", "O3'", "O5'", "C3'", "C4'", "C5'"))


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


class AtomicModel(NamedTuple):
    """A model ready for the page.

    Attributes:
        name: name of its file.
        cif: its atoms as mmCIF.
        positions: of all atoms that are shown, `(n, 3)`, Å, `(x, y, z)`.
        backbone: whether only the backbone is shown.
    """

    name: str
    cif: str
    positions: np.ndarray
    backbone: bool

    def inside(self, origin: tuple[float, float, float], sides: tuple[float, float, float]) -> float:
        """Return the share of the atoms that lie in a box, 0 to 1.

        Args:
            origin: of the box, `(x, y, z)`, Å.
            sides: of the box, `(x, y, z)`, Å.
        """
        relative = self.positions - np.array(origin)
        return float(np.mean(np.all((relative >= 0) & (relative <= np.array(sides)), axis=1)))


def read_model(path: Path | str) -> AtomicModel:
    """Read the first model of a PDB or mmCIF file, without waters and hydrogens.

    Raises:
        UserError: the file is missing or not a model, or no atoms are left.
    """
    path = Path(path)
    structure = read_structure(path)
    structure.remove_waters()
    structure.remove_hydrogens()
    structure.remove_empty_chains()
    backbone = structure[0].count_atom_sites() > MANY_ATOMS
    if backbone:
        _keep_backbone(structure[0])
        structure.remove_empty_chains()
    if structure[0].count_atom_sites() == 0:
        raise no_atoms(path)
    structure.setup_entities()
    groups = gemmi.MmcifOutputGroups(False, block_name=True, entry=True)
    groups.atoms = groups.group_pdb = groups.auth_all = groups.chem_comp = True
    positions = np.array([site.atom.pos.tolist() for site in structure[0].all()], np.float64)
    return AtomicModel(path.name, structure.make_mmcif_document(groups).as_string(), positions, backbone)


def _keep_backbone(model):
    for residue in (residue for chain in model for residue in chain):
        for index in reversed(range(len(residue))):
            if residue[index].name not in _BACKBONE:
                del residue[index]
