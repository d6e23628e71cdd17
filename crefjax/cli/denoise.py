"""`crefjax denoise`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from crefjax import __version__
from crefjax.cli.common import (
    add_device,
    add_half_maps,
    add_insist,
    add_overwrite,
    add_voxel_size,
    log,
    number_or_auto,
    positive,
)
from crefjax.errors import UserError
from crefjax.io.files import check_output, map_stem
from crefjax.utils.progress import progress_bar

if TYPE_CHECKING:
    from crefjax.inference.denoise import Denoised
    from crefjax.inference.request import DenoiseRequest
    from crefjax.report.measure import ReportInputs

EPILOG = (
    "The output has the header of HALF1 and overlays it. An FSC between denoised half-maps is not a resolution: "
    "their errors are not independent."
)
_SETTINGS = (
    "scale",
    "grid",
    "resolution",
    "rotations",
    "symmetry",
    "sharpen",
    "insist",
    "voxel_size",
    "device",
    "max_memory",
)
_LOCAL = ("agreement", "change")


def add_arguments(parser):
    """Add the arguments of `crefjax denoise`."""
    add_half_maps(parser, "the other half-map; leave it out if HALF1 is a full map", nargs="?")
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="denoised map to write")
    text = "mask file, or auto to make one; the output is 0 in the solvent and outside (default: no mask)"
    parser.add_argument("--mask", metavar="M", help=text)
    text = "weights by name or folder, see `crefjax weights list` (default: truth, which is included)"
    parser.add_argument("--weights", metavar="W", help=text)
    _add_settings(parser)
    parser.add_argument("--halves", action="store_true", help="also write OUT_half_map_1 and OUT_half_map_2")
    text = "also write a report of what can be trusted, see `crefjax report`"
    parser.add_argument("--report", metavar="DIR", help=text)
    text = "also write OUT_local_agreement (how far the half-maps confirm the result) and OUT_local_change, 0 to 1"
    parser.add_argument("--local", action="store_true", help=text)
    add_voxel_size(parser)
    add_insist(parser)
    add_device(parser)
    text = "limit of the peak memory, GiB (default: what is free)"
    parser.add_argument("--max-memory", metavar="GIB", type=positive, help=text)
    add_overwrite(parser)


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


def run(arguments) -> None:
    """Denoise, and write the outputs that are asked for."""
    from crefjax.inference.denoise import denoise_maps
    from crefjax.inference.memory_plan import plan_denoise
    from crefjax.inference.request import read_request
    from crefjax.io.maps import write_maps

    outputs = _outputs(arguments)
    _check_before_work(arguments, outputs)
    # The report and the local maps need denoised half-maps, whether these are written or not.
    report = bool(arguments.report or arguments.local)
    request = read_request(
        arguments.half_map_1,
        arguments.half_map_2,
        arguments.mask,
        arguments.weights,
        **{name: getattr(arguments, name) for name in _SETTINGS},
        half_maps=arguments.halves or report,
        report=report,
    )
    start = time.monotonic()
    _log_request(arguments, request)
    plan = plan_denoise(request)
    shape = request.pair[0].array.shape
    for line in (plan.describe_grid(shape), plan.describe()):
        if line is not None:
            log(line)
    with progress_bar("denoising") as progress:
        result = denoise_maps(request, plan, progress=progress)
    _log_result(result)
    maps = {"full": result.full, "half_map_1": result.half_map_1, "half_map_2": result.half_map_2}
    maps["sharpened"] = result.sharpened
    inputs, local = None, None
    if report:
        inputs = _report_inputs(arguments, request, result)
    if arguments.local:
        local = inputs.local_maps()
        maps |= {f"local_{name}": request.pair[0].replace_array(getattr(local, name)) for name in _LOCAL}
    label = f"crefjax {__version__} denoised, weights {request.weights.name}, scale {request.scale}"
    write_maps([(path, maps[name]) for name, path in outputs.items()], label=label, overwrite=arguments.overwrite)
    for path in outputs.values():
        log(f"wrote {path}")
    if arguments.report:
        local_paths = [outputs[f"local_{name}"] for name in _LOCAL] if local else None
        _write_report(arguments, inputs, local, local_paths)
    log(f"done in {time.monotonic() - start:.1f} s")
    if arguments.halves:
        log("note: an FSC between the denoised half-maps is not a resolution: their errors are not independent")


def _outputs(arguments) -> dict[str, Path]:
    """Return the map files to write: `out.mrc` as `full`, `out_half_map_1.mrc` as `half_map_1`, and so on."""
    output = Path(arguments.output)
    stem = map_stem(output.name)
    if stem is None:
        check_output(output)  # raises, as this is not the name of a map
    names = ["half_map_1", "half_map_2"] if arguments.halves else []
    names += ["sharpened"] if arguments.sharpen is not None else []
    names += [f"local_{name}" for name in _LOCAL] if arguments.local else []
    return {"full": output} | {name: output.with_name(f"{stem}_{name}{output.name[len(stem) :]}") for name in names}


def _check_before_work(arguments, outputs):
    """Check all that can be checked before any map is read."""
    for option in ("halves", "local", "report", "sharpen"):
        if arguments.half_map_2 is None and getattr(arguments, option) not in (None, False):
            raise UserError(f"--{option}: expected two half-maps, found one map; give both half-maps")
    inputs = _inputs(arguments).values()
    for path in outputs.values():
        check_output(path, overwrite=arguments.overwrite, inputs=inputs)
    if arguments.report:
        from crefjax.report.writer import check_report_folder

        check_report_folder(arguments.report, overwrite=arguments.overwrite, inputs=inputs, outputs=outputs.values())


def _inputs(arguments) -> dict[str, Path]:
    """Return the files that are read, by their role."""
    files = {"half_map_1": arguments.half_map_1, "half_map_2": arguments.half_map_2}
    files["mask"] = None if arguments.mask == "auto" else arguments.mask
    return {name: Path(path) for name, path in files.items() if path is not None}


def _log_request(arguments, request: DenoiseRequest) -> None:
    if len(request.pair) == 1:
        log(
            "warning: one map given, taken as a full map; give two half-maps if you have them, so that noise can be "
            "told from signal"
        )
    for note in request.mask_notes:
        log(f"mask: {note}")
    full = request.pair[0]
    z, y, x = full.array.shape
    log(f"crefjax {__version__}: {x}x{y}x{z} voxels of {full.voxel_size:.4g} Å, weights {request.weights.name}")
    if request.check is not None:
        log(request.check.describe_resolution(mask_given=arguments.mask not in (None, "auto")))
    for warning in request.warnings:
        log(f"warning: {warning}")


def _log_result(result: Denoised) -> None:
    from crefjax.spectral.curves import has_no_signal

    for note in result.notes:
        log(note)
    if result.half_map_fsc is not None and has_no_signal(result.half_map_fsc.fsc):
        log("warning: the half-maps hardly correlate; on the signal's scale there is next to nothing to show")


def _report_inputs(arguments, request: DenoiseRequest, result: Denoised) -> ReportInputs:
    """Return the maps of the report and of the local maps, with the mask to measure them in."""
    from crefjax.report.measure import AUTOMATIC_MASK, ReportInputs

    if request.region.error is not None and not request.is_measured:  # else a note of the result
        log(request.region.notes[0])
    return ReportInputs.from_denoised(
        request,
        result,
        mask_from=AUTOMATIC_MASK if arguments.mask in (None, "auto") else Path(arguments.mask).name,
        output=Path(arguments.output),
        parameters={
            "command": "denoise",
            "mask": arguments.mask,
            "weights": request.weights.name,
            "scale": request.scale,
        },
    )


def _write_report(arguments, inputs, local, local_paths):
    """Write the report, once the maps that it points to are in place."""
    from crefjax.report.measure import report_numbers
    from crefjax.report.writer import write_report  # loads Matplotlib

    numbers = report_numbers(inputs)
    written = write_report(
        inputs,
        numbers,
        arguments.report,
        sources=_inputs(arguments),
        local=local,
        local_paths=local_paths,
        overwrite=arguments.overwrite,
    )
    for warning in numbers["warnings"]:
        log(f"warning: {warning['text']}")
    log(f"wrote {written[0]} and {len(written) - 1} more files")
