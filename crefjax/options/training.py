"""Arguments of `prepare`."""

from crefjax.options import add_insist, add_voxel_size, command, number


def add_prepare(commands):
    """Add `crefjax prepare`."""
    added = command(
        commands,
        "prepare",
        _prepare,
        "cut half-maps into patches to train on",
        epilog="The same command again goes on where it was ended, and ends with the same bytes. An entry that cannot "
        "be used is reported and left out; so is one whose half-maps are no pair (see `crefjax check`), or that shares "
        "a half-map with another. No entry is on both sides of the split.",
    )
    added.add_argument(
        "entries",
        metavar="ENTRY",
        nargs="+",
        help="entry folder: half_map_1.mrc, half_map_2.mrc, and where there are, mask.mrc and truth.mrc",
    )
    added.add_argument("-o", "--output", metavar="DATASET", required=True, help="folder of the dataset to write")
    added.add_argument("--patch", metavar="N", type=int, default=96, help="side of the cubic patches, voxels, even")
    added.add_argument(
        "--stride", metavar="N", type=int, help="from patch to patch, voxels (default: the patch's side)"
    )
    added.add_argument(
        "--dtype", choices=("float16", "float32"), default="float16", help="type of the stored densities"
    )
    added.add_argument(
        "--validation", metavar="X", type=number, default=0.1, help="share of the entries kept for validation"
    )
    added.add_argument(
        "--jobs", metavar="N", type=int, default=1, help="entries worked on at once; each needs memory for its maps"
    )
    added.add_argument(
        "--grid",
        choices=("data", "input"),
        default="input",
        help="data: bring every entry to a grid on which its resolution takes 3.3 voxels, for training with "
        "--config.data.grid=3.3 (default: input, as it is)",
    )
    added.add_argument("--seed", metavar="N", type=int, default=0, help="of the split (default: 0)")
    add_voxel_size(added)
    add_insist(added)
    added.add_argument("--overwrite", action="store_true", help="replace a dataset that exists, finished or not")


def _prepare(arguments):
    from crefjax.commands import prepare

    prepare.run(arguments)
