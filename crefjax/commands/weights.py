"""`crefjax weights`."""

import sys
from pathlib import Path

from crefjax.errors import UserError
from crefjax.weights.published import import_checkpoint
from crefjax.weights.store import (
    DEFAULT,
    check_folder,
    find_weights,
    list_weights,
    read_card,
    save_weights,
    user_folder,
)


def list_all() -> None:
    """Print the weights that are found by name."""
    found = list_weights()
    for name, path in found.items():
        try:
            card, _ = read_card(path)
            default = "  (default)" if path == found.get(DEFAULT) else ""
            print(f"{name:24} {card['parameters']:>9,} parameters  {path}{default}")
        except UserError as error:
            print(f"{name:24} cannot be used: {error}")
    print(f"weights folders in {user_folder()} are found by name", file=sys.stderr)


def show(name: str) -> None:
    """Print what is known of weights."""
    path = find_weights(name)
    card, config = read_card(path)
    print(f"{path.name}: {path}")
    for field, value in card.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {one}" for key, one in value.items())
        print(f"  {field.replace('_', ' ')}: {value}")
    print(f"  box sides are padded to a multiple of {config.multiple} voxels")


def import_one(checkpoint: str, output: str, *, overwrite: bool) -> None:
    """Import weights of the paper's network into a weights folder."""
    check_folder(Path(output), overwrite=overwrite)
    parameters, config, about = import_checkpoint(checkpoint)
    save_weights(output, parameters, config, about, overwrite=overwrite)
    count = sum(array.size for layer in parameters.values() for array in layer.values())
    print(f"wrote {output}: {len(parameters)} layers, {count:,} parameters")
    print(f"licence: {about['licence']}")
