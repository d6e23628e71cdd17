"""The 3D U-Net with biases that depend on a few numbers of the whole map, its *conditions*; without JAX.

A patch, or the surroundings of a voxel, do not tell how sharp, how noisy, or how bright a map is as a whole. Here the
bias of every convolution is `bias + conditions @ conditioning`, which is the shift of feature-wise linear modulation
(Perez et al. 2018). The conditions are the same in every voxel, so for one map the network is a plain U-Net with other
biases, and is run as one: `MODEL.condition` returns it.
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from crefjax.models import Model, Parameters
from crefjax.models import unet3d_config as unet3d
from crefjax.models.unet3d_config import UNet3DConfig


@dataclass(frozen=True)
class ConditionedUNet3DConfig(UNet3DConfig):
    """Hyperparameters of the conditioned network.

    Attributes:
        conditions: Number of conditions.
    """

    network: ClassVar[str] = "conditioned_unet3d"

    conditions: int = 6

    def __post_init__(self):
        super().__post_init__()
        if type(self.conditions) is not int or self.conditions < 1:
            raise ValueError(f"expected a network's conditions to be a whole number above 0, found {self.conditions!r}")

    def plain(self) -> UNet3DConfig:
        """Return the hyperparameters of the U-Net that it is for one map."""
        fields = asdict(self)
        del fields["conditions"]
        return UNet3DConfig(**fields)


def parameter_shapes(config: ConditionedUNet3DConfig) -> dict[str, dict[str, tuple[int, ...]]]:
    """Return the shape of every array by layer name and array name."""
    return {
        name: {**shapes, "conditioning": (config.conditions, *shapes["bias"])}
        for name, shapes in unet3d.parameter_shapes(config).items()
    }


def condition(
    parameters: Parameters, conditions: Any, config: ConditionedUNet3DConfig
) -> tuple[Parameters, UNet3DConfig]:
    """Return parameters and hyperparameters of the plain U-Net for maps of some conditions.

    Args:
        parameters: Of the conditioned network, NumPy or JAX arrays.
        conditions: `(config.conditions,)`.
        config: Its hyperparameters.
    """
    plain = {
        name: {"kernel": layer["kernel"], "bias": layer["bias"] + conditions @ layer["conditioning"]}
        for name, layer in parameters.items()
    }
    return plain, config.plain()


def add_conditioning(parameters: Parameters, config: ConditionedUNet3DConfig) -> Parameters:
    """Return parameters of a plain U-Net with a conditioning of 0, so that the output is the same."""
    import numpy as np

    shapes = parameter_shapes(config)
    return {
        name: {**layer, "conditioning": np.zeros(shapes[name]["conditioning"], np.float32)}
        for name, layer in parameters.items()
    }


def _init(key, config):
    from crefjax.models.unet3d import init_network  # loads JAX

    return add_conditioning(init_network(key, config.plain()), config)


def _apply(parameters, x, config):
    import numpy as np

    from crefjax.models.unet3d import apply_network  # loads JAX

    plain, plain_config = condition(parameters, np.zeros(config.conditions, np.float32), config)
    return apply_network(plain, x, plain_config)


MODEL = Model(ConditionedUNet3DConfig, _init, _apply, shapes=parameter_shapes, condition=condition)
