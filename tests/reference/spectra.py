"""Reference shell statistics in plain float64 NumPy on whole spectra."""

import numpy as np


def shell_index(shape):
    """Shell of every voxel of the whole spectrum: `floor(|k| L + 1/2)`, `L` the longest side."""
    longest = max(shape)
    z, y, x = np.meshgrid(*(np.fft.fftfreq(n) * longest for n in shape), indexing="ij")
    return np.floor(np.sqrt(z**2 + y**2 + x**2) + 0.5).astype(int)


def shell_sums(values, shape):
    """Sums over shells 0 to N // 2."""
    count = max(shape) // 2 + 1
    return np.bincount(shell_index(shape).ravel(), values.ravel(), minlength=count)[:count]


def fsc(map_1, map_2):
    """Fourier shell correlation as in the textbooks."""
    f1, f2 = np.fft.fftn(map_1.astype(np.float64)), np.fft.fftn(map_2.astype(np.float64))
    cross = shell_sums((f1 * f2.conj()).real, map_1.shape)
    power = np.sqrt(shell_sums(abs(f1) ** 2, map_1.shape) * shell_sums(abs(f2) ** 2, map_1.shape))
    return np.divide(cross, power, out=np.zeros_like(cross), where=power > 0)
