"""A classifier whose output is known, and a map for it."""

import jax
import numpy as np

from crefjax.models.unet3d import UNet3D, UNet3DConfig
from crefjax.weights.store import save_weights

CONFIG = UNet3DConfig(depth=1, down_width=2, up_width=2, last_widths=(2,))
SLOPE, LEVEL = 40.0, 0.3  # the logit is SLOPE * (density - LEVEL), with the density scaled to 0 to 1


def save_line_classifier(folder):
    """Save a network whose first layer at full resolution passes its input on, and whose last one scales it."""
    parameters = UNet3D(CONFIG).init(jax.random.key(0), np.zeros((1, 4, 4, 4, 1), np.float32))["params"]
    parameters = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), parameters)
    first, last = CONFIG.up_names(0)
    parameters[first]["kernel"][1, 1, 1, 0, 0] = 1
    parameters[last]["kernel"][1, 1, 1, 0, 0] = SLOPE
    parameters[last]["bias"][0] = -SLOPE * LEVEL
    card = dict.fromkeys(("source", "license", "training", "expected_input"), "by hand") | {"task": "classification"}
    save_weights(folder, parameters, CONFIG, card)
    return folder


def balls(shape, voxel_size):
    """Two soft balls, `(z, y, x)`, band-limited on any grid of voxels of at most 2 Å."""
    z, y, x = (np.arange(side) * voxel_size for side in shape)
    density = np.zeros(shape)
    for center, width in (((18, 20, 22), 6.0), ((30, 16, 14), 4.5)):
        squared = sum(
            (axis.reshape([-1 if a == b else 1 for b in range(3)]) - c) ** 2
            for a, (axis, c) in enumerate(zip((z, y, x), center, strict=True))
        )
        density += np.exp(-squared / (2 * width**2))
    return density
