import gzip

import gemmi
import numpy as np
import pytest

from crefjax.errors import UserError
from crefjax.simulate.atoms import form_factors, helical_copies, read_atoms, translate_atoms, write_model
from crefjax.simulate.phantom import phantom


def line(name, element, x, y, z, *, b=30.0, occupancy=1.0, altloc=" ", residue="ALA", number=1, chain="A"):
    return (
        f"ATOM      1 {name:>4}{altloc}{residue:>3} {chain}{number:4d}    "
        f"{x:8.3f}{y:8.3f}{z:8.3f}{occupancy:6.2f}{b:6.2f}          {element:>2}\n"
    )


LINES = [
    line("N", "N", 1, 2, 3, b=12.5),
    line("CA", "C", 2, 3, 4, altloc="A", occupancy=0.7),
    line("CA", "C", 2.5, 3, 4, altloc="B", occupancy=0.3),
    line("C", "C", 3, 4, 5, b=-5),
    line("O", "O", 4, 5, 6, b=400),
    line("CB", "C", 9, 9, 9, occupancy=0),
    line("HA", "H", 5, 6, 7),
    line("O", "O", 8, 8, 8, residue="HOH", number=90),
    line("ZN", "ZN", 6, 7, 8, residue="ZN", number=91, chain="B"),
]


@pytest.fixture
def pdb(tmp_path):
    def make(lines, name="model.pdb"):
        path = tmp_path / name
        text = "".join(lines) + "END\n"
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return path

    return make


def test_hydrogens_waters_and_unoccupied_atoms_are_dropped_and_alternatives_kept(pdb):
    atoms = read_atoms(pdb(LINES))
    np.testing.assert_array_equal(atoms.element, [7, 6, 6, 6, 8, 30])
    np.testing.assert_allclose(atoms.positions[[0, 2, 5]], [[1, 2, 3], [2.5, 3, 4], [6, 7, 8]])
    np.testing.assert_allclose(atoms.occupancy, [1, 0.7, 0.3, 1, 1, 1])
    np.testing.assert_allclose(atoms.b_factor, [12.5, 30, 30, 0, 300, 30])
    assert atoms.chain.tolist() == ["A"] * 5 + ["B"]
    assert atoms.positions.dtype == atoms.b_factor.dtype == np.float32
    assert atoms.source == "model.pdb"


def test_hydrogens_and_waters_are_kept_on_request(pdb):
    assert len(read_atoms(pdb(LINES), keep_hydrogens=True)) == 7
    assert len(read_atoms(pdb(LINES), keep_waters=True)) == 7


def test_pdb_and_mmcif_give_the_same_atoms(pdb, tmp_path):
    plain = read_atoms(pdb(LINES))
    zipped = read_atoms(pdb(LINES, "model.pdb.gz"))
    cif = tmp_path / "model.cif"
    gemmi.read_structure(str(pdb(LINES))).make_mmcif_document().write_file(str(cif))
    for other in (zipped, read_atoms(cif)):
        np.testing.assert_array_equal(other.positions, plain.positions)
        np.testing.assert_array_equal(other.element, plain.element)


def test_only_the_first_model_is_read(pdb):
    lines = ["MODEL        1\n", LINES[0], "ENDMDL\n", "MODEL        2\n", LINES[3], LINES[4], "ENDMDL\n"]
    assert len(read_atoms(pdb(lines))) == 1


def test_assembly_is_expanded(pdb):
    remark = [
        "REMARK 350 BIOMOLECULE: 1\n",
        "REMARK 350 APPLY THE FOLLOWING TO CHAINS: A\n",
        "REMARK 350   BIOMT1   1  1.000000  0.000000  0.000000        0.00000\n",
        "REMARK 350   BIOMT2   1  0.000000  1.000000  0.000000        0.00000\n",
        "REMARK 350   BIOMT3   1  0.000000  0.000000  1.000000        0.00000\n",
        "REMARK 350   BIOMT1   2 -1.000000  0.000000  0.000000       50.00000\n",
        "REMARK 350   BIOMT2   2  0.000000 -1.000000  0.000000        0.00000\n",
        "REMARK 350   BIOMT3   2  0.000000  0.000000  1.000000        0.00000\n",
    ]
    path = pdb([*remark, LINES[0]])
    assert len(read_atoms(path)) == 1
    atoms = read_atoms(path, assembly="1")
    np.testing.assert_allclose(atoms.positions, [[1, 2, 3], [49, -2, 3]])
    assert len(set(atoms.chain.tolist())) == 2
    with pytest.raises(UserError, match=r"model\.pdb: expected an assembly '7', found 1"):
        read_atoms(path, assembly="7")


