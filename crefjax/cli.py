"""The `crefjax` command: one short function for each subcommand, with its imports inside.

Exit status: 0 done; 2 a mistake of the user's, told in one line on standard error; 130 or 143 interrupted.
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import contextmanager, suppress

from crefjax.errors import UserError
from crefjax.unfinished import remove_all
from crefjax.version import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
        argv: the arguments after the program's name; those of the process if None.

    Returns:
        The exit status.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal may not know Å
            stream.reconfigure(errors="replace")
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as stop:  # argparse's own, after --help or a mistake
        return stop.code or 0
    try:
        with _ended_by_signals():
            return arguments.run(arguments) or 0
    except UserError as error:
        print(f"crefjax: {error}", file=sys.stderr)
        return 2
    except MemoryError:
        print("crefjax: out of memory; close other programs, or crop or bin the maps", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `crefjax fsc ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


@contextmanager
def _ended_by_signals():
    """Ctrl-C, SIGTERM and a lost terminal end the program at once, with no unfinished file left.

    Not by an exception: one that is raised while Python collects garbage, which JAX hooks into, is lost.
    """

    def end(number, _):
        remove_all()
        with suppress(OSError, ValueError, RuntimeError):  # the stream may be closed, or in the midst of writing
            print(
                f"crefjax: interrupted ({signal.Signals(number).name}); nothing was left", file=sys.stderr, flush=True
            )
        os._exit(128 + number)

    before = {}
    with suppress(ValueError):  # not in the main thread, where signals cannot be set
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Defaults(argparse.HelpFormatter):
    """Shows the default of every option that has one; a flag's is to be off."""

    def _get_help_string(self, action):
        if action.default in (None, False, argparse.SUPPRESS):
            return action.help
        return f"{action.help} (default: {action.default})"


def _parser():
    parser = argparse.ArgumentParser(
        prog="crefjax",
        description="Removes noise from cryo-EM density maps, given two half-maps.",
        epilog="`crefjax COMMAND --help` explains a command.",
    )
    parser.add_argument("--version", action="version", version=f"crefjax {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add in (_add_denoise, _add_fsc, _add_mask, _add_fetch, _add_simulate, _add_weights):
        add(commands)
    return parser


def _command(commands, name, run, text, **more):
    command = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        **more,
        formatter_class=_Defaults,
    )
    command.set_defaults(run=run)
    return command


def _number(text):
    """A finite number; argparse turns the error into its own line."""
    value = float(text)
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError
    return value


_number.__name__ = "number"


def _number_or_auto(text):
    return "auto" if text == "auto" else _number(text)


_number_or_auto.__name__ = "number (or auto)"


def _positive(text):
    value = _number(text)
    if value <= 0:
        raise ValueError
    return value


_positive.__name__ = "positive number"


def _add_overwrite(command):
    command.add_argument("--overwrite", action="store_true", help="replace outputs that exist")


def _add_denoise(commands):
    command = _command(
        commands,
        "denoise",
        _denoise,
        "denoise the full map of two half-maps",
        epilog="The output has the header of HALF1 and overlays it. An FSC between denoised half-maps is no "
        "resolution: their errors are not independent.",
    )
    command.add_argument("half_map_1", metavar="HALF1", help="half-map (.mrc, .map, .ccp4, also .gz or .bz2)")
    command.add_argument("half_map_2", metavar="HALF2", nargs="?", help="the other one; none if HALF1 is a full map")
    command.add_argument("-o", "--output", metavar="OUT", required=True, help="denoised map to write")
    command.add_argument(
        "--mask", metavar="M", help="mask file, or auto to make one; the output is 0 outside (default: no mask)"
    )
    command.add_argument(
        "--weights",
        metavar="W",
        help="name or folder, see `crefjax weights list` (default: those that ship, or the only ones)",
    )
    command.add_argument(
        "--scale",
        choices=("input", "none"),
        default="input",
        help="input: mean and deviation of the full map (within the mask); none: as the network gives it",
    )
    command.add_argument("--halves", action="store_true", help="also write OUT_half_map_1 and OUT_half_map_2")
    command.add_argument("--device", choices=("cpu", "gpu"), help="device to compute on (default: the best)")
    command.add_argument(
        "--max-memory",
        metavar="GIB",
        type=_positive,
        help="peak memory to keep within, GiB (default: what is free)",
    )
    _add_overwrite(command)


