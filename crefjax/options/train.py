"""Arguments of `train`, `finetune` and `demo`."""

from crefjax.options import add_insist, add_overwrite, add_voxel_size, command, positive


def add_train(commands):
    """Add `crefjax train`."""
    added = command(
        commands,
        "train",
        _train,
        "train a network on half-map pairs, as a config says",
        epilog="Any field of the config can be changed with --config.FIELD=VALUE, such as --config.schedule.rate=1e-3; "
        "crefjax/training/config.py lists them. A run that was stopped goes on with the same command.",
    )
    added.add_argument(
        "--config",
        metavar="FILE",
        required=True,
        help="a Python file with get_config(), such as experiments/configs/paper.py",
    )
    added.add_argument(
        "--workdir", metavar="DIR", required=True, help="folder of the run: checkpoints, metrics, figure, weights"
    )
    added.set_defaults(takes_more=True)


def add_finetune(commands):
    """Add `crefjax finetune`."""
    added = command(
        commands,
        "finetune",
        _finetune,
        "adapt weights to one specimen, from its two half-maps alone",
        epilog="A part of the particle is held out. It tells whether the new weights are better beyond the scatter; "
        "where they are not, the old ones are written.",
    )
    added.add_argument("half_map_1", metavar="HALF1", help="half-map")
    added.add_argument("half_map_2", metavar="HALF2", help="the other half-map of the same reconstruction")
    added.add_argument("--mask", metavar="MASK", help="mask of the particle, 0 to 1; made from the half-maps if none")
    added.add_argument("--weights", metavar="WEIGHTS", help="name or folder of the weights to start from")
    added.add_argument("-o", "--output", metavar="DIR", required=True, help="weights folder to write")
    added.add_argument("--minutes", type=positive, default=10.0, help="of training, at most")
    added.add_argument(
        "--patch", type=int, help="voxels a side of the patches, even (default: 64, less for small boxes)"
    )
    added.add_argument("--seed", type=int, default=0, help="of the patches that are drawn")
    add_voxel_size(added)
    add_insist(added)
    add_overwrite(added)


def add_demo(commands):
    """Add `crefjax demo`."""
    added = command(
        commands,
        "demo",
        _demo,
        "simulate two half-maps, denoise them, and show what was gained; it needs no file",
    )
    added.add_argument("-o", "--output", metavar="DIR", default="crefjax-demo", help="folder to write")
    added.add_argument(
        "--train",
        action="store_true",
        help="train a small network on other phantoms first, in two minutes, instead of the package's own weights",
    )
    added.add_argument("--seed", type=int, default=0, help="of all that is random")
    add_overwrite(added)


def _train(arguments):
    from crefjax.commands import train

    return train.run(arguments)


def _finetune(arguments):
    from crefjax.commands import finetune

    return finetune.run(arguments)


def _demo(arguments):
    from crefjax.commands import demo

    return demo.run(arguments)
