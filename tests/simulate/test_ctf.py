import math

import jax
import numpy as np
import pytest

from crefjax.errors import UserError
from crefjax.simulate.imaging import CtfParameters, contrast_transfer, electron_wavelength


@pytest.mark.parametrize(("voltage", "wavelength"), [(100, 0.037014), (200, 0.025079), (300, 0.019687)])
def test_wavelengths_are_those_of_the_tables(voltage, wavelength):
    np.testing.assert_allclose(electron_wavelength(voltage), wavelength, rtol=5e-5)


def test_wavelength_follows_from_the_constants_of_nature():
    h, m, e, c = 6.62607015e-34, 9.1093837015e-31, 1.602176634e-19, 299792458.0
    volt = 250e3
    expected = 1e10 * h / math.sqrt(2 * m * e * volt * (1 + e * volt / (2 * m * c**2)))
    np.testing.assert_allclose(electron_wavelength(250.0), expected, rtol=1e-6)


@pytest.mark.parametrize("transfer", [contrast_transfer, jax.jit(contrast_transfer)])
@pytest.mark.parametrize(
    ("frequency", "defocus", "cs", "amplitude", "expected"),
    [
        # sin(asin(A)) at the origin.
        (0.0, 12000.0, 2.7, 0.1, 0.1),
        # pi 0.0196875 0.01 (10000 - 0.5 0.00038760 0.01 2.7e7) = 6.152647; + asin(0.1) = 6.252814.
        (0.1, 10000.0, 2.7, 0.1, -0.030366),
        # pi 0.0196875 0.0025 15000 = 2.319379, without aberration and amplitude contrast.
        (0.05, 15000.0, 0.0, 0.0, 0.732654),
        # Overfocus of 5000 Å with 2 mm: pi 0.0196875 0.04 (-5000 - 0.5 0.0003876 0.04 2e7) = -12.753588.
        (0.2, -5000.0, 2.0, 0.0, -0.186126),
    ],
)
def test_ctf_matches_values_calculated_by_hand(transfer, frequency, defocus, cs, amplitude, expected):
    optics = CtfParameters(amplitude_contrast=amplitude, spherical_aberration=cs, voltage=300.0)
    np.testing.assert_allclose(transfer(frequency, defocus, optics), expected, atol=2e-5)


def test_first_zero_of_a_lens_without_aberration():
    optics = CtfParameters(amplitude_contrast=0.0, spherical_aberration=0.0)
    zero = 1 / math.sqrt(0.0196875 * 10000.0)
    around = contrast_transfer(np.float32([0.99 * zero, 1.01 * zero]), 10000.0, optics)
    assert around[0] > 0 > around[1]


def test_defocus_broadcasts_over_images():
    frequency, defocus = np.linspace(0, 0.3, 7, dtype=np.float32), np.float32([8000, 20000])
    both = contrast_transfer(frequency[None], defocus[:, None], CtfParameters())
    assert both.shape == (2, 7)
    for curve, expected in zip(defocus, both, strict=True):
        np.testing.assert_allclose(contrast_transfer(frequency, curve, CtfParameters()), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"voltage": 0.0}, "voltage"),
        ({"spherical_aberration": -1.0}, "aberration"),
        ({"amplitude_contrast": 1.0}, "amplitude contrast"),
        ({"defocus_min": 3e4}, "smallest defocus not above the largest, found 30000.0 and 20000.0"),
        ({"defocus_max": math.nan}, "finite"),
    ],
)
def test_invalid_optics_raise(change, message):
    with pytest.raises(UserError, match=message):
        CtfParameters(**change).check()
