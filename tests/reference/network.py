"""The paper's network in float64 NumPy, written from its table of layers: one matrix product for each kernel tap."""

import numpy as np


def convolve(x, kernel, bias):
    """Correlate `(z, y, x, in)`, zeros around it, with a 3x3x3 kernel: what neural networks call a convolution."""
    padded = np.pad(x.astype(float), [(1, 1)] * 3 + [(0, 0)])
    depth, height, width = x.shape[:3]
    total = np.zeros((depth, height, width, kernel.shape[-1])) + bias
    for k, j, i in np.ndindex(3, 3, 3):
        total += padded[k : k + depth, j : j + height, i : i + width] @ kernel[k, j, i].astype(float)
    return total


def pool(x):
    """Take the largest of every 2x2x2 voxels."""
    z, y, x_, c = x.shape
    return x.reshape(z // 2, 2, y // 2, 2, x_ // 2, 2, c).max((1, 3, 5))


def upsample(x):
    """Repeat every voxel 2x2x2 times."""
    return x.repeat(2, 0).repeat(2, 1).repeat(2, 2)


def leaky_relu(x):
    """Apply a LeakyReLU of slope 0.1."""
    return np.where(x > 0, x, 0.1 * x)


def run(parameters, x, depth):
    """Run a network of any depth with crefjax's names of layers; `(z, y, x)` to `(z, y, x)`."""
    names = ["down1_a", "down1_b", *(f"down{level}" for level in range(2, depth + 1)), "bottom"]
    names += [f"up{step}_{part}" for step in range(1, depth + 1) for part in "ab"] + ["out"]
    layers = [[np.asarray(parameters[name][array]) for array in ("kernel", "bias")] for name in names]
    return _run(layers, x, depth)


def run_published(arrays, x):
    """Run the network of 322,881 parameters with arrays `00_kernel`, `01_bias`, ... `35_bias`."""
    return _run([(arrays[f"{n:02d}_kernel"], arrays[f"{n + 1:02d}_bias"]) for n in range(0, 36, 2)], x, 5)


def _run(layers, x, depth):
    layers, shape = iter(layers), x.shape
    y = np.pad(x.astype(float), [(0, -side % 2**depth) for side in shape], mode="symmetric")[..., None]
    skips = [y]
    y = leaky_relu(convolve(y, *next(layers)))
    for level in range(depth):
        y = pool(leaky_relu(convolve(y, *next(layers))))
        if level < depth - 1:
            skips.append(y)
    y = leaky_relu(convolve(y, *next(layers)))
    for _ in range(depth):
        y = np.concatenate([skips.pop(), upsample(y)], axis=-1)
        y = leaky_relu(convolve(y, *next(layers)))
        y = leaky_relu(convolve(y, *next(layers)))
    return convolve(y, *next(layers))[: shape[0], : shape[1], : shape[2], 0]
