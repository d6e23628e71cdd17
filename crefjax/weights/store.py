"""Weights folders: an Orbax checkpoint of the parameters and a JSON card that says what they are.

A folder holds `parameters/` and `card.json`. Weights are found by the path of such a folder or by name: first
among those that ship with the package, then in the user's own data folder.
"""

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crefjax.errors import UserError
from crefjax.io.files import check_output_folder
from crefjax.models.unet3d import Parameters, UNet3DConfig
from crefjax.utils.atomic import atomic_directory

DEFAULT = "truth"  # of those that ship
CARD_VERSION = 1
CARD_FIELDS = ("source", "licence", "training", "expected_input")
_SHIPPED = Path(__file__).parent / "shipped"
_HOW_TO_GET = "name `truth` or `cref`, the package's own, or a weights folder (`crefjax weights import` makes one)"


@dataclass(frozen=True)
class Weights:
    """Parameters of a network with what is known of them.

    Attributes:
        name: of the folder.
        path: of the folder.
        config: of the network.
        card: what the folder's `card.json` says.
        parameters: layer name to `kernel` and `bias`, float32.
    """

    name: str
    path: Path
    config: UNet3DConfig
    card: dict
    parameters: Parameters

    @property
    def grid(self) -> float:
        """Voxels that the resolution takes on the grid that they were trained for; 0 for any.

        Where it is not 0, maps are standardized by their solvent's level and their root mean square within the mask, in
        place of mean and deviation of the whole box.
        """
        return float(self.card.get("grid", 0.0))


def user_folder() -> Path:
    """Where the user's own weights lie: `$CREFJAX_WEIGHTS`, or `crefjax/weights` among the user's data."""
    if own := os.environ.get("CREFJAX_WEIGHTS"):
        return Path(own)
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "crefjax" / "weights"


def list_weights() -> dict[str, Path]:
    """The weights that can be found by name, those that ship first."""
    found: dict[str, Path] = {}
    for folder in (_SHIPPED, user_folder()):
        if folder.is_dir():
            for path in sorted(folder.iterdir()):
                if (path / "card.json").is_file():
                    found.setdefault(path.name, path)
    return found


def find_weights(name: str | Path | None) -> Path:
    """The folder of weights given by path or by name.

    Args:
        name: a path, a name, or None for the default ones of the package.

    Raises:
        UserError: there are none, or none of that name.
    """
    if name is None:
        if not (_SHIPPED / DEFAULT / "card.json").is_file():
            raise UserError(f"weights: expected {DEFAULT} in {_SHIPPED}, found none; install crefjax again")
        return _SHIPPED / DEFAULT
    known = list_weights()
    path = Path(name)
    if (path / "card.json").is_file():
        return path
    if str(name) in known:
        return known[str(name)]
    if path.exists():
        raise UserError(f"{name}: expected a weights folder with a card.json, found none in it; {_HOW_TO_GET}")
    names = ", ".join(known) or "none"
    raise UserError(f"weights: expected a folder or one of the known names ({names}), found {name}; {_HOW_TO_GET}")


def read_card(path: Path) -> tuple[dict, UNet3DConfig]:
    """A weights folder's card and the network that it describes.

    Raises:
        UserError: the card cannot be read, is of another version, or describes no network of this family.
    """
    file = path / "card.json"
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
        version = card["card_version"]
        architecture = dict(card["architecture"])
        if not isinstance(card["parameters"], int) or not all(isinstance(card[one], str) for one in CARD_FIELDS):
            raise ValueError(f"parameters is no number, or one of {', '.join(CARD_FIELDS)} no text")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: expected the JSON card of a weights folder, cannot be read ({error!r})") from error
    if version != CARD_VERSION:
        raise UserError(
            f"{file}: expected card version {CARD_VERSION}, found {version}; update crefjax or import again"
        )
    try:
        if architecture.pop("network") != "unet3d":
            raise ValueError("its network is not unet3d")
        return card, UNet3DConfig(**architecture)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file}: expected the architecture of a unet3d, found another ({error})") from error


def load_weights(name: str | Path | None = None) -> Weights:
    """Load weights by path or by name, checked against their own card.

    Args:
        name: as in `find_weights`.

    Raises:
        UserError: not found, damaged, or of another architecture than the card says.
    """
    path = find_weights(name).absolute()
    card, config = read_card(path)
    parameters = load_parameters(path / "parameters", parameter_shapes(config))
    if "sha256" in card and fingerprint(parameters) != card["sha256"]:
        raise UserError(f"{path}: expected the parameters that its card tells of, found others; get the weights again")
    return Weights(path.name, path, config, card, parameters)


