"""`crefjax prepare`."""

from crefjax.cli.common import add_shared, add_verbosity, number
from crefjax.cli.messages import log, result, timed
from crefjax.utils.progress import progress_bar

EPILOG = (
    "An interrupted run is resumed by the same command, and ends with the same bytes. An entry that cannot be used is "
    "reported and skipped, as is one whose half-maps are not a pair (see `crefjax check`) or that shares a half-map "
    "with another entry. No entry is on both sides of the split."
)


def add_arguments(parser):
    """Add the arguments of `crefjax prepare`."""
    parser.add_argument(
        "entries",
        metavar="ENTRY",
        nargs="+",
        help="entry folder: half_map_1.mrc, half_map_2.mrc and, if present, mask.mrc and truth.mrc",
    )
    parser.add_argument("-o", "--output", metavar="DATASET", required=True, help="folder of the dataset to write")
    parser.add_argument("--patch", metavar="N", type=int, default=96, help="side of the cubic patches, voxels, even")
    parser.add_argument(
        "--stride", metavar="N", type=int, help="distance from patch to patch, voxels (default: the side of a patch)"
    )
    parser.add_argument(
        "--dtype", choices=("float16", "float32"), default="float16", help="type of the stored densities"
    )
    parser.add_argument(
        "--validation", metavar="X", type=number, default=0.1, help="share of the entries kept for validation"
    )
    parser.add_argument(
        "--jobs", metavar="N", type=int, default=1, help="entries processed in parallel; each needs memory for its maps"
    )
    parser.add_argument(
        "--grid",
        choices=("data", "input"),
        default="input",
        help="data: bring every entry to a grid on which its resolution spans 3.3 voxels, for training with "
        "--config.data.grid=3.3; input: leave it as it is",
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="random seed of the split")
    parser.add_argument(
        "--part",
        metavar="K/N",
        help="prepare only every N-th entry, from the K-th on, while other processes prepare the others into the same "
        "dataset; the same command without it then joins the parts",
    )
    add_shared(parser, "voxel_size", "insist")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing dataset, finished or not")
    add_verbosity(parser)


def run(arguments) -> None:
    """Cut entries into patches, and print a summary of the dataset."""
    from crefjax.data.dataset_folder import Part
    from crefjax.data.grid import VOXELS
    from crefjax.data.prepare import prepare

    part = Part.parse(arguments.part) if arguments.part else None
    with timed("preparing"), progress_bar("preparing") as progress:
        prepared = prepare(
            arguments.entries,
            arguments.output,
            patch=arguments.patch,
            stride=arguments.stride,
            dtype=arguments.dtype,
            validation=arguments.validation,
            jobs=arguments.jobs,
            seed=arguments.seed,
            grid=VOXELS if arguments.grid == "data" else 0.0,
            voxel_size=arguments.voxel_size,
            insist=arguments.insist,
            overwrite=arguments.overwrite,
            report=log,
            progress=progress,
            part=part,
        )
    for line in summary(prepared) if part is None else _part_summary(prepared):
        result(line)


def _part_summary(part):
    """Yield the lines that describe a part of a dataset."""
    yield f"part {part.part}: {part.patches:,} patches of {part.entries} {_entries(part.entries)}"
    if part.left_out:
        yield f"skipped {len(part.left_out)}: {', '.join(part.left_out)}"
    yield "when all parts are finished, run the same command without --part"


def summary(manifest):
    """Yield the lines that describe a dataset."""
    entries, gib = manifest.entries, sum(shard.bytes for entry in manifest.entries for shard in entry.shards) / 2**30
    for split, patches in manifest.patches.items():
        count = len(manifest.of_split(split))
        yield f"{split}: {patches:,} patches of {count} {_entries(count)}"
    without_mask = sum(entry.mask is None for entry in entries)
    if without_mask:
        yield f"masks were made for {without_mask} {_entries(without_mask)} without one; manifest.json has the settings"
    if manifest.truth:
        yield "every patch has its truth"
    if manifest.left_out:
        names = ", ".join(manifest.left_out)
        yield f"skipped {len(manifest.left_out)} of {len(entries) + len(manifest.left_out)}: {names}"
    yield f"{manifest.folder}: patches of {manifest.patch}³ voxels as {manifest.dtype}, {gib:.3g} GiB"


def _entries(count):
    return "entry" if count == 1 else "entries"
