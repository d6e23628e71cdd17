"""`crefjax check`."""

from dataclasses import asdict

from crefjax.cli.common import add_half_maps, add_json, add_shared, add_verbosity, on_device
from crefjax.cli.messages import check_json, output_json, resolution_numbers, result

EPILOG = (
    "Detects a half-map that is shifted, mirrored, or has exchanged axes; the same noise in both; different scales; "
    "nothing in common; a low-pass, mask, or sharpening; inverted contrast; hot voxels. Exit status 1: they are not a "
    "pair, and nothing computed from them would be right."
)


def add_arguments(parser):
    """Add the arguments of `crefjax check`."""
    add_half_maps(parser)
    parser.add_argument("--mask", metavar="M", help="mask to measure within (default: one made from the half-maps)")
    add_json(parser, "the findings")
    add_shared(parser, "voxel_size", "device")
    add_verbosity(parser)


def run(arguments) -> int:
    """Print the findings; return 1 if the two maps are not a pair, else 0."""
    from crefjax.data.pair_check import check_pair
    from crefjax.io.entries import load_mask, load_pair

    inputs = arguments.half_map_1, arguments.half_map_2, arguments.mask
    check_json(arguments.json, marker=b'"findings"', inputs=inputs)
    first, second = load_pair(arguments.half_map_1, arguments.half_map_2, voxel_size=arguments.voxel_size)
    mask = load_mask(arguments.mask, first, voxel_size=arguments.voxel_size).array if arguments.mask else None
    with on_device(arguments.device):
        check = check_pair(first.array, second.array, first.voxel_size, mask)
    output_json(arguments.json, _json_content(arguments, first, check))
    z, y, x = first.array.shape
    result(f"{x}x{y}x{z} voxels of {first.voxel_size:.4g} Å")
    result(check.describe_resolution(mask_given=bool(arguments.mask)))
    for finding in check.findings:
        result(f"{'not a pair' if finding.serious else 'note'}: {finding.text}", even_if_quiet=True)
    if not check.findings:
        result("no problem found: the half-maps are ready for denoising")
    return int(check.serious)


def _json_content(arguments, half_map, check):
    return {
        "half_map_1": str(arguments.half_map_1),
        "half_map_2": str(arguments.half_map_2),
        "box": list(half_map.array.shape),
        "voxel_size": half_map.voxel_size,
        **resolution_numbers(check.curve),
        "pair": not check.serious,
        "findings": [asdict(finding) for finding in check.findings],
    }
