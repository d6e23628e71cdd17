"""`crefjax denoise`."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from crefjax import __version__
from crefjax.cli.common import add_device, add_insist, add_overwrite, add_voxel_size, positive
from crefjax.errors import UserError
from crefjax.io.files import check_output, map_stem
from crefjax.utils.progress import progress_bar

if TYPE_CHECKING:
    from crefjax.data.pair_check import Usable
    from crefjax.io.maps import Map


LOCAL = ("agreement", "change")
EPILOG = (
    "The output has the header of HALF1 and overlays it. An FSC between denoised half-maps is not a resolution: "
    "their errors are not independent."
)


def add_arguments(parser):
    """Add the arguments of `crefjax denoise`."""
    parser.add_argument("half_map_1", metavar="HALF1", help="half-map (.mrc, .map, .ccp4, also .gz or .bz2)")
    parser.add_argument(
        "half_map_2", metavar="HALF2", nargs="?", help="the other half-map; leave it out if HALF1 is a full map"
    )
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="denoised map to write")
    parser.add_argument(
        "--mask",
        metavar="M",
        help="mask file, or auto to make one; the output is 0 in the solvent and outside (default: no mask)",
    )
    parser.add_argument(
        "--weights",
        metavar="W",
        help="name or folder, see `crefjax weights list` (default: truth, which is included)",
    )
    parser.add_argument(
        "--scale",
        choices=("signal", "input", "none"),
        help="signal: match each frequency shell to the signal common to both half-maps, which denoises them "
        "too (default "
        "with two half-maps); input: keep mean and standard deviation of the full map, within the mask (default with "
        "one map); none: the network's raw output",
    )
    parser.add_argument(
        "--grid",
        choices=("data", "input"),
        help="data: run the network on a grid on which the resolution takes about three voxels; input: on the "
        "map's own "
        "(default: what the weights were trained for). The output is on the map's own grid in either case",
    )
    parser.add_argument(
        "--resolution",
        metavar="R",
        type=positive,
        help="resolution in Å from which the data's grid is chosen (default: where the FSC of the half-maps "
        "falls below "
        "0.143; for one map, estimated from its spectrum)",
    )
    parser.add_argument(
        "--rotations",
        type=int,
        choices=(1, 4, 24),
        help="average the output over this number of rotations of the cube (default: as many as take no longer on the "
        "data's grid than one does on the map's)",
    )
    parser.add_argument("--halves", action="store_true", help="also write OUT_half_map_1 and OUT_half_map_2")
    parser.add_argument(
        "--report", metavar="DIR", help="also write a report of what can be trusted, see `crefjax report`"
    )
    parser.add_argument(
        "--local",
        action="store_true",
        help="also write OUT_local_agreement (how far the half-maps confirm the result) and OUT_local_change, 0 "
        "to 1 in "
        "every voxel",
    )
    add_voxel_size(parser)
    add_insist(parser)
    add_device(parser)
    parser.add_argument(
        "--max-memory",
        metavar="GIB",
        type=positive,
        help="limit of the peak memory, GiB (default: what is free)",
    )
    add_overwrite(parser)


def run(arguments) -> None:
    """Denoise as the command line says."""
    from crefjax.inference.denoise import choose_scale, denoise_maps, plan_denoise
    from crefjax.io.maps import write_maps
    from crefjax.spectral.curves import has_no_signal
    from crefjax.weights.store import load_weights

    output = Path(arguments.output)
    outputs = [output]
    if arguments.halves:
        outputs += [half_map_path(output, half) for half in (1, 2)]
    locals_ = [local_map_path(output, what) for what in LOCAL] if arguments.local else []
    _check_before_work(arguments, outputs + locals_)
    weights = load_weights(arguments.weights)
    used, mask = _read(arguments)
    pair = used.pair
    scale = choose_scale(arguments.scale, pair)
    # The report and the local map look at denoised half-maps, whether these are written or not.
    settings = {"mask": mask, "scale": scale, "halves": bool(arguments.halves or arguments.report or arguments.local)}
    limits = {"device": arguments.device, "max_memory": arguments.max_memory}
    z, y, x = pair[0].array.shape
    _say(f"crefjax {__version__}: {x}x{y}x{z} voxels of {pair[0].voxel_size:.4g} Å, weights {weights.name}")
    if used.check is not None:
        _say(used.check.told_resolution(mask_given=mask is not None and arguments.mask != "auto"))
    for note in used.notes:
        _say(f"warning: {note}")
    start = time.monotonic()
    work = {name: getattr(arguments, name) for name in ("grid", "resolution", "rotations")}
    region = None if used.check is None or mask is not None else (used.check.mask, used.check.mask_notes)
    later = {"report": bool(arguments.report or arguments.local), "region": region}
    plan = plan_denoise(pair, weights, **later, **limits, **settings, **work)
    _say_grid(plan, pair)
    _say(plan.describe())
    with progress_bar("denoising") as progress:
        result = denoise_maps(pair, weights, plan, progress=progress, **settings)
    for note in result.notes:
        _say(note)
    if scale == "signal" and has_no_signal(used.check.curve.fsc):
        _say("warning: the half-maps hardly correlate; on the signal's scale there is next to nothing to show")
    label = f"crefjax {__version__} denoised, weights {weights.name}, scale {scale}"
    maps = list(zip(outputs, (result.full, result.half_map_1, result.half_map_2), strict=False))
    local, study = None, None
    if arguments.local or arguments.report:
        study = _study(arguments, used, result, mask, {"weights": weights.name, "scale": scale})
    if arguments.local:
        from crefjax.spectral.local_maps import local_maps

        halves = (pair[0].array, pair[1].array, result.half_map_1.array, result.half_map_2.array)
        local = local_maps(*halves, pair[0].voxel_size, study.mask)
        arrays = (local.agreement, local.change)
        maps += [(path, pair[0].replace_array(one)) for path, one in zip(locals_, arrays, strict=True)]
    write_maps(maps, label=label, overwrite=arguments.overwrite)
    for path, _ in maps:
        _say(f"wrote {path}")
    if arguments.report:
        _report(arguments, study, local, locals_)
    _say(f"done in {time.monotonic() - start:.1f} s")
    if arguments.halves:
        _say("note: an FSC between the denoised half-maps is no resolution: their errors are not independent")


def _say_grid(plan, pair):
    """Where the network works, if not on the grid of the maps."""
    grid = plan.grid
    if grid is None or grid.resolution is None:
        return
    line = f"resolution {grid.resolution:.2f} Å"
    if grid.shape != pair[0].array.shape:
        z, y, x = grid.shape
        line += f", so the network works on {x}x{y}x{z} voxels of {grid.voxel_size:.3g} Å"
    _say(line + (f", averaged over {plan.rotations} rotations" if plan.rotations > 1 else ""))


def local_map_path(output: Path, what: str) -> Path:
    """Where a local map goes: `out.mrc` gives `out_local_agreement.mrc`.

    Args:
        output: of the full map.
        what: `agreement` or `change`.

    Raises:
        UserError: the output's name is none for a map.
    """
    return _beside(output, f"local_{what}")


def half_map_path(output: Path, half: int) -> Path:
    """Where a denoised half-map goes: `out.mrc` gives `out_half_map_1.mrc`.

    Args:
        output: of the full map.
        half: 1 or 2.

    Raises:
        UserError: the output's name is none for a map.
    """
    return _beside(output, f"half_map_{half}")


def _beside(output, what):
    stem = map_stem(output.name)
    if stem is None:
        check_output(output)  # which tells what is wrong with the name
    return output.with_name(f"{stem}_{what}{output.name[len(stem) :]}")


def _check_before_work(arguments, outputs):
    """Check all that can be checked before any map is read."""
    from crefjax.weights.store import find_weights

    if arguments.half_map_2 is None:
        for option in ("halves", "local", "report"):
            if getattr(arguments, option):
                raise UserError(f"--{option}: expected two half-maps, found one map; give both half-maps")
        if arguments.scale == "signal":
            raise UserError(
                "--scale signal: expected two half-maps, found one map; give both half-maps, or --scale input"
            )
    if arguments.mask == "auto" and arguments.half_map_2 is None:
        raise UserError("--mask auto: expected two half-maps, found one map; give both, or a mask file")
    inputs = _inputs(arguments)
    for path in outputs:
        check_output(path, overwrite=arguments.overwrite, inputs=tuple(inputs.values()))
    if arguments.report:
        from crefjax.report.writer import check_folder

        check_folder(arguments.report, overwrite=arguments.overwrite, inputs=inputs.values(), outputs=outputs)
    find_weights(arguments.weights)


def _inputs(arguments):
    """Files that are read, by what they are."""
    files = {"half_map_1": arguments.half_map_1, "half_map_2": arguments.half_map_2}
    files["mask"] = None if arguments.mask == "auto" else arguments.mask
    return {name: Path(path) for name, path in files.items() if path is not None}


def _study(arguments, used, result, mask, settings):
    """What report and local map are about; the mask is the one to measure in where the maps were not masked."""
    import numpy as np

    from crefjax.masking import auto_mask
    from crefjax.report.measure import ReportInputs

    pair = used.pair
    if mask is not None:
        region, source = mask.array, "made automatically" if arguments.mask == "auto" else Path(arguments.mask).name
    elif result.region is not None:
        region, source = result.region, "made automatically"
    else:
        region, note = auto_mask(pair[0].array, pair[1].array, pair[0].voxel_size)
        source = "made automatically"
        if region is None:
            region, source = np.ones_like(pair[0].array), "none, the whole box"
            if settings["scale"] != "signal":  # whose own notes tell
                _say(note[0])
    return ReportInputs(
        half_map_1=pair[0],
        half_map_2=pair[1],
        denoised=replace(result.full, path=Path(arguments.output)),
        denoised_1=result.half_map_1,
        denoised_2=result.half_map_2,
        mask=region,
        mask_from=source,
        parameters={"command": "denoise", "mask": arguments.mask, **settings},
        pair_warnings=used.notes,
    )


def _report(arguments, study, local, local_paths):
    """Write the report, once the maps it points to are in place."""
    from crefjax.report.measure import account
    from crefjax.report.writer import write_report  # loads Matplotlib

    numbers = account(study)
    inputs = _inputs(arguments)
    written = write_report(
        study,
        numbers,
        arguments.report,
        inputs=inputs,
        local=local,
        local_paths=local_paths or None,
        overwrite=arguments.overwrite,
    )
    for warning in numbers["warnings"]:
        _say(f"warning: {warning['text']}")
    _say(f"wrote {written[0]} and {len(written) - 1} more files")


def _read(arguments) -> tuple[Usable, Map | None]:
    """Half-maps or full map, ready to be used, and the mask."""
    from crefjax.data.pair_check import usable
    from crefjax.io.entries import load_mask, load_pair
    from crefjax.io.maps import read_map
    from crefjax.masking import make_mask

    size = {"voxel_size": arguments.voxel_size}
    if arguments.half_map_2 is not None:
        pair = load_pair(arguments.half_map_1, arguments.half_map_2, **size)
    else:
        _say(
            "warning: one map given, taken as a full map; give two half-maps where there are, so that noise can be "
            "told from signal"
        )
        pair = (read_map(arguments.half_map_1, **size),)
    mask = load_mask(arguments.mask, pair[0], **size) if arguments.mask not in (None, "auto") else None
    # Of these the result tells.
    told = ("no_signal", "contrast")
    used = usable(pair, None if mask is None else mask.array, insist=arguments.insist, without=told)
    if arguments.mask == "auto":
        array, info = make_mask(used.pair[0].array, used.pair[1].array, pair[0].voxel_size)
        for note in info.notes:
            _say(f"mask: {note}")
        mask = pair[0].replace_array(array)
    return used, mask


def _say(line):
    print(line, file=sys.stderr, flush=True)
