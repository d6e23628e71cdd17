"""`crefjax plan`."""

import dataclasses
import time

from crefjax.cli.common import add_config, add_json, add_verbosity, positive
from crefjax.cli.messages import check_json, log, output_json, result, timed
from crefjax.cli.train import start_platform
from crefjax.errors import UserError
from crefjax.utils.memory import size_text

EPILOG = (
    "Steps are measured on the devices at hand, with the data of the config; nothing is kept. Fields of the config are "
    "changed as for `crefjax train`."
)


def add_arguments(parser):
    """Add the arguments of `crefjax plan`."""
    add_config(parser)
    parser.add_argument("--nodes", metavar="N", type=int, help="also estimate the time on N nodes")
    parser.add_argument(
        "--node-devices", metavar="N", type=int, help="devices of each of the nodes (default: as many as here)"
    )
    parser.add_argument(
        "--seconds",
        metavar="S",
        type=positive,
        default=20.0,
        help="how long steps are taken, seconds; at least eight steps are taken",
    )
    add_json(parser, "all numbers")
    add_verbosity(parser)


def run(arguments) -> None:
    """Print what a run will take."""
    started = time.monotonic()
    if arguments.node_devices is not None and arguments.nodes is None:
        raise UserError("--node-devices: expected --nodes with it, found none; add the number of nodes")
    for option, count in (("--nodes", arguments.nodes), ("--node-devices", arguments.node_devices)):
        if count is not None and count < 1:
            raise UserError(f"{option}: expected 1 or more, found {count}; change it")
    check_json(arguments.json)
    from crefjax.training.config import read_config

    config = read_config(arguments.config, arguments.extra)
    start_platform(config.platform)
    from crefjax.plotting import write_convergence_figure
    from crefjax.training.plan import plan_run
    from crefjax.training.task import make_task

    with timed("measuring"):
        plan = plan_run(
            config,
            make_task,
            seconds=arguments.seconds,
            after_evaluation=write_convergence_figure,
            say=log,
            started=started,
        )
    nodes = None
    if arguments.nodes is not None:
        nodes = plan.on_nodes(arguments.nodes, arguments.node_devices or plan.devices)
    dataset = _dataset_bytes(config)
    for line in _lines(plan, nodes, dataset):
        result(line)
    output_json(arguments.json, _content(plan, nodes, dataset))


def _dataset_bytes(config):
    """Return the size of the prepared dataset of a config, None if it has none."""
    if config.task != "denoising" or config.data.source != "dataset":
        return None
    from crefjax.data.manifest import load_manifest

    manifest = load_manifest(config.data.dataset.folder)
    return sum(shard.bytes for entry in manifest.entries for shard in entry.shards)


def _lines(plan, nodes, dataset):
    samples = "an endless stream of samples" if plan.samples is None else f"{plan.samples:,} samples to train on"
    held_out = "" if not plan.held_out else f", {plan.held_out:,} held out"
    size = "" if dataset is None else f"; the dataset takes {size_text(dataset)}"
    yield f"data: {samples}{held_out}{size}"
    yield f"length: {plan.steps:,} steps of {plan.batch} samples, {plan.epoch_steps:,} in an epoch"
    each = plan.batch // plan.devices
    device = f"{plan.devices} devices" if plan.devices > 1 else "one device"
    yield f"memory: {size_text(plan.device_bytes)} on each of {device} ({plan.device_kind}) for {each} samples"
    yield f"checkpoints: {plan.checkpoints} of {size_text(plan.checkpoint_bytes)} at most"
    yield (
        f"measured: {plan.step_seconds:.3g} s a step over {plan.measured_steps} steps "
        f"({plan.batch / plan.step_seconds:.3g} samples/s), {plan.start_seconds + plan.first_seconds:.3g} s to start"
    )
    yield (
        f"evaluations: {plan.evaluations:,} of {plan.evaluation_seconds:.3g} s, and {plan.export_seconds:.3g} s each "
        f"for weights and figure; {plan.save_seconds:.3g} s for a checkpoint"
    )
    if plan.compile_seconds >= 1:
        yield f"compiling: {plan.compile_seconds:.3g} s, which a run on this machine does not need again"
    yield f"time: {_duration(plan.seconds)}" + (" (the limit of the config)" if plan.is_limited else "")
    if nodes is not None:
        changed = f", a batch of {nodes.batch}" if nodes.batch != plan.batch else ""
        yield (
            f"on {nodes.nodes} nodes of {nodes.devices} devices as fast as these{changed}: {_duration(nodes.seconds)}, "
            f"{nodes.steps:,} steps of {nodes.step_seconds:.3g} s; each node reads "
            f"{nodes.batch / nodes.nodes / nodes.step_seconds:.3g} samples/s"
        )


def _duration(seconds):
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def _content(plan, nodes, dataset):
    content = {**dataclasses.asdict(plan), "seconds": plan.seconds, "dataset_bytes": dataset}
    return content if nodes is None else {**content, "on_nodes": nodes._asdict()}
