"""`crefjax external-reconstruct`."""

from pathlib import Path

from crefjax.cli.common import add_shared, add_verbosity, on_device, positive
from crefjax.cli.messages import log, result, timed
from crefjax.errors import UserError
from crefjax.relion import COARSEST, COMBINATIONS, PROGRAM

EPILOG = (
    "RELION runs it if RELION_EXTERNAL_RECONSTRUCT_EXECUTABLE is `crefjax external-reconstruct` and relion_refine is "
    "given --external_reconstruct. If the denoiser fails, the classical map is kept, and the log beside the STAR file "
    "says why. The map that is written beside the joined one is not for stating a resolution."
)


def add_arguments(parser):
    """Add the arguments of `crefjax external-reconstruct`."""
    parser.add_argument("star", metavar="STAR", help="the file of one reconstruction, written by relion_refine")
    parser.add_argument(
        "--combine",
        choices=(*COMBINATIONS, "none"),
        default=COMBINATIONS[0],
        help="trailing: the denoised map, trailing off where the FSC falls below 1/7; blend: the denoised and the "
        "unregularized half-map, weighted in every shell; prior: the denoised map as the prior's mean; none: "
        "RELION's own reconstruction",
    )
    parser.add_argument("--weights", metavar="W", help="weights, by name or folder (default: truth)")
    parser.add_argument(
        "--coarsest",
        metavar="Å",
        type=positive,
        default=COARSEST,
        help="denoise only once the FSC-0.143 of the half-maps is finer than this, Å",
    )
    parser.add_argument(
        "--classical",
        metavar="PROGRAM",
        default=PROGRAM,
        help="RELION's program for the classical step",
    )
    parser.add_argument(
        "--after-classical",
        action="store_true",
        help="denoise a result that the classical step has written; a failure gives exit status 2",
    )
    add_shared(parser, "device")
    add_verbosity(parser)


def run(arguments) -> None:
    """Reconstruct classically and denoise in a process of its own; or denoise."""
    if arguments.after_classical:
        if arguments.combine == "none":
            raise UserError("--combine none: denoises nothing after the classical step; choose another way")
        _denoise(arguments)
        return
    from crefjax.relion.external import external_reconstruct, own_command

    words = None
    if arguments.combine != "none":
        options = ["--combine", arguments.combine, "--coarsest", str(arguments.coarsest)]
        for name in ("weights", "device", "classical"):
            if getattr(arguments, name) is not None:
                options += [f"--{name}", getattr(arguments, name)]
        words = own_command(arguments.star, options)
    log(external_reconstruct(arguments.star, words, program=arguments.classical))


def _denoise(arguments):
    from crefjax.relion.regularize import regularize_result

    with on_device(arguments.device), timed("denoising"):
        line = regularize_result(
            Path(arguments.star),
            combine=arguments.combine,
            weights=arguments.weights,
            coarsest=arguments.coarsest,
            program=arguments.classical,
        )
    result(line)
