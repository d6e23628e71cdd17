"""The raised cosine, and the blur by a B-factor, of maps in host memory: NumPy and SciPy alone, no JAX."""

from types import ModuleType

import numpy as np
import scipy.fft


def raised_cosine(position, *, rising: bool = False, xp: ModuleType = np):
    """Return a smooth step, `0.5 + 0.5 cos(pi x)`, with the position x clipped to 0 to 1.

    Args:
        position: any shape; the step begins at 0 and ends at 1.
        rising: from 0 up to 1 (`0.5 - 0.5 cos(pi x)`); else from 1 down to 0.
        xp: `numpy` or `jax.numpy`.
    """
    half = 0.5 * xp.cos(xp.pi * xp.clip(position, 0, 1))
    return 0.5 - half if rising else 0.5 + half


def apply_b_factor(array: np.ndarray, voxel_size: float, b_factor: float, end: float | None = None) -> np.ndarray:
    """Multiply a map's amplitudes by `exp(-B s² / 4)`; beyond the frequency `end`, the factor is that at `end`.

    Args:
        array: `(z, y, x)`, float32.
        voxel_size: Å.
        b_factor: Å²; below 0 sharpens.
        end: 1/Å; None for Nyquist, which it never exceeds.
    """
    if not b_factor:
        return array
    spectrum = scipy.fft.rfftn(array, workers=-1)
    z, y = (np.square(scipy.fft.fftfreq(side, voxel_size)) for side in array.shape[:2])
    x = np.square(scipy.fft.rfftfreq(array.shape[2], voxel_size))
    # Sharpened corners of the spectrum, beyond Nyquist, would outgrow everything else.
    nyquist = 0.5 / voxel_size
    limit = (nyquist if end is None else min(end, nyquist)) ** 2
    for plane, z_squared in zip(spectrum, z, strict=True):
        plane *= np.exp(-b_factor / 4 * np.minimum(z_squared + y[:, None] + x, limit)).astype(np.float32)
    return scipy.fft.irfftn(spectrum, s=array.shape, workers=-1, overwrite_x=True)
