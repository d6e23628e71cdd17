"""`crefjax fsc`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from crefjax.cli.common import add_device, add_voxel_size, log, on_device
from crefjax.errors import UserError
from crefjax.io.files import check_output_file
from crefjax.utils.atomic import atomic_write_all

if TYPE_CHECKING:
    from crefjax.spectral.curves import FscCurve


THRESHOLDS = (0.5, 0.143)
_FIGURES = (".png", ".svg", ".pdf")
_REPORTED_FINDINGS = ("same_noise", "orientation", "shift", "hot_voxel")  # those that an FSC does not show
EPILOG = (
    "C_ref = sqrt(2 FSC / (1 + FSC)) is meaningful for two half-maps only. Denoised half-maps are not independent: "
    "an FSC between them is not a resolution."
)


def add_arguments(parser):
    """Add the arguments of `crefjax fsc`."""
    parser.add_argument("map_1", metavar="MAP1", help="map (.mrc, .map, .ccp4, also .gz or .bz2)")
    parser.add_argument("map_2", metavar="MAP2", help="map on the same grid")
    parser.add_argument(
        "--mask",
        metavar="M",
        help="mask; it multiplies both maps, after their solvent level is subtracted (default: no mask)",
    )
    parser.add_argument("--json", metavar="F", help="also write the curve as JSON")
    parser.add_argument("--plot", metavar="F", help="also write the curve as a figure (.png, .svg or .pdf)")
    add_voxel_size(parser)
    add_device(parser)


def run(arguments) -> None:
    """Print the curve, and write the files that are asked for."""
    _check_before_work(arguments)
    with on_device(arguments.device):
        curve = _curve(arguments)
    _write(arguments, curve)
    print(curve_table(curve))
    if not arguments.mask:
        print("no mask: noise around the particle lowers the curve, see `crefjax mask`")


def _curve(arguments):
    from crefjax.data.pair_check import check_pair
    from crefjax.io.entries import load_mask, load_pair
    from crefjax.spectral.fsc import fsc_curve

    size = {"voxel_size": arguments.voxel_size}
    first, second = load_pair(arguments.map_1, arguments.map_2, **size)
    region = load_mask(arguments.mask, first, **size).array if arguments.mask else None
    # The maps may be any two, so the curve is that of the maps as given.
    for finding in check_pair(first.array, second.array, first.voxel_size, region, fall_off=False).findings:
        if finding.kind in _REPORTED_FINDINGS:
            log(f"note: if these are half-maps, {finding.text}")
    return fsc_curve(first.array, second.array, first.voxel_size, region, leveled=True)


def curve_numbers(curve: FscCurve) -> dict:
    """Return the content of the JSON file: Å and 1/Å, lists over shells 0 to N/2."""
    numbers = {
        "box": list(curve.box),
        "voxel_size": curve.voxel_size,
        "shell": list(range(len(curve.fsc))),
        "frequency": curve.frequency.tolist(),
        "fsc": curve.fsc.tolist(),
        "cref": curve.cref.tolist(),
    }
    for threshold in THRESHOLDS:
        resolution = curve.resolution(threshold)
        numbers[f"resolution_at_{threshold}"] = resolution.angstrom
        numbers[f"falls_below_{threshold}"] = resolution.crossed
    return numbers


def curve_table(curve: FscCurve) -> str:
    """Return the curve as text, a line for each shell, and the resolutions."""
    lines = [f"{'shell':>5} {'1/Å':>8} {'Å':>8} {'FSC':>8} {'C_ref':>8}"]
    for shell, (frequency, fsc, cref) in enumerate(zip(curve.frequency, curve.fsc, curve.cref, strict=True)):
        angstrom = f"{1 / frequency:8.2f}" if shell else f"{'inf':>8}"
        lines.append(f"{shell:5d} {frequency:8.4f} {angstrom} {fsc:8.4f} {cref:8.4f}")
    for threshold in THRESHOLDS:
        resolution = curve.resolution(threshold)
        text = f"resolution at FSC {threshold}: {resolution.angstrom:.2f} Å"
        if not resolution.crossed:
            text += " (the curve never falls below it: this is the Nyquist limit)"
        lines.append(text)
    return "\n".join(lines)


def _check_before_work(arguments):
    """Check the outputs before any map is read."""
    inputs = arguments.map_1, arguments.map_2, arguments.mask
    if arguments.json is not None:
        check_output_file(arguments.json, marker=b'"resolution_at_0.5"', inputs=inputs)
    if arguments.plot is not None:
        check_output_file(arguments.plot, suffixes=_FIGURES, inputs=inputs)
    if arguments.json and arguments.plot and os.path.abspath(arguments.json) == os.path.abspath(arguments.plot):
        raise UserError(f"{arguments.json}: expected two files for curve and figure, found one; choose another name")


def _write(arguments, curve):
    contents = {}
    if arguments.json:
        contents[Path(arguments.json)] = (json.dumps(curve_numbers(curve), indent=1) + "\n").encode()
    if arguments.plot:
        from crefjax.plotting import fsc_figure

        contents[Path(arguments.plot)] = fsc_figure(curve, THRESHOLDS, Path(arguments.plot).suffix.lower()[1:])
    with atomic_write_all(overwrite=True) as stage:
        for path, content in contents.items():
            with stage(path, len(content)) as stream:
                stream.write(content)
