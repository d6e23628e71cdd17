"""Synthetic signals, noise and filters in plain float64 NumPy, and their expected powers under a mask."""

import numpy as np
from reference import spectra


def ball(shape, radius, soft=2.0):
    """Return a soft ball in the middle of a box: 1 inside, 0 outside, a cosine edge of `soft` voxels."""
    axes = (np.arange(n) - n // 2 for n in shape)
    distance = np.sqrt(sum(grid**2 for grid in np.meshgrid(*(axis.astype(float) for axis in axes), indexing="ij")))
    return 0.5 + 0.5 * np.cos(np.pi * np.clip((distance - radius) / soft, 0, 1))


def filtered(array, factors):
    """Multiply every shell of a map by a factor; voxels beyond the last shell take its factor."""
    index = np.minimum(spectra.shell_index(array.shape), len(factors) - 1)
    return np.fft.ifftn(np.fft.fftn(array) * factors[index]).real


def falling_signal(side, *, fall, radius, seed=0):
    """Return structure in a soft ball, amplitudes `exp(-fall shell / Nyquist)`, of standard deviation 1."""
    random = np.random.default_rng(seed)
    shells = np.arange(side // 2 + 1)
    inside = ball((side,) * 3, radius)
    signal = filtered(random.standard_normal((side,) * 3), np.exp(-fall * shells / (side // 2))) * inside
    return signal / signal[inside > 0.5].std()


def cross(first, second, mask=None):
    """Return the covariance in every shell: the mean of `Re F1 conj(F2)` over the sum of the squared mask."""
    mask = np.ones(first.shape) if mask is None else mask
    f1, f2 = np.fft.fftn(first * mask), np.fft.fftn(second * mask)
    voxels = spectra.shell_sums(np.ones(first.shape), first.shape)
    return spectra.shell_sums((f1 * f2.conj()).real, first.shape) / voxels / np.sum(mask.astype(np.float64) ** 2)


def expected_noise(variance, factors, mask=None):
    """Return the expectation of `cross` of filtered white noise with itself under a mask.

    `E |FT(mask n)|²` is the transform of the mask's autocorrelation times that of the noise.
    """
    mask = np.ones((2 * (len(factors) - 1),) * 3) if mask is None else mask
    index = np.minimum(spectra.shell_index(mask.shape), len(factors) - 1)
    of_noise = np.fft.ifftn(variance * factors[index] ** 2).real
    of_mask = np.fft.ifftn(np.abs(np.fft.fftn(mask)) ** 2).real
    power = np.fft.fftn(of_mask * of_noise).real
    voxels = spectra.shell_sums(np.ones(mask.shape), mask.shape)
    return spectra.shell_sums(power, mask.shape) / voxels / np.sum(mask**2)


def wiener(half_map_1, half_map_2, mask):
    """Return the full map times `2 FSC / (1 + FSC)` of the masked half-maps, 0 from where the FSC falls below 0.143."""
    fsc = np.clip(spectra.fsc(half_map_1 * mask, half_map_2 * mask), 0, 1)
    below = np.flatnonzero(fsc[1:] < 0.143) + 1
    factors = 2 * fsc / (1 + fsc)
    factors[0] = 1
    if len(below):
        factors[below[0] :] = 0
    return filtered((half_map_1 + half_map_2) / 2, factors)
