"""A model that needs no file: ideal alpha helices around a twisted beta sheet, of any size.

The sheet lies in the middle, with helices on both sides, above and below. Side chains are placed where they fit.

A residue's backbone atoms have fixed cylindrical coordinates about the axis of their helix or strand; the next
residue follows by a rise and a turn. The coordinates give the bond lengths and angles of Engh & Huber 1991 (within
0.002 Å and 1.5°) and a right-handed alpha helix of phi, psi = -57, -47 (rise 1.5 Å, turn 100°, C-alpha at 2.29 Å;
Pauling, Corey & Branson 1951) or a strand of phi, psi = -122, 120 (rise 3.35 Å, turn 180°). Amino acids are L.
"""

import itertools
import math
from collections import defaultdict

import gemmi
import numpy as np

from crefjax.errors import UserError
from crefjax.simulate.atoms import Atoms, from_structure

# Atom name, radius in Å, angle in degrees, height in Å; then rise in Å and turn in degrees.
HELIX = (
    (("N", 1.564, -27.12, -0.903), ("CA", 2.287, 0.0, 0.0), ("C", 1.670, 27.45, 1.041), ("O", 1.900, 21.28, 2.235)),
    1.5,
    100.0,
)
STRAND = (
    (("N", 0.444, 59.46, -1.228), ("CA", 0.913, 0.0, 0.0), ("C", 0.559, 68.53, 1.247), ("O", 1.732, 88.22, 1.411)),
    3.35,
    180.0,
)
# Each further atom: name, the three atoms before it, bond in Å, angle and dihedral in degrees; "chi" is drawn.
_BETA = ("CB", ("N", "C", "CA"), 1.530, 110.1, 122.6)
_PHENYL = (
    ("CG", ("N", "CA", "CB"), 1.502, 113.8, "chi"),
    ("CD1", ("CA", "CB", "CG"), 1.384, 120.7, 90.0),
    ("CD2", ("CA", "CB", "CG"), 1.384, 120.7, -90.0),
    ("CE1", ("CB", "CG", "CD1"), 1.382, 120.7, 180.0),
    ("CE2", ("CB", "CG", "CD2"), 1.382, 120.7, 180.0),
    ("CZ", ("CG", "CD1", "CE1"), 1.382, 120.0, 0.0),
)
SIDE_CHAINS = {
    "GLY": (),
    "ALA": (_BETA,),
    "SER": (_BETA, ("OG", ("N", "CA", "CB"), 1.417, 111.1, "chi")),
    "LEU": (
        _BETA,
        ("CG", ("N", "CA", "CB"), 1.530, 116.3, "chi"),
        ("CD1", ("CA", "CB", "CG"), 1.521, 110.7, 180.0),
        ("CD2", ("CA", "CB", "CG"), 1.521, 110.7, 60.0),
    ),
    "MET": (
        _BETA,
        ("CG", ("N", "CA", "CB"), 1.520, 114.1, "chi"),
        ("SD", ("CA", "CB", "CG"), 1.803, 112.7, 180.0),
        ("CE", ("CB", "CG", "SD"), 1.791, 100.9, 70.0),
    ),
    "LYS": (
        _BETA,
        ("CG", ("N", "CA", "CB"), 1.520, 114.1, "chi"),
        ("CD", ("CA", "CB", "CG"), 1.520, 111.3, 180.0),
        ("CE", ("CB", "CG", "CD"), 1.520, 111.3, 180.0),
        ("NZ", ("CG", "CD", "CE"), 1.489, 111.9, 180.0),
    ),
    "PHE": (_BETA, *_PHENYL),
}
CHI = (-65.0, 180.0)  # the two rotamers that helices and strands both allow
STRAND_SPACING = 4.8  # Å
STRAND_HALF = 13.0  # Å, half of the longest strand
HELIX_SPACING = 10.0  # Å, between layers; within one, two strands wide
NEAREST = 3.0  # Å, least distance between atoms of side chains and of other residues
TWIST = -20.0  # degrees from one strand to the next: left-handed seen across the strands (Chothia 1973)
RESIDUES = (10, 20000)
_B_FACTORS = (20.0, 90.0)  # Å², at the middle and at the outermost atom; they rise with the squared distance


def cylindrical(radius: float, angle: float, height: float) -> np.ndarray:
    """Return the point at a radius in Å, an angle in radians and a height in Å."""
    return np.array([radius * math.cos(angle), radius * math.sin(angle), height])


