"""A structure in a soft ball, half-maps of it, and denoised versions of them."""

import functools

import numpy as np

from crefjax.io.maps import Map
from crefjax.report.measure import ReportInputs, report_numbers

SIDE, VOXEL = 36, 2.0
SHELLS = np.arange(SIDE // 2 + 1)


@functools.cache
def shell_index():
    k = np.fft.fftfreq(SIDE, 1 / SIDE)
    return np.floor(np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2) + 0.5).astype(int)


def filtered(array, factors):
    """A map times a factor in every shell; voxels beyond the last take its factor."""
    of_voxel = factors[np.minimum(shell_index(), len(factors) - 1)]
    return np.fft.ifftn(np.fft.fftn(array) * of_voxel).real


def ball(radius, soft=3.0):
    z = np.arange(SIDE) - SIDE // 2
    distance = np.sqrt(z[:, None, None] ** 2 + z[:, None] ** 2 + z**2)
    return 0.5 + 0.5 * np.cos(np.pi * np.clip((distance - radius) / soft, 0, 1))


@functools.cache
def signal():
    """Amplitudes that fall by `exp(-7)` up to Nyquist, standard deviation 1 in a ball."""
    density = np.random.default_rng(0).standard_normal((SIDE,) * 3)
    density = filtered(density, np.exp(-7 * SHELLS / (SIDE // 2))) * ball(9)
    return density / density[ball(9) > 0.5].std()


def noise(seed):
    return np.random.default_rng(100 + seed).standard_normal((SIDE,) * 3)


MASK = ball(11)


def half_maps(level=0.5):
    return signal() + level * noise(1), signal() + level * noise(2)


def denoise_well(half_map):
    """As a good denoiser would: three tenths of the noise is left in shells with signal, little beyond."""
    return signal() + filtered(half_map - signal(), 0.3 / (1 + np.exp(SHELLS - 13.0)))


def report_inputs(halves, denoised=None, denoised_halves=None, mask=MASK, **parameters) -> ReportInputs:
    """Of arrays; the denoised full map is the mean of the denoised half-maps if it is not given."""
    if denoised is None:
        denoised = (denoised_halves[0] + denoised_halves[1]) / 2
    maps = [Map.from_array(array, VOXEL) for array in (*halves, denoised)]
    denoised_maps = [Map.from_array(array, VOXEL) for array in denoised_halves or ()] or (None, None)
    parameters = {"command": "report"} | parameters
    return ReportInputs(*maps, *denoised_maps, mask.astype(np.float32), "mask.mrc", parameters)


def warning_texts(*maps, **options):
    """Texts of the warnings of a report by kind, in their order; arguments as of `report_inputs`."""
    warnings = report_numbers(report_inputs(*maps, **options))["warnings"]
    return {warning["kind"]: warning["text"] for warning in warnings}
