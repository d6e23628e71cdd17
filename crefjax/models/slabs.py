"""Slabs of the 3D U-Net along z: their sizes and their arithmetic, whichever library computes them; without JAX."""

import numpy as np

from crefjax.models.unet3d_config import UNet3DConfig


def padded_shape(shape: tuple[int, int, int], config: UNet3DConfig) -> tuple[int, int, int]:
    """Return the box `(z, y, x)` that the network works on: every side a multiple of `config.multiple`."""
    return tuple(n + -n % config.multiple for n in shape)


def slab_sizes(depth: int) -> list[int]:
    """Return the possible numbers of planes of a slab, ascending: the even divisors of the box's `depth`."""
    return [n for n in range(2, depth + 1, 2) if depth % n == 0]


def level_slab(depth: int, level: int, slab: int) -> int:
    """Return the planes of a slab at a level: more than at full resolution, since a plane has fewer voxels there.

    Args:
        depth: planes of the padded box at full resolution.
        level: 0 for the full resolution.
        slab: planes of a slab at full resolution.
    """
    return max(n for n in slab_sizes(depth >> level) if n <= max(2, slab * 2**level))


def count_flops(shape: tuple[int, int, int], config: UNet3DConfig) -> float:
    """Return the floating point operations of the network over a map, as plain convolutions count them."""
    levels = range(config.depth)
    names = [(level, name) for level in levels for name in config.down_names(level) + config.up_names(level)]
    return sum(flops_of(config, name) / 8**level for level, name in names) * float(np.prod(padded_shape(shape, config)))


def flops_of(config: UNet3DConfig, name: str) -> float:
    """Return the floating point operations per voxel of one convolution."""
    return next(2.0 * 27 * n_in * n_out for layer, n_in, n_out in config.layers() if layer == name)
