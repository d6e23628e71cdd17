"""`crefjax denoise`: its arguments, and a single run, from the input files to the outputs and the record."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from crefjax import __version__
from crefjax.cli.common import (
    add_half_maps,
    add_json,
    add_model,
    add_shared,
    add_verbosity,
    check_model_place,
    number_or_auto,
    positive,
    read_optional_model,
)
from crefjax.cli.messages import (
    check_json,
    current_messages,
    detail,
    log,
    make_record,
    output_json,
    pair_numbers,
    report_summary,
    timed,
    warn,
)
from crefjax.errors import UserError
from crefjax.inference import GRIDS, ROTATION_COUNTS, SCALES
from crefjax.io.files import check_output, map_stem
from crefjax.utils.progress import progress_bar

if TYPE_CHECKING:
    from crefjax.inference.denoise import Denoised
    from crefjax.inference.memory_plan import InferencePlan
    from crefjax.inference.request import DenoiseRequest
    from crefjax.report.measure import ReportInputs
    from crefjax.weights.store import Weights

EPILOG = (
    "The output has the header of HALF1 and overlays it. An FSC between denoised half-maps is not a resolution: "
    "their errors are not independent."
)
_SETTINGS = (
    *("scale", "grid", "resolution", "rotations", "symmetry", "sharpen", "insist", "voxel_size", "device"),
    "max_memory",
)
LOCAL = ("agreement", "change")


def add_arguments(parser):
    """Add the arguments of `crefjax denoise`."""
    add_half_maps(parser, "the other half-map; leave it out if HALF1 is a full map", optional=True)
    text = (
        "denoise many pairs: entry folders with half_map_1.mrc, half_map_2.mrc, and mask.mrc, which is used if it "
        "exists; OUT is then a folder, in which every entry gets a folder with denoised.mrc. Finished entries are "
        "skipped unless --overwrite is given. Exit status 1: an entry could not be denoised"
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
    text = "memory limit, GiB (default: 80%% of what is free)"
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
    parser.add_argument("--scale", choices=SCALES, help=text)
    text = (
        "data: run the network on the working grid, on which the resolution spans 3.3 voxels; input: on the map's own "
        "(default: the one that the weights were trained for). The output is on the map's own grid in either case"
    )
    parser.add_argument("--grid", choices=GRIDS, help=text)
    text = (
        "resolution in Å from which the working grid is chosen (default: where the FSC of the half-maps falls below "
        "0.143; for one map, estimated from its spectrum)"
    )
    parser.add_argument("--resolution", metavar="R", type=positive, help=text)
    text = (
        "number of rotations of the cube over which the output is averaged (default: as many as take no longer on the "
        "working grid than one does on the map's own)"
    )
    parser.add_argument("--rotations", type=int, choices=ROTATION_COUNTS, help=text)
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
    """Denoise, and write the requested outputs; return 1 if one of several entries could not be denoised."""
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


@dataclass(frozen=True, eq=False)
class DenoiseJob:
    """A run of `crefjax denoise`: what to denoise, how, and where to write the result.

    Attributes:
        half_map_1: half-map 1, or the full map.
        half_map_2: half-map 2, or None.
        mask: a file, `auto`, or None.
        output: denoised map to write; the names of the other maps follow from it.
        weights: loaded, or their name or folder; None for the default.
        settings: parameters of `crefjax.inference.request.read_request`.
        halves: whether the denoised half-maps are written.
        local: whether the local maps are written.
        report: folder of the report to write, or None.
        model: atomic model that the report shows, or None.
        overwrite: whether existing outputs are replaced.
        final: folder that the output's folder will become, for messages; None if it stays.
    """

    half_map_1: str | Path
    half_map_2: str | Path | None
    mask: str | Path | None
    output: Path
    weights: Weights | str | None
    settings: dict
    halves: bool = False
    local: bool = False
    report: Path | None = None
    model: str | Path | None = None
    overwrite: bool = False
    final: Path | None = None

    @property
    def measures(self) -> bool:
        """Whether the report or the local maps need denoised half-maps, even if these are not written."""
        return bool(self.report or self.local)

    @property
    def maps(self) -> dict[str, Path]:
        """The map files to write: `out.mrc` as `full`, `out_half_map_1.mrc` as `half_map_1`, and so on."""
        output = self.output
        stem = map_stem(output.name)
        if stem is None:
            check_output(output)  # raises, as this is not the name of a map
        names = ["half_map_1", "half_map_2"] if self.halves else []
        names += ["sharpened"] if self.settings.get("sharpen") is not None else []
        names += [f"local_{name}" for name in LOCAL] if self.local else []
        return {"full": output} | {name: output.with_name(f"{stem}_{name}{output.name[len(stem) :]}") for name in names}

    @property
    def inputs(self) -> dict[str, Path]:
        """The files that are read, by their role."""
        files = {"half_map_1": self.half_map_1, "half_map_2": self.half_map_2}
        files |= {"mask": None if self.mask == "auto" else self.mask, "model": self.model}
        return {name: Path(path) for name, path in files.items() if path is not None}

    def shown(self, path: Path) -> Path:
        """Return the path of an output as the user will find it."""
        return path if self.final is None else self.final / path.relative_to(self.output.parent)


def check_job(job: DenoiseJob, beside=()) -> None:
    """Check all that can be checked before any map is read.

    Args:
        job: the job to check.
        beside: other files that will be written.

    Raises:
        UserError: an option needs two half-maps, or an output is in the way.
    """
    wanted = {"halves": job.halves, "local": job.local, "report": job.report, "sharpen": job.settings.get("sharpen")}
    for option, value in wanted.items():
        if job.half_map_2 is None and value is not None and value is not False:
            raise UserError(f"--{option}: expected two half-maps, found one map; give both half-maps")
    if job.model is not None and job.report is None:
        raise UserError("--model: expected --report, whose page shows the model, found none; give --report DIR")
    inputs, maps = job.inputs.values(), job.maps.values()
    for path in maps:
        check_output(path, overwrite=job.overwrite, inputs=inputs)
    if job.report:
        from crefjax.report.writer import check_report_folder

        check_report_folder(job.report, overwrite=job.overwrite, inputs=inputs, outputs=[*maps, *beside])


def run_job(job: DenoiseJob) -> dict:
    """Denoise, write the requested outputs, and return the record.

    Raises:
        UserError: inputs or settings cannot be used, or an output cannot be written.
    """
    from crefjax.io.maps import write_maps

    model = read_optional_model(job.model)
    request, plan, result = _denoise(job, model)
    maps = {name: getattr(result, name) for name in ("full", "half_map_1", "half_map_2", "sharpened")}
    inputs = _report_inputs(job, request, result) if job.measures else None
    local = None
    if job.local:
        with timed("measuring around every voxel"):
            local = inputs.local_maps()
        maps |= {f"local_{name}": request.pair[0].replace_array(getattr(local, name)) for name in LOCAL}
    label = f"crefjax {__version__} denoised, weights {request.weights.name}, scale {request.scale}"
    outputs = dict(job.maps)
    with timed("writing"):
        write_maps([(path, maps[name]) for name, path in outputs.items()], label=label, overwrite=job.overwrite)
    for path in outputs.values():
        log(f"wrote {job.shown(path)}")
    found = _found(job, request, plan, result)
    if job.report:
        local_paths = [outputs[f"local_{name}"] for name in LOCAL] if local else None
        found["report"] = _write_report(job, inputs, model, local, local_paths)
        outputs["report"] = job.report
    log(f"done in {current_messages().elapsed:.1f} s")
    if job.halves:
        log("note: an FSC between the denoised half-maps is not a resolution: their errors are not independent")
    return make_record(
        "denoise",
        inputs=job.inputs,
        half_map=request.pair[0],
        settings=_settings(job, request, plan),
        found=found,
        outputs={name: job.shown(path) for name, path in outputs.items()},
    )


def _denoise(job, model) -> tuple[DenoiseRequest, InferencePlan, Denoised]:
    """Read and check the inputs, plan, and run the network, with a line on each step."""
    from crefjax.inference.denoise import denoise_maps
    from crefjax.inference.memory_plan import plan_denoise
    from crefjax.inference.request import read_request

    files = job.half_map_1, job.half_map_2, job.mask, job.weights
    with timed("reading and checking"):
        request = read_request(*files, **job.settings, half_maps=job.halves or job.measures, report=job.measures)
    _log_request(job, request)
    check_model_place(model, request.pair[0])
    with timed("planning"):
        plan = plan_denoise(request)
    for line in (plan.describe_grid(request.pair[0].array.shape), plan.describe()):
        if line is not None:
            log(line)
    with timed("denoising"), progress_bar(f"{current_messages().prefix}denoising") as progress:
        result = denoise_maps(request, plan, progress=progress)
    _log_result(result)
    return request, plan, result


def _log_request(job, request: DenoiseRequest) -> None:
    if len(request.pair) == 1:
        warn(
            "one map given, taken as a full map; give two half-maps if you have them, so that noise can be "
            "distinguished from signal"
        )
    for note in request.mask_notes:
        log(f"mask: {note}")
    full, weights = request.pair[0], request.weights
    z, y, x = full.array.shape
    log(f"crefjax {__version__}: {x}x{y}x{z} voxels of {full.voxel_size:.4g} Å, weights {weights.name}")
    detail(f"weights: {weights.path}, {weights.card['parameters']:,} parameters")
    detail(f"mask: {job.mask or 'none'}; scale: {request.scale}; grid: {request.grid}")
    if request.check is not None:
        log(request.check.describe_resolution(mask_given=_mask_given(job)))
    for warning in request.warnings:
        warn(warning)


def _mask_given(job):
    return job.mask not in (None, "auto")


def _log_result(result: Denoised) -> None:
    from crefjax.spectral.curves import has_no_signal

    for note in result.notes:
        log(note)
    if result.half_map_fsc is not None and has_no_signal(result.half_map_fsc.fsc):
        warn("the half-maps hardly correlate; on the scale of the signal almost nothing is left")


def _report_inputs(job, request: DenoiseRequest, result: Denoised) -> ReportInputs:
    """Return the maps of the report and of the local maps, with the mask to measure them in."""
    from crefjax.report.measure import AUTOMATIC_MASK, ReportInputs

    if request.region.error is not None and not request.is_measured:  # else a note of the result
        log(request.region.notes[0])
    return ReportInputs.from_denoised(
        request,
        result,
        mask_from=Path(job.mask).name if _mask_given(job) else AUTOMATIC_MASK,
        output=job.output,
        parameters={
            "command": "denoise",
            "mask": None if job.mask is None else str(job.mask),
            "weights": request.weights.name,
            "scale": request.scale,
            "model": None if job.model is None else str(job.model),
        },
    )


def _write_report(job, inputs, model, local, local_paths) -> dict:
    """Write the report, once the maps that it points to are in place; return its numbers for the record."""
    from crefjax.report.measure import report_numbers
    from crefjax.report.writer import write_report  # loads Matplotlib

    with timed("measuring"):
        numbers = report_numbers(inputs)
    with timed("writing the report"):
        written = write_report(
            inputs,
            numbers,
            job.report,
            sources=job.inputs,
            local=local,
            local_paths=local_paths,
            model=model,
            overwrite=job.overwrite,
        )
    for warning in numbers["warnings"]:
        warn(warning["text"])
    log(f"wrote {job.shown(job.report) / written[0].name} and {len(written) - 1} more files")
    return report_summary(numbers)


def _found(job, request, plan: InferencePlan, result) -> dict:
    found = pair_numbers(request.check, mask_given=_mask_given(job))
    grid = plan.grid
    found["grid"] = {
        "box": list(grid.shape),
        "voxel_size": grid.voxel_size,
        "resolution": grid.resolution,
        "b_factor": grid.blur,
    }
    if request.sharpening is not None:
        found["sharpening"] = {
            "b_factor": request.sharpening.b_factor,
            "given": request.sharpening.given,
            "resolution": request.sharpening.resolution,
        }
    if result.symmetry is not None:
        found["symmetry"] = asdict(result.symmetry)
    found["notes"] = [note for note in (*request.mask_notes, *result.notes) if not note.startswith("warning: ")]
    return found


def _settings(job, request, plan) -> dict:
    """Return the settings as they were used; those without a default, such as `resolution`, as they were given."""
    return {
        **job.settings,
        "weights": request.weights.name,
        "mask": None if job.mask is None else str(job.mask),
        "scale": request.scale,
        "grid": request.grid,
        "rotations": plan.rotations,
        "halves": job.halves,
        "local": job.local,
        "report": job.report is not None,
        "model": None if job.model is None else str(job.model),
        "device": plan.device.platform,
        "engine": plan.engine,
        "slab": plan.slab,
    }
