"""`crefjax demo`."""

import shutil
import time
from pathlib import Path

from crefjax.cli.common import add_overwrite, log
from crefjax.errors import UserError
from crefjax.io.files import check_output_folder
from crefjax.utils.atomic import atomic_directory

_RESIDUES = 600
_VOXEL_SIZE, _RESOLUTION = 1.5, 4.5  # Å


def add_arguments(parser):
    """Add the arguments of `crefjax demo`."""
    parser.add_argument("-o", "--output", metavar="DIR", default="crefjax-demo", help="folder to write")
    parser.add_argument(
        "--train",
        action="store_true",
        help="train a small network on other phantoms first, in two minutes, instead of the package's own weights",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    add_overwrite(parser)


def run(arguments) -> int:
    """Simulate, denoise and show; the status is 128 and the signal's number if one stopped a training."""
    start = time.monotonic()
    output = Path(arguments.output)
    _check(output, arguments)
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
    print("\n".join(lines))
    print(f"done in {time.monotonic() - start:.0f} s; look at {output / 'demo.png'}")
    return 0


class _Stopped(Exception):  # noqa: N818 - no error
    """A signal ended the training: its number, and a line."""


def _demo(folder: Path, output: Path, arguments):
    """The whole of it in a new folder, and the lines to print; `output` is what the folder will be called."""
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
    atoms = phantom(_RESIDUES, seed=2**19 + seed)  # the stream has other seeds
    log(f"simulating two half-maps of a phantom of {_RESIDUES} residues, FSC-0.143 at {_RESOLUTION} Å")
    settings = SimulationConfig(voxel_size=_VOXEL_SIZE, resolution=_RESOLUTION, seed=seed, margin=9.0)
    write_entry(folder / "entry", simulate_half_maps(atoms, settings))
    weights = _trained(folder, seed) if arguments.train else load_weights()
    pair = load_pair(folder / "entry" / "half_map_1.mrc", folder / "entry" / "half_map_2.mrc")
    mask = load_mask(folder / "entry" / "mask.mrc", pair[0])
    log(f"denoising the pair, weights {'of the training' if arguments.train else weights.name}")
    denoised = denoise_maps(DenoiseRequest(pair, weights, mask)).full
    write_maps([(folder / "denoised.mrc", denoised)], label="crefjax demo, denoised", overwrite=False)
    truth = read_map(folder / "entry" / "truth.mrc")
    full = full_map(pair[0].array, pair[1].array)
    curves = [fsc_curve(one, truth.array, _VOXEL_SIZE, mask.array) for one in (full, denoised.array)]
    half = fsc_curve(pair[0].array, pair[1].array, _VOXEL_SIZE, mask.array)
    shown = DemoPanels(full, denoised.array, truth.array, mask.array, half, *curves)
    (folder / "demo.png").write_bytes(demo_figure(shown, "png"))
    return _told(*curves, output, arguments.train)


def _trained(folder, seed):
    """Weights of a small network, trained on other phantoms; they and the run are left in the folder."""
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


def _told(full, denoised, output, trained):
    import numpy as np

    made = "weights/, training/, demo.png" if trained else "demo.png"
    if trained:
        last = "These weights are a small network's after two minutes: for a look, not for your maps."
    else:
        last = "Your own maps: crefjax denoise HALF_MAP_1 HALF_MAP_2 -o denoised.mrc --report report"
    inner = slice(1, len(full.fsc) - 1)
    before, after = full.fsc[inner], denoised.fsc[inner]
    better = int(np.sum(after > before))
    resolutions = [f"{one.resolution(0.5).angstrom:.2f}" for one in (full, denoised)]
    return [
        "The truth is known here, because the half-maps were simulated:",
        f"  mean FSC to the truth: {before.mean():.3f} full map, {after.mean():.3f} denoised",
        f"  nearer to the truth in {better} of {len(before)} shells",
        f"  FSC to the truth falls below 0.5 at {resolutions[0]} Å full map, {resolutions[1]} Å denoised",
        f"written: {output}/denoised.mrc, entry/ (half-maps, mask, truth, model), {made}",
        last,
    ]


def _check(output, arguments):
    if not 0 <= arguments.seed < 2**19:
        raise UserError(f"--seed: expected a number from 0 to {2**19 - 1}, found {arguments.seed}; change it")
    check_output_folder(output, "a demo", "demo.png", overwrite=arguments.overwrite, make_parents=True)