def save_weights(
    folder: str | Path, parameters: Parameters, config: UNet3DConfig, about: dict, *, overwrite: bool = False
) -> None:
    """Write a weights folder; it appears whole or not at all.

    Args:
        folder: to be made.
        parameters: of the network.
        config: of the network.
        about: the card's texts, one for each of `CARD_FIELDS`, and further fields.
        overwrite: whether a weights folder that is there may be replaced.

    Raises:
        UserError: the folder exists, or cannot be written.
        ValueError: a text is missing.
    """
    if missing := [field for field in CARD_FIELDS if not about.get(field)]:
        raise ValueError(f"the card needs {', '.join(missing)}")
    folder = Path(folder).absolute()
    check_weights_folder(folder, overwrite=overwrite)
    count = sum(array.size for layer in parameters.values() for array in layer.values())
    architecture = {"network": "unet3d", **dataclasses.asdict(config)}
    card = {
        "card_version": CARD_VERSION,
        "architecture": architecture,
        "parameters": int(count),
        "sha256": fingerprint(parameters),
        **about,
    }
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with atomic_directory(folder) as new:
            save_parameters(new / "parameters", parameters)
            (new / "card.json").write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error}); nothing was left there") from error


def check_weights_folder(folder: Path, *, overwrite: bool) -> None:
    """Check, before long work, that a weights folder can be written, as `check_output_folder` does."""
    check_output_folder(folder, "a weights folder", "card.json", overwrite=overwrite, make_parents=True)


def parameter_shapes(config: UNet3DConfig) -> dict[str, dict[str, tuple[int, ...]]]:
    """Layer name to array name to shape."""
    return {
        name: {"kernel": (3, 3, 3, channels_in, channels_out), "bias": (channels_out,)}
        for name, channels_in, channels_out in config.layers()
    }


def save_parameters(folder: Path, parameters: dict) -> None:
    """Write parameters into a folder that does not exist yet.

    They are written as host arrays, so that a run on a GPU leaves nothing in them that a CPU cannot read.

    Args:
        folder: absolute path.
        parameters: a tree of arrays.
    """
    import jax
    import orbax.checkpoint as ocp

    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(folder, jax.tree.map(np.asarray, parameters))
    forget_place(folder)


def forget_place(folder: Path) -> None:
    """Take out of a folder that Orbax wrote the path where it was written: Orbax asks only that the file is there."""
    for file in folder.rglob("commit_success.txt"):
        file.write_text("Checkpoint commit was successful\n", encoding="utf-8")


def load_parameters(folder: Path, shapes: dict[str, dict[str, tuple[int, ...]]]) -> dict:
    """Read parameters and check them against the architecture that they are for.

    Args:
        folder: absolute path.
        shapes: layer name to array name to shape.

    Returns:
        Layer name to array name to float32 array.

    Raises:
        UserError: the folder cannot be read, or its arrays are not those of the architecture.
    """
    import orbax.checkpoint as ocp

    # Orbax finds some missing files only in threads of its own, whose complaints nobody can catch.
    for part in ("_METADATA", "manifest.ocdbt", "d"):
        if not (folder / part).exists():
            raise UserError(f"{folder}: expected parameters written by Orbax, found no {part}; get the weights again")
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            parameters = checkpointer.restore(folder)
    except Exception as error:  # what Orbax and TensorStore raise for a damaged folder is of a dozen kinds
        raise UserError(
            f"{folder}: the parameters cannot be read ({type(error).__name__}); get the weights again"
        ) from error
    check_parameters(parameters, shapes, str(folder))
    return parameters


def check_parameters(
    parameters: dict,
    shapes: dict[str, dict[str, tuple[int, ...]]],
    source: str,
    names: dict[tuple[str, str], str] | None = None,
) -> None:
    """Check that arrays have the names, the shapes and the finite values that an architecture asks for.

    Args:
        parameters: layer name to array name to array.
        shapes: layer name to array name to shape.
        source: what they were read from, for the message.
        names: what the source calls an array of a layer, if it has names of its own.

    Raises:
        UserError: something is missing, too much, of another shape or type, or not finite.
    """
    names = names or {}
    found = {(layer, name): array for layer, arrays in parameters.items() for name, array in arrays.items()}
    expected = {(layer, name): tuple(shape) for layer, arrays in shapes.items() for name, shape in arrays.items()}
    advice = "these weights are of another architecture"
    for key, shape in expected.items():
        called = names.get(key, "/".join(key))
        if key not in found:
            raise UserError(f"{source}: expected an array {called} of shape {shape}, found none; {advice}")
        if tuple(found[key].shape) != shape:
            raise UserError(f"{source}: expected {called} of shape {shape}, found {tuple(found[key].shape)}; {advice}")
        if found[key].dtype != np.float32 or not np.isfinite(found[key]).all():
            raise UserError(f"{source}: expected finite float32 numbers in {called}; the weights are damaged")
    if extra := sorted(found.keys() - expected.keys()):
        called = names.get(extra[0], "/".join(extra[0]))
        raise UserError(f"{source}: expected {len(expected)} arrays, found {called} besides; {advice}")


def fingerprint(parameters: dict) -> str:
    """SHA-256 of all arrays and their names, in the order of the names."""
    digest = hashlib.sha256()
    for layer in sorted(parameters):
        for name in sorted(parameters[layer]):
            digest.update(f"{layer}/{name}".encode())
            digest.update(np.ascontiguousarray(parameters[layer][name], np.float32).tobytes())
    return digest.hexdigest()
