"""A model's density where it stands: against gemmi's, in every place that a header can mean, and refused elsewhere.

B-factors are high here, so that what gemmi samples has nothing beyond Nyquist either.
"""

import gemmi
import mrcfile
import numpy as np
import pytest
from reference import gemmi_density as gemmi_densities

from analysis.framework import model_density as study
from crefjax.errors import UserError
from crefjax.io.maps import read_map
from crefjax.simulate.atoms import read_atoms

SHAPE, VOXEL = (30, 36, 33), 1.5  # (z, y, x)
SIDES = np.array(SHAPE[::-1]) * VOXEL  # Å, (x, y, z)
PLACE = np.array([30.0, -45.0, 60.0])  # whole voxels, so that NSTART can tell it
STARTS = (20, -30, 40)


def structure_at(positions, b_factors):
    """Carbons and oxygens, each a residue."""
    structure, model, chain = gemmi.Structure(), gemmi.Model(1), gemmi.Chain("A")
    for number, (position, b_factor) in enumerate(zip(positions, b_factors, strict=True)):
        residue, atom = gemmi.Residue(), gemmi.Atom()
        residue.name, residue.seqid = "ALA", gemmi.SeqId(str(number + 1))
        atom.name = "CO"[number % 2]
        atom.element = gemmi.Element(atom.name)
        atom.pos, atom.b_iso, atom.occ = gemmi.Position(*position), float(b_factor), 1.0
        residue.add_atom(atom)
        chain.add_residue(residue)
    model.add_chain(chain)
    structure.add_model(model)
    return structure


