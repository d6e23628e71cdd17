"""Parameters on disk, as Orbax writes them."""

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

    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            parameters = checkpointer.restore(folder)
    except Exception as error:  # what Orbax and TensorStore raise for a damaged folder is of a dozen kinds
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise UserError(f"{folder}: expected parameters written by Orbax, cannot be read ({reason})") from error
    check_parameters(parameters, shapes, str(folder))
    return parameters


def check_parameters(parameters: dict, shapes: dict[str, dict[str, tuple[int, ...]]], source: str) -> None:
    """Check that arrays have the names, the shapes and the finite values that an architecture asks for.

    Args:
        parameters: layer name to array name to array.
        shapes: layer name to array name to shape.
        source: what they were read from, for the message.

    Raises:
        UserError: something is missing, too much, of another shape or type, or not finite.
    """
    found = {f"{layer}/{name}": array for layer, arrays in parameters.items() for name, array in arrays.items()}
    expected = {f"{layer}/{name}": shape for layer, arrays in shapes.items() for name, shape in arrays.items()}
    for name, shape in expected.items():
        if name not in found:
            raise UserError(f"{source}: expected an array {name} of shape {shape}, found none; other architecture?")
        if tuple(found[name].shape) != tuple(shape):
            raise UserError(
                f"{source}: expected {name} of shape {tuple(shape)}, found {tuple(found[name].shape)}; "
                "these weights are of another architecture"
            )
        if found[name].dtype != np.float32 or not np.isfinite(found[name]).all():
            raise UserError(f"{source}: expected finite float32 numbers in {name}; the weights are damaged")
    if extra := sorted(found.keys() - expected.keys()):
        raise UserError(f"{source}: expected {len(expected)} arrays, found {extra[0]} besides; other architecture?")
