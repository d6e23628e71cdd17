"""Reconstructions from simulated images against NumPy, analytic Gaussians, and the theory of their errors."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from scipy.spatial.transform import Rotation

from crefjax.errors import UserError
from crefjax.simulate.imaging import CtfParameters, Particles, image_frequencies, sample_rotations
from crefjax.simulate.reconstruction import (
    insert,
    oversampled_spectrum,
    project,
    reconstruct_signal_and_noise,
)

SIDE, COUNT, VOXEL, REFINEMENTS = 32, 512, 1.5, 2
AXIS = np.arange(SIDE) - SIDE // 2


def gaussians(centers, widths, heights, side=SIDE):
    """A density of Gaussians, analytic at the voxels; centers `(z, y, x)` from voxel side/2."""
    axis = np.arange(side) - side // 2
    density = np.zeros((side,) * 3)
    for center, width, height in zip(centers, widths, heights, strict=True):
        z, y, x = (np.exp(-((axis - c) ** 2) / (2 * width**2)) for c in center)
        density += height * z[:, None, None] * y[:, None] * x
    return density.astype(np.float32)


@functools.cache
def particle(kind):
    """Centers, widths and heights of an asymmetric density: sharp as atoms, or of soft blobs."""
    rng = np.random.default_rng(1)
    count, low, high = (150, 0.7, 0.8) if kind == "atoms" else (40, 1.0, 2.5)
    directions = rng.normal(size=(count, 3))
    radii = 0.3 * SIDE * rng.random((count, 1)) ** (1 / 3)
    centers = radii * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    return centers, rng.uniform(low, high, count), rng.uniform(0.5, 1.5, count)


@functools.cache
def parts_of(kind, particles=None, seed=0):
    """Reconstructions that several tests look at."""
    particles = particles or Particles(COUNT, ctf=None)
    return jax.tree.map(
        np.asarray,
        reconstruct_signal_and_noise(
            gaussians(*particle(kind)), VOXEL, jax.random.key(seed), particles, refinements=REFINEMENTS
        ),
    )


def frequencies(side=SIDE):
    """`(z, y, x)` whole numbers of `numpy.fft.rfftn`, and the radius."""
    full, half = np.fft.fftfreq(side, 1 / side), np.arange(side // 2 + 1)
    k = np.stack(np.meshgrid(full, full, half, indexing="ij"))
    return k, np.linalg.norm(k, axis=0)


def per_shell(map_1, map_2):
    """Cross and own powers of two maps in shells 0 to Nyquist, by NumPy: `(shells, 3)`."""
    _, radius = frequencies(len(map_1))
    shell = np.floor(radius + 0.5).astype(int).ravel()
    weight = np.full(radius.shape, 2.0)
    weight[..., [0, -1]] = 1
    a, b = np.fft.rfftn(map_1.astype(np.float64)), np.fft.rfftn(map_2.astype(np.float64))
    values = [(weight * value).ravel() for value in ((a * b.conj()).real, abs(a) ** 2, abs(b) ** 2, np.ones(a.shape))]
    return np.array([np.bincount(shell, value)[: len(map_1) // 2 + 1] for value in values]).T


def correlation(map_1, map_2):
    """Shell by shell."""
    sums = per_shell(map_1, map_2)
    return sums[:, 0] / np.sqrt(sums[:, 1] * sums[:, 2])


def slope(found, truth):
    """The regression of one map on another, shell by shell."""
    sums = per_shell(found, truth)
    return sums[:, 0] / sums[:, 2]


def slice_of_sum(density, axis=0):
    """NumPy's transform of the sum along an axis, at the image's frequencies, with the origin at pixel N/2."""
    k = image_frequencies(len(density)).astype(int)
    image = np.fft.ifftshift(density.astype(np.float64).sum(axis))
    return np.fft.fft2(image)[k[:, 0], k[:, 1]]


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


TURNS = {
    "none": (np.eye(3), lambda f: f),
    # A turn about z takes y to -x: counterclockwise seen from +z, with x right and y up.
    "90 about z": ([[1, 0, 0], [0, 0, 1], [0, -1, 0]], lambda f: np.rot90(f, 1, (2, 1))),
    "90 about y": ([[0, 0, -1], [0, 1, 0], [1, 0, 0]], lambda f: np.rot90(f, 1, (0, 2))),
    "90 about x": ([[0, 1, 0], [-1, 0, 0], [0, 0, 1]], lambda f: np.rot90(f, 1, (1, 0))),
}


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("compiled", [False, True])
def test_projections_along_axes_are_sums(turn, compiled):
    matrix, turned = TURNS[turn]
    matrix = np.array(matrix, np.float32)
    density = gaussians(*particle("atoms"))
    density[0] = density[:, 0] = density[:, :, 0] = 0  # where a turn about voxel N/2 leaves the box
    odd = turned(density[1:, 1:, 1:])  # voxel N/2 is the middle of these
    expected = slice_of_sum(np.pad(odd, ((1, 0),) * 3))
    # The matrix itself, on coordinates: the density's voxel p is found at R p.
    z, y, x = np.rint(matrix @ [3, -5, 7]).astype(int) + SIDE // 2 - 1
    assert odd[z, y, x] == density[SIDE // 2 + 3, SIDE // 2 - 5, SIDE // 2 + 7]
    found = (jax.jit(project) if compiled else project)(oversampled_spectrum(density), matrix[None])
    assert relative(found[0], expected) < 2e-3


def test_projections_of_gaussians_are_those_of_rotated_gaussians():
    rotations = np.asarray(sample_rotations(jax.random.key(1), 6))
    centers, widths, heights = particle("blobs")
    found = project(oversampled_spectrum(gaussians(centers, widths, heights)), rotations)
    for slice_, rotation in zip(found, rotations, strict=True):
        expected = slice_of_sum(gaussians(centers @ rotation.T, widths, heights))
        assert relative(slice_, expected) < 2e-3


def test_projection_is_the_sum_of_a_density_rotated_by_scipy():
    rotation = Rotation.from_euler("zyx", [50, -20, 35], degrees=True).as_matrix()
    density = gaussians(*particle("blobs"))
    center = np.full(3, SIDE // 2)
    turned = scipy.ndimage.affine_transform(density, rotation.T, center - rotation.T @ center, order=5)
    found = project(oversampled_spectrum(density), rotation[None].astype(np.float32))
    assert relative(found[0], slice_of_sum(turned)) < 5e-3


def insert_by_loops(slices, rotations, side):
    """Linear interpolation of the slices and their Friedel mates into the whole grid, point by point."""
    sums = np.zeros((2 * side,) * 3, complex)
    frequency = np.column_stack([np.zeros(slices.shape[1]), image_frequencies(side)])
    for slice_, rotation in zip(slices, rotations, strict=True):
        for k, value in zip(frequency @ rotation, slice_, strict=True):
            for point, sample in ((2 * k, value), (-2 * k, np.conj(value))):
                low = np.floor(point).astype(int)
                for corner in np.ndindex(2, 2, 2):
                    weight = np.prod(np.where(corner, point - low, low + 1 - point))
                    sums[tuple((low + corner) % (2 * side))] += weight * sample
    return sums


@pytest.mark.parametrize("compiled", [False, True])
def test_insertion_is_linear_interpolation_with_friedel_mates(compiled):
    side = 8
    rotations = np.asarray(sample_rotations(jax.random.key(2), 5))
    rng = np.random.default_rng(3)
    shape = (5, len(image_frequencies(side)))
    slices, power = rng.normal(size=shape) + 1j * rng.normal(size=shape), rng.random(shape)
    slices[:, 0] = slices[:, 0].real
    start = jnp.zeros((16, 16, 9, 3))
    sums = (jax.jit(insert) if compiled else insert)(
        start, jnp.asarray(slices[..., None], jnp.complex64), jnp.asarray(power, jnp.float32), rotations
    )
    for found, values in ((sums[..., 0] + 1j * sums[..., 1], slices), (sums[..., 2], power)):
        expected = insert_by_loops(values, rotations, side)
        np.testing.assert_allclose(found[:, :, 1:8], expected[:, :, 1:8], atol=1e-4)
        # Half of what is on the plane x = 0 stands at its mates; the mean, its own mate, is in the loops twice.
        plane = np.array(found[:, :, 0])
        plane += np.roll(plane[::-1, ::-1], (1, 1), (0, 1)).conj()
        np.testing.assert_allclose(plane, expected[:, :, 0], atol=1e-4)


@pytest.mark.parametrize("kind", ["atoms", "blobs"])
@pytest.mark.parametrize("ctf", [None, CtfParameters()])
def test_exact_images_reconstruct_the_density(kind, ctf):
    density = gaussians(*particle(kind))
    parts = parts_of(kind, Particles(COUNT, ctf=ctf))
    for half in (parts.signal_1, parts.signal_2):
        assert half.dtype == np.float32
        assert half.shape == density.shape
        assert correlation(half, density)[1 : int(0.4 * SIDE) + 1].min() > 0.99
        assert abs(slope(half, density)[1 : SIDE // 4 + 1] - 1).max() < 0.02
        np.testing.assert_allclose(half.sum(), density.sum(), rtol=0.07)  # a single sample in every image
        # In place to a small part of a voxel, and not its mirror image.
        for other in (density[:, :, ::-1], density.transpose(0, 2, 1), np.roll(density, 1, 0)):
            assert np.corrcoef(half.ravel(), other.ravel())[0, 1] < 0.97
        assert np.corrcoef(half.ravel(), density.ravel())[0, 1] > 0.995  # what lies beyond Nyquist is gone
    assert not np.array_equal(parts.signal_1, parts.signal_2)


def test_a_refinement_brings_the_lowest_shells_to_scale():
    density = gaussians(*particle("atoms"))
    particles = Particles(COUNT)
    errors = []
    for refinements in (0, 1):
        parts = reconstruct_signal_and_noise(density, VOXEL, jax.random.key(0), particles, refinements=refinements)
        errors.append(abs(slope(np.asarray(parts.signal_1), density)[1:5] - 1).max())
    errors.append(abs(slope(parts_of("atoms", particles).signal_1, density)[1:5] - 1).max())
    assert errors[0] > 2 * errors[1] > 3 * errors[2]


def test_noise_of_the_halves_is_independent():
    parts = parts_of("atoms", Particles(COUNT, ctf=None))
    voxels = per_shell(parts.noise_1, parts.noise_2)[:, 3]
    # Neighbors in Fourier space share images; a shell is worth no fewer than a quarter of its pairs.
    scatter = 1 / np.sqrt(voxels / 2 / 4)
    assert (abs(correlation(parts.noise_1, parts.noise_2)) < 4 * scatter)[1 : SIDE // 2].all()
    assert (abs(correlation(parts.noise_1, parts.signal_1)) < 4 * scatter)[1 : SIDE // 2].all()


@pytest.mark.parametrize("ctf", [None, CtfParameters()])
def test_noise_has_the_spectrum_of_slices_and_ctf(ctf):
    noise = np.concatenate([[half] for half in parts_of("atoms", Particles(COUNT, ctf=ctf))[2:4]])
    sums = np.mean([per_shell(half, half) for half in noise], 0)
    shells = np.arange(1, SIDE // 2 + 1)
    # At radius s a voxel holds COUNT / (2 s) samples of variance SIDE², each of which tells as much as its CTF².
    tell = np.ones(len(shells)) if ctf is None else np.mean(ctf_by_numpy(shells / (SIDE * VOXEL), ctf) ** 2, 0)
    expected = 2 * shells * SIDE**2 / COUNT / tell
    found = (sums[:, 1] / sums[:, 3])[1:]
    fair = (shells > 4) & (shells < 0.45 * SIDE)
    np.testing.assert_allclose(found[fair], expected[fair], rtol=0.3)
    assert abs(np.mean(found[fair] / expected[fair]) - 1) < 0.2


def ctf_by_numpy(frequency, ctf):
    """`(defocus, frequency)`, over the range of defocus; 300 kV."""
    defocus = np.linspace(ctf.defocus_min, ctf.defocus_max, 101)[:, None]
    wavelength = 0.0196875
    phase = math.pi * wavelength * frequency**2 * (defocus - wavelength**2 * frequency**2 * 2.7e7 / 2)
    return np.sin(phase + math.asin(0.1))


def test_projection_variance_is_that_of_sums_along_axes():
    density = gaussians(*particle("atoms"))
    parts = parts_of("atoms", Particles(COUNT, ctf=None))
    # The variance of projections, from NumPy's sums along the axes: views of this density differ little.
    variance = np.mean([density.sum(axis).var() for axis in range(3)])
    np.testing.assert_allclose(parts.projection_variance, variance, rtol=0.1)


def test_projection_variance_of_a_gaussian():
    width = 2.5
    density = gaussians([(0, 0, 0)], [width], [1.0])
    parts = reconstruct_signal_and_noise(density, VOXEL, jax.random.key(0), Particles(COUNT), refinements=0)
    image = math.sqrt(2 * math.pi) * width * np.exp(-(AXIS[:, None] ** 2 + AXIS**2) / (2 * width**2))
    np.testing.assert_allclose(parts.projection_variance, image.var(), rtol=1e-3)


def attenuation(particles, center, exponent):
    """The regression of a reconstructed Gaussian on the Gaussian times `exp(-exponent(k))`, in bins of the exponent."""
    density = gaussians([center], [0.8], [1.0])
    parts = reconstruct_signal_and_noise(density, VOXEL, jax.random.key(4), particles, refinements=REFINEMENTS)
    half = 0.5 * np.asarray(parts.signal_1 + parts.signal_2)
    k, radius = frequencies()
    found, truth = (np.fft.rfftn(map_.astype(np.float64)) for map_ in (half, density))
    value = exponent(k)
    slopes = []
    for low, high in itertools.pairwise(np.linspace(0, 1.5, 7)):
        some = (value >= low) & (value < high) & (radius < 0.4 * SIDE) & (radius > 2)
        expected = np.exp(-value[some])
        slopes.append((found * truth.conj()).real[some].sum() / (expected * abs(truth[some]) ** 2).sum())
    return np.array(slopes)


def test_pose_errors_smear_density_away_from_the_center():
    degrees, distance = 5.0, 9.0
    sigma = math.radians(degrees)

    def exponent(k):
        # k . (w x d) for Gaussian w: variance sigma² |k x d|², d along z.
        return 2 * math.pi**2 * sigma**2 * distance**2 * (k[1] ** 2 + k[2] ** 2) / SIDE**2

    particles = Particles(COUNT, pose_error=degrees, ctf=None)
    np.testing.assert_allclose(attenuation(particles, (distance, 0, 0), exponent), 1, atol=0.1)


def test_shift_errors_blur_everything():
    shift = 2.0  # Å

    def exponent(k):
        return 2 * math.pi**2 * shift**2 * np.sum(k**2, 0) / (SIDE * VOXEL) ** 2

    particles = Particles(COUNT, shift_error=shift, ctf=None)
    np.testing.assert_allclose(attenuation(particles, (0, 3, -4), exponent), 1, atol=0.1)


def test_preferred_views_leave_a_cone_empty():
    density = gaussians(*particle("atoms"))
    half = parts_of("atoms", Particles(COUNT, preferred=40.0, ctf=None)).signal_1
    k, radius = frequencies()
    tilt = np.degrees(np.arccos(abs(k[0]) / np.maximum(radius, 1)))
    found, truth = (np.fft.rfftn(map_.astype(np.float64)) for map_ in (half, density))

    def regression(some):
        some &= (radius > 4) & (radius < 0.4 * SIDE)
        return (found * truth.conj()).real[some].sum() / (abs(truth[some]) ** 2).sum()

    # Views along z hold the frequencies across it.
    assert abs(regression(tilt > 80) - 1) < 0.02
    assert regression(tilt < 30) < 0.3


def test_particles_depend_on_the_key_and_not_on_the_batch():
    density, particles = gaussians(*particle("atoms")), Particles(COUNT)
    make = functools.partial(reconstruct_signal_and_noise, density, VOXEL, particles=particles, refinements=0)
    first = make(key=jax.random.key(1), batch=64)
    again = make(key=jax.random.key(1), batch=64)
    for array, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(array, other)
    for array, other in zip(first, make(key=jax.random.key(1), batch=100), strict=True):
        np.testing.assert_allclose(array, other, atol=1e-5 * float(jnp.abs(array).max()))
    assert correlation(np.asarray(first.noise_1), np.asarray(make(key=jax.random.key(2), batch=64).noise_1))[8] < 0.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"density": np.zeros((8, 8, 10))}, r"cubic density.*\(8, 8, 10\)"),
        ({"density": np.zeros((9, 9, 9))}, "even side"),
        ({"density": np.full((8, 8, 8), np.nan)}, "NaN"),
        ({"voxel_size": 0.0}, "voxel size.*0.0"),
        ({"batch": 0}, "batch"),
        ({"refinements": -1}, "refinements"),
        ({"particles": Particles(0)}, "at least one particle"),
    ],
)
def test_invalid_densities_and_settings_raise(change, message):
    arguments = {"density": np.zeros((8, 8, 8)), "voxel_size": 1.0, "key": jax.random.key(0), "refinements": 1}
    with pytest.raises(UserError, match=message):
        reconstruct_signal_and_noise(**(arguments | {"particles": Particles(10)} | change))
