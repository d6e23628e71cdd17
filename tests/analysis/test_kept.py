"""What is left of the parts of a specimen: kinds of residues, fits, and a small specimen with all of its parts."""

import gemmi
import numpy as np
import pytest

from analysis.validation import kept
from analysis.validation.kept import BELT, NOISE, EmptyPlaces, Row, fit, make_specimen, measure, shell_gain
from analysis.validation.specimen_parts import PARTIAL, find_pieces, lower_occupancy, residue_kind
from crefjax.simulate.atoms import from_structure
from crefjax.simulate.phantom import phantom
from crefjax.spectral.shells import filter_shells


def residue(name, elements, entity=gemmi.EntityType.NonPolymer, spread=1.5, center=(0, 0, 0)):
    made = gemmi.Residue()
    made.name, made.seqid, made.entity_type = name, gemmi.SeqId(1, " "), entity
    for number, element in enumerate(elements):
        atom = gemmi.Atom()
        atom.name, atom.element = f"{element}{number}", gemmi.Element(element)
        x, y, z = center
        atom.pos = gemmi.Position(x + spread * (number % 3), y + spread * (number // 3 % 3), z + spread * (number // 9))
        atom.b_iso, atom.occ = 40.0, 1.0
        made.add_atom(atom)
    return made


@pytest.mark.parametrize(
    ("name", "elements", "entity", "kind"),
    [
        ("ALA", "NCCOC", gemmi.EntityType.Polymer, "protein"),
        ("DA", "PONC", gemmi.EntityType.Polymer, "DNA"),
        ("U", "PONC", gemmi.EntityType.Polymer, "RNA"),
        ("NAG", "CCOON", gemmi.EntityType.Branched, "glycan"),
        ("ZN", ["Zn"], gemmi.EntityType.NonPolymer, "ion"),
        ("CLR", "CCCCO", gemmi.EntityType.NonPolymer, "lipid"),
        ("ATP", "PONC", gemmi.EntityType.NonPolymer, "ligand"),
        ("XYZ", "CCNO", gemmi.EntityType.NonPolymer, "ligand"),
        ("XYZ", "CCNO", gemmi.EntityType.Polymer, "protein"),
    ],
)
def test_residues_are_classified_by_their_components(name, elements, entity, kind):
    assert residue_kind(residue(name, elements, entity)) == kind


@pytest.fixture(scope="module")
def atoms():
    structure = phantom(60, seed=4).structure.clone()
    chain = gemmi.Chain("L")
    top = max(site.atom.pos.z for site in structure[0].all())
    chain.add_residue(residue("LIG", "CCNOCCNOCCNOCC", center=(0, 0, top + 4)))
    structure[0].add_chain(chain)
    return from_structure(structure, "phantom with a ligand")


def test_the_end_of_the_longest_chain_has_a_low_occupancy(atoms):
    changed, partial = lower_occupancy(atoms)
    np.testing.assert_allclose(changed.occupancy, np.where(partial, 0.3, 1) * atoms.occupancy, rtol=1e-6)
    assert 0 < partial.sum() < 0.3 * len(atoms)
    assert len(set(changed.chain[partial])) == 1
    pieces = find_pieces(changed, partial)
    assert pieces.atoms_of(PARTIAL).sum() == partial.sum()
    (ligand,) = pieces.pieces_of("ligand")
    assert ligand.sum() == 14


def test_the_fit_finds_the_shares_of_part_and_rest():
    random = np.random.default_rng(0)
    part, rest = random.random((2, 500))
    a, correlation = fit(0.3 * part + 1.7 * rest + 5, part, part + rest)
    assert a == pytest.approx(0.3, abs=1e-6)
    assert correlation == pytest.approx(np.corrcoef(0.3 * part + 1.7 * rest, part + rest)[0, 1])


def test_the_gain_of_shells_is_that_of_a_filter():
    random = np.random.default_rng(1)
    truth = random.normal(size=(24,) * 3).astype(np.float32)
    factors = np.linspace(1, 0.2, 13)
    found = shell_gain(filter_shells(truth, factors), truth, np.ones_like(truth))
    np.testing.assert_allclose(found[2:-1], factors[2:-1], atol=0.02)


def test_empty_places_are_beside_the_particle_and_apart():
    mask = np.zeros((60,) * 3, np.float32)
    mask[25:35, 25:35, 25:35] = 1
    places = EmptyPlaces(mask, 1.0, np.random.default_rng(2)).draw((5, 7, 5), 6)
    assert len(places) == 6
    for number, place in enumerate(places):
        box = tuple(slice(at, at + side) for at, side in zip(place, (5, 7, 5), strict=True))
        assert mask[box].shape == (5, 7, 5)
        assert not mask[box].any()
        assert all(np.abs(place - other).max() >= 7 for other in places[:number])


def test_maps_of_known_content_are_measured_as_they_are(atoms, monkeypatch):
    monkeypatch.setattr(kept, "_NOISE_COPIES", 2)
    specimen = make_specimen(atoms, 6.0, belt=True)
    truth, ligand = specimen.simulation.truth, specimen.parts["ligand"]
    maps = {"truth": truth, "without ligand": 2 * (truth - 0.8 * ligand)}
    rows = {(row.map, row.kind): row for row in measure(specimen, maps, "phantom", 6.0)}
    assert {kind for _, kind in rows} == {"protein", PARTIAL, "ligand", BELT, NOISE}
    for kind in ("protein", PARTIAL, "ligand", BELT):
        assert rows["truth", kind].kept == pytest.approx(1, abs=0.03)
        assert rows["truth", kind].correlation > 0.99
    assert rows["truth", "ligand"].lost == 0
    assert rows["without ligand", "ligand"].kept == pytest.approx(0.2, abs=0.1)
    assert rows["without ligand", "ligand"].lost == 1
    assert rows["without ligand", "protein"].kept == pytest.approx(1, abs=0.1)
    assert abs(rows["truth", NOISE].kept) < 0.1
    planted = specimen.simulation.half_map_1 + specimen.simulation.half_map_2
    with_noise = {row.kind: row for row in measure(specimen, {"full": planted / 2}, "phantom", 6.0)}
    assert with_noise[NOISE].kept == pytest.approx(1, abs=0.35)  # within the noise of the half-maps
    assert with_noise[NOISE].made_up == 1


def test_means_are_over_entries_and_shares_over_all_pieces():
    """Of one piece in one entry and three in another, two of them lost: half of the pieces."""
    rows = [
        Row("a", 3.0, "full map", "ion", 1, kept=0.4, correlation=0.9, lost=0.0, made_up=None),
        Row("b", 3.0, "full map", "ion", 3, kept=0.8, correlation=0.7, lost=2 / 3, made_up=1 / 3),
    ]
    (mean,) = kept._means(rows)
    assert (mean["pieces"], mean["kept"], mean["correlation"]) == (4, 0.6, 0.8)
    assert (mean["lost"], mean["made_up"]) == (0.5, pytest.approx(1 / 3, abs=1e-4))
