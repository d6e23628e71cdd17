"""Arguments of `simulate`."""

from crefjax.options import add_device, choose_platform, command, number, positive


def add_simulate(commands):
    """Add `crefjax simulate`."""
    added = command(
        commands,
        "simulate",
        _simulate,
        "make two half-maps whose signal is known, from an atomic model",
        epilog="The level of the noise is solved so that the masked FSC of the half-maps crosses 0.143 at the "
        "resolution asked for. The same seed gives the same bytes on the same CPU. Parameters are in entry.json.",
    )
    added.add_argument("model", metavar="MODEL", help="PDB or mmCIF file, also .gz; or phantom, which needs no file")
    added.add_argument("-o", "--output", metavar="ENTRY", required=True, help="entry folder to write")
    _add_numbers(
        added,
        ("--voxel-size", "Å", positive, "size of a voxel, Å", None),
        ("--resolution", "Å", positive, "where the FSC of the half-maps crosses 0.143, Å", None),
    )
    added.add_argument(
        "--method",
        choices=("additive", "reconstruction"),
        default="additive",
        help="additive: noise is added to the truth; reconstruction: from simulated images, with all that this brings",
    )
    added.add_argument("--seed", metavar="N", type=int, help="of all that is random but the phantom (default: 0)")
    add_device(added)
    added.add_argument("--overwrite", action="store_true", help="replace a simulated entry, with all that is in it")
    _add_specimen(added.add_argument_group("specimen"))
    _add_noise(added.add_argument_group("noise of --method additive"))
    _add_images(added.add_argument_group("images of --method reconstruction"))


def _add_specimen(group):
    _add_numbers(
        group,
        ("--box", "N", int, "side of the cubic box, voxels", "what the model takes, with the margin"),
        ("--margin", "Å", number, "around the model in a box that is chosen, Å", 15),
        ("--b-factor", "Å²", number, "blur of the whole signal, Å²", 60),
        ("--residues", "N", int, "size of the phantom, residues", 200),
        ("--assembly", "ID", str, "biological assembly to expand the model to, such as 1", "the model as it is"),
        (
            "--belt",
            "X",
            positive,
            "add a disordered belt, as of lipid, of X times the model's mean density",
            "no belt",
        ),
        ("--belt-thickness", "Å", positive, "of the belt, along the model's longest axis, Å", 30),
        ("--belt-width", "Å", positive, "of the belt, outwards from the model, Å", 20),
        ("--belt-roughness", "X", number, "deviation of the belt's density over its mean", 0.5),
        ("--belt-resolution", "Å", positive, "of the belt's random structure, Å", 10),
        ("--flexible", "X", positive, "let this fraction of the atoms, at one end of the model, move", "none moves"),
        ("--flexible-chains", "A,B", names, "let these chains move instead", "none moves"),
        ("--flexible-angle", "DEG", number, "by which the flexible part is turned, root mean square, degrees", 4),
        ("--flexible-b-factor", "Å²", number, "of the flexible part, added to its own, Å²", 50),
    )
    for name in ("hydrogens", "waters"):
        group.add_argument(f"--keep-{name}", action="store_true", help=f"do not leave {name} out of the model")


def _add_noise(group):
    _add_numbers(
        group.add_mutually_exclusive_group(),
        ("--noise-map", "MAP", str, "colour as in the solvent of this map, not masked", "white"),
        ("--noise-b-factor", "Å²", number, "colour exp(-B s²/4): B above 0 blurs, below 0 sharpens, Å²", "white"),
        ("--noise-power", "X", number, "colour with power that falls as s^-X", "white"),
    )
    _add_numbers(
        group,
        (
            "--noise-until",
            "Å",
            positive,
            "finer than this the noise is level: deposited maps are low-passed, Å",
            "all",
        ),
        ("--unevenness", "X", number, "of the noise over the box: 0.3 changes it by about a third", 0),
    )


def _add_images(group):
    _add_numbers(
        group,
        ("--particles", "N", int, "images in each half", 2000),
        ("--pose-error", "DEG", number, "of orientations, deviation about each of the three axes, degrees", 0),
        ("--shift-error", "Å", number, "of positions, deviation along each of the two axes, Å", 0),
        ("--preferred-views", "X", number, "how closely views gather around z; at 5 half are within 31 degrees", 0),
        ("--voltage", "KV", positive, "kV", 300),
        ("--spherical-aberration", "MM", number, "mm", 2.7),
        ("--amplitude-contrast", "X", number, "fraction", 0.1),
        ("--refinements", "N", int, "corrections of the reconstruction for how it interpolates", 1),
    )
    group.add_argument(
        "--defocus",
        metavar=("MIN", "MAX"),
        nargs=2,
        type=number,
        help="underfocus, drawn evenly between these, Å (default: 8000 20000)",
    )
    group.add_argument("--no-ctf", action="store_true", help="images without a contrast transfer function")


def _add_numbers(group, *rows):
    """Options whose defaults are the library's own, told here; those without any are required."""
    for name, metavar, kind, text, usual in rows:
        told = text if usual is None else f"{text} (default: {usual})"
        group.add_argument(name, metavar=metavar, type=kind, required=usual is None, help=told)


def names(text):
    """Names between commas."""
    names = tuple(text.split(","))
    if not all(names):
        raise ValueError
    return names


names.__name__ = "list of names between commas"


def _simulate(arguments):
    choose_platform(arguments)
    from crefjax.commands import simulate

    simulate.run(arguments)
