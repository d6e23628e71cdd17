import itertools

import numpy as np
import pytest
from scipy.spatial import cKDTree

from crefjax.errors import UserError
from crefjax.simulate.phantom import phantom, place


@pytest.fixture(scope="module")
def model():
    return phantom(200)


def by_chain(model, name):
    """Positions of one atom of every residue, one array a chain, (residues, 3)."""
    return [np.array([residue[name][0].pos.tolist() for residue in chain]) for chain in model.structure[0]]


def helices(model):
    """C-alpha positions of the chains whose neighbors are 1.5 Å apart along the axis."""
    return [ca for ca in by_chain(model, "CA") if len(ca) >= 8 and np.linalg.norm(ca[3] - ca[0]) < 6]


def strands(model):
    return [ca for ca in by_chain(model, "CA") if np.linalg.norm(ca[2] - ca[0]) > 6.5]


def signed_turn(ca):
    """Rise in Å and turn in degrees from four C-alphas in a row, from the screw's own geometry (Kahn 1989)."""
    bend_1, bend_2 = ca[0] - 2 * ca[1] + ca[2], ca[1] - 2 * ca[2] + ca[3]
    axis = np.cross(bend_1, bend_2)
    axis /= np.linalg.norm(axis)
    turn = np.degrees(np.arccos(bend_1 @ bend_2 / np.linalg.norm(bend_1) / np.linalg.norm(bend_2)))
    return (ca[2] - ca[1]) @ axis, turn


def dihedral(*points):
    """Degrees, by IUPAC's sign: looking from the second to the third, clockwise is positive."""
    p1, p2, p3, p4 = (np.asarray(point) for point in points)
    b1, b2, b3 = p2 - p1, p3 - p2, p4 - p3
    n1, n2 = np.cross(b1, b2), np.cross(b2, b3)
    return np.degrees(np.arctan2(np.linalg.norm(b2) * (b1 @ n2), n1 @ n2))


def backbone(chain):
    return [{name: np.array(residue[name][0].pos.tolist()) for name in ("N", "CA", "C", "O")} for residue in chain]


def test_helices_rise_and_turn_right_handed(model):
    found = helices(model)
    assert len(found) >= 5
    for ca in found:
        for start in range(len(ca) - 3):
            rise, turn = signed_turn(ca[start : start + 4])
            # The axis is the cross product of successive bends: along the chain only in a right-handed helix.
            np.testing.assert_allclose(rise, 1.5, atol=0.01)
            np.testing.assert_allclose(turn, 100, atol=0.2)


def test_c_alphas_of_a_helix_lie_on_a_cylinder(model):
    ca = helices(model)[0]
    axis = np.linalg.svd(ca - ca.mean(0))[2][0]
    # The rise over 18 residues is 27 Å after exactly five turns: those pairs show the axis itself.
    if len(ca) > 18:
        axis = (ca[18] - ca[0]) / 27
    flat = ca - np.outer(ca @ axis, axis)
    middle = flat[:18].mean(0)
    np.testing.assert_allclose(np.linalg.norm(flat - middle, axis=1), 2.29, atol=0.15)


def test_dihedral_of_a_known_right_handed_turn():
    # From the first to the fourth, a quarter turn clockwise when seen along the axis from the second to the third.
    np.testing.assert_allclose(dihedral([1, 0, 0], [0, 0, 0], [0, 0, 1], [0, 1, 1]), 90)


def test_backbone_dihedrals(model):
    for chain in map(backbone, model.structure[0]):
        if len(chain) < 4:
            continue
        helix = np.linalg.norm(chain[3]["CA"] - chain[0]["CA"]) < 6
        for before, atom, after in zip(chain, chain[1:], chain[2:], strict=False):
            phi = dihedral(before["C"], atom["N"], atom["CA"], atom["C"])
            psi = dihedral(atom["N"], atom["CA"], atom["C"], after["N"])
            np.testing.assert_allclose([phi, psi], (-57, -47) if helix else (-122, 120), atol=1.5)


