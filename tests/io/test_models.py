import gzip

import gemmi
import numpy as np
import pytest

from crefjax.errors import UserError
from crefjax.io import models as module
from crefjax.io.models import read_model


def line(name, element, x, y, z, *, residue="ALA", number=1, chain="A"):
    return (
        f"ATOM      1 {name:>4} {residue:>3} {chain}{number:4d}    "
        f"{x:8.3f}{y:8.3f}{z:8.3f}  1.00 30.00          {element:>2}\n"
    )


LINES = [
    line("N", "N", 1, 2, 3),
    line("CA", "C", 2, 3, 4),
    line("CB", "C", 2, 3, -4),
    line("HA", "H", 5, 6, 7),
    line("O", "O", 8, 8, 8, residue="HOH", number=90),
]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.pdb.gz"
    path.write_bytes(gzip.compress(("".join(LINES) + "END\n").encode()))
    return path


def atoms(cif):
    block = gemmi.cif.read_string(cif).sole_block()
    names = ("label_atom_id", "Cartn_x", "Cartn_y", "Cartn_z")
    return [(row[0], *map(float, list(row)[1:])) for row in block.find("_atom_site.", names)]


def test_model_has_its_atoms_without_waters_and_hydrogens(path):
    model = read_model(path)
    assert model.name == "model.pdb.gz"
    assert atoms(model.cif) == [("N", 1, 2, 3), ("CA", 2, 3, 4), ("CB", 2, 3, -4)]
    np.testing.assert_allclose(model.positions, [(1, 2, 3), (2, 3, 4), (2, 3, -4)])
    assert not model.backbone


def test_large_model_is_shown_by_its_backbone(path, monkeypatch):
    monkeypatch.setattr(module, "MANY_ATOMS", 2)
    model = read_model(path)
    assert [atom[0] for atom in atoms(model.cif)] == ["N", "CA"]
    assert model.backbone


def test_share_of_atoms_in_a_box(path):
    model = read_model(path)
    assert model.inside((0, 0, 0), (2, 3, 4)) == pytest.approx(2 / 3)
    assert model.inside((1.5, 0, -9), (2, 3, 20)) == pytest.approx(2 / 3)
    assert model.inside((50, 0, 0), (9, 9, 9)) == 0


def test_file_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_model(tmp_path / "missing.cif")
    (tmp_path / "waters.pdb").write_text(LINES[-1] + "END\n")
    with pytest.raises(UserError, match="found no atoms"):
        read_model(tmp_path / "waters.pdb")
