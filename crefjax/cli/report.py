"""`crefjax report`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from crefjax.cli.common import add_insist, add_overwrite, add_voxel_size, log
from crefjax.errors import UserError, path_error
from crefjax.io.files import is_same_file

if TYPE_CHECKING:
    from crefjax.io.maps import Map


EPILOG = (
    "The report is a folder with index.html, which opens in any browser offline, report.json, figures, and view.cxc "
    "for ChimeraX. Without denoised half-maps, bias cannot be separated from signal."
)


def add_arguments(parser):
    """Add the arguments of `crefjax report`."""
    parser.add_argument("half_map_1", metavar="HALF1", help="noisy half-map (.mrc, .map, .ccp4, also .gz or .bz2)")
    parser.add_argument("half_map_2", metavar="HALF2", help="the other half-map")
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
        "--local",
        action="store_true",
        help="also map agreement and change around each voxel; needs --denoised-halves",
    )
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="folder to write")
    add_voxel_size(parser)
    add_insist(parser)
    add_overwrite(parser)


def run(arguments) -> None:
    """Report as the command line says."""
    from crefjax.report.measure import account
    from crefjax.report.writer import PAGE, check_report_folder, write_report

    start = time.monotonic()
    inputs = _inputs(arguments)
    check_report_folder(arguments.output, overwrite=arguments.overwrite, inputs=inputs.values())
    _check_before_work(arguments)
    study = _study(arguments)
    numbers = account(study)
    written = write_report(
        study,
        numbers,
        arguments.output,
        inputs=inputs,
        local=_local(arguments, study),
        overwrite=arguments.overwrite,
    )
    for warning in numbers["warnings"]:
        log(f"warning: {warning['text']}")
    log(f"wrote {Path(arguments.output) / PAGE} and {len(written) - 1} more files")
    log(f"done in {time.monotonic() - start:.1f} s")


def check_denoised(denoised: Map, half_map: Map, what: str = "denoised map") -> None:
    """Check that a denoised map lies on its half-map's grid.

    Raises:
        UserError: it does not; where its voxels are finer or coarser by a whole number, that is said.
    """
    import numpy as np

    from crefjax.io.maps import ISOTROPY, check_same_grid

    ours, theirs = np.array(half_map.array.shape), np.array(denoised.array.shape)
    factor = half_map.voxel_size / denoised.voxel_size
    times = round(max(factor, 1 / factor))
    finer = factor > 1
    same_box = np.array_equal(theirs, times * ours if finer else ours / times)
    if times > 1 and same_box and abs(max(factor, 1 / factor) - times) < ISOTROPY * times:
        raise path_error(
            f"{denoised.path}",
            f"expected a {what} on the grid of {half_map.path}, {_box(half_map)}, found one {times} times as "
            f"{'fine' if finer else 'coarse'}, {_box(denoised)}; denoise without resampling (LAFTER: --downsample), "
            "or bring it back, in ChimeraX: volume resample #2 onGrid #1",
        )
    check_same_grid(half_map, denoised, f"half-map and {what}")


def _box(map_):
    z, y, x = map_.array.shape
    return f"{x}x{y}x{z} voxels of {map_.voxel_size:.5g} Å"


def _inputs(arguments):
    """Files that are read, by what they are."""
    inputs = {"half_map_1": arguments.half_map_1, "half_map_2": arguments.half_map_2, "denoised": arguments.denoised}
    if arguments.denoised_halves:
        inputs |= dict(zip(("denoised_1", "denoised_2"), arguments.denoised_halves, strict=True))
    if arguments.mask != "auto":
        inputs["mask"] = arguments.mask
    return {name: Path(path) for name, path in inputs.items()}


def _check_before_work(arguments):
    """Check all that can be checked before any map is read."""
    if not arguments.denoised_halves:
        if arguments.local:
            raise UserError("--local: expected denoised half-maps, found none; give both with --denoised-halves")
        return
    first, second = arguments.denoised_halves
    advice = "give HALF1 and HALF2, each denoised alone"
    if is_same_file(first, second):
        raise path_error(f"{first} and {second}", f"expected two denoised half-maps, found one file twice; {advice}")
    for half in (first, second):
        if is_same_file(half, arguments.denoised):
            raise path_error(half, f"expected a denoised half-map, found the denoised full map; {advice}")


def _study(arguments):
    """All maps, on one grid."""
    from crefjax.data.pair_check import validate_maps
    from crefjax.io.entries import load_mask, load_pair
    from crefjax.io.maps import read_map
    from crefjax.report.measure import ReportInputs

    size = {"voxel_size": arguments.voxel_size}
    pair = load_pair(arguments.half_map_1, arguments.half_map_2, **size)
    denoised = read_map(arguments.denoised, **size)
    check_denoised(denoised, pair[0])
    halves = [read_map(path, **size) for path in arguments.denoised_halves or ()]
    for half in halves:
        check_denoised(half, pair[0], "denoised half-map")
    if halves and _equal(halves[0].array, halves[1].array):
        raise path_error(
            f"{halves[0].path} and {halves[1].path}",
            "expected two denoised half-maps, found the same map twice (all voxels equal); give HALF1 and HALF2, each "
            "denoised alone",
        )
    mask = None if arguments.mask == "auto" else load_mask(arguments.mask, pair[0], **size).array
    used = validate_maps(pair, mask, insist=arguments.insist, without=("no_signal",))
    pair, mask_from = used.pair, Path(arguments.mask).name
    if mask is None:
        mask, mask_from = used.check.region.require(), "made automatically"
        for note in used.check.region.info.notes:
            log(f"mask: {note}")
    return ReportInputs(
        half_map_1=pair[0],
        half_map_2=pair[1],
        denoised=denoised,
        denoised_1=halves[0] if halves else None,
        denoised_2=halves[1] if halves else None,
        mask=mask,
        mask_from=mask_from,
        parameters={
            "command": "report",
            "half_maps": [arguments.half_map_1, arguments.half_map_2],
            "denoised": arguments.denoised,
            "denoised_halves": arguments.denoised_halves,
            "mask": arguments.mask,
            "local": arguments.local,
        },
        pair_warnings=used.notes,
    )


def _equal(a, b):
    import numpy as np

    return all(np.array_equal(one, other) for one, other in zip(a, b, strict=True))


def _local(arguments, study):
    if not arguments.local:
        return None
    from crefjax.spectral.local_maps import local_maps

    maps = (study.half_map_1, study.half_map_2, study.denoised_1, study.denoised_2)
    return local_maps(*(one.array for one in maps), study.half_map_1.voxel_size, study.mask)
