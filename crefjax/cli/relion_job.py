"""`crefjax relion-job`: an External job of RELION (and of CCP-EM Doppio), and the files that mark its end."""

import os
from collections.abc import Sequence
from pathlib import Path

from crefjax.cli.common import add_shared, add_verbosity
from crefjax.cli.messages import log
from crefjax.errors import UserError, path_error

EPILOG = (
    "Give `crefjax relion-job` as the External executable in RELION's window, and a half-map as its 3D reference. The "
    "other half-map is found by its name, half2 in place of half1."
)
MAP, REPORT, RECORD = "denoised.mrc", "report", "denoised.json"
SUCCESS, FAILURE, NODES = "RELION_JOB_EXIT_SUCCESS", "RELION_JOB_EXIT_FAILURE", "RELION_OUTPUT_NODES.star"
_NAMES = (("half1", "half2"), ("half2", "half1"), ("half_map_1", "half_map_2"), ("half_map_2", "half_map_1"))
_MAP_TYPE, _MAP_NUMBER = "DensityMap.mrc", 6  # of a map: the label of RELION 4 and later, the number of RELION 3.1


def add_arguments(parser):
    """Add the arguments of `crefjax relion-job`; RELION chose their names."""
    parser.add_argument("--o", metavar="FOLDER", required=True, help="folder of the job")
    parser.add_argument(
        "--in_3dref", metavar="HALF1", required=True, help="a half-map, with half1 or half2 in its name"
    )
    parser.add_argument("--in_mask", metavar="MASK", help="mask; the denoised map is 0 outside it")
    parser.add_argument("--j", metavar="N", type=int, help="threads (default: all cores)")
    parser.add_argument("--weights", metavar="W", help="weights by name or folder (default: truth)")
    parser.add_argument("--symmetry", metavar="G", help="point group over which the map is averaged, such as D7")
    add_shared(parser, "device")
    add_verbosity(parser)


def run(arguments) -> None:
    """Denoise and report into the folder of a job, and mark there how it ended."""
    folder = Path(arguments.o)
    start(folder)
    try:
        finish(folder, success=True, outputs=_denoise(folder, arguments))
    except BaseException:
        finish(folder, success=False)
        raise
    log(f"wrote {folder / MAP} and {folder / REPORT}")


def _denoise(folder, arguments):
    from crefjax.cli.denoise import DenoiseJob, check_job, run_job
    from crefjax.cli.messages import output_json

    if arguments.j is not None:
        if arguments.j < 1:
            raise UserError(f"--j: expected at least 1 thread, found {arguments.j}; correct it")
        os.environ["NPROC"] = str(arguments.j)  # read by XLA, which has no other setting for it
    first = Path(arguments.in_3dref)
    if not first.is_file():
        raise path_error(first, "expected a half-map, found no such file; check the path")
    mask = Path(arguments.in_mask) if arguments.in_mask else None
    job = DenoiseJob(
        first,
        other_half(first),
        mask,
        folder / MAP,
        arguments.weights,
        {"symmetry": arguments.symmetry, "device": arguments.device},
        report=folder / REPORT,
        overwrite=True,  # RELION runs a job again in its folder, to continue it
    )
    check_job(job)
    output_json(str(folder / RECORD), run_job(job))
    return [folder / MAP]


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
    """Make the folder of a job if it is missing, and remove the end markers of an earlier run."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise path_error(folder, f"cannot be made ({error.strerror}); check the path") from error
    for name in (SUCCESS, FAILURE):
        (folder / name).unlink(missing_ok=True)


def finish(folder: Path, *, success: bool, outputs: Sequence[Path] = ()) -> None:
    """Mark how a job ended, and list the maps that it made.

    Args:
        folder: folder of the job.
        success: whether it succeeded.
        outputs: maps, by paths relative to the project folder, like `folder`.
    """
    from crefjax.io.star import write_star

    if outputs:
        nodes = {
            "rlnPipeLineNodeName": [str(path) for path in outputs],
            "rlnPipeLineNodeType": [_MAP_NUMBER] * len(outputs),
            "rlnPipeLineNodeTypeLabel": [_MAP_TYPE] * len(outputs),
        }
        write_star(folder / NODES, {"output_nodes": nodes})
    (folder / (SUCCESS if success else FAILURE)).touch()
