"""The parts of an atomic model by their kind: protein, nucleic acids, ligands, glycans, lipids, and ions.

A *piece* is what may vanish or be made up as a whole: a residue, or an ion.
"""

from dataclasses import dataclass

import gemmi
import numpy as np

from crefjax.simulate.atoms import Atoms, from_structure

PARTIAL = "protein at 30 %"
OCCUPANCY = 0.3
_PARTIAL_SHARE = 0.12  # of the residues of the longest protein chain
# Component ids of lipids, sterols, and detergents in deposited models (PDB Chemical Component Dictionary).
_LIPIDS = """
    CLR Y01 CHS PC1 PCW PEE POV PTY 3PE PGT PEF P5S PX4 LHG CDL 6PL PLM OLA MYR STE D10 D12 D21 C14 UND OCT HP6 LMT LMN
    BOG DMU AJP LPE LPP PIO PIE PSF CPL DGD LMG SQD
"""


@dataclass(frozen=True, eq=False)
class Pieces:
    """The pieces of a model, and their kinds.

    Attributes:
        kinds: `(n,)`, text, the kind of every atom's piece.
        numbers: `(n,)`, int, the piece of every atom.
    """

    kinds: np.ndarray
    numbers: np.ndarray

    def atoms_of(self, kind: str) -> np.ndarray:
        """Return the atoms of a kind, `(n,)`, bool."""
        return self.kinds == kind

    def pieces_of(self, kind: str) -> list[np.ndarray]:
        """Return the atoms of every piece of a kind, bool, `(n,)` each."""
        return [self.numbers == number for number in np.unique(self.numbers[self.kinds == kind])]


def residue_kind(residue: gemmi.Residue) -> str:
    """Return the kind of a residue: by gemmi's table of components, `_LIPIDS`, and the number of its atoms."""
    kind = gemmi.find_tabulated_residue(residue.name).kind
    named = {
        gemmi.ResidueKind.AA: "protein",
        gemmi.ResidueKind.AAD: "protein",
        gemmi.ResidueKind.RNA: "RNA",
        gemmi.ResidueKind.DNA: "DNA",
        gemmi.ResidueKind.PYR: "glycan",
        gemmi.ResidueKind.KET: "glycan",
    }
    if kind in named:
        return named[kind]
    if len({atom.name for atom in residue}) == 1:
        return "ion"
    if residue.name in _LIPIDS.split():
        return "lipid"
    # Modified residues of a chain are not ligands.
    return "protein" if residue.entity_type == gemmi.EntityType.Polymer else "ligand"


def lower_occupancy(atoms: Atoms) -> tuple[Atoms, np.ndarray]:
    """Lower the occupancy at the end of the longest protein chain.

    Args:
        atoms: the model.

    Returns:
        The model, and its atoms whose occupancy is `OCCUPANCY`, `(n,)`, bool.
    """
    structure = atoms.structure.clone()
    chains = [[residue for residue in chain if residue_kind(residue) == "protein"] for chain in structure[0]]
    longest = max(chains, key=len)
    for residue in longest[len(longest) - round(_PARTIAL_SHARE * len(longest)) :]:
        for atom in residue:
            atom.occ = OCCUPANCY * atom.occ
            atom.flag = "p"
    changed = from_structure(structure, atoms.source)
    return changed, np.array([site.atom.flag == "p" for site in structure[0].all()])


def find_pieces(atoms: Atoms, partial: np.ndarray) -> Pieces:
    """Find the pieces of a model.

    Args:
        atoms: the model.
        partial: its atoms of lowered occupancy, whose kind is `PARTIAL`, `(n,)`, bool.
    """
    kinds, numbers = [], []
    residues = (residue for chain in atoms.structure[0] for residue in chain)
    for number, residue in enumerate(residues):
        kinds += [residue_kind(residue)] * len(residue)
        numbers += [number] * len(residue)
    return Pieces(np.where(partial, PARTIAL, np.array(kinds)), np.array(numbers))
