"""`crefjax images simulate`."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

from crefjax.cli.common import add_shared, add_verbosity, number, on_device, positive
from crefjax.cli.messages import result, timed
from crefjax.cli.simulate import add_numbers, add_optics, check_effective, given, optics_from
from crefjax.errors import UserError
from crefjax.io.files import map_stem
from crefjax.utils.progress import progress_bar

# Options that have no effect without another one.
_OF_MICROGRAPHS = ("particles", "unevenness", "carbon", "crystals")
_OF_PARTICLES = ("shift",)
_FIELDS = (
    *("pixel_size", "count", "side", "seed", "dose", "efficiency", "mtf", "b_factor", "astigmatism", "ice"),
    *("structure_factor", "shift", "preferred", "particles", "unevenness", "carbon", "crystals"),
)
EPILOG = (
    "These images serve to train and to evaluate image denoisers; particle sets to refine with RELION, which need no "
    "realistic ice or detector, come from `crefjax simulate --particles`. "
    "Writes a folder with the noisy images, two half-exposures, and the clean signal as stacks, STAR files, and every "
    "parameter in set.json. The same seed gives the same images on the same CPU."
)


def add_arguments(parser):
    """Add the arguments of `crefjax images simulate`."""
    parser.add_argument(
        "model", metavar="MODEL", help="PDB or mmCIF file, also .gz; a density map; or phantom, which needs no file"
    )
    parser.add_argument("-o", "--output", metavar="SET", required=True, help="folder to write")
    parser.add_argument("--count", metavar="N", type=int, required=True, help="number of images")
    parser.add_argument(
        "--pixel-size", metavar="Å", type=positive, help="pixel size, Å (needed unless MODEL is a map, which has one)"
    )
    parser.add_argument("--micrographs", action="store_true", help="micrographs with many particles each")
    parser.add_argument("--empty", action="store_true", help="leave out the particles: images of noise alone")
    add_numbers(
        parser,
        ("--side", "N", int, "side of the images, pixels", "the particle's box, or 1024 for micrographs"),
        ("--seed", "N", int, "random seed", 0),
        ("--residues", "N", int, "size of the phantom, residues", 1000),
        ("--assembly", "ID", str, "biological assembly to expand the model to, such as 1", "the model as it is"),
        ("--preferred", "X", number, "concentration of the views around z; at 5, half are within 31 degrees", 0),
        ("--shift", "Å", number, "place of a particle in its image, standard deviation along each axis, Å", 3),
    )
    _add_microscope(parser.add_argument_group("microscope"))
    _add_micrographs(parser.add_argument_group("specimen of --micrographs"))
    add_shared(parser, "device", "overwrite")
    add_verbosity(parser)


def _add_microscope(group):
    add_numbers(
        group,
        ("--dose", "X", positive, "electrons per Å² in the whole exposure", 40),
        ("--efficiency", "X", positive, "share of the electrons that the detector counts", 0.85),
        ("--mtf", "X", positive, "modulation transfer of the detector at Nyquist", 0.5),
        ("--b-factor", "Å²", number, "envelope of the contrast transfer, Å²", 80),
        ("--astigmatism", "Å", number, "largest difference of the two defoci, Å", 300),
        ("--ice", "Å", number, "mean thickness of the ice, Å", 300),
        ("--structure-factor", "X", number, "power of the ice over that of independent molecules", 0.1),
    )
    add_optics(group)


def _add_micrographs(group):
    add_numbers(
        group,
        ("--particles", "N", int, "particles in each, as many as fit", 40),
        ("--unevenness", "X", number, "variation of the ice's thickness, standard deviation over mean", 0.1),
        ("--carbon", "X", number, "share of the micrographs with the edge of a carbon film", 0.3),
        ("--crystals", "X", number, "mean number of ice crystals in each", 2),
    )


def run(arguments) -> None:
    """Simulate a set of images and write it."""
    from crefjax.images.sets import check_set_folder, write_set

    folder = Path(arguments.output)
    check_set_folder(folder, overwrite=arguments.overwrite, inputs=[arguments.model])
    _check_combinations(arguments)
    config = _config(arguments)
    config.check()
    with on_device(arguments.device):
        from crefjax.images.simulate import blurred_truth, simulate_images

        with timed("reading the specimen"):
            specimen, config = _specimen(arguments, config)
        images = simulate_images(specimen, config)
        truth = None if config.empty else blurred_truth(specimen, config)
        with timed("simulating"), progress_bar("simulating") as show:
            record = write_set(
                folder,
                images,
                config,
                specimen=specimen.name,
                diameter=specimen.diameter,
                truth=truth,
                overwrite=arguments.overwrite,
                progress=show,
            )
    what = "micrographs" if config.micrographs else "particle images"
    y, x = record["shape"]
    result(
        f"{config.count} {what} of {x}x{y} pixels of {config.pixel_size:.4g} Å, particles {record['contrast']}, "
        f"signal-to-noise ratio {record['signal_to_noise']:.3g}"
    )
    result(f"wrote {shlex.quote(str(folder))}")


def _config(arguments):
    from crefjax.images.simulate import ImageConfig

    values = given(arguments, _FIELDS)
    if arguments.pixel_size is None:
        if map_stem(Path(arguments.model).name) is None:
            raise UserError("images: expected a pixel size, found none; give the `pixel_size`")
        values["pixel_size"] = 1.0  # until the map is read
    flags = {"micrographs": arguments.micrographs, "empty": arguments.empty}
    return ImageConfig(**values, **flags, ctf=optics_from(arguments))


def _specimen(arguments, config):
    """Return the specimen, and the config with its pixel size."""
    from crefjax.images.specimen import specimen_of_atoms, specimen_of_map
    from crefjax.simulate.atoms import read_atoms
    from crefjax.simulate.phantom import phantom

    side = None if config.micrographs else config.side
    if map_stem(Path(arguments.model).name) is not None:
        from crefjax.io.maps import read_map

        map_ = read_map(arguments.model, voxel_size=arguments.pixel_size)
        config = replace(config, pixel_size=map_.voxel_size)
        config.check()
        return specimen_of_map(map_, side), config
    if arguments.model == "phantom":
        atoms = phantom(arguments.residues or 1000)
    else:
        atoms = read_atoms(arguments.model, assembly=arguments.assembly)
    return specimen_of_atoms(atoms, config.pixel_size, side), config


def _check_combinations(arguments):
    """Reject options that would have no effect."""
    is_map = map_stem(Path(arguments.model).name) is not None
    check_effective(
        arguments,
        (_OF_MICROGRAPHS, arguments.micrographs, "with --micrographs"),
        (_OF_PARTICLES, not arguments.micrographs, "without --micrographs"),
        (("residues",), arguments.model == "phantom", "with the model phantom"),
        (("assembly",), arguments.model != "phantom" and not is_map, "with a model that is a file"),
    )