def place(a, b, c, bond: float, angle: float, dihedral: float) -> np.ndarray:
    """Return the position of an atom d bound to c.

    The distance c-d is in Å, the angle b-c-d and the dihedral a-b-c-d in degrees (IUPAC's sign).
    """
    angle, dihedral = math.radians(angle), math.radians(dihedral)
    along = (c - b) / np.linalg.norm(c - b)
    normal = _cross(b - a, along)
    normal /= np.linalg.norm(normal)
    across = math.cos(dihedral) * _cross(normal, along) + math.sin(dihedral) * normal
    return c + bond * (math.sin(angle) * across - math.cos(angle) * along)


def _cross(a, b):
    """Return what `np.cross` does, which takes most of a phantom's time for single vectors."""
    return np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def phantom(residues: int = 200, *, seed: int = 0) -> Atoms:
    """Build a globule of alpha helices around a twisted, antiparallel beta sheet, about the origin.

    Every helix and every strand is a chain of its own (sheet first). Side chains and their rotamers are drawn; one
    that would clash is replaced by a shorter one.

    Args:
        residues: number of residues.
        seed: random seed of the side chains.

    Raises:
        UserError: the number of residues is not within `RESIDUES`.
    """
    if not RESIDUES[0] <= residues <= RESIDUES[1]:
        raise UserError(
            f"phantom: expected {RESIDUES[0]} to {RESIDUES[1]} residues, found {residues}; choose another size"
        )
    elements = _first_residues(_layout(_radius_for(residues)), residues)
    structure = _build(elements, np.random.default_rng(seed))
    _set_b_factors(structure[0])
    structure.setup_entities()
    return from_structure(structure, "phantom")


def _layout(radius):
    """Return every helix and strand in a sphere: kind, x and y of its axis, whether reversed, its residues' heights.

    Axes lie in planes of constant y, and every plane is rotated about y (`TWIST`), so that no two helices meet. The
    strands between two planes of helices would meet them far from the middle: they are kept short, with helices above
    and below the sheet.
    """
    elements = []

    def add(kind, x, y, reverse, low, high):
        """Add the residues of an axis that fit between two heights, if they are at least three."""
        count = math.floor((high - low) / kind[1])
        if count >= 3:
            first = low + (high - low - (count - 1) * kind[1]) / 2
            elements.append((kind, x, y, reverse, first + np.arange(count) * kind[1]))

    for i in range(-math.floor(radius / STRAND_SPACING), math.floor(radius / STRAND_SPACING) + 1):
        half = min(_half_chord(radius, 0, i * STRAND_SPACING), STRAND_HALF)
        add(STRAND, 0.0, i * STRAND_SPACING, i % 2 == 1, -half, half)
    rows, planes = math.floor(radius / HELIX_SPACING), math.floor(radius / (2 * STRAND_SPACING))
    for row, i in itertools.product(
        sorted(range(-rows, rows + 1), key=abs), sorted(range(-planes, planes + 1), key=abs)
    ):
        x, y = row * HELIX_SPACING, i * 2 * STRAND_SPACING
        half = _half_chord(radius, x, y)
        if row != 0:
            add(HELIX, x, y, (i + row) % 2 == 1, -half, half)
        else:
            add(HELIX, x, y, False, STRAND_HALF + 5, half)
            add(HELIX, x, y, True, STRAND_HALF + 5, half)
    return elements


def _half_chord(radius, x, y):
    return math.sqrt(max(radius**2 - x**2 - y**2, 0))


def _radius_for(residues):
    """Return the smallest radius, to 0.1 Å, that holds a number of residues."""
    low, high = 0, 2000
    while high - low > 1:
        middle = (low + high) // 2
        enough = sum(len(heights) for *_, heights in _layout(middle / 10)) >= residues
        low, high = (low, middle) if enough else (middle, high)
    return high / 10


def _first_residues(elements, residues):
    """Return the layout cut to a number of residues; the end of the outermost helices is cut."""
    kept = []
    for *element, heights in elements:
        missing = residues - sum(len(kept_heights) for *_, kept_heights in kept)
        if missing > 0:
            kept.append((*element, heights[:missing]))
    return kept


