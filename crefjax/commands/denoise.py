"""`crefjax denoise`."""

import sys
import time
from pathlib import Path

from crefjax.data.masks import make_mask
from crefjax.errors import UserError
from crefjax.inference.denoise import denoise_maps, plan_denoise
from crefjax.io.entries import load_mask, load_pair
from crefjax.io.files import check_output, map_stem
from crefjax.io.maps import Map, read_map, write_maps
from crefjax.progress import progress_bar
from crefjax.version import __version__
from crefjax.weights.store import find_weights, load_weights


def run(arguments) -> None:
    """Denoise as the command line says."""
    output = Path(arguments.output)
    outputs = [output]
    if arguments.halves:
        outputs += [half_map_path(output, half) for half in (1, 2)]
    _check_before_work(arguments, outputs)
    weights = load_weights(arguments.weights)
    pair = _read(arguments)
    mask = _mask(arguments.mask, pair)
    plan = plan_denoise(
        pair,
        weights,
        mask=mask,
        halves=arguments.halves,
        device=arguments.device,
        max_memory=arguments.max_memory,
    )
    z, y, x = pair[0].array.shape
    _say(f"crefjax {__version__}: {x}x{y}x{z} voxels of {pair[0].voxel_size:.4g} Å, weights {weights.name}")
    _say(plan.describe())
    start = time.monotonic()
    with progress_bar("denoising") as progress:
        result = denoise_maps(
            pair, weights, plan, mask=mask, scale=arguments.scale, halves=arguments.halves, progress=progress
        )
    label = f"crefjax {__version__} denoised, weights {weights.name}, scale {arguments.scale}"
    maps = zip(outputs, (result.full, result.half_map_1, result.half_map_2), strict=False)
    write_maps(maps, label=label, overwrite=arguments.overwrite)
    for path in outputs:
        _say(f"wrote {path}")
    _say(f"done in {time.monotonic() - start:.1f} s")
    if arguments.halves:
        _say("note: an FSC between the denoised half-maps is no resolution: their errors are not independent")


def half_map_path(output: Path, half: int) -> Path:
    """Where a denoised half-map goes: `out.mrc` gives `out_half_map_1.mrc`.

    Args:
        output: of the full map.
        half: 1 or 2.

    Raises:
        UserError: the output's name is none for a map.
    """
    stem = map_stem(output.name)
    if stem is None:
        check_output(output)  # which tells what is wrong with the name
    return output.with_name(f"{stem}_half_map_{half}{output.name[len(stem) :]}")


def _check_before_work(arguments, outputs):
    """What can be known before any map is read is told then."""
    if arguments.halves and arguments.half_map_2 is None:
        raise UserError("--halves: expected two half-maps, found one map; give both half-maps")
    if arguments.mask == "auto" and arguments.half_map_2 is None:
        raise UserError("--mask auto: expected two half-maps, found one map; give both, or a mask file")
    mask = None if arguments.mask == "auto" else arguments.mask
    for path in outputs:
        inputs = (arguments.half_map_1, arguments.half_map_2, mask)
        check_output(path, overwrite=arguments.overwrite, inputs=inputs)
    find_weights(arguments.weights)


def _read(arguments) -> tuple[Map, ...]:
    if arguments.half_map_2 is not None:
        return load_pair(arguments.half_map_1, arguments.half_map_2)
    _say(
        "warning: one map given, taken as a full map; give two half-maps where there are, so that noise can be told "
        "from signal"
    )
    return (read_map(arguments.half_map_1),)


def _mask(choice, pair) -> Map | None:
    if choice is None:
        return None
    if choice != "auto":
        return load_mask(choice, pair[0])
    array, info = make_mask(pair[0].array, pair[1].array, pair[0].voxel_size)
    for note in info.notes:
        _say(f"mask: {note}")
    return pair[0].replace_array(array)


def _say(line):
    print(line, file=sys.stderr, flush=True)
