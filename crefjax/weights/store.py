"""Weights folders: an Orbax checkpoint of the parameters, and a JSON card that describes them.

A folder holds `parameters/` and `card.json`. Weights are found by the path of such a folder or by name: first among
those that ship with the package, then in the user's own data folder.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crefjax.errors import UserError
from crefjax.io.files import check_output_folder
from crefjax.models import Model, NetworkConfig, Parameters, load_model, same_architecture
from crefjax.utils.atomic import atomic_directory

DEFAULTS = {"denoising": "truth", "classification": "classifier", "images": "images"}  # among those that ship, by task
CARD_VERSION = 1
_COARSEST_RESOLUTION = 8.0  # Å, for weights whose card does not say
CARD_FIELDS = ("source", "license", "training", "expected_input")
# Further fields that describe the input of weights, so that weights made of them have the same.
INHERITED_FIELDS = ("grid", "corrects_falloff", "coarsest_resolution")
_SHIPPED = Path(__file__).parent / "shipped"
_HOW_TO_GET = (
    "name one of those that `crefjax weights list` shows, or a weights folder (`crefjax weights import` makes one)"
)


@dataclass(frozen=True)
class Weights:
    """Parameters of a network with their card.

    Attributes:
        name: Name of the folder.
        path: The folder.
        config: Hyperparameters of the network.
        card: Content of the folder's `card.json`.
        parameters: Tree of float32 arrays, for a U-Net layer name to `kernel` and `bias`.
    """

    name: str
    path: Path
    config: NetworkConfig
    card: dict
    parameters: Parameters

    @property
    def label(self) -> str:
        """Name that distinguishes them from others: for the `best` and `last` ones of a run, that of the run."""
        return self.path.parent.name if self.name in ("best", "last") else self.name

    @property
    def model(self) -> Model:
        """The network."""
        return load_model(self.config.network)

    @property
    def task(self) -> str:
        """The task that they were trained for, a name in `DEFAULTS`."""
        return self.card.get("task", "denoising")

    @property
    def coarsest_resolution(self) -> float:
        """Coarsest resolution in Å of a map for which they are meant: that on the card, else 8."""
        return float(self.card.get("coarsest_resolution", _COARSEST_RESOLUTION))

    @property
    def grid(self) -> float:
        """Number of voxels that the resolution spans on the grid for which they were trained; 0 for any.

        If it is not 0, maps are standardized by their solvent's level and their root mean square within the mask,
        instead of the mean and the standard deviation of the whole box.
        """
        return float(self.card.get("grid", 0.0))

    @property
    def corrects_falloff(self) -> bool:
        """Whether maps are brought to a common fall-off of their signal: as the card says, else if there is a grid."""
        return bool(self.card.get("corrects_falloff", self.grid > 0))


def user_folder() -> Path:
    """Return the folder of the user's own weights: `$CREFJAX_WEIGHTS`, or `crefjax/weights` in the user's data."""
    if own := os.environ.get("CREFJAX_WEIGHTS"):
        return Path(own)
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "crefjax" / "weights"


def list_weights() -> dict[str, Path]:
    """Return the folders of all weights that are found by name, those included in the package first."""
    folders: dict[str, Path] = {}
    for parent in (_SHIPPED, user_folder()):
        if parent.is_dir():
            for path in sorted(parent.iterdir()):
                if (path / "card.json").is_file():
                    folders.setdefault(path.name, path)
    return folders


def find_weights(name: str | Path | None, task: str = "denoising") -> Path:
    """Return the folder of weights given by path or by name.

    Args:
        name: A path, a name, or None for the default ones of the package.
        task: A name in `DEFAULTS`.

    Raises:
        UserError: There are none, or none of that name.
    """
    if name is None:
        default = _SHIPPED / DEFAULTS[task]
        if not (default / "card.json").is_file():
            raise UserError(f"weights: expected {default.name} in {_SHIPPED}, found none; install crefjax again")
        return default
    by_name = list_weights()
    path = Path(name)
    if (path / "card.json").is_file():
        return path
    if str(name) in by_name:
        return by_name[str(name)]
    if path.exists():
        raise UserError(f"{name}: expected a weights folder with a card.json, found none in it; {_HOW_TO_GET}")
    names = ", ".join(by_name) or "none"
    raise UserError(f"weights: expected a folder or one of the known names ({names}), found {name}; {_HOW_TO_GET}")


def read_card(path: Path) -> tuple[dict, NetworkConfig]:
    """Read a weights folder's card and the hyperparameters of its network.

    Raises:
        UserError: The card cannot be read, is of another version, or describes a network that crefjax does not have.
    """
    file = path / "card.json"
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
        if "licence" in card:  # cards of earlier versions
            card["license"] = card.pop("licence")
        version = card["card_version"]
        architecture = dict(card["architecture"])
        if not isinstance(card["parameters"], int) or not all(isinstance(card[field], str) for field in CARD_FIELDS):
            raise ValueError(f"expected a number for parameters and texts for {', '.join(CARD_FIELDS)}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: expected the JSON card of a weights folder, cannot be read ({error!r})") from error
    if version != CARD_VERSION:
        raise UserError(
            f"{file}: expected card version {CARD_VERSION}, found {version}; update crefjax or import again"
        )
    try:
        return card, load_model(architecture.pop("network")).config(**architecture)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file}: expected the architecture of a known network, found another ({error})") from error


def load_weights(
    name: str | Path | None = None, task: str = "denoising", network: NetworkConfig | None = None
) -> Weights:
    """Load weights by path or by name, checked against their own card.

    Args:
        name: As in `find_weights`.
        task: The task that they must have been trained for, a name in `DEFAULTS`.
        network: The hyperparameters that they must have, but for the precision of computation; None for any.

    Raises:
        UserError: They are not found, are damaged, are for another task or network, or are of another architecture
            than the card says.
    """
    path = find_weights(name, task).absolute()
    card, config = read_card(path)
    if (trained_for := card.get("task", "denoising")) != task:
        raise UserError(f"{path}: expected weights for {task}, found some for {trained_for}; choose others")
    if network is not None and not same_architecture(config, network):
        raise UserError(
            f"{path}: expected weights for {network}, found some for {config}; change the network of the config, or "
            "choose others"
        )
    shapes = load_model(config.network).parameter_shapes(config)
    parameters = load_parameters(path / "parameters", shapes)
    if "sha256" in card and fingerprint(parameters) != card["sha256"]:
        raise UserError(f"{path}: the parameters are not those that its card describes; get the weights again")
    return Weights(path.name, path, config, card, parameters)


def save_weights(
    folder: str | Path, parameters: Parameters, config: NetworkConfig, about: dict, *, overwrite: bool = False
) -> None:
    """Write a weights folder; it appears complete or not at all.

    Args:
        folder: Folder to create.
        parameters: Parameters of the network.
        config: Hyperparameters of the network.
        about: Texts of the card, one for each of `CARD_FIELDS`, and further fields.
        overwrite: Whether an existing weights folder may be replaced.

    Raises:
        UserError: The folder exists, or cannot be written.
        ValueError: A text is missing.
    """
    if missing := [field for field in CARD_FIELDS if not about.get(field)]:
        raise ValueError(f"the card needs {', '.join(missing)}")
    folder = Path(folder).absolute()
    check_weights_folder(folder, overwrite=overwrite)
    card = {
        "card_version": CARD_VERSION,
        "architecture": {"network": config.network, **dataclasses.asdict(config)},
        "parameters": sum(int(array.size) for _, array in _leaves(parameters)),
        "sha256": fingerprint(parameters),
        **about,
    }
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with atomic_directory(folder) as new:
            save_parameters(new / "parameters", parameters)
            (new / "card.json").write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error}); nothing was left behind") from error


def check_weights_folder(folder: Path, *, overwrite: bool) -> None:
    """Check, before long work, that a weights folder can be written, as `check_output_folder` does."""
    check_output_folder(folder, "a weights folder", "card.json", overwrite=overwrite, make_parents=True)


def save_parameters(folder: Path, parameters: Parameters) -> None:
    """Write parameters, a tree of arrays, into a new folder, an absolute path.

    They are written as host arrays, so that parameters from a GPU can be read on a CPU, and by this process alone, also
    if it is connected to others.
    """
    import jax
    import orbax.checkpoint as ocp

    with _checkpointer_of_this_process(ocp, jax) as checkpointer:
        checkpointer.save(folder, jax.tree.map(np.asarray, parameters))
    remove_absolute_paths(folder)


def _checkpointer_of_this_process(ocp, jax):
    if jax.process_count() == 1:
        return ocp.PyTreeCheckpointer()
    own = jax.process_index()
    options = ocp.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process_{own}"
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=options)
    return ocp.Checkpointer(handler, multiprocessing_options=options)


def remove_absolute_paths(folder: Path) -> None:
    """Remove the path at which Orbax wrote a folder from that folder: Orbax only asks that the file exists."""
    for file in folder.rglob("commit_success.txt"):
        file.write_text("Checkpoint commit was successful\n", encoding="utf-8")


def load_parameters(folder: Path, shapes: dict) -> Parameters:
    """Read parameters and check them against the architecture that they are for.

    Args:
        folder: Absolute path.
        shapes: Tree of the shapes of the architecture's arrays.

    Returns:
        A tree of float32 arrays.

    Raises:
        UserError: The folder cannot be read, or its arrays are not those of the architecture.
    """
    import orbax.checkpoint as ocp

    # Orbax finds some missing files only in threads of its own, whose exceptions cannot be caught.
    for part in ("_METADATA", "manifest.ocdbt", "d"):
        if not (folder / part).exists():
            raise UserError(f"{folder}: expected parameters written by Orbax, found no {part}; get the weights again")
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            parameters = checkpointer.restore(folder)
    except Exception as error:  # Orbax and TensorStore raise a dozen kinds for a damaged folder
        raise UserError(
            f"{folder}: the parameters cannot be read ({type(error).__name__}); get the weights again"
        ) from error
    check_parameters(parameters, shapes, str(folder))
    return parameters


def check_parameters(
    parameters: Parameters, shapes: dict, source: str, names: dict[tuple[str, ...], str] | None = None
) -> None:
    """Check that arrays have the names, the shapes, and the finite values that an architecture asks for.

    Args:
        parameters: Tree of arrays.
        shapes: Tree of shapes.
        source: File or folder of the parameters, for the message.
        names: Names of the arrays in the source by their path in the tree, if it has names of its own.

    Raises:
        UserError: An array is missing, not expected, of another shape or type, or not finite.
    """
    names = names or {}
    found, expected = dict(_leaves(parameters)), dict(_leaves(shapes))
    advice = "these weights are of another architecture"
    for path, shape in expected.items():
        name, shape = names.get(path, "/".join(path)), tuple(shape)
        if path not in found:
            raise UserError(f"{source}: expected an array {name} of shape {shape}, found none; {advice}")
        if tuple(found[path].shape) != shape:
            raise UserError(f"{source}: expected {name} of shape {shape}, found {tuple(found[path].shape)}; {advice}")
        if found[path].dtype != np.float32 or not np.isfinite(found[path]).all():
            raise UserError(f"{source}: expected finite float32 numbers in {name}; the weights are damaged")
    if extra := sorted(found.keys() - expected.keys()):
        name = names.get(extra[0], "/".join(extra[0]))
        raise UserError(f"{source}: expected {len(expected)} arrays, found {name} in addition; {advice}")


def fingerprint(parameters: Parameters) -> str:
    """Return the SHA-256 of all arrays and their names, in the order of the names."""
    digest = hashlib.sha256()
    for path, array in sorted(_leaves(parameters), key=lambda leaf: leaf[0]):
        digest.update("/".join(path).encode())
        digest.update(np.ascontiguousarray(array, np.float32).tobytes())
    return digest.hexdigest()


def _leaves(tree: dict, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield path and value of everything in nested dicts."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*path, name))
        else:
            yield (*path, name), value
