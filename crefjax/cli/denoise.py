"""`crefjax denoise`."""

from pathlib import Path

from crefjax.cli.common import add_half_maps, add_json, add_model, add_shared, add_verbosity, number_or_auto, positive
from crefjax.cli.denoise_job import DenoiseJob, check_job, run_job
from crefjax.cli.record import check_json, output_json
from crefjax.errors import UserError

EPILOG = (
    "The output has the header of HALF1 and overlays it. An FSC between denoised half-maps is not a resolution: "
    "their errors are not independent."
)
_SETTINGS = (
    *("scale", "grid", "resolution", "rotations", "symmetry", "sharpen", "insist", "voxel_size", "device"),
    "max_memory",
)


def add_arguments(parser):
    """Add the arguments of `crefjax denoise`."""
    add_half_maps(parser, "the other half-map; leave it out if HALF1 is a full map", optional=True)
    text = (
        "denoise many pairs: entry folders with half_map_1.mrc, half_map_2.mrc, and mask.mrc, which is used if it is "
        "there; then OUT is a folder, in which every entry gets one with denoised.mrc. Finished entries are skipped "
        "unless --overwrite is given. Exit status 1: an entry could not be denoised"
    )
    parser.add_argument("--entries", metavar="FOLDER", nargs="+", help=text)
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="denoised map, or folder, to write")
    text = (
        "mask file, auto to make one, or none; the output is 0 in the solvent and outside (default: none, with "
        "--entries the mask of each entry)"
    )
    parser.add_argument("--mask", metavar="M", help=text)
    text = "weights by name or folder, see `crefjax weights list` (default: truth, which is included)"
    parser.add_argument("--weights", metavar="W", help=text)
    _add_settings(parser)
    parser.add_argument("--halves", action="store_true", help="also write OUT_half_map_1 and OUT_half_map_2")
    text = (
        "also write a report of what can be trusted, see `crefjax report`; with --entries, DIR is its name beside each "
        "denoised map"
    )
    parser.add_argument("--report", metavar="DIR", help=text)
    text = "also write OUT_local_agreement (how far the half-maps confirm the result) and OUT_local_change, 0 to 1"
    parser.add_argument("--local", action="store_true", help=text)
    add_model(parser, "; needs --report")
    add_shared(parser, "voxel_size", "insist", "device")
    text = "limit of the peak memory, GiB (default: what is free)"
    parser.add_argument("--max-memory", metavar="GIB", type=positive, help=text)
    add_json(parser, "what was read, found, warned of, and written,")
    add_shared(parser, "overwrite")
    add_verbosity(parser)


def _add_settings(parser):
    text = (
        "signal: match each frequency shell to the signal common to both half-maps, which denoises them too (default "
        "with two half-maps); input: keep mean and standard deviation of the full map, within the mask (default with "
        "one map); none: the network's raw output"
    )
    parser.add_argument("--scale", choices=("signal", "input", "none"), help=text)
    text = (
        "data: run the network on a grid on which the resolution takes about three voxels; input: on the map's own "
        "(default: the one that the weights were trained for). The output is on the map's own grid in either case"
    )
    parser.add_argument("--grid", choices=("data", "input"), help=text)
    text = (
        "resolution in Å from which the data's grid is chosen (default: where the FSC of the half-maps falls below "
        "0.143; for one map, estimated from its spectrum)"
    )
    parser.add_argument("--resolution", metavar="R", type=positive, help=text)
    text = (
        "number of rotations of the cube over which the output is averaged (default: as many as take no longer on the "
        "data's grid than one does on the map's)"
    )
    parser.add_argument("--rotations", type=int, choices=(1, 4, 24), help=text)
    text = (
        "point group over which the output is averaged, with RELION's names and axes: C4, D7, T, O, I (= I2), I1, I3, "
        "I4; the center is the voxel N/2"
    )
    parser.add_argument("--symmetry", metavar="G", help=text)
    text = (
        "also write OUT_sharpened, the denoised map weighted by C_ref, sharpened by a B-factor in Å² (below 0), and "
        "low-passed at the resolution; auto finds B by the Guinier plot of the half-maps"
    )
    parser.add_argument("--sharpen", metavar="B", type=number_or_auto, help=text)


def run(arguments) -> int:
    """Denoise, and write the outputs that are asked for; return 1 if an entry of several could not be denoised."""
    settings = {name: getattr(arguments, name) for name in _SETTINGS}
    if arguments.entries is not None:
        from crefjax.cli.denoise_entries import run_entries

        if arguments.half_map_1 is not None:
            raise UserError(f"--entries: expected no other map, found {arguments.half_map_1}; give one or the other")
        if arguments.model is not None:
            raise UserError(
                "--model: expected one pair of half-maps, found --entries; give the model to `crefjax report`"
            )
        return run_entries(arguments, settings)
    if arguments.half_map_1 is None:
        raise UserError("denoise: expected HALF1 and HALF2, or --entries and folders, found neither; give one of them")
    job = DenoiseJob(
        arguments.half_map_1,
        arguments.half_map_2,
        None if arguments.mask == "none" else arguments.mask,
        Path(arguments.output),
        arguments.weights,
        settings,
        halves=arguments.halves,
        local=arguments.local,
        report=Path(arguments.report) if arguments.report else None,
        model=arguments.model,
        overwrite=arguments.overwrite,
    )
    check_job(job, beside=[] if arguments.json in (None, "-") else [arguments.json])
    check_json(arguments.json, inputs=job.inputs.values())
    output_json(arguments.json, run_job(job))
    return 0
