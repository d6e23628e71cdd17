"""`crefjax fsc`."""

from __future__ import annotations

import csv
import io
import itertools
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from crefjax.cli.common import add_json, add_shared, add_verbosity, on_device
from crefjax.cli.messages import check_json, json_text, log, output_json, resolution_numbers, result, timed, warn
from crefjax.errors import UserError, path_error
from crefjax.io.files import check_output_file
from crefjax.utils.atomic import atomic_write_all

if TYPE_CHECKING:
    from crefjax.spectral.curves import FscCurve
    from crefjax.spectral.directional import Anisotropy, DirectionalFsc
    from crefjax.spectral.fsc import CorrectedFsc

THRESHOLDS = (0.5, 0.143)
_FIGURES = (".png", ".svg", ".pdf")
_REPORTED_FINDINGS = ("same_noise", "orientation", "shift", "hot_voxel")  # those that an FSC does not show
EPILOG = (
    "C_ref = sqrt(2 FSC / (1 + FSC)) is meaningful for two half-maps only. Denoised half-maps are not independent: "
    "an FSC between them is not a resolution."
)


class Curves(NamedTuple):
    """The curves of two maps.

    Attributes:
        curve: of the maps as given, within the mask if there is one.
        corrected: the curves of phase randomization, if they were requested and there is a mask.
        masked: whether there is a mask.
        directional: the curves by direction, if a table of them or JSON was requested.
        anisotropy: what follows from them.
    """

    curve: FscCurve
    corrected: CorrectedFsc | None
    masked: bool
    directional: DirectionalFsc | None = None
    anisotropy: Anisotropy | None = None

    @property
    def deposited(self) -> FscCurve:
        """The curve for a deposition: corrected within a mask, else unmasked."""
        return self.curve if self.corrected is None else self.corrected.corrected


def add_arguments(parser):
    """Add the arguments of `crefjax fsc`."""
    parser.add_argument("map_1", metavar="MAP1", help="map (.mrc, .map, .ccp4, also .gz or .bz2)")
    parser.add_argument("map_2", metavar="MAP2", help="map on the same grid")
    parser.add_argument(
        "--mask",
        metavar="M",
        help="mask; it multiplies both maps, after their solvent level has been subtracted (default: no mask)",
    )
    parser.add_argument(
        "--corrected",
        action="store_true",
        help="correct the masked curve of two half-maps by phase randomization, as RELION does; included in --xml and "
        "--csv",
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="random seed of the phases")
    add_json(parser, "the curves")
    parser.add_argument(
        "--xml",
        metavar="F",
        help="also write the curve of two half-maps as XML for deposition in EMDB: corrected if there is a mask",
    )
    parser.add_argument("--csv", metavar="F", help="also write all curves as a table (.csv)")
    parser.add_argument(
        "--directional",
        metavar="F",
        help="also write the resolution within cones around 100 directions as a table (.csv), and say whether it "
        "depends on the direction",
    )
    parser.add_argument("--plot", metavar="F", help="also write the curves as a figure (.png, .svg or .pdf)")
    add_shared(parser, "voxel_size", "device")
    add_verbosity(parser)


def run(arguments) -> None:
    """Print the curve, and write the requested files."""
    _check_before_work(arguments)
    with on_device(arguments.device):
        curves = _measure(arguments)
    _write(arguments, curves)
    result(curve_table(curves))
    if arguments.directional:
        result(curves.anisotropy.describe())
    if not arguments.mask:
        result("no mask: noise around the particle lowers the curve, see `crefjax mask`")


def _measure(arguments) -> Curves:
    from crefjax.data.pair_check import check_pair
    from crefjax.io.entries import load_mask, load_pair
    from crefjax.spectral.fsc import fsc_curve

    size = {"voxel_size": arguments.voxel_size}
    with timed("reading"):
        first, second = load_pair(arguments.map_1, arguments.map_2, **size)
        region = load_mask(arguments.mask, first, **size).array if arguments.mask else None
    if arguments.xml:
        _check_not_denoised(first, second)
    # The maps may be any two, so the curve is that of the maps as given.
    with timed("checking"):
        check = check_pair(first.array, second.array, first.voxel_size, region, fall_off=False)
    for finding in check.findings:
        if finding.kind in _REPORTED_FINDINGS:
            warn(f"if these are half-maps, {finding.text}")
    with timed("measuring"):
        if region is not None and (arguments.corrected or arguments.xml or arguments.csv):
            curves = _corrected(arguments, first, second, region)
        else:
            curve = fsc_curve(first.array, second.array, first.voxel_size, region, leveled=True)
            curves = Curves(curve, None, region is not None)
        wanted = arguments.directional or arguments.json
        return _by_direction(curves, first, second, region) if wanted else curves


