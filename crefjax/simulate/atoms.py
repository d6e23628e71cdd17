"""Atomic models: read with gemmi, cleaned for cryo-EM, and written at the coordinates of a map."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import gemmi
import numpy as np
from scipy.spatial import cKDTree

from crefjax.errors import UserError, path_error
from crefjax.io.models import no_atoms, read_structure

B_FACTORS = (0.0, 300.0)  # Å²; values outside are set to the bound
LEAST_B = 5.0  # Å², least B-factor of an atom in a sharpened map: at 0 and below its density is unbounded
FLAT_B = 3.0  # Å², from the 10th to the 90th percentile; B-factors of a smaller range are taken for placeholders
MEAN_B = 60.0  # Å², mean of the B-factors that replace placeholders
PACKING_RADIUS = 7.35  # Å, within which neighbors are counted (Halle 2002)


@dataclass(frozen=True, eq=False)
class Atoms:
    """The atoms of a model, in the order of `structure`.

    Attributes:
        positions: `(n, 3)`, Å, in the order x, y, z.
        b_factor: `(n,)`, Å², isotropic, within `B_FACTORS`.
        occupancy: `(n,)`, above 0, at most 1.
        element: `(n,)`, int32, atomic number: the row of `form_factors()`.
        chain: `(n,)`, text, the chain's name as in the file.
        structure: the same atoms as gemmi's structure, one model.
        source: name of the file that the model was read from, or of the program that built it.
    """

    positions: np.ndarray
    b_factor: np.ndarray
    occupancy: np.ndarray
    element: np.ndarray
    chain: np.ndarray
    structure: gemmi.Structure
    source: str

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def center(self) -> np.ndarray:
        """Middle of the model's extent along x, y and z, Å."""
        return (self.positions.min(0) + self.positions.max(0)) / 2

    @property
    def extent(self) -> np.ndarray:
        """Distance from the first to the last atom's center along x, y and z, Å."""
        return np.ptp(self.positions, axis=0)


def read_atoms(path, *, assembly: str | None = None, keep_hydrogens: bool = False, keep_waters: bool = False) -> Atoms:
    """Read the first model of a PDB or mmCIF file, plain or `.gz`.

    Alternative conformations are all kept, each with its occupancy: the map of the specimen shows their sum.
    Atoms without occupancy are dropped, and B-factors are clipped to `B_FACTORS`.

    Args:
        path: the file.
        assembly: id of the biological assembly to expand the model to ("1"); None for the model as deposited.
        keep_hydrogens: whether hydrogen and deuterium stay; most models have none and their B-factors say little.
        keep_waters: whether waters stay.

    Raises:
        UserError: the file is missing or not a model; no atoms are left; an element is unknown; a position is not
            finite; or there is no such assembly.
    """
    path = Path(path)
    structure = read_structure(path)
    if assembly is not None:
        _expand(structure, assembly, path)
    if not keep_waters:
        structure.remove_waters()
    if not keep_hydrogens:
        structure.remove_hydrogens()
    structure.remove_empty_chains()
    _clean(structure, path)
    structure.setup_entities()
    return from_structure(structure, path.name)


def from_structure(structure: gemmi.Structure, source: str) -> Atoms:
    """Return the atoms of a structure's first model, which must have been cleaned as `read_atoms` does."""
    rows = [(site.chain.name, site.atom) for site in structure[0].all()]
    return Atoms(
        positions=np.array([atom.pos.tolist() for _, atom in rows], np.float32).reshape(-1, 3),
        b_factor=np.array([atom.b_iso for _, atom in rows], np.float32),
        occupancy=np.array([atom.occ for _, atom in rows], np.float32),
        element=np.array([atom.element.atomic_number for _, atom in rows], np.int32),
        chain=np.array([chain for chain, _ in rows], np.str_),
        structure=structure,
        source=source,
    )


def translate_atoms(atoms: Atoms, shift) -> Atoms:
    """Return the model, with its structure, shifted by `shift` (x, y, z) in Å."""
    structure = atoms.structure.clone()
    transform = gemmi.Transform()
    transform.vec.fromlist([float(value) for value in shift])
    structure[0].transform_pos_and_adp(transform)
    return from_structure(structure, atoms.source)


def helical_copies(atoms: Atoms, twist: float, rise: float, numbers: Sequence[int]) -> Atoms:
    """Return copies of a model along a helix around the axis x = y = 0.

    Args:
        atoms: the repeated unit.
        twist: degrees around z from one copy to the next, counterclockwise seen from positive z.
        rise: Å along z from one copy to the next.
        numbers: positions of the copies along the helix, such as (-1, 0, 1); 0 is the unit where it is.
    """
    structure = atoms.structure.clone()
    chains = [chain.clone() for chain in structure[0]]
    del structure[0]
    everything = gemmi.Model(1)
    for number in numbers:
        angle = np.deg2rad(number * twist)
        rotation = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
        copy = gemmi.Model(1)
        for chain in chains:
            copy.add_chain(chain)
        copy.transform_pos_and_adp(gemmi.Transform(gemmi.Mat33(rotation), gemmi.Vec3(0, 0, number * rise)))
        for chain in copy:
            everything.add_chain(chain)
    structure.add_model(everything)
    return from_structure(structure, atoms.source)


