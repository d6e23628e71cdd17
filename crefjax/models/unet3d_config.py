"""The 3D U-Net's hyperparameters, layers, slabs along z, and entry in the registry, without JAX."""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from crefjax.models import Model


class Layer(NamedTuple):
    """One convolution: its name in the parameters and its numbers of channels."""

    name: str
    channels_in: int
    channels_out: int


@dataclass(frozen=True)
class UNet3DConfig:
    """Hyperparameters of the network; the defaults are the paper's, with 322,881 parameters.

    Attributes:
        depth: Number of poolings; the box is padded to a multiple of `2**depth` voxels.
        down_width: Channels of the convolutions on the way down, at full resolution.
        up_width: Channels of the convolutions on the way up, at half the resolution.
        growth: Factor by which channels grow with every coarser level, on both ways.
        last_widths: Channels of the convolutions of the last level, before the output.
        negative_slope: Slope of the LeakyReLU below zero.
        compute_dtype: Type of activations, `float32` or `bfloat16`; parameters are always float32.
    """

    network: ClassVar[str] = "unet3d"
    kernel: ClassVar[tuple[int, ...]] = (3, 3, 3)

    depth: int = 5
    down_width: int = 16
    up_width: int = 32
    growth: int = 1
    last_widths: tuple[int, ...] = (16, 8)
    negative_slope: float = 0.1
    compute_dtype: str = "float32"

    def __post_init__(self):
        widths = (self.down_width, self.up_width, *self.last_widths)
        if not all(type(number) is int for number in (self.depth, self.growth, *widths)):
            raise ValueError(
                f"expected whole numbers for a network's depth, widths, growth, and last_widths, found {self}"
            )
        if not isinstance(self.negative_slope, (int, float)) or not 0 <= self.negative_slope < math.inf:
            raise ValueError(
                f"expected a number of 0 or more for a network's negative_slope, found {self.negative_slope!r}"
            )
        if self.depth < 1 or not self.last_widths or min(self.growth, *widths) < 1:
            raise ValueError(
                f"expected a network's depth, widths, growth, and last_widths to be at least 1, found {self}"
            )
        if self.compute_dtype not in ("float32", "bfloat16"):
            raise ValueError(f"expected compute_dtype float32 or bfloat16, found {self.compute_dtype!r}")
        object.__setattr__(self, "last_widths", tuple(self.last_widths))  # JSON gives a list

    @property
    def multiple(self) -> int:
        """The number of voxels of which every side of the network's box is a multiple."""
        return 2**self.depth

    def layers(self) -> list[Layer]:
        """Return every convolution in the order of computation."""
        down = [self.down_channels(level) for level in range(self.depth + 1)]
        layers = [Layer("down1_a", 1, down[0]), Layer("down1_b", down[0], down[0])]
        layers += [Layer(f"down{level + 1}", down[level - 1], down[level]) for level in range(1, self.depth)]
        layers += [Layer("bottom", down[-2], down[-1])]
        below = down[-1]
        for level in range(self.depth - 1, 0, -1):
            (a, b), up = self.up_names(level), self.up_channels(level)
            layers += [Layer(a, down[level - 1] + below, up), Layer(b, up, up)]
            below = up
        widths = (1 + below, *self.last_widths, 1)
        layers += [Layer(*row) for row in zip(self.up_names(0), widths[:-1], widths[1:], strict=True)]
        return layers

    def down_channels(self, level: int) -> int:
        """Return the channels of a level of the way down; the coarsest level is `depth`."""
        return self.down_width * self.growth**level

    def up_channels(self, level: int) -> int:
        """Return the channels of a level of the way up; level 0 has `last_widths` instead, and one output."""
        return self.up_width * self.growth ** (level - 1)

    def down_names(self, level: int) -> list[str]:
        """Return the names of the convolutions on the way down at a level; level 0 has the full resolution."""
        return ["down1_a", "down1_b"] if level == 0 else [f"down{level + 1}"]

    def up_names(self, level: int) -> list[str]:
        """Return the names of the convolutions on the way up at a level; at level 0 they include the output."""
        prefix = f"up{self.depth - level}_"
        if level:
            return [prefix + "a", prefix + "b"]
        return [prefix + chr(ord("a") + i) for i in range(len(self.last_widths))] + ["out"]


def parameter_shapes(config: UNet3DConfig) -> dict[str, dict[str, tuple[int, ...]]]:
    """Return the shape of every array by layer name and array name."""
    return {
        name: {"kernel": (*config.kernel, channels_in, channels_out), "bias": (channels_out,)}
        for name, channels_in, channels_out in config.layers()
    }


def _init(key, config):
    from crefjax.models.unet3d import init_network  # loads JAX

    return init_network(key, config)


def _apply(parameters, x, config):
    from crefjax.models.unet3d import apply_network  # loads JAX

    return apply_network(parameters, x, config)


MODEL = Model(
    UNet3DConfig,
    _init,
    _apply,
    shapes=parameter_shapes,
    slabs="crefjax.models.unet3d_slabs",
    engines=(("openvino", "crefjax.models.unet3d_openvino"),),
)


def padded_shape(shape: tuple[int, int, int], config: UNet3DConfig) -> tuple[int, int, int]:
    """Return the box `(z, y, x)` that the network works on: every side a multiple of `config.multiple`."""
    return tuple(n + -n % config.multiple for n in shape)


def pad_to_shape(array: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Pad a map `(z, y, x)` symmetrically at its far ends to a shape."""
    ends = [(0, n - m) for n, m in zip(shape, array.shape, strict=True)]
    return np.pad(array, ends, mode="symmetric") if any(after for _, after in ends) else array


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
