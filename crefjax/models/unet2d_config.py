"""The 2D U-Net's hyperparameters and its entry in the registry, without JAX."""

from dataclasses import dataclass
from typing import ClassVar

from crefjax.models import Model
from crefjax.models.unet3d_config import UNet3DConfig, parameter_shapes


@dataclass(frozen=True)
class UNet2DConfig(UNet3DConfig):
    """Hyperparameters of the 2D counterpart of `UNet3DConfig`, for images; 107,889 parameters by default."""

    network: ClassVar[str] = "unet2d"
    kernel: ClassVar[tuple[int, ...]] = (3, 3)

    @property
    def reach(self) -> int:
        """Largest distance in pixels along an axis from which an input pixel changes an output pixel."""
        # Convolutions at each level: on the way up two, at full resolution those of `last_widths` and the output.
        down = [2] + [1] * (self.depth - 1)
        up = [len(self.last_widths) + 1] + [2] * (self.depth - 1)
        convolutions = sum((down[level] + up[level]) * 2**level for level in range(self.depth))
        # The coarsest convolution, and the pixels of a pooled or repeated one, which may lie on one side.
        return convolutions + 2**self.depth + (2**self.depth - 1)


def _init(key, config):
    from crefjax.models.unet2d import init_network  # loads JAX

    return init_network(key, config)


def _apply(parameters, x, config):
    from crefjax.models.unet2d import apply_to_sections  # loads JAX

    return apply_to_sections(parameters, x, config)


MODEL = Model(UNet2DConfig, _init, _apply, shapes=parameter_shapes, dimensions=2)
