"""A network of one pooling and two channels."""

import numpy as np

from crefjax.models.unet3d import UNet3D, UNet3DConfig

CONFIG = UNet3DConfig(depth=1, down_width=2, up_width=2, last_widths=(2,))


def network(weights, x):
    """Run it over a standardized map `(z, y, x)`; float64."""
    return np.asarray(UNet3D(CONFIG).apply({"params": weights.parameters}, x[None, ..., None])[0, ..., 0], np.float64)