class _ClashGrid:
    """The positions of atoms in cells, to find out whether new atoms fit."""

    def __init__(self):
        self._cells = defaultdict(list)

    def add(self, owner, positions):
        """Add the atoms of an owner, `(n, 3)`, Å."""
        for position in positions:
            self._cells[tuple((position // NEAREST).astype(int))].append((owner, position))

    def is_free(self, owner, positions):
        """Return whether no atom of another owner is within `NEAREST` of these."""
        return not any(
            other != owner and math.dist(position, taken) < NEAREST
            for position in positions
            for cell in itertools.product(*(range(i - 1, i + 2) for i in (position // NEAREST).astype(int)))
            for other, taken in self._cells.get(cell, ())
        )


def _build(elements, random):
    """Return the structure: all backbones first, then side chains where they fit."""
    grid = _ClashGrid()
    chains = [_backbones(element, random.uniform(0, 360)) for element in elements]
    for number, chain in enumerate(chains):
        for index, atoms in enumerate(chain):
            grid.add((number, index), atoms.values())
    structure = gemmi.Structure()
    structure.name = "phantom"
    model = gemmi.Model(1)
    for number, chain in enumerate(chains):
        model.add_chain(gemmi.Chain(_chain_name(number)))
        for index, backbone in enumerate(chain):
            kind, atoms = _with_side_chain(backbone, (number, index), grid, random)
            model[number].add_residue(_residue(kind, index + 1, atoms))
    structure.add_model(model)
    return structure


def _backbones(element, phase):
    """Return the backbone atoms of every residue of a helix or strand, at their places in the globule."""
    (backbone, _, turn), x, y, reverse, heights = element
    phase = 0.0 if turn == 180.0 else phase  # a strand's hydrogen bonds lie in the sheet
    chain = []
    for number, height in enumerate(heights):
        angle = phase + turn * number
        atoms = {atom: cylindrical(r, math.radians(angle + a), height + z) for atom, r, a, z in backbone}
        chain.append({atom: _settle(position, x, y, reverse) for atom, position in atoms.items()})
    return chain


def _with_side_chain(backbone, owner, grid, random):
    """Add the first of the side chains, in drawn order, that fits; glycine has none and always fits."""
    kinds = [*random.permutation([kind for kind in SIDE_CHAINS if kind != "GLY"])[:3], "ALA", "GLY"]
    for kind in map(str, kinds):
        atoms = dict(backbone)
        for atom, (a, b, c), bond, bend, dihedral in SIDE_CHAINS[kind]:
            dihedral = random.choice(CHI) if dihedral == "chi" else dihedral
            atoms[atom] = place(atoms[a], atoms[b], atoms[c], bond, bend, dihedral)
        further = [position for atom, position in atoms.items() if atom not in backbone and atom != "CB"]
        if grid.is_free(owner, further):
            break
    grid.add(owner, [atoms[atom] for atom in atoms if atom not in backbone])
    return kind, atoms


def _residue(kind, number, atoms):
    residue = gemmi.Residue()
    residue.name = kind
    residue.seqid = gemmi.SeqId(str(number))
    for name, position in atoms.items():
        atom = gemmi.Atom()
        atom.name = name
        atom.element = gemmi.Element(name[0])
        atom.pos = gemmi.Position(*(round(float(value), 3) for value in position))
        residue.add_atom(atom)
    return residue


def _settle(position, x, y, reverse):
    """Move a point from an element's own axis to its place in the globule; rotations and shifts keep the hand."""
    if reverse:  # half a turn about x
        position = position * np.array([1.0, -1.0, -1.0])
    position = position + np.array([x, 0.0, 0.0])
    angle = math.radians(TWIST * y / STRAND_SPACING)
    turn = gemmi.Mat33([[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]])
    return np.asarray(turn.multiply(gemmi.Vec3(*position)).tolist()) + np.array([0.0, y, 0.0])


def _set_b_factors(model):
    atoms = [site.atom for site in model.all()]
    squared = np.array([atom.pos.dot(atom.pos) for atom in atoms])
    for atom, share in zip(atoms, squared / squared.max(), strict=True):
        atom.b_iso = _B_FACTORS[0] + (_B_FACTORS[1] - _B_FACTORS[0]) * float(share)


def _chain_name(number):
    """Return A to Z, then AA, AB and so on."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return letters[number] if number < 26 else letters[number // 26 - 1] + letters[number % 26]