def plausible_b_factors(atoms: Atoms) -> np.ndarray:
    """Return the model's B-factors, or estimates if they are placeholders, which are about the same for all atoms.

    The estimate is `MEAN_B * mean(n) / n`, at most `B_FACTORS[1]`, with an atom's number of neighbors `n` within
    `PACKING_RADIUS`: the more densely atoms are packed, the less they move (Halle 2002, PNAS 99, 1274).

    Returns:
        `(n,)`, Å², float32.
    """
    if float(np.ptp(np.percentile(atoms.b_factor, (10, 90)))) >= FLAT_B:
        return atoms.b_factor
    tree = cKDTree(atoms.positions)
    neighbors = tree.query_ball_point(atoms.positions, PACKING_RADIUS, return_length=True)
    packing = neighbors / np.mean(neighbors)
    return np.minimum(MEAN_B / packing, B_FACTORS[1]).astype(np.float32)


def with_least_b_factor(atoms: Atoms, blur: float) -> Atoms:
    """Return the model with B-factors raised so that each is at least `LEAST_B` once a global blur is added.

    Args:
        atoms: the model; its structure is unchanged.
        blur: Å², which will be added to all B-factors; a number below 0 sharpens.
    """
    return replace(atoms, b_factor=np.maximum(atoms.b_factor, np.float32(LEAST_B - blur)))


def write_model(path, atoms: Atoms, sides: tuple[float, float, float] | None = None) -> None:
    """Write a model as mmCIF that overlays the map of a box whose first voxel is at the origin.

    Args:
        path: output file; an existing one is replaced.
        atoms: the model, at the box's coordinates.
        sides: sides of the box in Å along x, y and z, written as the cell of space group P 1.

    Raises:
        UserError: the file cannot be written.
    """
    structure = atoms.structure.clone()
    structure.spacegroup_hm = "P 1"
    if sides is not None:
        structure.cell = gemmi.UnitCell(*sides, 90, 90, 90)
    groups = gemmi.MmcifOutputGroups(False, block_name=True, entry=True, cell=True, symmetry=True)
    groups.atoms = groups.group_pdb = groups.auth_all = groups.entity = groups.struct_asym = True
    try:
        structure.make_mmcif_document(groups).write_file(str(path))
    except OSError as error:
        raise path_error(path, f"cannot be written ({error.strerror or error}); check the disk") from error


@functools.cache
def form_factors() -> np.ndarray:
    """Return electron form factors of neutral atoms, `f(s) = sum_i a_i exp(-b_i s² / 4)`, `s` in 1/Å.

    The five-Gaussian fits of the International Tables for Crystallography, volume C, table 4.3.2.2
    (Peng et al. 1996), as gemmi has them.

    Returns:
        `(elements, 2, 5)`, float64: row by atomic number, `a_i` in Å, then `b_i` in Å²; zeros where the table
        has no entry.
    """
    table = np.zeros((119, 2, 5))
    for number in range(1, len(table)):
        coefficients = gemmi.Element(number).c4322
        if coefficients is not None:
            table[number] = coefficients.a, coefficients.b
    table.flags.writeable = False
    return table


def _expand(structure: gemmi.Structure, assembly: str, path: Path) -> None:
    names = [candidate.name for candidate in structure.assemblies]
    if assembly not in names:
        found = ", ".join(names) or "none"
        raise UserError(f"{path}: expected an assembly {assembly!r}, found {found}; correct or omit `assembly`")
    structure.transform_to_assembly(assembly, gemmi.HowToNameCopiedChain.AddNumber)


def _clean(structure: gemmi.Structure, path: Path) -> None:
    """Drop atoms without occupancy, clip B-factors and occupancies, and refuse unknown elements and positions."""
    known = {number for number, row in enumerate(form_factors()) if row.any()}
    kept = 0
    for residue in (residue for chain in structure[0] for residue in chain):
        for index in reversed(range(len(residue))):
            atom = residue[index]
            if not atom.occ > 0:
                del residue[index]
                continue
            if atom.element.atomic_number not in known:
                raise UserError(
                    f"{path}: expected elements from H to Cf, found {atom.element.name!r} at atom {atom.name!r} of "
                    f"{residue.name} {residue.seqid}; correct its element column"
                )
            if not all(map(math.isfinite, (*atom.pos.tolist(), atom.b_iso))):
                raise UserError(
                    f"{path}: expected finite numbers at atom {atom.name!r} of {residue.name} {residue.seqid}"
                )
            atom.occ = min(atom.occ, 1.0)
            atom.b_iso = min(max(atom.b_iso, B_FACTORS[0]), B_FACTORS[1])
            atom.aniso = gemmi.SMat33f(0, 0, 0, 0, 0, 0)  # the density is isotropic, and so is the written model
            kept += 1
    structure.remove_empty_chains()
    if kept == 0:
        raise no_atoms(path)