def test_backbone_bonds(model):
    for chain in map(backbone, model.structure[0]):
        for atom, after in itertools.pairwise(chain):
            bonds = (atom["N"], atom["CA"]), (atom["CA"], atom["C"]), (atom["C"], atom["O"]), (atom["C"], after["N"])
            lengths = [np.linalg.norm(a - b) for a, b in bonds]
            np.testing.assert_allclose(lengths, [1.458, 1.525, 1.231, 1.329], atol=0.005)
            assert abs(dihedral(atom["CA"], atom["C"], after["N"], after["CA"])) > 175


def test_amino_acids_are_l(model):
    counted = 0
    for site in model.structure[0].all():
        if site.atom.name == "CB":
            n, ca, c = (np.array(site.residue[name][0].pos.tolist()) for name in ("N", "CA", "C"))
            volume = np.cross(n - ca, c - ca) @ (np.array(site.atom.pos.tolist()) - ca)
            np.testing.assert_allclose(volume, 2.5, atol=0.1)  # -2.5 in a D amino acid
            counted += 1
    assert counted > 100


def test_strands_make_a_twisted_sheet(model):
    found = strands(model)
    assert len(found) >= 5
    directions = [(ca[2 * ((len(ca) - 1) // 2)] - ca[0]) for ca in found]
    directions = [direction / np.linalg.norm(direction) for direction in directions]
    for ca in found:
        np.testing.assert_allclose(np.linalg.norm(ca[2:] - ca[:-2], axis=1), 2 * 3.35, atol=0.01)
    middles = np.array([(ca[0] + ca[-1]) / 2 for ca in found])
    np.testing.assert_allclose(np.diff(middles[:, 1]), 4.8, atol=0.9)
    for direction, other in itertools.pairwise(directions):
        assert direction @ other < 0  # antiparallel
        angle = np.degrees(np.arcsin(np.cross(direction, -other) @ [0, 1, 0]))
        np.testing.assert_allclose(angle, -20, atol=0.1)


@pytest.mark.parametrize("count", [10, 77, 500])
def test_number_of_residues_is_exact(count):
    model = phantom(count)
    assert sum(len(chain) for chain in model.structure[0]) == count
    np.testing.assert_allclose(model.positions.mean(0), 0, atol=15)


def test_b_factors_rise_outward(model):
    radius = np.linalg.norm(model.positions, axis=1)
    order = np.argsort(radius)
    assert (np.diff(model.b_factor[order]) > -1e-3).all()
    assert model.b_factor.min() >= 20
    np.testing.assert_allclose(model.b_factor.max(), 90)


def test_side_chains_vary_and_keep_their_distance(model):
    names = {site.residue.name for site in model.structure[0].all()}
    assert {"PHE", "LYS", "LEU", "ALA"} <= names
    tree = cKDTree(model.positions)
    distance, _ = tree.query(model.positions, k=2)
    assert distance[:, 1].min() > 1.2
    pairs = tree.query_pairs(2.4, output_type="ndarray")
    clashes = np.count_nonzero(model.chain[pairs[:, 0]] != model.chain[pairs[:, 1]])
    assert clashes <= 0.01 * len(model)


def test_seed_determines_the_side_chains(model):
    np.testing.assert_array_equal(phantom(200).positions, model.positions)
    other = phantom(200, seed=1)
    assert other.positions.shape != model.positions.shape or (other.positions != model.positions).any()


@pytest.mark.parametrize("residues", [3, 10**6])
def test_invalid_sizes_raise(residues):
    with pytest.raises(UserError, match="phantom: expected"):
        phantom(residues)


@pytest.mark.parametrize("angle", [-120.0, -60.0, 0.0, 90.0, 179.0])
def test_place_gives_bond_angle_and_dihedral(angle):
    a, b, c = np.array([1.0, 0, 0]), np.zeros(3), np.array([0, 0.2, 1.0])
    d = place(a, b, c, 1.5, 110.0, angle)
    np.testing.assert_allclose(dihedral(a, b, c, d), angle, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(d - c), 1.5)
    cosine = (d - c) @ (b - c) / 1.5 / np.linalg.norm(b - c)
    np.testing.assert_allclose(np.degrees(np.arccos(cosine)), 110)
