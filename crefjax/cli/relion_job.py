"""`crefjax relion-job`."""

import os
from pathlib import Path

from crefjax.cli.common import add_device, add_verbosity
from crefjax.cli.messages import log
from crefjax.errors import UserError, path_error

EPILOG = (
    "Give `crefjax relion-job` as the External executable in RELION's window, and a half-map as its 3D reference. The "
    "other half-map is found by its name, half2 in place of half1."
)
MAP, REPORT, RECORD = "denoised.mrc", "report", "denoised.json"


def add_arguments(parser):
    """Add the arguments of `crefjax relion-job`; RELION chose their names."""
    parser.add_argument("--o", metavar="FOLDER", required=True, help="folder of the job")
    parser.add_argument(
        "--in_3dref", metavar="HALF1", required=True, help="a half-map, with half1 or half2 in its name"
    )
    parser.add_argument("--in_mask", metavar="MASK", help="mask; outside of it the denoised map is 0")
    parser.add_argument("--j", metavar="N", type=int, help="threads (default: all cores)")
    parser.add_argument("--weights", metavar="W", help="weights by name or folder (default: truth)")
    parser.add_argument("--symmetry", metavar="G", help="point group over which the map is averaged, such as D7")
    add_device(parser)
    add_verbosity(parser)


def run(arguments) -> None:
    """Denoise and report into the folder of a job, and say there how it ended."""
    from crefjax.relion.job import finish, start

    folder = Path(arguments.o)
    start(folder)
    try:
        finish(folder, success=True, outputs=_denoise(folder, arguments))
    except BaseException:
        finish(folder, success=False)
        raise
    log(f"wrote {folder / MAP} and {folder / REPORT}")


def _denoise(folder, arguments):
    from crefjax.cli.denoise_job import DenoiseJob, check_job, run_job
    from crefjax.cli.record import write_json
    from crefjax.relion.job import other_half

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
    write_json(str(folder / RECORD), run_job(job))
    return [folder / MAP]
