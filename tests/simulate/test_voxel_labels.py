"""Labels against gemmi's neighbor search, and the similarity's definition against cases counted by hand."""

import gemmi
import numpy as np
import pytest

from crefjax.errors import UserError
from crefjax.simulate.atoms import Atoms, read_atoms
from crefjax.simulate.phantom import phantom
from crefjax.simulate.voxel_labels import atom_density, similarity, similarity_threshold


def atoms_at(positions, elements, occupancy=1.0):
    count = len(positions)
    return Atoms(
        positions=np.array(positions, np.float32),
        b_factor=np.zeros(count, np.float32),
        occupancy=np.full(count, occupancy, np.float32),
        element=np.array(elements, np.int32),
        chain=np.array(["A"] * count),
        structure=gemmi.Structure(),
        source="by hand",
    )


def reached_by_gemmi(atoms, shape, voxel_size, origin, distance):
    """Voxels within a distance of an atom, by gemmi's search among the atoms of the structure."""
    structure = gemmi.Structure()
    model = structure.add_model(gemmi.Model("1"))
    chain = model.add_chain("A")
    for number, position in enumerate(atoms.positions):
        residue = gemmi.Residue()
        residue.seqid = gemmi.SeqId(number + 1, " ")
        atom = gemmi.Atom()
        atom.element = gemmi.Element("C")
        atom.pos = gemmi.Position(*map(float, position))
        residue.add_atom(atom)
        chain.add_residue(residue)
    search = gemmi.NeighborSearch(structure[0], gemmi.UnitCell(), distance + 1).populate()
    reached = np.zeros(shape, bool)
    for z, y, x in np.ndindex(*shape):
        place = gemmi.Position(*(np.array([x, y, z]) * voxel_size + origin).tolist())
        reached[z, y, x] = search.find_nearest_atom(place, radius=distance) is not None
    return reached


@pytest.mark.parametrize(("resolution", "cutoff"), [(3.0, 3.0), (5.0, 2.0)])
def test_labels_are_the_voxels_that_gemmi_finds_near_an_atom(resolution, cutoff):
    atoms = phantom(60, seed=4)
    origin = atoms.positions.min(0) + np.array([4.0, 7.5, -6.25])  # part of the model outside the box
    shape, voxel_size = (30, 26, 33), 1.1
    _, reached = atom_density(atoms, shape, voxel_size, origin, resolution, cutoff=cutoff)
    distance = cutoff * resolution / (np.pi * np.sqrt(2))
    expected = reached_by_gemmi(atoms, shape, voxel_size, origin, distance)
    assert 0.05 < expected.mean() < 0.95
    np.testing.assert_array_equal(reached, expected)


def test_labels_of_a_real_model_are_those_of_gemmi(shared):
    atoms = read_atoms(shared / "maps" / "emd_2566_chain9_3j6b.pdb.gz")
    origin = atoms.center - 14
    _, reached = atom_density(atoms, (28, 28, 28), 1.0, origin, 3.4)
    np.testing.assert_array_equal(
        reached, reached_by_gemmi(atoms, (28, 28, 28), 1.0, origin, 3 * 3.4 / (np.pi * np.sqrt(2)))
    )


def test_density_is_the_sum_of_gaussians_of_electrons():
    positions, elements = [[5.2, 6.1, 4.7], [7.0, 6.0, 5.0]], [8, 16]
    total, _ = atom_density(atoms_at(positions, elements, 0.5), (10, 12, 14), 1.0, (0, 0, 0), 4.0)
    sigma = 4.0 * 0.2250790790
    z, y, x = np.indices((10, 12, 14))
    expected = np.zeros((10, 12, 14))
    for (px, py, pz), number in zip(positions, elements, strict=True):
        squared = (x - px) ** 2 + (y - py) ** 2 + (z - pz) ** 2
        expected += np.where(squared <= (3 * sigma) ** 2, 0.5 * number * np.exp(-squared / (2 * sigma**2)), 0)
    np.testing.assert_allclose(total, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("resolution", "cutoff"), [(0.0, 3.0), (np.nan, 3.0), (3.0, -1.0), (3.0, np.inf)])
def test_impossible_resolutions_and_cutoffs_are_refused(resolution, cutoff):
    with pytest.raises(UserError, match="expected a resolution and a cutoff above 0"):
        atom_density(atoms_at([[1, 1, 1]], [6]), (4, 4, 4), 1.0, (0, 0, 0), resolution, cutoff=cutoff)


def test_similarity_of_ten_voxels_counted_by_hand():
    # Three voxels of the map exceed the contour, two are reached by the model: P_core is 0.3, and the quantile 0.4 of
    # the map, with its negative voxels at 0, leaves the six largest.
    array = np.array([-5, -1, 0, 1, 2, 3, 4, 6, 8, 9], np.float32).reshape(1, 2, 5)
    simulated = np.array([0, 0, 0, 0, 0, 0, 0, 0, 3, 4], np.float32).reshape(1, 2, 5)
    found = similarity(array, simulated, contour=5)
    assert found.core == pytest.approx(0.3)
    x, y = np.array([2, 3, 4, 6, 8, 9.0]), np.array([0, 0, 0, 0, 3, 4.0])
    x, y = x - x.mean(), y - y.mean()
    assert found.value == pytest.approx((x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum()))


def test_the_model_decides_the_core_where_it_is_larger_than_the_map():
    array = np.arange(20, dtype=np.float32).reshape(1, 4, 5)
    simulated = (array > 11).astype(np.float32)  # 8 of 20
    assert similarity(array, simulated, contour=17).core == pytest.approx(0.4)


def test_a_pair_without_variation_has_no_similarity():
    assert similarity(np.zeros((2, 2, 2)), np.zeros((2, 2, 2)), 1.0).value == 0


def test_the_threshold_lies_three_deviations_below_the_main_mode():
    random = np.random.default_rng(3)
    good, bad = random.normal(0.8, 0.03, 4000), random.uniform(0.0, 0.5, 300)
    assert similarity_threshold(np.concatenate([good, bad])) == pytest.approx(0.8 - 3 * 0.03, abs=0.02)


def test_similar_pairs_alone_are_nearly_all_kept():
    values = np.random.default_rng(5).normal(0.8, 0.03, 1000)
    assert (values >= similarity_threshold(values)).mean() > 0.985


def test_a_threshold_of_two_values_is_refused():
    with pytest.raises(ValueError, match="at least 3"):
        similarity_threshold([0.5, 0.6])
