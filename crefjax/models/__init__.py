"""Networks, and the functions of each by which the package trains it, stores its weights, and runs it over maps.

A network is a module of this package that defines `MODEL`; `MODELS` lists it by name. A module elsewhere that defines
`MODEL` is a network by its own dotted name, and needs no list. Importing the registry, or the module of the 3D U-Net,
does not import JAX: a config names a network and is read before JAX is loaded.
"""

import dataclasses
import importlib
import importlib.util
import os
import re
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple, Protocol

# A tree of arrays: nested dicts by layer and name.
Parameters = dict[str, Any]


class NetworkConfig(Protocol):
    """The hyperparameters of a network: a frozen dataclass that raises ValueError for values it cannot have.

    Its fields are those of `config.network` and of the architecture on a weights card. A field `compute_dtype` is the
    type of activations; weights fit networks that differ in it alone.

    Attributes:
        network: Name in `MODELS`, an attribute of the class.
        multiple: Number of voxels of which the network pads the sides of its box to multiples; 1 for no padding.
    """

    network: str
    multiple: int


class SlabRunner(NamedTuple):
    """A network computed slab by slab along z in bounded memory, exactly.

    Attributes:
        name: of the library that computes.
        efficiency: its share of the rate of a matrix product, with arithmetic counted as that of plain convolutions.
        sizes: `(shape, config, *, on_cpu) -> list[int]`, the planes that a slab can have, ascending.
        run: `(parameters, array, config, *, slab, device, progress) -> array`, over a standardized map `(z, y, x)`.
        count_bytes: `(shape, config, slab, *, on_cpu) -> float`, peak memory of arrays and temporaries.
        count_flops: `(shape, config) -> float`, floating-point operations.
    """

    name: str
    efficiency: float
    sizes: Callable[..., list[int]]
    run: Callable[..., Any]
    count_bytes: Callable[..., float]
    count_flops: Callable[..., float]


@dataclasses.dataclass(frozen=True)
class Model:
    """A network as functions of its config.

    Attributes:
        config: Class of its hyperparameters, a `NetworkConfig`.
        init: `(key, config) -> parameters`.
        apply: `(parameters, x, config) -> y`, `(batch, z, y, x, 1)` float32 to the same shape, any sides.
        shapes: `(config) -> shapes`, the tree of the parameters' shapes; None to trace `init`.
        slabs: Module whose `SLABS` runs whole maps slab by slab; None to run them at once.
        dimensions: 3 for maps; 2 for images, maps of one section. The config of a 2D network may have a `reach`, the
            largest distance in pixels from which an input pixel changes an output pixel; without it images are run
            whole.
        engines: Packages, each with a module like `slabs`; on a CPU, that of the first package that is installed is
            used in place of `slabs`.
        condition: `(parameters, conditions, config) -> (parameters, config)`, of a network that depends on
            `config.conditions` numbers of the whole map: what it is for maps of these numbers, a network of another
            name. None for all other networks.
    """

    config: type
    init: Callable[..., Parameters]
    apply: Callable[..., Any]
    shapes: Callable[..., dict] | None = None
    slabs: str | None = None
    dimensions: int = 3
    engines: tuple[tuple[str, str], ...] = ()
    condition: Callable[..., tuple[Parameters, NetworkConfig]] | None = None

    def parameter_shapes(self, config: NetworkConfig) -> dict:
        """Return the shapes of the parameters as a tree of tuples."""
        if self.shapes is not None:
            return self.shapes(config)
        import jax

        shapes = jax.eval_shape(lambda key: self.init(key, config), jax.random.key(0))
        return jax.tree.map(lambda array: array.shape, shapes)

    def load_slabs(self, config: NetworkConfig, *, on_cpu: bool) -> SlabRunner | None:
        """Return the slab-wise computation over whole maps, or None.

        The environment variable `CREFJAX_ENGINE` may be `jax`, for JAX even if another engine is installed.

        Args:
            config: Of the network; engines compute in float32 alone.
            on_cpu: Whether a CPU computes.
        """
        if on_cpu and getattr(config, "compute_dtype", "float32") == "float32" and self.slabs is not None:
            for package, module in self.engines:
                if os.environ.get("CREFJAX_ENGINE", "").lower() != "jax" and importlib.util.find_spec(package):
                    return importlib.import_module(module).SLABS
        return None if self.slabs is None else importlib.import_module(self.slabs).SLABS


# A network's module by its name. To add a network, add its module here.
MODELS: dict[str, str | Model] = {
    "unet3d": "crefjax.models.unet3d_config",
    "unet2d": "crefjax.models.unet2d_config",
    "conditioned_unet3d": "crefjax.models.conditioned_unet3d",
}


def load_model(name: str) -> Model:
    """Return a network of `MODELS`, or that of a module elsewhere; its module is imported.

    Args:
        name: Name in `MODELS`, or the dotted name of a module that defines `MODEL`.

    Raises:
        ValueError: There is no network of this name.
    """
    if name in MODELS:
        model = MODELS[name]
        return importlib.import_module(model).MODEL if isinstance(model, str) else model
    found = getattr(import_own(name), "MODEL", None)
    if not isinstance(found, Model):
        raise ValueError(
            f"expected a network of {', '.join(MODELS)}, or a module that can be imported and defines MODEL, "
            f"found {name!r}" + ("; put its folder on PYTHONPATH" if "." in name else "")
        )
    return found


def import_own(name: str) -> ModuleType | None:
    """Return the module outside the package that has a dotted name; None if it is not one, or there is none."""
    if not re.fullmatch(r"\w+(\.\w+)+", name):
        return None
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            return None
        raise  # something else that the module imports is missing


def same_architecture(first: NetworkConfig, second: NetworkConfig) -> bool:
    """Return whether the same parameters fit two networks: they are alike but for `compute_dtype`."""
    fields = [dataclasses.asdict(config) | {"compute_dtype": None} for config in (first, second)]
    return first.network == second.network and fields[0] == fields[1]