def test_anisotropic_displacements_are_not_written_back(tmp_path, pdb):
    anisotropic = "ANISOU    1  N   ALA A   1     1000   2000   3000    100    100    100       N\n"
    atoms = read_atoms(pdb([LINES[0], anisotropic]))
    assert not next(iter(atoms.structure[0].all())).atom.aniso.nonzero()


@pytest.mark.parametrize(
    ("content", "name", "match"),
    [
        (b"hello", "model.cif", "cannot be read"),
        (b"hello\n", "model.pdb", "found no atoms"),
        (b"", "model.pdb", "found no atoms"),
        (b"\x1f\x8b\x08\x00garbage", "model.pdb.gz", "model.pdb.gz: expected an atomic model"),
        (b"hello", "model.txt", "cannot be read"),
        (LINES[6].encode(), "model.pdb", "found no atoms"),
        (LINES[7].encode(), "model.pdb", "found no atoms"),
        (
            line("Q1", "X", 1, 2, 3).encode(),
            "model.pdb",
            "expected elements from H to Cf, found 'X' at atom 'Q1'",
        ),
        (line("ES", "ES", 1, 2, 3).encode(), "model.pdb", "expected elements from H to Cf, found 'Es'"),
    ],
)
def test_invalid_models_raise(tmp_path, content, name, match):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=match) as caught:
        read_atoms(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_missing_file_raises(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_atoms(tmp_path / "none.pdb")


@pytest.mark.parametrize("element", ["H", "C", "N", "O", "P", "S", "Fe", "Zn", "U"])
def test_form_factors_are_those_of_gemmi(element):
    a, b = form_factors()[gemmi.Element(element).atomic_number]
    for s in (0.0, 0.1, 0.5):
        expected = gemmi.Element(element).c4322.calculate_sf(stol2=s**2 / 4)
        np.testing.assert_allclose((a * np.exp(-b * s**2 / 4)).sum(), expected, rtol=1e-6)


def test_translated_model_and_its_file_agree(tmp_path, pdb):
    atoms = translate_atoms(read_atoms(pdb(LINES)), (10, 20, 30.5))
    np.testing.assert_allclose(atoms.positions[0], [11, 22, 33.5])
    write_model(tmp_path / "out.cif", atoms, (40.0, 50.0, 60.0))
    again = read_atoms(tmp_path / "out.cif")
    np.testing.assert_allclose(again.positions, atoms.positions, atol=1e-4)
    np.testing.assert_allclose(again.b_factor, atoms.b_factor, atol=1e-2)
    np.testing.assert_allclose(again.occupancy, atoms.occupancy)
    cell = gemmi.read_structure(str(tmp_path / "out.cif")).cell
    assert (cell.a, cell.b, cell.c) == (40, 50, 60)


def test_translation_does_not_change_the_original(pdb):
    atoms = read_atoms(pdb(LINES))
    translate_atoms(atoms, (10, 20, 30))
    assert next(iter(atoms.structure[0].all())).atom.pos.tolist() == [1, 2, 3]


@pytest.mark.parametrize(("name", "count"), [("cryoem/8tze.cif.gz", 6255), ("cryoem/9chv.cif.gz", 6644)])
def test_real_models(shared, name, count):
    path = shared / "models" / name
    structure = gemmi.read_structure(str(path))
    structure.remove_hydrogens()
    structure.remove_waters()
    assert len(read_atoms(path)) == count == structure[0].count_atom_sites()


def test_helical_copies_are_turned_and_shifted():
    unit = phantom(10, seed=1)
    copies = helical_copies(unit, 30.0, 5.0, (-1, 0, 2)).positions.reshape(3, -1, 3)
    x, y, z = unit.positions.T
    for number, found in zip((-1, 0, 2), copies, strict=True):
        angle = np.deg2rad(30 * number)
        expected = [np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y, z + 5 * number]
        np.testing.assert_allclose(found, np.transpose(expected), atol=1e-3)