def _denoise(arguments):
    if arguments.device == "cpu" and "jax" not in sys.modules:
        os.environ["JAX_PLATFORMS"] = "cpu"  # or JAX would take a GPU's memory without using it
    from crefjax.commands import denoise

    denoise.run(arguments)


def _add_fsc(commands):
    command = _command(
        commands,
        "fsc",
        _fsc,
        "print the Fourier shell correlation of two maps",
        epilog="C_ref = sqrt(2 FSC / (1 + FSC)) has a meaning for two half-maps only. Denoised half-maps are not "
        "independent: an FSC between them is no resolution.",
    )
    command.add_argument("map_1", metavar="MAP1", help="map (.mrc, .map, .ccp4, also .gz or .bz2)")
    command.add_argument("map_2", metavar="MAP2", help="map on the same grid")
    command.add_argument("--mask", metavar="M", help="mask multiplied to both maps (default: no mask)")
    command.add_argument("--json", metavar="F", help="write the curve as JSON")
    command.add_argument("--plot", metavar="F", help="write the curve as a figure (.png, .svg or .pdf)")


def _fsc(arguments):
    from crefjax.commands import fsc

    fsc.run(arguments)


def _add_mask(commands):
    command = _command(
        commands,
        "mask",
        _mask,
        "make a soft mask around the particle in two half-maps",
        epilog="The steps are those of RELION's relion_mask_create. `auto` adapts a setting to the maps and says so.",
    )
    command.add_argument("half_map_1", metavar="HALF1", help="half-map (.mrc, .map, .ccp4, also .gz or .bz2)")
    command.add_argument("half_map_2", metavar="HALF2", help="the other one")
    command.add_argument("-o", "--output", metavar="MASK", required=True, help="mask to write")
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
        command.add_argument(
            name, metavar="X", type=_number_or_auto, default="auto", help=f"{text}, {unit}; auto: {usual}"
        )
    _add_overwrite(command)


def _mask(arguments):
    from crefjax.commands import mask

    mask.run(arguments)


def _add_simulate(commands):
    command = _command(
        commands,
        "simulate",
        _simulate,
        "make two half-maps whose signal is known, from an atomic model",
        epilog="The level of the noise is solved so that the masked FSC of the half-maps crosses 0.143 at the "
        "resolution asked for. The same seed gives the same bytes on the same platform. Parameters are in entry.json.",
    )
    command.add_argument("model", metavar="MODEL", help="PDB or mmCIF file, also .gz; or phantom, which needs no file")
    command.add_argument("-o", "--output", metavar="ENTRY", required=True, help="entry folder to write")
    _add_numbers(
        command,
        ("--voxel-size", "Å", _positive, "size of a voxel, Å", None),
        ("--resolution", "Å", _positive, "where the FSC of the half-maps crosses 0.143, Å", None),
    )
    command.add_argument(
        "--method",
        choices=("additive", "reconstruction"),
        default="additive",
        help="additive: noise is added to the truth; reconstruction: from simulated images, with all that this brings",
    )
    command.add_argument("--seed", metavar="N", type=int, help="of all that is random but the phantom (default: 0)")
    command.add_argument("--overwrite", action="store_true", help="replace a simulated entry, with all that is in it")
    group = command.add_argument_group("specimen")
    _add_numbers(
        group,
        ("--box", "N", int, "side of the cubic box, voxels", "what the model takes, with the margin"),
        ("--margin", "Å", _number, "around the model in a box that is chosen, Å", 15),
        ("--b-factor", "Å²", _number, "blur of the whole signal, Å²", 60),
        ("--residues", "N", int, "size of the phantom, residues", 200),
        ("--assembly", "ID", str, "biological assembly to expand the model to, such as 1", "the model as it is"),
        (
            "--belt",
            "X",
            _positive,
            "add a disordered belt, as of lipid, of X times the model's mean density",
            "no belt",
        ),
        ("--belt-thickness", "Å", _positive, "of the belt, along the model's longest axis, Å", 30),
        ("--belt-width", "Å", _positive, "of the belt, outwards from the model, Å", 20),
        ("--belt-roughness", "X", _number, "deviation of the belt's density over its mean", 0.5),
        ("--belt-resolution", "Å", _positive, "of the belt's random structure, Å", 10),
        ("--flexible", "X", _positive, "let this fraction of the atoms, at one end of the model, move", "none moves"),
        ("--flexible-chains", "A,B", _names, "let these chains move instead", "none moves"),
        ("--flexible-angle", "DEG", _number, "by which the flexible part is turned, root mean square, degrees", 4),
        ("--flexible-b-factor", "Å²", _number, "of the flexible part, added to its own, Å²", 50),
    )
    for name in ("hydrogens", "waters"):
        group.add_argument(f"--keep-{name}", action="store_true", help=f"do not leave {name} out of the model")
    group = command.add_argument_group("noise of --method additive")
    _add_numbers(
        group.add_mutually_exclusive_group(),
        ("--noise-map", "MAP", str, "colour as in the solvent of this map, not masked", "white"),
        ("--noise-b-factor", "Å²", _number, "colour exp(-B s²/4): B above 0 blurs, below 0 sharpens, Å²", "white"),
        ("--noise-power", "X", _number, "colour with power that falls as s^-X", "white"),
    )
    _add_numbers(
        group,
        (
            "--noise-until",
            "Å",
            _positive,
            "finer than this the noise is level: deposited maps are low-passed, Å",
            "all",
        ),
        ("--unevenness", "X", _number, "of the noise over the box: 0.3 changes it by about a third", 0),
    )
    group = command.add_argument_group("images of --method reconstruction")
    _add_numbers(
        group,
        ("--particles", "N", int, "images in each half", 2000),
        ("--pose-error", "DEG", _number, "of orientations, deviation about each of the three axes, degrees", 0),
        ("--shift-error", "Å", _number, "of positions, deviation along each of the two axes, Å", 0),
        ("--preferred-views", "X", _number, "how closely views gather around z; at 5 half are within 31 degrees", 0),
        ("--voltage", "KV", _positive, "kV", 300),
        ("--spherical-aberration", "MM", _number, "mm", 2.7),
        ("--amplitude-contrast", "X", _number, "fraction", 0.1),
        ("--refinements", "N", int, "corrections of the reconstruction for how it interpolates", 1),
    )
    group.add_argument(
        "--defocus",
        metavar=("MIN", "MAX"),
        nargs=2,
        type=_number,
        help="underfocus, drawn evenly between these, Å (default: 8000 20000)",
    )
    group.add_argument("--no-ctf", action="store_true", help="images without a contrast transfer function")


