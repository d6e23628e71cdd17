"""Arguments of `denoise`, `fsc`, `mask` and `fetch`."""

from crefjax.options import (
    add_device,
    add_insist,
    add_overwrite,
    add_voxel_size,
    choose_platform,
    command,
    number_or_auto,
    positive,
)


def add_denoise(commands):
    """Add `crefjax denoise`."""
    added = command(
        commands,
        "denoise",
        _denoise,
        "denoise the full map of two half-maps",
        epilog="The output has the header of HALF1 and overlays it. An FSC between denoised half-maps is no "
        "resolution: their errors are not independent.",
    )
    added.add_argument("half_map_1", metavar="HALF1", help="half-map (.mrc, .map, .ccp4, also .gz or .bz2)")
    added.add_argument("half_map_2", metavar="HALF2", nargs="?", help="the other one; none if HALF1 is a full map")
    added.add_argument("-o", "--output", metavar="OUT", required=True, help="denoised map to write")
    added.add_argument(
        "--mask",
        metavar="M",
        help="mask file, or auto to make one; the output is 0 in the solvent and outside (default: no mask)",
    )
    added.add_argument(
        "--weights",
        metavar="W",
        help="name or folder, see `crefjax weights list` (default: truth, which ships)",
    )
    added.add_argument(
        "--scale",
        choices=("signal", "input", "none"),
        help="signal: in every frequency shell that of the signal that the half-maps share, three runs of the network "
        "(default with two half-maps); input: mean and deviation of the full map, within the mask (default with one "
        "map); none: as the network gives it",
    )
    added.add_argument(
        "--grid",
        choices=("data", "input"),
        help="where the network works: data, on a grid on which the resolution takes about three voxels; input, on the "
        "map's own (default: what the weights were trained for). The output is on the map's own grid in either case",
    )
    added.add_argument(
        "--resolution",
        metavar="R",
        type=positive,
        help="resolution in Å by which the data's grid is chosen (default: where the FSC of the half-maps falls below "
        "0.143; for one map, estimated from its spectrum)",
    )
    added.add_argument(
        "--rotations",
        type=int,
        choices=(1, 4, 24),
        help="average the network's output over so many rotations of the cube (default: as many as take no "
        "longer on the data's grid than one does on the map's)",
    )
    added.add_argument("--halves", action="store_true", help="also write OUT_half_map_1 and OUT_half_map_2")
    added.add_argument(
        "--report", metavar="DIR", help="also write a report of what can be trusted, see `crefjax report`"
    )
    added.add_argument(
        "--local",
        action="store_true",
        help="also write OUT_local_agreement and OUT_local_change, 0 to 1 in every voxel",
    )
    add_voxel_size(added)
    add_insist(added)
    add_device(added)
    added.add_argument(
        "--max-memory",
        metavar="GIB",
        type=positive,
        help="peak memory to keep within, GiB (default: what is free)",
    )
    add_overwrite(added)


def _denoise(arguments):
    choose_platform(arguments)
    from crefjax.commands import denoise

    denoise.run(arguments)


def add_fsc(commands):
    """Add `crefjax fsc`."""
    added = command(
        commands,
        "fsc",
        _fsc,
        "print the Fourier shell correlation of two maps",
        epilog="C_ref = sqrt(2 FSC / (1 + FSC)) has a meaning for two half-maps only. Denoised half-maps are not "
        "independent: an FSC between them is no resolution.",
    )
    added.add_argument("map_1", metavar="MAP1", help="map (.mrc, .map, .ccp4, also .gz or .bz2)")
    added.add_argument("map_2", metavar="MAP2", help="map on the same grid")
    added.add_argument(
        "--mask", metavar="M", help="mask multiplied to both maps less their solvent level (default: no mask)"
    )
    added.add_argument("--json", metavar="F", help="write the curve as JSON")
    added.add_argument("--plot", metavar="F", help="write the curve as a figure (.png, .svg or .pdf)")
    add_voxel_size(added)
    add_device(added)


def _fsc(arguments):
    choose_platform(arguments)
    from crefjax.commands import fsc

    fsc.run(arguments)


def add_check(commands):
    """Add `crefjax check`."""
    added = command(
        commands,
        "check",
        _check,
        "say what is wrong with two half-maps as a pair",
        epilog="Looked for: a half-map that is shifted, mirrored or of other axes; the same noise in both; another "
        "scale; nothing in common; a low-pass, a mask or a sharpening that was applied; inverted contrast; single "
        "voxels far out. Exit status 1: they are no pair, and nothing computed of them is right.",
    )
    added.add_argument("half_map_1", metavar="HALF1", help="half-map (.mrc, .map, .ccp4, also .gz or .bz2)")
    added.add_argument("half_map_2", metavar="HALF2", help="the other one")
    added.add_argument("--mask", metavar="M", help="mask to measure within (default: one made of them)")
    added.add_argument("--json", metavar="F", help="write all that was found as JSON")
    add_voxel_size(added)
    add_device(added)


def _check(arguments):
    choose_platform(arguments)
    from crefjax.commands import check

    return check.run(arguments)


def add_mask(commands):
    """Add `crefjax mask`."""
    added = command(
        commands,
        "mask",
        _mask,
        "make a soft mask around the particle in two half-maps",
        epilog="The steps are those of RELION's relion_mask_create. `auto` adapts a setting to the maps and says so.",
    )
    added.add_argument("half_map_1", metavar="HALF1", help="half-map (.mrc, .map, .ccp4, also .gz or .bz2)")
    added.add_argument("half_map_2", metavar="HALF2", help="the other one")
    added.add_argument("-o", "--output", metavar="MASK", required=True, help="mask to write")
    for name, unit, usual in (
        ("--lowpass", "Å", "15 Å, less in a small box"),
        ("--threshold", "map's units", "from the noise of the half-maps"),
        ("--extend", "voxels", "3, less in a small box"),
        ("--soft-edge", "voxels", "6, less in a small box"),
    ):
        text = {
            "--lowpass": "resolution of the low-passed map that is thresholded",
            "--threshold": "density above which there is particle",
            "--extend": "extension of the thresholded body",
            "--soft-edge": "width of the raised-cosine edge",
        }[name]
        added.add_argument(
            name, metavar="X", type=number_or_auto, default="auto", help=f"{text}, {unit}; auto: {usual}"
        )
    add_voxel_size(added)
    add_overwrite(added)


def _mask(arguments):
    from crefjax.commands import mask

    mask.run(arguments)


def add_fetch(commands):
    """Add `crefjax fetch`."""
    added = command(
        commands,
        "fetch",
        _fetch,
        "download the half-maps and the mask of an EMDB entry",
        epilog="Files that are there already are not downloaded again.",
    )
    added.add_argument("entry", metavar="ENTRY", help="EMDB entry, such as EMD-3488")
    added.add_argument("-o", "--output", metavar="DIR", help="folder for the files (default: the entry's name)")
    added.add_argument("--server", metavar="URL", help="mirror of the archive (default: EMDB's own at the EBI)")


def _fetch(arguments):
    from crefjax.commands import fetch

    fetch.run(arguments)
