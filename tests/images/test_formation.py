"""Image formation, compared with cryojax's reference images, RELION's convention, and slow NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest
from reference import cryojax_vectors as cryojax
from scipy.spatial.transform import Rotation

from crefjax.images.formation import (
    contrast,
    detected,
    half_exposures,
    image_transfer,
    phase_per_density,
)
from crefjax.simulate.density import Scatterers, density
from crefjax.simulate.imaging import CtfParameters, images_of_slices
from crefjax.simulate.reconstruction import oversampled_spectrum, project

OPTICS = CtfParameters(
    amplitude_contrast=cryojax.AMPLITUDE_CONTRAST,
    spherical_aberration=cryojax.ABERRATION,
    voltage=cryojax.VOLTAGE,
)
BOX = (cryojax.SIDE, cryojax.SIDE)


@pytest.fixture(scope="module")
def expected():
    return np.load(cryojax.FILE)


@pytest.fixture(scope="module")
def projection():
    middle = cryojax.SIDE // 2 * cryojax.PIXEL_SIZE
    atoms = Scatterers(cryojax.POSITIONS, cryojax.AMPLITUDES, cryojax.B_FACTORS)
    box = density(atoms, (cryojax.SIDE,) * 3, cryojax.PIXEL_SIZE, shift=(middle,) * 3)
    matrix = Rotation.from_rotvec(np.deg2rad(cryojax.ANGLE) * cryojax.AXIS).as_matrix()
    on_zyx = matrix[::-1, ::-1].astype(np.float32)
    return images_of_slices(project(oversampled_spectrum(box), on_zyx[None]), cryojax.SIDE)[0] * cryojax.PIXEL_SIZE


def transfer_of(azimuth):
    defocus = jnp.array([cryojax.DEFOCUS_U, cryojax.DEFOCUS_V, azimuth])
    return image_transfer(BOX, cryojax.PIXEL_SIZE, defocus, OPTICS)


def test_astigmatic_ctf_is_that_of_cryojax(expected):
    """With the other sign, and the azimuth from the y axis, as cryojax 0.6 has it; RELION's is from the x axis."""
    found = -np.asarray(transfer_of(90 - cryojax.AZIMUTH))
    inside = np.ones_like(found, bool)
    inside[cryojax.SIDE // 2], inside[:, -1] = False, False  # Nyquist's direction is one of two
    np.testing.assert_allclose(found[inside], expected["ctf"][inside], atol=2e-3)


def test_azimuth_is_measured_from_x_towards_y():
    """RELION: `deltaf = (U + V) / 2 + (U - V) / 2 cos(2 (atan2(y, x) - azimuth))`; along x at azimuth 0 it is U."""
    defocus = jnp.array([12000.0, 6000.0, 0.0])
    found = np.asarray(image_transfer((64, 64), 2.0, defocus, OPTICS))
    wavelength, cs = 0.0196875, 2.7e7
    for (y, x), value in (((0, 10), 12000.0), ((10, 0), 6000.0), ((-10, 10), 9000.0)):
        g2 = (np.hypot(y, x) / 64 / 2.0) ** 2
        phase = np.pi * wavelength * g2 * (value - 0.5 * wavelength**2 * g2 * cs) + np.arcsin(0.1)
        np.testing.assert_allclose(found[y, x], np.sin(phase), atol=2e-3)


def test_envelope_is_a_gaussian():
    defocus = jnp.array([12000.0, 12000.0, 0.0])
    plain, damped = (np.asarray(image_transfer((32, 32), 2.0, defocus, OPTICS, b)) for b in (0.0, 100.0))
    y, x = np.meshgrid(np.fft.fftfreq(32, 2.0), np.fft.rfftfreq(32, 2.0), indexing="ij")
    np.testing.assert_allclose(damped, plain * np.exp(-25.0 * (y**2 + x**2)), atol=1e-6)


def test_projection_is_that_of_cryojax(projection, expected):
    scale = expected["projection"].max()
    np.testing.assert_allclose(projection / scale, expected["projection"] / scale, atol=1e-3)


def test_expected_counts_are_those_of_cryojax(projection, expected):
    image = contrast(projection * phase_per_density(cryojax.VOLTAGE), transfer_of(90 - cryojax.AZIMUTH))
    intensity = np.asarray(1 - image, np.float64)
    counts = intensity / intensity.mean() * cryojax.DOSE * cryojax.PIXEL_SIZE**2  # cryojax divides by the mean
    np.testing.assert_allclose(counts, expected["counts"], atol=0.005 * expected["counts"].std())


def test_contrast_matches_numpy(random):
    phase = random.normal(size=(24, 30)).astype(np.float32)
    transfer = np.asarray(image_transfer((24, 30), 2.0, jnp.array([9000.0, 9000.0, 0.0]), OPTICS, 50.0))
    expected = 2 * np.fft.irfft2(np.fft.rfft2(phase) * transfer, s=phase.shape)
    np.testing.assert_allclose(contrast(phase, transfer), expected, atol=1e-5)


@pytest.mark.parametrize(("voltage", "constant"), [(300.0, 0.000653), (200.0, 0.000729), (100.0, 0.000924)])
def test_phase_is_the_interaction_constant_times_the_potential(voltage, constant):
    """Interaction constants in rad/(V Å) of Kirkland 2010; a scattering length density of 1/Å is 47.878 V Å."""
    np.testing.assert_allclose(phase_per_density(voltage), constant * 47.878, rtol=2e-3)


def test_the_detector_damps_a_wave_by_its_mtf():
    x = np.arange(64)
    wave = np.broadcast_to(np.cos(2 * np.pi * 16 * x / 64), (64, 64)).astype(np.float32)  # half of Nyquist
    np.testing.assert_allclose(detected(1 + wave, 0.5), 1 + 0.5**0.25 * wave, atol=1e-5)


def test_half_exposures_have_the_mean_and_the_variance_of_counts(random):
    expected = np.full((200, 200), 0.9, np.float32)
    even, odd = half_exposures(expected, 60.0, random)
    for half in (even, odd):
        assert np.mean(half) == pytest.approx(0.9, abs=4 * np.sqrt(0.9 / 30 / expected.size))
        assert np.var(half) == pytest.approx(0.9 / 30, rel=0.03)  # of n counts over their 30 per unit
        np.testing.assert_allclose(half * 30, np.round(half * 30), atol=1e-4)
    assert abs(np.corrcoef(even.ravel(), odd.ravel())[0, 1]) < 0.02
    assert np.var((even + odd) / 2) == pytest.approx(0.9 / 60, rel=0.03)


def test_a_negative_intensity_gives_no_counts(random):
    even, odd = half_exposures(np.full((4, 4), -0.5, np.float32), 60.0, random)
    assert not even.any()
    assert not odd.any()