def _add_numbers(group, *rows):
    """Options whose defaults are the library's own, told here; those without any are required."""
    for name, metavar, kind, text, usual in rows:
        told = text if usual is None else f"{text} (default: {usual})"
        group.add_argument(name, metavar=metavar, type=kind, required=usual is None, help=told)


def _names(text):
    """Names between commas."""
    names = tuple(text.split(","))
    if not all(names):
        raise ValueError
    return names


_names.__name__ = "list of names between commas"


def _simulate(arguments):
    from crefjax.commands import simulate

    simulate.run(arguments)


def _add_fetch(commands):
    command = _command(
        commands,
        "fetch",
        _fetch,
        "download the half-maps and the mask of an EMDB entry",
        epilog="Files that are there already are not downloaded again.",
    )
    command.add_argument("entry", metavar="ENTRY", help="EMDB entry, such as EMD-3488")
    command.add_argument("-o", "--output", metavar="DIR", help="folder for the files (default: the entry's name)")
    command.add_argument("--server", metavar="URL", help="mirror of the archive (default: EMDB's own at the EBI)")


def _fetch(arguments):
    from crefjax.commands import fetch

    fetch.run(arguments)


def _add_weights(commands):
    parent = commands.add_parser("weights", help="list, show and import weights", description="Weights of the network.")
    actions = parent.add_subparsers(title="actions", required=True, metavar="ACTION")
    _command(actions, "list", _weights_list, "list the weights that are found by name")
    show = _command(actions, "show", _weights_show, "show what is known of weights")
    show.add_argument("name", metavar="NAME", help="name or folder")
    load = _command(
        actions,
        "import",
        _weights_import,
        "import weights from a TensorFlow checkpoint or an .npz of its arrays",
    )
    load.add_argument("checkpoint", metavar="CHECKPOINT", help="prefix (saved-model-epoch-192) or .npz file")
    load.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        required=True,
        help="weights folder to write; one in the user's data folder (see `crefjax weights list`) is found by name",
    )
    _add_overwrite(load)


def _weights_list(_):
    from crefjax.commands import weights

    weights.list_all()


def _weights_show(arguments):
    from crefjax.commands import weights

    weights.show(arguments.name)


def _weights_import(arguments):
    from crefjax.commands import weights

    weights.import_one(arguments.checkpoint, arguments.output, overwrite=arguments.overwrite)
