"""`crefjax check`."""

import json
from dataclasses import asdict
from pathlib import Path

from crefjax.cli.common import add_device, add_half_maps, add_voxel_size, on_device
from crefjax.io.files import check_output_file
from crefjax.utils.atomic import write_bytes

EPILOG = (
    "Detects a half-map that is shifted, mirrored, or has exchanged axes; the same noise in both; different scales; "
    "nothing in common; a low-pass, mask, or sharpening; inverted contrast; hot voxels. Exit status 1: they are not a "
    "pair, and nothing computed from them would be right."
)


def add_arguments(parser):
    """Add the arguments of `crefjax check`."""
    add_half_maps(parser)
    parser.add_argument("--mask", metavar="M", help="mask to measure within (default: one made from the half-maps)")
    parser.add_argument("--json", metavar="F", help="also write the findings as JSON")
    add_voxel_size(parser)
    add_device(parser)


def run(arguments) -> int:
    """Print the findings; return 1 if the two maps are not a pair, else 0."""
    from crefjax.data.pair_check import check_pair
    from crefjax.io.entries import load_mask, load_pair

    output = None if arguments.json is None else Path(arguments.json)
    if output is not None:
        inputs = arguments.half_map_1, arguments.half_map_2, arguments.mask
        check_output_file(output, suffixes=(".json",), marker=b'"findings"', inputs=inputs)
    first, second = load_pair(arguments.half_map_1, arguments.half_map_2, voxel_size=arguments.voxel_size)
    mask = load_mask(arguments.mask, first, voxel_size=arguments.voxel_size).array if arguments.mask else None
    with on_device(arguments.device):
        check = check_pair(first.array, second.array, first.voxel_size, mask)
    if output is not None:
        content = _json_content(arguments, first, check)
        write_bytes(output, (json.dumps(content, indent=1) + "\n").encode())
    z, y, x = first.array.shape
    print(f"{x}x{y}x{z} voxels of {first.voxel_size:.4g} Å")
    print(check.describe_resolution(mask_given=bool(arguments.mask)))
    for finding in check.findings:
        print(f"{'not a pair' if finding.serious else 'note'}: {finding.text}")
    if not check.findings:
        print("no problem found: the half-maps are ready for denoising")
    return int(check.serious)


def _json_content(arguments, half_map, check):
    resolution = check.curve.resolution(0.143)
    return {
        "half_map_1": str(arguments.half_map_1),
        "half_map_2": str(arguments.half_map_2),
        "box": list(half_map.array.shape),
        "voxel_size": half_map.voxel_size,
        "resolution_at_0.143": resolution.angstrom,
        "falls_below_0.143": resolution.crossed,
        "resolution_at_0.5": check.curve.resolution(0.5).angstrom,
        "pair": not check.serious,
        "findings": [asdict(finding) for finding in check.findings],
    }
