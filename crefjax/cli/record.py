"""Records of what a command read, found, warned of, and wrote, as JSON for pipelines.

The keys are documented in docs/command_line.md; a key that changes its meaning, or goes, raises `FORMAT_VERSION`.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from crefjax import __version__
from crefjax.cli.messages import current_messages
from crefjax.io.files import check_output_file, finite_json
from crefjax.utils.atomic import write_bytes

FORMAT_VERSION = 1
_MARKER = b'"format_version"'


def check_json(
    path: str | None, *, suffixes: tuple[str, ...] = (".json",), marker: bytes = _MARKER, inputs: Iterable = ()
) -> None:
    """Check, before long work, that the JSON can be written.

    Args:
        path: what the user gave: a file, `-` for standard output, or None for no JSON.
        suffixes: that the file's name may have; empty for any.
        marker: content by which an earlier file, which may be replaced, is recognized.
        inputs: files that are read.

    Raises:
        UserError: another suffix, a file that is not an earlier output, or a folder that is missing or not writable.
    """
    if path not in (None, "-"):
        check_output_file(path, suffixes=suffixes, marker=marker, inputs=inputs)


def output_json(path: str | None, content: Mapping) -> None:
    """Write JSON to a file, to standard output (`-`), or nowhere (None).

    Raises:
        UserError: the file system refused.
    """
    if path == "-":
        print(json_text(content))
    elif path is not None:
        write_bytes(Path(path), (json_text(content) + "\n").encode())


def json_text(content: Mapping) -> str:
    """Return JSON in ASCII, in which NaN and infinity are null; paths and other objects are texts."""
    return json.dumps(finite_json(content), indent=1, allow_nan=False, default=str)


def make_record(
    command: str, *, inputs: Mapping[str, Path], half_map, settings: dict, found: dict, outputs: Mapping[str, Path]
) -> dict:
    """Return the record of a finished command, with its warnings and times.

    Args:
        command: its name.
        inputs: files that were read, by their role.
        half_map: the first one, a `crefjax.io.maps.Map`.
        settings: that led to the result, every default filled in.
        found: what was measured, and what of it is notable.
        outputs: files that were written, by their role.
    """
    messages = current_messages()
    return {
        "format_version": FORMAT_VERSION,
        "crefjax": __version__,
        "command": command,
        "inputs": {name: str(path) for name, path in inputs.items()},
        "box": list(half_map.array.shape),
        "voxel_size": half_map.voxel_size,
        "settings": settings,
        "found": found,
        "warnings": list(messages.warnings),
        "outputs": {name: str(path) for name, path in outputs.items()},
        "seconds": {**messages.seconds, "total": messages.elapsed},
    }


def resolution_numbers(curve, prefix: str = "") -> dict:
    """Return where an `FscCurve` falls below 0.143 and 0.5, Å, and whether it does, by keys with a prefix."""
    numbers = {}
    for threshold in (0.143, 0.5):
        resolution = curve.resolution(threshold)
        numbers[f"{prefix}resolution_at_{threshold}"] = resolution.angstrom
        numbers[f"{prefix}falls_below_{threshold}"] = resolution.crossed
    return numbers


def pair_numbers(check, *, mask_given: bool) -> dict:
    """Return what a check of two half-maps found, for a record.

    Args:
        check: `crefjax.data.pair_check.PairCheck`; None for a single map, of which nothing is known.
        mask_given: whether the user gave the mask to measure within.
    """
    if check is None:
        names = ("resolution_at_0.143", "falls_below_0.143", "resolution_at_0.5", "falls_below_0.5")
        return {**dict.fromkeys(names), "measured_within": None, "pair": None, "findings": []}
    region = "mask" if mask_given else "whole box" if check.region.array is None else "automatic mask"
    findings = [
        {"kind": finding.kind, "serious": finding.serious, "text": finding.text, "numbers": finding.numbers}
        for finding in check.findings
    ]
    numbers = resolution_numbers(check.curve)
    return numbers | {"measured_within": region, "pair": not check.serious, "findings": findings}


def report_summary(numbers: Mapping) -> dict:
    """Return the numbers of a report that are not curves, for a record.

    Args:
        numbers: of `crefjax.report.measure.report_numbers`.
    """
    summary = {}
    for threshold in (0.143, 0.5):
        resolution = numbers["resolution"][f"fsc_{threshold}"]
        summary[f"resolution_at_{threshold}"] = resolution["angstrom"]
        summary[f"falls_below_{threshold}"] = resolution["crossed"]
    return summary | {name: numbers[name] for name in ("mask", "cref_rmse", "gain", "warnings", "notes", "use")}
