import gemmi
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from crefjax.simulate.atoms import from_structure, read_atoms, translate_atoms
from crefjax.simulate.density import density, next_fast_len, scatterers
from crefjax.simulate.phantom import phantom


def atoms_at(positions, elements="C", b_factors=30.0, occupancies=1.0):
    """A model of atoms at positions (x, y, z)."""
    positions = np.atleast_2d(positions)
    count = len(positions)
    elements = [elements] * count if isinstance(elements, str) else elements
    structure, model, chain = gemmi.Structure(), gemmi.Model(1), gemmi.Chain("A")
    values = zip(
        positions,
        elements,
        np.broadcast_to(b_factors, count),
        np.broadcast_to(occupancies, count),
        strict=True,
    )
    for number, (position, element, b_factor, occupancy) in enumerate(values):
        residue, atom = gemmi.Residue(), gemmi.Atom()
        residue.name, residue.seqid = "UNK", gemmi.SeqId(str(number + 1))
        atom.name, atom.element = element, gemmi.Element(element)
        atom.pos, atom.b_iso, atom.occ = gemmi.Position(*position), float(b_factor), float(occupancy)
        residue.add_atom(atom)
        chain.add_residue(residue)
    model.add_chain(chain)
    structure.add_model(model)
    return from_structure(structure, "made")


@pytest.fixture(scope="module")
def few():
    random = np.random.default_rng(3)
    elements = random.choice(["C", "N", "O", "S", "Zn"], 40).tolist()
    return atoms_at(random.uniform(6, 18, (40, 3)), elements, random.uniform(5, 120, 40), random.uniform(0.3, 1, 40))


def direct_sum(atoms, shape, voxel_size, b_factor=0.0, origin=(0, 0, 0)):
    """The definition, term by term in float64: the spectrum `(z, y, x // 2 + 1)` of the density."""
    k = [np.fft.fftfreq(side, voxel_size) for side in shape[:2]] + [np.fft.rfftfreq(shape[2], voxel_size)]
    kz, ky, kx = np.meshgrid(*k, indexing="ij")
    squared = kz**2 + ky**2 + kx**2
    total = np.zeros(squared.shape, complex)
    for (x, y, z), b, occupancy, number in zip(
        atoms.positions.astype(float) - origin, atoms.b_factor, atoms.occupancy, atoms.element, strict=True
    ):
        coefficients = gemmi.Element(int(number)).c4322
        a, width = np.array(coefficients.a), np.array(coefficients.b)
        form = np.sum(a * np.exp(-width * squared[..., None] / 4), axis=-1)
        wave = np.exp(-2j * np.pi * (kx * x + ky * y + kz * z))
        total += occupancy * form * np.exp(-(b + b_factor) * squared / 4) * wave
    return total


def shell_amplitude_errors(spectrum, expected, shape, voxel_size, until=0.9):
    """For every shell to 0.9 of Nyquist, by how much the root mean square differs; and the correlation in all."""
    k = [np.fft.fftfreq(side, voxel_size) for side in shape[:2]] + [np.fft.rfftfreq(shape[2], voxel_size)]
    s = np.sqrt(k[0][:, None, None] ** 2 + k[1][None, :, None] ** 2 + k[2][None, None] ** 2)
    longest = max(shape)
    shell = np.floor(s * longest * voxel_size + 0.5).astype(int)
    inside = (shell > 0) & (shell <= until * longest / 2)
    sums = [np.bincount(shell[inside], np.abs(values[inside]) ** 2)[1:] for values in (spectrum, expected)]
    cross = np.sum((spectrum * expected.conj()).real[inside])
    correlation = cross / np.sqrt(sums[0].sum() * sums[1].sum())
    return np.abs(np.sqrt(sums[0] / sums[1]) - 1), correlation


def gemmi_density(atoms, side, voxel_size, *, finer=1, blur=0.0):
    """gemmi's own density on a P 1 grid, `finer` times as fine, its atoms blurred by a B-factor; `(z, y, x)`."""
    calculator = gemmi.DensityCalculatorE()
    calculator.d_min, calculator.cutoff, calculator.blur = 2 * voxel_size, 1e-7, blur
    calculator.grid.set_size(*[side * finer] * 3)
    calculator.grid.set_unit_cell(gemmi.UnitCell(*[side * voxel_size] * 3, 90, 90, 90))
    calculator.grid.spacegroup = gemmi.SpaceGroup("P 1")
    for site in atoms.structure[0].all():
        calculator.add_atom_density_to_grid(site.atom)
    return np.array(calculator.grid.array, np.float64).transpose(2, 1, 0)