def _by_direction(curves, first, second, region):
    from crefjax.spectral.covariances import degrees_of_freedom
    from crefjax.spectral.curves import count_shell_voxels
    from crefjax.spectral.directional import anisotropy, directional_fsc

    curve = curves.curve
    directional = directional_fsc(
        first.array, second.array, curve.voxel_size, region, resolution=curve.resolution(0.143).angstrom
    )
    dof = count_shell_voxels(curve.box) if region is None else degrees_of_freedom(region)
    return curves._replace(directional=directional, anisotropy=anisotropy(directional, curve.fsc, dof))


def direction_columns(directional: DirectionalFsc) -> dict[str, list]:
    """Return the columns of the table by direction: unit vectors `(x, y, z)`, and resolutions in Å."""
    columns = {name: directional.directions[:, axis].tolist() for axis, name in enumerate("xyz")}
    for threshold in THRESHOLDS:
        resolutions = directional.resolutions(threshold)
        columns[f"resolution_at_{threshold}"] = [resolution.angstrom for resolution in resolutions]
    return columns


def _corrected(arguments, first, second, region) -> Curves:
    from crefjax.spectral.fsc import RANDOMIZE_BELOW, corrected_fsc

    corrected = corrected_fsc(first.array, second.array, first.voxel_size, region, seed=arguments.seed)
    log(
        f"phases randomized from {corrected.randomized_from:.2f} Å on (shell {corrected.shell}), where the unmasked "
        f"FSC falls below {RANDOMIZE_BELOW}, with seed {arguments.seed}"
    )
    for doubt in corrected.doubts():
        warn(doubt)
    return Curves(corrected.masked, corrected, True)


def _check_not_denoised(*maps):
    """Refuse to write a curve for deposition from maps that crefjax has labeled as denoised."""
    for map_ in maps:
        labels = [bytes(label) for label in map_.header.fields.label]
        if any(label.startswith(b"crefjax") and b"denoised" in label for label in labels):
            raise path_error(
                map_.path,
                "expected a half-map of a refinement, found one that crefjax denoised; an FSC between denoised "
                "half-maps is not a resolution: give the original half-maps",
            )


def curve_numbers(curves: Curves) -> dict:
    """Return the content of the JSON file: Å and 1/Å, lists over shells 0 to N/2."""
    curve, corrected = curves.curve, curves.corrected
    numbers = {
        "box": list(curve.box),
        "voxel_size": curve.voxel_size,
        "shell": list(range(len(curve.fsc))),
        "frequency": curve.frequency.tolist(),
        "fsc": curve.fsc.tolist(),
        "cref": curve.cref.tolist(),
        **resolution_numbers(curve),
    }
    if curves.directional is not None:
        numbers["directional"] = _directional_numbers(curves)
    if corrected is None:
        return numbers
    return numbers | {
        "fsc_unmasked": corrected.unmasked.fsc.tolist(),
        "fsc_randomized": corrected.randomized.fsc.tolist(),
        "fsc_corrected": corrected.corrected.fsc.tolist(),
        "randomized_from": corrected.randomized_from,
        "seed": corrected.seed,
        **resolution_numbers(corrected.corrected, "corrected_"),
    }


def _directional_numbers(curves):
    """Return resolutions by direction, and what follows from them; vectors are `(x, y, z)`, resolutions in Å."""
    columns, anisotropy = direction_columns(curves.directional), curves.anisotropy
    vectors = zip(*(columns.pop(axis) for axis in "xyz"), strict=True)
    return {
        "half_angle": curves.directional.half_angle,
        "directions": [list(vector) for vector in vectors],
        **columns,
        **{
            name: {
                "direction": list(getattr(anisotropy, name)),
                "resolution_at_0.143": getattr(anisotropy, f"{name}_resolution"),
            }
            for name in ("best", "worst")
        },
        "ratio": anisotropy.ratio,
        "spread": anisotropy.spread,
        "preferred": anisotropy.preferred,
    }


def curve_columns(curves: Curves) -> dict[str, list]:
    """Return the columns of the CSV file: 1/Å and Å, a row for each shell from 0 to N/2."""
    curve, corrected = curves.curve, curves.corrected
    frequency = curve.frequency.tolist()
    columns = {
        "shell": list(range(len(frequency))),
        "frequency": frequency,
        "resolution": [None, *(1 / value for value in frequency[1:])],
    }
    if corrected is None:
        return columns | {"fsc_unmasked": curve.fsc.tolist()}
    return columns | {
        "fsc_unmasked": corrected.unmasked.fsc.tolist(),
        "fsc_masked": corrected.masked.fsc.tolist(),
        "fsc_randomized": corrected.randomized.fsc.tolist(),
        "fsc_corrected": corrected.corrected.fsc.tolist(),
    }


