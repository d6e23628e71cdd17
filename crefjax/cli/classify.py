"""`crefjax classify`."""

from pathlib import Path

from crefjax import __version__
from crefjax.cli.common import add_shared, add_verbosity, number, positive
from crefjax.cli.messages import detail, log, result, timed
from crefjax.io.files import check_output

EPILOG = (
    "A baseline that removes noise without changing any density: voxels that a network classifies as noise are set to "
    "the solvent's density, and all others stay as they are. It says nothing about how reliable the density is."
)


def add_arguments(parser):
    """Add the arguments of `crefjax classify`."""
    parser.add_argument("map", metavar="MAP", help="density map (.mrc, .map, .ccp4, also .gz or .bz2)")
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="map to write")
    parser.add_argument(
        "--mode",
        choices=("background", "structural"),
        default="background",
        help="remove background noise alone, or also structural noise such as detergent belts",
    )
    parser.add_argument(
        "--threshold",
        metavar="T",
        type=number,
        help="probability of structure below which a voxel is removed (default: chosen for the map and the mode)",
    )
    parser.add_argument("--weights", metavar="W", help="weights by name or folder (default: classifier)")
    parser.add_argument("--probability", metavar="P", help="map to write with every voxel's probability of structure")
    parser.add_argument(
        "--max-memory", metavar="GIB", type=positive, help="memory limit, GiB (default: 80%% of what is free)"
    )
    add_shared(parser, "voxel_size", "device", "overwrite")
    add_verbosity(parser)


def run(arguments) -> None:
    """Write the map without its noise, and report what was removed."""
    outputs = [Path(path) for path in (arguments.output, arguments.probability) if path]
    for path in outputs:
        check_output(path, overwrite=arguments.overwrite, inputs=(arguments.map,))

    from crefjax.inference.classify import classify_map, plan_classify
    from crefjax.io.maps import read_map, write_maps
    from crefjax.utils.progress import progress_bar
    from crefjax.weights.store import load_weights

    weights = load_weights(arguments.weights, "classification")
    detail(f"weights: {weights.name}, {weights.path}")
    map_ = read_map(arguments.map, voxel_size=arguments.voxel_size)
    plan = plan_classify(map_, weights, device=arguments.device, max_memory=arguments.max_memory)
    log(plan.describe())
    threshold = arguments.mode if arguments.threshold is None else arguments.threshold
    with timed("classifying"), progress_bar("classifying") as show:
        found = classify_map(map_, weights, plan, threshold=threshold, progress=show)
    for note in found.notes:
        log(f"note: {note}")
    label = f"crefjax {__version__} classify, weights {weights.name}, threshold {found.threshold:.4g}"
    maps = zip(outputs, (found.map, found.probability), strict=False)
    write_maps(maps, label=label, overwrite=arguments.overwrite)
    pieces = f"{found.pieces} piece" + ("" if found.pieces == 1 else "s")
    chosen = "chosen for this map" if arguments.threshold is None else "as asked"
    log(f"threshold of the probability: {found.threshold:.4g}, {chosen}")
    result(f"removed {found.removed:.1%} of the positive density; structure remains in {pieces}")
    result("wrote " + " and ".join(map(str, outputs)))