def unblurred_spectrum(grid, side, voxel_size, blur):
    """The half-spectrum of a coarser box, with the blur taken off; its Nyquist planes are left at 0."""
    fine = np.fft.rfftn(grid) / grid.size * (side * voxel_size) ** 3
    spectrum = np.zeros((side, side, side // 2 + 1), complex)
    k = np.arange(-(side // 2) + 1, side // 2)
    spectrum[np.ix_(k, k, np.arange(side // 2))] = fine[np.ix_(k, k, np.arange(side // 2))]
    f = np.fft.fftfreq(side, voxel_size)
    squared = f[:, None, None] ** 2 + f[None, :, None] ** 2 + np.fft.rfftfreq(side, voxel_size)[None, None] ** 2
    return spectrum * np.exp(blur * squared / 4)


def in_box(atoms, voxel_size, margin=12.0):
    side = next_fast_len((atoms.extent.max() + 2 * margin) / voxel_size)
    return translate_atoms(atoms, side * voxel_size / 2 - atoms.center), side


def assert_agrees_with_gemmi(atoms, voxel_size, finer, blur):
    atoms, side = in_box(atoms, voxel_size)
    shape = (side,) * 3
    ours = np.asarray(density(scatterers(atoms, voxel_size), shape, voxel_size), np.float64)
    theirs = gemmi_density(atoms, side, voxel_size, finer=finer, blur=blur)
    expected = unblurred_spectrum(theirs, side, voxel_size, blur)
    spectrum = np.fft.rfftn(ours) * voxel_size**3
    errors, correlation = shell_amplitude_errors(spectrum, expected, shape, voxel_size)
    assert errors.max() < 0.005
    assert correlation > 0.9995


@pytest.mark.parametrize("voxel_size", [1.0, 1.5])
@pytest.mark.parametrize(("finer", "blur"), [(2, 8.0), (1, 100.0)])
def test_phantom_agrees_with_gemmi(voxel_size, finer, blur):
    assert_agrees_with_gemmi(phantom(40), voxel_size, finer, blur)


@pytest.mark.parametrize(("name", "voxel_size"), [("7a4m", 1.0), ("9chv", 1.5)])
def test_real_model_agrees_with_gemmi(shared, name, voxel_size):
    atoms = read_atoms(shared / f"models/cryoem/{name}.cif.gz")
    assert_agrees_with_gemmi(atoms, voxel_size, 1, 100.0)


@pytest.mark.parametrize(("shape", "origin"), [((24, 26, 30), (0.0, 0.0, 0.0)), ((25, 24, 27), (1.3, -2.7, 0.45))])
def test_density_matches_the_direct_sum(few, shape, origin):
    result = density(scatterers(few, 1.0), shape, 1.0, origin=origin, b_factor=15.0)
    assert result.shape == shape
    assert result.dtype == jnp.float32
    spectrum = np.fft.rfftn(np.asarray(result, np.float64))
    expected = direct_sum(few, shape, 1.0, 15.0, np.array(origin))
    errors, correlation = shell_amplitude_errors(spectrum, expected, shape, 1.0)
    assert errors.max() < 2e-3
    assert correlation > 0.999999


def test_wide_atom_is_the_analytic_gaussian():
    # So wide that nothing is left at Nyquist, where the density is cut, or at the border.
    atoms = atoms_at((15.2, 16.7, 14.4), "O", 180.0)
    result = density(scatterers(atoms, 1.0), (32, 32, 32), 1.0)
    z, y, x = np.meshgrid(*[np.arange(32.0)] * 3, indexing="ij")
    squared = (x - 15.2) ** 2 + (y - 16.7) ** 2 + (z - 14.4) ** 2
    coefficients = gemmi.Element("O").c4322
    expected = np.zeros(squared.shape)
    for a, b in zip(coefficients.a, coefficients.b, strict=True):
        expected += a * (4 * np.pi / (b + 180)) ** 1.5 * np.exp(-4 * np.pi**2 * squared / (b + 180))
    np.testing.assert_allclose(result, expected, atol=2e-4 * expected.max())


def test_axes_are_z_y_x():
    # x, y and z of an atom are the last, the middle and the first index.
    result = density(scatterers(atoms_at((5 * 1.2, 9 * 1.2, 20 * 1.2)), 1.2), (24, 28, 30), 1.2)
    assert np.unravel_index(np.argmax(result), result.shape) == (20, 9, 5)
    result = density(scatterers(atoms_at((-10, 100, 7)), 1.0), (16, 16, 16), 1.0, origin=(-15, 96, 1))
    assert np.unravel_index(np.argmax(result), result.shape) == (6, 4, 5)


def test_rotation_is_right_handed():
    atoms = scatterers(atoms_at((16, 10, 10)), 1.0)
    quarter = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])  # about z: x to y
    result = density(atoms, (24, 24, 24), 1.0, rotation=quarter, center=(10, 10, 10))
    assert np.unravel_index(np.argmax(result), result.shape) == (10, 16, 10)


def test_rotation_shift_and_blur_are_those_of_the_atoms(few):
    rotation = Rotation.from_rotvec([0.3, -0.5, 1.1]).as_matrix()
    center, shift = np.array([12, 12, 12.0]), np.array([0.6, -1.2, 0.35])
    there = (few.positions - center) @ rotation.T + center + shift
    blurred = atoms_at(there, [gemmi.Element(int(e)).name for e in few.element], few.b_factor + 25, few.occupancy)
    expected = density(scatterers(blurred, 1.0), (24, 24, 24), 1.0)
    placement = {"rotation": rotation, "center": center, "shift": shift, "b_factor": 25.0}
    result = density(scatterers(few, 1.0), (24, 24, 24), 1.0, **placement)
    np.testing.assert_allclose(result, expected, atol=2e-3 * float(expected.max()))


def test_density_works_under_jit_and_vmap(few):
    atoms = scatterers(few, 1.0)
    rotations = Rotation.from_rotvec([[0, 0, 0.4], [0.7, 0, 0]]).as_matrix().astype(np.float32)

    @jax.jit
    def batch(rotations, voxel_sizes):
        def single(rotation, voxel_size):
            return density(atoms, (24, 24, 24), voxel_size, rotation=rotation, center=(12, 12, 12))

        return jax.vmap(single)(rotations, voxel_sizes)

    result = batch(rotations, np.array([1.2, 1.4], np.float32))
    for index, voxel_size in enumerate((1.2, 1.4)):
        projection = density(atoms, (24, 24, 24), voxel_size, rotation=rotations[index], center=(12, 12, 12))
        np.testing.assert_allclose(result[index], projection, atol=1e-5 * float(projection.max()))


def test_atoms_outside_the_box_are_dropped():
    inside, outside = (10.0, 10.0, 10.0), (10.0, 10.0, 40.0)
    both = density(scatterers(atoms_at([inside, outside]), 1.0), (24, 24, 24), 1.0)
    alone = density(scatterers(atoms_at([inside]), 1.0), (24, 24, 24), 1.0)
    np.testing.assert_allclose(both, alone, atol=1e-5 * float(alone.max()))


def test_the_mean_is_the_scattering_at_zero_angle(few):
    result = np.asarray(density(scatterers(few, 1.0), (24, 24, 24), 1.0), np.float64)
    expected = sum(
        occupancy * sum(gemmi.Element(int(number)).c4322.a)
        for number, occupancy in zip(few.element, few.occupancy, strict=True)
    )
    np.testing.assert_allclose(result.sum(), expected, rtol=1e-3)


@pytest.mark.parametrize("shape", [(20, 20), (3, 20, 20)])
def test_invalid_shapes_raise(few, shape):
    with pytest.raises(ValueError, match="at least 4 voxels"):
        density(scatterers(few, 1.0), shape, 1.0)


@pytest.mark.parametrize(("least", "side"), [(1, 2), (7, 8), (13, 16), (31.2, 32), (97, 100), (181, 192)])
def test_next_fast_len(least, side):
    assert next_fast_len(least) == side
