"""Arguments of `report`."""

from crefjax.options import add_insist, add_overwrite, add_voxel_size, command


def add_report(commands):
    """Add `crefjax report`."""
    added = command(
        commands,
        "report",
        _report,
        "say what in a denoised map can be trusted, whatever program made it",
        epilog="The report is a folder: index.html, which opens in any browser without a network, report.json, "
        "figures, and view.cxc for ChimeraX. Without denoised half-maps it cannot tell bias from signal.",
    )
    added.add_argument("half_map_1", metavar="HALF1", help="noisy half-map (.mrc, .map, .ccp4, also .gz or .bz2)")
    added.add_argument("half_map_2", metavar="HALF2", help="the other one")
    added.add_argument("--denoised", metavar="D", required=True, help="denoised full map, on the grid of the half-maps")
    added.add_argument(
        "--denoised-halves",
        metavar=("D1", "D2"),
        nargs=2,
        help="HALF1 and HALF2, each denoised alone and as the full map was; they tell signal, noise and bias apart",
    )
    added.add_argument("--mask", metavar="M", default="auto", help="mask file, or auto to make one")
    added.add_argument(
        "--local",
        action="store_true",
        help="also map, around each voxel, agreement and change; takes --denoised-halves",
    )
    added.add_argument("-o", "--output", metavar="DIR", required=True, help="folder to write")
    add_voxel_size(added)
    add_insist(added)
    add_overwrite(added)


def _report(arguments):
    from crefjax.commands import report

    report.run(arguments)
