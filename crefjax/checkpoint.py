"""Parameters on disk, as Orbax writes them."""

import hashlib
from pathlib import Path

import numpy as np

from crefjax.errors import UserError


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
