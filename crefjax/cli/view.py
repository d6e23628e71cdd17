"""`crefjax view`."""

from pathlib import Path

from crefjax.cli.common import add_model, add_shared, add_verbosity, check_model_place, read_optional_model
from crefjax.cli.messages import log, timed
from crefjax.io.files import check_output_file

EPILOG = (
    "The page is one file that opens in any browser, offline: sliders through all planes of the maps, and their "
    "surfaces. Maps of more than 160 voxels a side are binned to 160 for it, so it does not replace ChimeraX."
)


def add_arguments(parser):
    """Add the arguments of `crefjax view`."""
    parser.add_argument("map_1", metavar="MAP", help="map (.mrc, .map, .ccp4, also .gz or .bz2)")
    parser.add_argument("map_2", metavar="MAP2", nargs="?", help="another map on the same grid, to compare with MAP")
    add_model(parser)
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="page to write, .html")
    add_shared(parser, "voxel_size", "overwrite")
    add_verbosity(parser)


def run(arguments) -> None:
    """Write the page."""
    from crefjax.io.maps import read_map
    from crefjax.report.viewer import make_viewer, write_view
    from crefjax.utils.atomic import check_free

    output = Path(arguments.output)
    inputs = (arguments.map_1, arguments.map_2, arguments.model)
    check_output_file(output, suffixes=(".html", ".htm"), inputs=inputs)
    check_free(output, arguments.overwrite)
    model = read_optional_model(arguments.model)
    with timed("reading"):
        first, second = (
            None if path is None else read_map(path, voxel_size=arguments.voxel_size)
            for path in (arguments.map_1, arguments.map_2)
        )
    with timed("binning"):
        viewer = make_viewer(first, second, model)
    check_model_place(model, first)
    with timed("writing"):
        write_view(output, viewer, overwrite=arguments.overwrite)
    log(f"wrote {output} ({output.stat().st_size / 1e6:.1f} MB)")
