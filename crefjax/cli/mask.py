"""`crefjax mask`."""

from pathlib import Path

from crefjax import __version__
from crefjax.cli.common import add_half_maps, add_json, add_shared, add_verbosity, number_or_auto
from crefjax.cli.messages import check_json, detail, log, make_record, output_json, pair_numbers, result, timed, warn
from crefjax.io.files import check_output

EPILOG = "The steps are those of RELION's relion_mask_create. `auto` adapts a setting to the maps, and reports it."


def add_arguments(parser):
    """Add the arguments of `crefjax mask`."""
    add_half_maps(parser)
    parser.add_argument("-o", "--output", metavar="MASK", required=True, help="mask to write")
    for name, text, automatic in (
        ("--lowpass", "resolution of the low-passed map that is thresholded, Å", "15 Å, less in a small box"),
        ("--threshold", "density threshold of the particle, map's units", "from the noise of the half-maps"),
        ("--extend", "extension of the thresholded region, voxels", "3, less in a small box"),
        ("--soft-edge", "width of the raised-cosine edge, voxels", "6, less in a small box"),
    ):
        parser.add_argument(name, metavar="X", type=number_or_auto, default="auto", help=f"{text}; auto: {automatic}")
    add_json(parser, "settings, measurements, and warnings")
    add_shared(parser, "voxel_size", "overwrite")
    add_verbosity(parser)


def run(arguments) -> None:
    """Make and write a mask, and print how it was made."""
    from crefjax.data.pair_check import validate_maps
    from crefjax.io.entries import load_pair
    from crefjax.io.maps import write_map
    from crefjax.masking import make_mask

    output = Path(arguments.output)
    inputs = {"half_map_1": arguments.half_map_1, "half_map_2": arguments.half_map_2}
    check_output(output, overwrite=arguments.overwrite, inputs=inputs.values())
    check_json(arguments.json, inputs=inputs.values())
    with timed("reading"):
        pair = load_pair(*inputs.values(), voxel_size=arguments.voxel_size)
    with timed("checking"):
        validated = validate_maps(pair, insist=True, without=("no_signal",))
    detail(validated.check.describe_resolution(mask_given=False))
    for note in validated.notes:
        warn(note)
    first, second = validated.pair
    settings = {name: getattr(arguments, name) for name in ("lowpass", "threshold", "extend", "soft_edge")}
    with timed("making the mask"):
        array, info = make_mask(first.array, second.array, first.voxel_size, **settings)
    for note in info.notes:
        log(f"note: {note}")
    label = f"crefjax {__version__} mask, low-pass {info.lowpass:.4g} A, threshold {info.threshold:.4g}"
    with timed("writing"):
        write_map(output, first.replace_array(array), label=label, overwrite=arguments.overwrite)
    result(
        f"low-pass {info.lowpass:.3g} Å, threshold {info.threshold:.4g}, extended by {info.extend:.2g} voxels, "
        f"soft edge of {info.soft_edge:.2g} voxels"
    )
    parts = f"{info.parts_kept} of {info.parts_found} parts" if info.parts_found > 1 else "one part"
    result(f"{parts}, {info.volume / 1000:.4g} nm³, {info.fraction:.1%} of the box")
    result(f"wrote {output}")
    found = {
        **pair_numbers(validated.check, mask_given=False),
        **{name: getattr(info, name) for name in ("inverted", "parts_found", "parts_kept", "volume", "fraction")},
        "notes": list(info.notes),
    }
    used = {name: getattr(info, name) for name in settings}
    record = make_record("mask", inputs=inputs, half_map=first, settings=used, found=found, outputs={"mask": output})
    output_json(arguments.json, record)
