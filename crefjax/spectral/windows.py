"""Windows and filters of maps in host memory, by NumPy and SciPy alone (no JAX)."""

import numpy as np
import scipy.fft


def apply_b_factor(array: np.ndarray, voxel_size: float, b_factor: float) -> np.ndarray:
    """A map whose amplitudes are multiplied by `exp(-B s² / 4)`, level beyond Nyquist.

    Args:
        array: `(z, y, x)`, float32.
        voxel_size: Å.
        b_factor: Å²; below 0 sharpens.
    """
    if not b_factor:
        return array
    spectrum = scipy.fft.rfftn(array, workers=-1)
    z, y = (np.square(scipy.fft.fftfreq(side, voxel_size)) for side in array.shape[:2])
    x = np.square(scipy.fft.rfftfreq(array.shape[2], voxel_size))
    # What lies in the corners, beyond Nyquist, must not outgrow all the rest.
    limit = (0.5 / voxel_size) ** 2
    for plane, z_squared in zip(spectrum, z, strict=True):
        plane *= np.exp(-b_factor / 4 * np.minimum(z_squared + y[:, None] + x, limit)).astype(np.float32)
    return scipy.fft.irfftn(spectrum, s=array.shape, workers=-1, overwrite_x=True)
