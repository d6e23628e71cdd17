"""`crefjax report`."""

from pathlib import Path

from crefjax.cli.common import (
    add_half_maps,
    add_json,
    add_model,
    add_shared,
    add_verbosity,
    check_model_place,
    read_optional_model,
)
from crefjax.cli.messages import (
    check_json,
    current_messages,
    log,
    make_record,
    output_json,
    report_summary,
    timed,
    warn,
)
from crefjax.errors import UserError, path_error
from crefjax.io.files import is_same_file

EPILOG = (
    "The report is a folder with index.html, which opens in any browser offline, report.json, figures, and view.cxc "
    "for ChimeraX. Without denoised half-maps, bias cannot be separated from signal."
)


def add_arguments(parser):
    """Add the arguments of `crefjax report`."""
    add_half_maps(parser)
    parser.add_argument(
        "--denoised", metavar="D", required=True, help="denoised full map, on the grid of the half-maps"
    )
    parser.add_argument(
        "--denoised-halves",
        metavar=("D1", "D2"),
        nargs=2,
        help="HALF1 and HALF2, each denoised alone with the same settings; needed to separate signal, noise, and bias",
    )
    parser.add_argument("--mask", metavar="M", default="auto", help="mask file, or auto to make one")
    parser.add_argument(
        "--local", action="store_true", help="also map agreement and change around each voxel; needs --denoised-halves"
    )
    add_model(parser)
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="folder to write")
    add_shared(parser, "voxel_size", "insist")
    add_json(parser, "what was found, and the files that were written,")
    add_shared(parser, "overwrite")
    add_verbosity(parser)


def run(arguments) -> None:
    """Write the report of a parsed command line."""
    from crefjax.report.measure import ReportInputs, report_numbers
    from crefjax.report.writer import PAGE, check_report_folder, write_report

    sources = _sources(arguments)
    beside = [] if arguments.json in (None, "-") else [arguments.json]
    check_report_folder(arguments.output, overwrite=arguments.overwrite, inputs=sources.values(), outputs=beside)
    check_json(arguments.json, inputs=sources.values())
    _check_before_work(arguments)
    model = read_optional_model(arguments.model)
    names = ("denoised", "denoised_halves", "mask", "local", "model")
    settings = {name: getattr(arguments, name) for name in names}
    with timed("reading and checking"):
        inputs = ReportInputs.from_files(
            (arguments.half_map_1, arguments.half_map_2),
            arguments.denoised,
            arguments.denoised_halves or (),
            sources.get("mask"),
            voxel_size=arguments.voxel_size,
            insist=arguments.insist,
            parameters={"command": "report", "half_maps": [arguments.half_map_1, arguments.half_map_2], **settings},
        )
    for note in inputs.mask_notes:
        log(note)
    check_model_place(model, inputs.half_map_1)
    with timed("measuring"):
        numbers = report_numbers(inputs)
    local = None
    if arguments.local:
        with timed("measuring around every voxel"):
            local = inputs.local_maps()
    with timed("writing"):
        written = write_report(
            inputs, numbers, arguments.output, sources=sources, local=local, model=model, overwrite=arguments.overwrite
        )
    for warning in numbers["warnings"]:
        warn(warning["text"])
    log(f"wrote {Path(arguments.output) / PAGE} and {len(written) - 1} more files")
    log(f"done in {current_messages().elapsed:.1f} s")
    record = make_record(
        "report",
        inputs=sources,
        half_map=inputs.half_map_1,
        settings={name: getattr(arguments, name) for name in ("mask", "local", "model", "insist")},
        found=report_summary(numbers),
        outputs={"report": Path(arguments.output)},
    )
    output_json(arguments.json, record)


def _sources(arguments):
    """Return the files that are read, by their names in `report.json`."""
    paths = {"half_map_1": arguments.half_map_1, "half_map_2": arguments.half_map_2, "denoised": arguments.denoised}
    if arguments.denoised_halves:
        paths |= dict(zip(("denoised_1", "denoised_2"), arguments.denoised_halves, strict=True))
    if arguments.mask != "auto":
        paths["mask"] = arguments.mask
    if arguments.model is not None:
        paths["model"] = arguments.model
    return {name: Path(path) for name, path in paths.items()}


def _check_before_work(arguments):
    """Check what can be checked before any map is read."""
    if not arguments.denoised_halves:
        if arguments.local:
            raise UserError("--local: expected denoised half-maps, found none; give both with --denoised-halves")
        return
    first, second = arguments.denoised_halves
    advice = "give HALF1 and HALF2, each denoised alone"
    if is_same_file(first, second):
        raise path_error(f"{first} and {second}", f"expected two denoised half-maps, found one file twice; {advice}")
    for half_map in (first, second):
        if is_same_file(half_map, arguments.denoised):
            raise path_error(half_map, f"expected a denoised half-map, found the denoised full map; {advice}")
