"""The textbook geometry of alpha helices, beta strands and side chains, for the phantom.

A residue's backbone atoms have fixed cylindrical coordinates about the axis of their helix or strand; the next
residue follows by a rise and a turn. The coordinates give the bond lengths and angles of Engh & Huber 1991 (within
0.002 Å and 1.5°) and a right-handed alpha helix of phi, psi = -57, -47 (rise 1.5 Å, turn 100°, C-alpha at 2.29 Å;
Pauling, Corey & Branson 1951) or a strand of phi, psi = -122, 120 (rise 3.35 Å, turn 180°). Amino acids are L.
"""

import math

import numpy as np

# Atom name, radius in Å, angle in degrees, height in Å; then rise in Å and turn in degrees.
HELIX = (
    (
        ("N", 1.564, -27.12, -0.903),
        ("CA", 2.287, 0.0, 0.0),
        ("C", 1.670, 27.45, 1.041),
        ("O", 1.900, 21.28, 2.235),
    ),
    1.5,
    100.0,
)
STRAND = (
    (
        ("N", 0.444, 59.46, -1.228),
        ("CA", 0.913, 0.0, 0.0),
        ("C", 0.559, 68.53, 1.247),
        ("O", 1.732, 88.22, 1.411),
    ),
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


def cylindrical(radius: float, angle: float, height: float) -> np.ndarray:
    """A point at a radius in Å, an angle in radians and a height in Å."""
    return np.array([radius * math.cos(angle), radius * math.sin(angle), height])


def place(a, b, c, bond: float, angle: float, dihedral: float) -> np.ndarray:
    """The atom d bound to c: distance c-d in Å, angle b-c-d and dihedral a-b-c-d in degrees (IUPAC's sign)."""
    angle, dihedral = math.radians(angle), math.radians(dihedral)
    along = (c - b) / np.linalg.norm(c - b)
    normal = np.cross(b - a, along)
    normal /= np.linalg.norm(normal)
    across = math.cos(dihedral) * np.cross(normal, along) + math.sin(dihedral) * normal
    return c + bond * (math.sin(angle) * across - math.cos(angle) * along)
