"""Specimens: contrast to ice, amorphous layers, and what else a micrograph shows."""

import jax
import numpy as np
import pytest

from crefjax.errors import UserError
from crefjax.images.specimen import (
    amorphous_phase,
    carbon_edge,
    contamination,
    ice_density,
    specimen_of_atoms,
    specimen_of_map,
    uneven_thickness,
    water_form_factor,
)
from crefjax.io.maps import Map
from crefjax.simulate.phantom import phantom


def test_ice_has_the_potential_of_water_molecules():
    """Neutral O and H scatter by 1.98 and 0.53 Å forward (International Tables C, 4.3.2.2); 47.88 V Å² each Å."""
    assert ice_density() == pytest.approx(0.0311 * (1.983 + 2 * 0.529), rel=0.01)
    assert ice_density() * 47.88 == pytest.approx(4.5, abs=0.1)  # V, as calculated for isolated atoms


def test_integral_of_a_particle_is_its_atoms_less_the_ice(specimen):
    atoms = phantom(300)
    forward = {6: 2.509, 7: 2.211, 8: 1.983, 16: 5.161}  # Å, of the same table
    total = sum(forward[int(number)] for number in atoms.element)
    expected = total - len(atoms) * 17.1 * ice_density()
    assert specimen.density.sum() * 4.0**3 == pytest.approx(expected, rel=0.02)


def test_particles_are_in_the_middle_of_their_box(specimen):
    weight = np.maximum(specimen.density, 0)
    grid = np.indices(specimen.density.shape) - len(specimen.density) // 2
    atoms = phantom(300)
    off = (atoms.positions.mean(0) - atoms.center)[::-1] / 4.0
    np.testing.assert_allclose((grid * weight).sum((1, 2, 3)) / weight.sum(), off, atol=0.25)


def test_a_box_that_is_odd_or_too_small_is_refused():
    with pytest.raises(UserError, match="even side"):
        specimen_of_atoms(phantom(300), 4.0, 25)
    with pytest.raises(UserError, match="phantom: expected a box of at least"):
        specimen_of_atoms(phantom(300), 2.0, 20)


def test_a_map_is_scaled_to_the_contrast_of_protein(random):
    array = random.normal(5, 0.01, (24, 20, 22)).astype(np.float32)
    array[8:16, 6:14, 7:15] += 3
    specimen = specimen_of_map(Map.from_array(array, 5.0))
    assert specimen.density.shape == (24, 24, 24)
    # The cube alone has 1 in 27 of the voxels; with its blurred surroundings the mean is less than within it.
    assert 0.05 < specimen.density[10:14, 10:14, 10:14].mean() < 0.1
    scale = specimen.density[10:14, 10:14, 10:14].mean() / 3
    np.testing.assert_allclose(specimen.density[:, 2:22, 1:23], scale * (array - 5), atol=0.01 * scale)
    assert abs(np.median(specimen.density)) < 1e-3
    with pytest.raises(UserError, match="expected a box of at least 24 pixels"):
        specimen_of_map(Map.from_array(array, 5.0), 22)


def test_the_middle_of_a_map_with_odd_sides_comes_to_that_of_the_box(random):
    """Voxel 8 of 17, and voxel 10 of 20, to voxel 10 of 20."""
    array = random.normal(0, 0.01, (17, 20, 19)).astype(np.float32)
    array[8, 10, 9] = 5
    array[6:11, 8:13, 7:12] += 3
    density = specimen_of_map(Map.from_array(array, 5.0)).density
    assert np.unravel_index(density.argmax(), density.shape) == (10, 10, 10)


@pytest.mark.parametrize(("structure", "thickness"), [(1.0, 200.0), (0.1, 500.0)])
def test_ice_has_the_spectrum_of_independent_molecules(structure, thickness):
    shape, pixel = (128, 128), 2.0
    draws = [
        np.asarray(amorphous_phase(jax.random.key(i), shape, pixel, np.float32(thickness), structure, "ice"))
        for i in range(8)
    ]
    power = np.mean([np.abs(np.fft.fft2(draw)) ** 2 for draw in draws], 0) * pixel**2 / draws[0].size
    y, x = np.meshgrid(*(np.fft.fftfreq(n, pixel) for n in shape), indexing="ij")
    frequency = np.hypot(y, x)
    for at in (0.05, 0.1, 0.2):
        ring = np.abs(frequency - at) < 0.01
        expected = 0.0311 * thickness * structure * float(water_form_factor(np.array(at))) ** 2
        assert power[ring].mean() == pytest.approx(expected, rel=0.1)
    assert power[frequency > 0.26].max() < 1e-6


def test_thickness_varies_as_asked_about_its_mean():
    found = np.asarray(uneven_thickness(jax.random.key(1), (64, 64), 10.0, 300.0, 0.1))
    assert found.mean() == pytest.approx(300, rel=0.05)
    assert 0.05 < found.std() / 300 < 0.15
    assert found.min() >= 30


def test_carbon_covers_a_part_of_the_image_beyond_a_curved_edge(random):
    for _ in range(5):
        film = carbon_edge(random, (200, 200), 5.0)
        assert 0.03 < film.mean() < 0.5
        assert film.min() < 0.01
        assert film.max() > 0.99


def test_crystals_stop_a_part_of_the_electrons(random):
    stopped = contamination(random, (200, 200), 5.0, 4)
    assert 0.2 < stopped.max() <= 0.7
    assert np.median(stopped) < 0.01
    assert not contamination(random, (50, 50), 5.0, 0).any()
