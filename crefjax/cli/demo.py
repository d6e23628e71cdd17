"""`crefjax demo`."""

import shutil
import time
from pathlib import Path

from crefjax.cli.common import add_shared, add_verbosity
from crefjax.cli.messages import log, result, timed
from crefjax.errors import UserError
from crefjax.io.files import check_output_folder
from crefjax.utils.atomic import atomic_directory

_RESIDUES = 600
_VOXEL_SIZE, _RESOLUTION = 1.5, 4.5  # Å
_SEEDS = 2**19  # phantoms have the seeds from this number up to its double, which no training uses


def add_arguments(parser):
    """Add the arguments of `crefjax demo`."""
    parser.add_argument("-o", "--output", metavar="DIR", default="crefjax-demo", help="folder to write")
    parser.add_argument(
        "--train",
        action="store_true",
        help="train a small network on other phantoms first, in two minutes, instead of the package's own weights",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    add_shared(parser, "overwrite")
    add_verbosity(parser)


def run(arguments) -> int:
    """Simulate, denoise, and compare with the truth; return 0, or 128 plus the signal that stopped the training."""
    start = time.monotonic()
    output = Path(arguments.output)
    if not 0 <= arguments.seed < _SEEDS:
        raise UserError(f"--seed: expected a number from 0 to {_SEEDS - 1}, found {arguments.seed}")
    check_output_folder(output, "a demo", "demo.png", overwrite=arguments.overwrite, make_parents=True)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with atomic_directory(output) as folder:
            lines = _demo(folder, output, arguments)
    except _Stopped as stopped:
        number, text = stopped.args
        log(f"{text}; nothing was written")
        return 128 + number
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror or error}); choose another folder") from error
    result("\n".join(lines))
    result(f"done in {time.monotonic() - start:.0f} s; look at {output / 'demo.png'}")
    return 0


class _Stopped(Exception):  # noqa: N818 - not an error
    """A signal stopped the training; its number, and a line for the user."""


def _demo(folder: Path, output: Path, arguments):
    """Write everything into a new folder; return the lines to print, with `output` as the folder's final name."""
    from crefjax.inference.denoise import denoise_maps
    from crefjax.inference.request import DenoiseRequest
    from crefjax.io.entries import load_mask, load_pair
    from crefjax.io.maps import full_map, read_map, write_maps
    from crefjax.plotting import DemoPanels, demo_figure
    from crefjax.simulate.half_maps import SimulationConfig, simulate_half_maps, write_entry
    from crefjax.simulate.phantom import phantom
    from crefjax.spectral.fsc import fsc_curve
    from crefjax.weights.store import load_weights

    seed = arguments.seed
    atoms = phantom(_RESIDUES, seed=_SEEDS + seed)
    log(f"simulating two half-maps of a phantom of {_RESIDUES} residues, FSC-0.143 at {_RESOLUTION} Å")
    config = SimulationConfig(voxel_size=_VOXEL_SIZE, resolution=_RESOLUTION, seed=seed, margin=9.0)
    with timed("simulating"):
        write_entry(folder / "entry", simulate_half_maps(atoms, config))
    weights = _trained(folder, seed) if arguments.train else load_weights()
    pair = load_pair(folder / "entry" / "half_map_1.mrc", folder / "entry" / "half_map_2.mrc")
    mask = load_mask(folder / "entry" / "mask.mrc", pair[0])
    log(f"denoising the pair, weights {'of the training' if arguments.train else weights.name}")
    with timed("denoising"):
        denoised = denoise_maps(DenoiseRequest(pair, weights, mask)).full
    write_maps([(folder / "denoised.mrc", denoised)], label="crefjax demo, denoised", overwrite=False)
    truth = read_map(folder / "entry" / "truth.mrc")
    full = full_map(pair[0].array, pair[1].array)
    maps = ((full, truth.array), (denoised.array, truth.array), (pair[0].array, pair[1].array))
    full_to_truth, denoised_to_truth, half_map_fsc = (fsc_curve(*two, _VOXEL_SIZE, mask.array) for two in maps)
    panels = DemoPanels(full, denoised.array, truth.array, mask.array, half_map_fsc, full_to_truth, denoised_to_truth)
    (folder / "demo.png").write_bytes(demo_figure(panels, "png"))
    return _summary(full_to_truth, denoised_to_truth, output, arguments.train)


def _trained(folder, seed):
    """Train a small network on other phantoms, in the folder; return its weights."""
    from crefjax.training.config import demo_config
    from crefjax.training.loop import train
    from crefjax.training.task import make_task
    from crefjax.weights.store import load_weights

    config = demo_config()
    config.seed = seed
    task, source = make_task(config)
    log(f"training a network on {config.data.stream.phantoms} other phantoms, {config.steps} steps")
    result = train(config, folder / "training", task, source, say=log)
    if result.stopped is not None:
        raise _Stopped(result.stopped, f"stopped at step {result.step} of {result.steps}")
    weights = load_weights(result.weights)
    shutil.move(result.weights, folder / "weights")
    return weights


def _summary(full, denoised, output, trained):
    import numpy as np

    files, advice = "demo.png", "Your own maps: crefjax denoise HALF_MAP_1 HALF_MAP_2 -o denoised.mrc --report report"
    if trained:
        files = "weights/, training/, demo.png"
        advice = "These weights are a small network's after two minutes: for a look, not for your maps."
    inner = slice(1, len(full.fsc) - 1)
    before, after = full.fsc[inner], denoised.fsc[inner]
    better = int(np.sum(after > before))
    resolutions = [f"{curve.resolution(0.5).angstrom:.2f}" for curve in (full, denoised)]
    return [
        "The truth is known here, because the half-maps were simulated:",
        f"  mean FSC to the truth: {before.mean():.3f} full map, {after.mean():.3f} denoised",
        f"  nearer to the truth in {better} of {len(before)} shells",
        f"  FSC to the truth falls below 0.5 at {resolutions[0]} Å full map, {resolutions[1]} Å denoised",
        f"written: {output}/denoised.mrc, entry/ (half-maps, mask, truth, model), {files}",
        advice,
    ]
