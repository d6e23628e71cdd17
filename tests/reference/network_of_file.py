"""The paper's network in NumPy, float64, one sum for each tap: what the command's results are compared with."""

import numpy as np


def convolution(x, kernel, bias):
    """A 3 x 3 x 3 convolution of a (z, y, x, channel) array, zeros around it."""
    padded = np.pad(x, [(1, 1)] * 3 + [(0, 0)])
    z, y, w = x.shape[:3]
    total = np.zeros((z, y, w, kernel.shape[-1])) + bias
    for k, j, i in np.ndindex(3, 3, 3):
        total += padded[k : k + z, j : j + y, i : i + w] @ kernel[k, j, i]
    return total


def leaky(x):
    return np.where(x > 0, x, 0.1 * x)


def pooled(x):
    z, y, w, c = x.shape
    return x.reshape(z // 2, 2, y // 2, 2, w // 2, 2, c).max((1, 3, 5))


def doubled(x):
    return x.repeat(2, 0).repeat(2, 1).repeat(2, 2)


def network(zyx, arrays):
    """The 322,881-parameter network on a (z, y, x) array with arrays `00_kernel`, `01_bias`, ... `35_bias`."""
    layers = iter([(arrays[f"{n:02d}_kernel"].astype("f8"), arrays[f"{n + 1:02d}_bias"]) for n in range(0, 36, 2)])
    shape = zyx.shape
    x = np.pad(zyx.astype("f8"), [(0, -side % 32) for side in shape], mode="symmetric")[..., None]
    skips = [x]
    x = leaky(convolution(x, *next(layers)))
    for level in range(5):
        x = pooled(leaky(convolution(x, *next(layers))))
        if level < 4:
            skips.append(x)
    x = leaky(convolution(x, *next(layers)))
    for _ in range(5):
        x = np.concatenate([skips.pop(), doubled(x)], axis=-1)
        x = leaky(convolution(x, *next(layers)))
        x = leaky(convolution(x, *next(layers)))
    x = convolution(x, *next(layers))
    return x[: shape[0], : shape[1], : shape[2], 0]
