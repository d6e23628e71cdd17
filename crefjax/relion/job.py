"""An External job of RELION (and of CCP-EM Doppio): what its folder must hold when it ends."""

from collections.abc import Sequence
from pathlib import Path

from crefjax.errors import path_error
from crefjax.io.star import write_star

SUCCESS, FAILURE, NODES = "RELION_JOB_EXIT_SUCCESS", "RELION_JOB_EXIT_FAILURE", "RELION_OUTPUT_NODES.star"
_NAMES = (("half1", "half2"), ("half2", "half1"), ("half_map_1", "half_map_2"), ("half_map_2", "half_map_1"))
_MAP_TYPE, _MAP_NUMBER = "DensityMap.mrc", 6  # of a map: the label of RELION 4 and later, the number of RELION 3.1


def other_half(path: Path) -> Path:
    """Return the path of the other half-map: half2 in place of half1, or the reverse, in the file's name.

    Raises:
        UserError: the name has neither, or there is no such file.
    """
    for own, other in _NAMES:
        if own in path.name:
            before, _, after = path.name.rpartition(own)
            found = path.with_name(f"{before}{other}{after}")
            if not found.is_file():
                raise path_error(found, f"expected the other half-map of {path.name}, found no file; check the path")
            return found
    raise path_error(path, "expected half1 or half2 in the name, found neither; give an unfiltered half-map")


def start(folder: Path) -> None:
    """Make the folder of a job if it is missing, and remove what an earlier run said about its end."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise path_error(folder, f"cannot be made ({error.strerror}); check the path") from error
    for name in (SUCCESS, FAILURE):
        (folder / name).unlink(missing_ok=True)


def finish(folder: Path, *, success: bool, outputs: Sequence[Path] = ()) -> None:
    """Say how a job ended, and which maps it made.

    Args:
        folder: of the job.
        success: whether it ended well.
        outputs: maps, relative to the project's folder, as the folder of the job is.
    """
    if outputs:
        nodes = {
            "rlnPipeLineNodeName": [str(path) for path in outputs],
            "rlnPipeLineNodeType": [_MAP_NUMBER] * len(outputs),
            "rlnPipeLineNodeTypeLabel": [_MAP_TYPE] * len(outputs),
        }
        write_star(folder / NODES, {"output_nodes": nodes})
    (folder / (SUCCESS if success else FAILURE)).touch()