def curve_table(curves: Curves) -> str:
    """Return the curves as text, a line for each shell, and the resolutions."""
    curve, corrected = curves.curve, curves.corrected
    columns = {"FSC": curve.fsc, "C_ref": curve.cref}
    if corrected is not None:
        columns |= {
            "unmasked": corrected.unmasked.fsc,
            "random": corrected.randomized.fsc,
            "corrected": corrected.corrected.fsc,
        }
    widths = [max(8, len(name) + 1) for name in columns]
    names = " ".join(f"{name:>{width}}" for name, width in zip(columns, widths, strict=True))
    lines = [f"{'shell':>5} {'1/Å':>8} {'Å':>8} {names}"]
    for shell, (frequency, *values) in enumerate(zip(curve.frequency, *columns.values(), strict=True)):
        angstrom = f"{1 / frequency:8.2f}" if shell else f"{'inf':>8}"
        values = " ".join(f"{value:{width}.4f}" for value, width in zip(values, widths, strict=True))
        lines.append(f"{shell:5d} {frequency:8.4f} {angstrom} {values}")
    lines += _resolution_lines(curve, "FSC")
    return "\n".join(lines + (_resolution_lines(corrected.corrected, "corrected FSC") if corrected else []))


def _resolution_lines(curve, name):
    lines = []
    for threshold in THRESHOLDS:
        resolution = curve.resolution(threshold)
        text = f"resolution at {name} {threshold}: {resolution.angstrom:.2f} Å"
        if not resolution.crossed:
            text += " (the curve never falls below it: this is the Nyquist limit)"
        lines.append(text)
    return lines


def _check_before_work(arguments):
    """Check options and outputs before any map is read."""
    if arguments.corrected and not arguments.mask:
        raise UserError("--corrected: expected a mask, found none; without one the curve needs no correction")
    if arguments.seed < 0:
        raise UserError(f"--seed: expected a number of 0 or more, found {arguments.seed}")
    inputs = arguments.map_1, arguments.map_2, arguments.mask
    check_json(arguments.json, suffixes=(), marker=b'"resolution_at_0.5"', inputs=inputs)
    if arguments.xml is not None:
        check_output_file(arguments.xml, suffixes=(".xml",), marker=b"<fsc ", inputs=inputs)
    if arguments.csv is not None:
        check_output_file(arguments.csv, suffixes=(".csv",), marker=b"fsc_unmasked", inputs=inputs)
    if arguments.directional is not None:
        check_output_file(arguments.directional, suffixes=(".csv",), marker=b"resolution_at_0.143", inputs=inputs)
    if arguments.plot is not None:
        check_output_file(arguments.plot, suffixes=_FIGURES, inputs=inputs)
    outputs = arguments.json, arguments.xml, arguments.csv, arguments.directional, arguments.plot
    outputs = [path for path in outputs if path is not None]
    for first, second in itertools.combinations(outputs, 2):
        if os.path.abspath(first) == os.path.abspath(second):
            raise UserError(f"{first}: expected a file of its own for each output, found one; choose another name")


def _write(arguments, curves):
    contents = {}
    if arguments.json == "-":
        output_json("-", curve_numbers(curves))
    elif arguments.json:
        contents[Path(arguments.json)] = (json_text(curve_numbers(curves)) + "\n").encode()
    if arguments.xml:
        title = "crefjax masked-corrected FSC" if curves.masked else "crefjax unmasked FSC"
        fsc = [1.0, *curves.deposited.fsc[1:]]  # shell 0 is the mean, which is not a measurement
        contents[Path(arguments.xml)] = fsc_xml(curves.curve.frequency, fsc, title)
    if arguments.csv:
        contents[Path(arguments.csv)] = csv_table(curve_columns(curves))
    if arguments.directional:
        contents[Path(arguments.directional)] = csv_table(direction_columns(curves.directional))
    if arguments.plot:
        from crefjax.plotting import fsc_figure

        kind = Path(arguments.plot).suffix.lower()[1:]
        contents[Path(arguments.plot)] = fsc_figure(curves.curve, THRESHOLDS, kind, curves.corrected)
    with atomic_write_all(overwrite=True) as stage:
        for path, content in contents.items():
            with stage(path, len(content)) as stream:
                stream.write(content)


def fsc_xml(frequency: Sequence[float], fsc: Sequence[float], title: str) -> bytes:
    """Return an FSC curve as the XML that EMDB takes for a deposition, with the axes as RELION labels them.

    The root `fsc` has the attributes `title`, `xaxis`, and `yaxis`, and for every shell a `coordinate` with `x` and
    `y`.

    Args:
        frequency: of every shell, 1/Å.
        fsc: of every shell.
        title: title of the curve.
    """
    root = ElementTree.Element("fsc", title=title, xaxis="Resolution (A-1)", yaxis="Correlation Coefficient")
    for x, y in zip(frequency, fsc, strict=True):
        coordinate = ElementTree.SubElement(root, "coordinate")
        ElementTree.SubElement(coordinate, "x").text = f"{x:.7f}"
        ElementTree.SubElement(coordinate, "y").text = f"{y:.6f}"
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="UTF-8", xml_declaration=True) + b"\n"


def csv_table(columns: Mapping[str, Sequence[float | int | None]]) -> bytes:
    """Return columns of one length as CSV with a line of names: numbers to seven digits, None as an empty field."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    for row in zip(*columns.values(), strict=True):
        writer.writerow(f"{value:.7g}" if isinstance(value, float) else value for value in row)
    return stream.getvalue().encode()
