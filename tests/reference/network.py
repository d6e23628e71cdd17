"""The network of the paper in plain float64 NumPy and SciPy, written from its table of layers."""

import numpy as np
from scipy import ndimage


def convolve(x, kernel, bias):
    """`(z, y, x, in)` with zeros around: what neural networks call a convolution is a correlation."""
    out = np.zeros((*x.shape[:3], kernel.shape[-1]))
    for i in range(kernel.shape[3]):
        for o in range(kernel.shape[4]):
            out[..., o] += ndimage.correlate(x[..., i].astype(float), kernel[..., i, o].astype(float), mode="constant")
    return out + bias


def pool(x):
    z, y, x_, c = x.shape
    return x.reshape(z // 2, 2, y // 2, 2, x_ // 2, 2, c).max((1, 3, 5))


def upsample(x):
    return x.repeat(2, 0).repeat(2, 1).repeat(2, 2)


def leaky(x):
    return np.where(x > 0, x, 0.1 * x)


def run(parameters, x, depth):
    """`(z, y, x)` to `(z, y, x)`; sides are multiples of `2**depth`."""

    def layer(name, y):
        return convolve(y, np.asarray(parameters[name]["kernel"]), np.asarray(parameters[name]["bias"]))

    y = x[..., None]
    skips = [y]
    for level in range(1, depth + 1):
        for name in ["down1_a", "down1_b"] if level == 1 else [f"down{level}"]:
            y = leaky(layer(name, y))
        y = pool(y)
        skips.append(y)
    y = leaky(layer("bottom", y))
    skips.pop()
    for step in range(1, depth + 1):
        y = np.concatenate([skips.pop(), upsample(y)], axis=-1)
        y = leaky(layer(f"up{step}_b", leaky(layer(f"up{step}_a", y))))
    return layer("out", y)[..., 0]