def positions_in_box(seed=0, count=150, spread=(9.0, 11.0, 8.0)):
    """Atoms in an ellipsoid in the middle of the box, relative to its first voxel."""
    random = np.random.default_rng(seed)
    directions = random.standard_normal((count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return (SIDES - VOXEL) / 2 + directions * random.uniform(0, 1, (count, 1)) ** (1 / 3) * np.array(spread)


def gemmi_density(structure, origin, shape=SHAPE):
    return gemmi_densities.gemmi_density(structure, origin, shape, VOXEL)


def write_map(path, array, *, origin=(0, 0, 0), starts=(0, 0, 0), voxel_size=VOXEL):
    with mrcfile.new(path) as mrc:
        mrc.set_data(np.ascontiguousarray(array, "f4"))
        mrc.voxel_size = voxel_size
        for axis, place, start in zip("xyz", origin, starts, strict=True):
            mrc.header.origin[axis] = place
            mrc.header[f"n{axis}start"] = start
    return read_map(path)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Path of a model whose box begins at `PLACE`, and its structure."""
    structure = structure_at(positions_in_box() + PLACE, np.random.default_rng(1).uniform(180, 280, 150))
    path = tmp_path_factory.mktemp("model") / "model.pdb"
    structure.write_pdb(str(path))
    return path, gemmi.read_structure(str(path))  # as rounded


def test_density_matches_gemmi_at_the_origin_of_the_header(model, tmp_path):
    path, structure = model
    expected = gemmi_density(structure, PLACE)
    found = study.model_density(path, write_map(tmp_path / "a.mrc", expected, origin=PLACE))
    assert found.density.dtype == found.mask.dtype == np.float32
    np.testing.assert_allclose(found.density, expected, atol=0.003 * expected.max())
    assert found.origin == pytest.approx(PLACE)
    assert (found.atoms, found.inside) == (150, 150)
    assert found.agreement > 0.99


@pytest.mark.parametrize(
    ("origin", "starts", "at", "how"),
    [
        ((0, 0, 0), (0, 0, 0), (0, 0, 0), "in the box itself: the header's ORIGIN and NSTART are 0"),
        (PLACE, (0, 0, 0), PLACE, "by the header's ORIGIN"),
        (PLACE, (0, 0, 0), (0, 0, 0), "in the box itself, the header's ORIGIN not counted"),
        ((0, 0, 0), STARTS, PLACE, "by the header's NSTART"),
        ((0, 0, 0), STARTS, (0, 0, 0), "in the box itself, the header's NSTART not counted"),
        ((9.0, 6.0, -3.0), STARTS, (9.0, 6.0, -3.0), "by the header's ORIGIN"),
        ((9.0, 6.0, -3.0), STARTS, PLACE, "by the header's NSTART, its ORIGIN not counted"),
        ((9.0, 6.0, -3.0), STARTS, PLACE + np.array([9.0, 6.0, -3.0]), "by the header's ORIGIN plus NSTART"),
        (PLACE, STARTS, PLACE, "by the header's ORIGIN"),
    ],
)
def test_the_reading_of_the_header_that_correlates_best_is_taken(origin, starts, at, how, model, tmp_path):
    """The map is noisy; its true place is `at`, and the header has more than one."""
    structure = structure_at(positions_in_box() + np.array(at), np.full(150, 200.0))
    structure.write_pdb(str(tmp_path / "model.pdb"))
    truth = gemmi_density(structure, at)
    noisy = truth + truth.std() * np.random.default_rng(2).standard_normal(SHAPE)
    map_ = write_map(tmp_path / "a.mrc", noisy, origin=origin, starts=starts)
    found = study.model_density(tmp_path / "model.pdb", map_)
    assert found.how == how
    assert found.origin == pytest.approx(at, abs=1e-3)
    assert np.corrcoef(found.density.ravel(), truth.ravel())[0, 1] > 0.999


def test_nstart_follows_the_axis_order_of_the_file(model, tmp_path):
    """A file whose columns run along z: NXSTART is then the start along z."""
    path, structure = model
    expected = gemmi_density(structure, PLACE)
    with mrcfile.new(tmp_path / "a.mrc") as mrc:
        mrc.set_data(np.ascontiguousarray(expected.transpose(2, 1, 0), "f4"))  # sections x, rows y, columns z
        mrc.header.mapc, mrc.header.mapr, mrc.header.maps = 3, 2, 1
        mrc.header.mx, mrc.header.my, mrc.header.mz = SHAPE[::-1]
        mrc.header.cella = tuple(SIDES)
        mrc.header.nxstart, mrc.header.nystart, mrc.header.nzstart = STARTS[::-1]
    found = study.model_density(path, read_map(tmp_path / "a.mrc"))
    assert found.how == "by the header's NSTART"
    np.testing.assert_allclose(found.density, expected, atol=0.003 * expected.max())


def test_a_model_outside_the_density_is_refused_in_one_line(model, tmp_path):
    path, structure = model
    truth = gemmi_density(structure, PLACE)
    random = np.random.default_rng(3)
    for name, array, origin, expected in (
        ("out", truth, PLACE + 100, "found of its atoms 0% by the header's ORIGIN"),
        ("half", truth, PLACE + np.array([0, 0, 26.0]), "within the map's box"),
        ("noise", random.standard_normal(SHAPE), PLACE, "found a correlation of"),
        ("inverted", -truth, PLACE, "found a correlation of -"),
    ):
        map_ = write_map(tmp_path / f"{name}.mrc", array, origin=origin)
        with pytest.raises(UserError) as caught:
            study.model_density(path, map_)
        message = str(caught.value)
        assert expected in message
        assert f"{name}.mrc" in message
        assert path.name in message
        assert "\n" not in message


def test_a_model_moved_within_the_box_is_refused(tmp_path):
    """A small model in the corner of a box whose density lies in the other."""
    positions = positions_in_box(spread=(5.0, 5.0, 5.0), count=60)
    structure_at(positions - 12, np.full(60, 200.0)).write_pdb(str(tmp_path / "model.pdb"))
    density = gemmi_density(structure_at(positions + 12, np.full(60, 200.0)), (0, 0, 0))
    with pytest.raises(UserError, match="fit the model to the map"):
        study.model_density(tmp_path / "model.pdb", write_map(tmp_path / "a.mrc", density))


def test_atoms_outside_the_box_contribute_without_wrapping_around(tmp_path):
    """The same atoms in a box with room on all sides, cut to the small one."""
    positions = positions_in_box()
    positions[:, 0] += 20  # some are then beyond the last voxel along x
    structure = structure_at(positions, np.full(150, 200.0))
    structure.write_pdb(str(tmp_path / "model.pdb"))
    rooms = 12
    wide = gemmi_density(structure, -VOXEL * np.full(3, rooms), tuple(side + 2 * rooms for side in SHAPE))
    expected = wide[(slice(rooms, -rooms),) * 3]
    found = study.model_density(tmp_path / "model.pdb", write_map(tmp_path / "a.mrc", expected))
    np.testing.assert_allclose(found.density, expected, atol=0.003 * expected.max())
    beyond = int(np.sum(positions[:, 0] >= (SHAPE[2] - 0.5) * VOXEL))
    assert 0 < beyond < 75
    assert found.inside == 150 - beyond
    assert found.how.endswith(f"; {beyond} of 150 atoms outside the box")
    assert found.mask[:, :, -1].max() < 0.2  # tapered at the border


def test_mask_follows_the_distance_to_the_nearest_atom(model):
    positions = read_atoms(model[0]).positions
    mask = study.mask_around(positions, SHAPE, VOXEL, PLACE, near=3.0, soft_edge=2.0)
    grid = (
        np.stack(np.meshgrid(*(np.arange(side) for side in SHAPE), indexing="ij"), axis=-1)[..., ::-1] * VOXEL + PLACE
    )
    distance = np.min([np.linalg.norm(grid - position, axis=-1) for position in positions], axis=0)
    expected = 0.5 + 0.5 * np.cos(np.pi * np.clip((distance - 3) / 2, 0, 1))
    assert expected[0].max() == 0  # far from the border, where it would fall off
    np.testing.assert_allclose(mask, expected, atol=1e-4)


def test_given_b_factor_replaces_that_of_the_model(model, tmp_path):
    path, structure = model
    map_ = write_map(tmp_path / "a.mrc", gemmi_density(structure, PLACE), origin=PLACE)
    for cra in structure[0].all():
        cra.atom.b_iso = 240
    expected = gemmi_density(structure, PLACE)
    found = study.model_density(path, map_, b_factor=240)
    np.testing.assert_allclose(found.density, expected, atol=0.003 * expected.max())
    with pytest.raises(UserError, match="expected 0 to 300 Å², found 301"):
        study.model_density(path, map_, b_factor=301)
    with pytest.raises(UserError, match=r"`near` above 0 Å .* found 0 and 3"):
        study.model_density(path, map_, near=0)
