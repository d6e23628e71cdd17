"""`crefjax train`."""

from pathlib import Path

from crefjax.cli.common import add_config, add_verbosity
from crefjax.cli.messages import QUIET, log, speak, timed
from crefjax.errors import UserError

EPILOG = (
    "Any field of the config can be changed with --config.FIELD=VALUE, such as --config.schedule.rate=1e-3; "
    "crefjax/training/config.py lists them. A stopped run is resumed by the same command."
)


def add_arguments(parser):
    """Add the arguments of `crefjax train`."""
    add_config(parser)
    parser.add_argument(
        "--workdir", metavar="DIR", required=True, help="folder of the run: checkpoints, metrics, figures, weights"
    )
    group = parser.add_argument_group(
        "several processes", "needed only outside SLURM, where the processes of a step find each other"
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="address of the first process, with a free port")
    group.add_argument("--processes", metavar="N", type=int, help="number of processes")
    group.add_argument("--process-id", metavar="K", type=int, help="number of this process, from 0 to N - 1")
    add_verbosity(parser)


def run(arguments) -> int:
    """Train as the config says; return 128 plus the signal's number if a signal stopped it."""
    from crefjax.training.config import read_config
    from crefjax.training.processes import find_launch, joined

    config = read_config(arguments.config, arguments.extra)
    launch = find_launch(arguments.coordinator, arguments.processes, arguments.process_id)
    with joined(launch, platform=config.platform) as place:
        if not place.is_first:
            with speak(QUIET):
                return _train(config, arguments)
        if place.count > 1:
            log(f"{place.count} processes train together")
        return _train(config, arguments)


def _train(config, arguments):
    start_platform(config.platform)
    # Imported after the config was checked, because it takes a while.
    from crefjax.plotting import write_convergence_figure
    from crefjax.training.loop import train
    from crefjax.training.task import make_task

    with timed("preparing the data and the network"):
        task, source = make_task(config)
    result = train(config, Path(arguments.workdir), task, source, after_evaluation=write_convergence_figure, say=log)
    if result.stopped is not None:
        log(f"stopped at step {result.step} of {result.steps}; the same command resumes it")
        return 128 + result.stopped
    if result.best_loss is not None:
        log(f"least held-out loss {result.best_loss:.4f} at step {result.best_step}")
    log(f"trained {result.step} steps; weights: {result.weights}")
    return 0


def start_platform(platform):
    """Let JAX use the devices of one platform only, `cpu` or `gpu`; empty for JAX's choice."""
    if not platform:
        return
    import jax

    from crefjax.training.processes import use_platform

    use_platform(platform)
    try:
        jax.local_devices()
    except (RuntimeError, AssertionError) as error:  # the latter is JAX's own
        text = f"config: platform: JAX finds no {platform}; choose another, or leave it empty"
        raise UserError(text) from error
