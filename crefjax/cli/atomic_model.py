"""`--model`, the atomic model that a page shows with its maps."""

from pathlib import Path
from typing import TYPE_CHECKING

from crefjax.cli.messages import warn

if TYPE_CHECKING:
    from crefjax.io.maps import Map
    from crefjax.report.model import Model


def add_model(command, more: str = "") -> None:
    """Add `--model`.

    Args:
        command: parser.
        more: end of the help.
    """
    text = f"atomic model to show with the maps, PDB or mmCIF, also .gz{more}"
    command.add_argument("--model", metavar="MODEL", help=text)


def read_optional_model(path: str | Path | None) -> "Model | None":
    """Return the model of a file, or None for None.

    Raises:
        UserError: the file is missing or not a model.
    """
    if path is None:
        return None
    from crefjax.report.model import read_model

    return read_model(path)


def check_model_place(model: "Model | None", map_: "Map") -> None:
    """Warn if most atoms of a model lie outside the box of a map."""
    if model is None:
        return
    sides = tuple(side * map_.voxel_size for side in map_.array.shape[::-1])
    share = model.inside(map_.origin, sides)
    if share < 0.5:
        warn(
            f"{model.name}: {share:.0%} of its atoms lie in the box of the map; check that it is the model of this "
            "map, and that the header has the right origin"
        )
